"""The networks. Parameter names and scales follow StyleGAN2-ADA, so that its weights load one to one."""
