"""Training: losses, the parts of a step, models, the trainer that steps them, and the run around it.

Imports point up this list:

    losses, precision, stats, run_log, signals, thread_pool     no part of training
    step                real batches, micro-batches, phases, gradients, Adam
    real_images, averages, grids
    models              GAN, Turns, Explanation < StyleGAN2, StylEx < MODELS
    trainer             a step of any model, and the state that a checkpoint saves
    checkpoint, probe   the state on disk; the costliest step once at the start
    run, loop           ticks and saves in a folder; a run from its configuration
"""
