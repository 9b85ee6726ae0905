"""Training of the StyleGAN2 family: everything that makes a checkpoint."""
