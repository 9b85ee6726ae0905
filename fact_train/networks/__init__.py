"""The networks. Parameter names and scales follow StyleGAN2-ADA, so that its weights load one to one.

Imports point up: ops < injection < mapping, generator < discriminator < encoder, classifier < build. Only
`build` knows the configuration. Nothing here knows losses, optimisers or data.
"""
