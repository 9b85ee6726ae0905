"""The computations that metric families share: distances of Gaussians, kernels, neighbours."""
