"""Training of the StyleGAN2 family: everything that makes a checkpoint.

Imports point up this list, and no two sub-rooms import each other:

    settings                 what a run is: configuration, checks, presets
    seeds, distributed       random streams by name; the torchrun group
    run_folder               the folder of a run, its options, the names of its files
    data                     datasets as uint8 images
    networks                 ops < injection < generator, discriminator, encoder, classifier < build
    augment, classifiers     what D sees of an image; the classifier that StylEx explains
    snapshot                 networks for inference in one file
    bake, cost               what a style injection becomes and costs
    training                 parts of a step < models < trainer < run < loop
    commands, cli            options and printing
"""
