"""Importers against the programs whose files they read: `python -m benchmarks.imports --peer DIR ...`.

A DIR is a checkout of NVlabs/stylegan2-ada-pytorch, NVlabs/stylegan3, rosinality/stylegan2-pytorch or
yohan-pg/stylegan2-ada-pytorch. Its own code makes networks, writes its own file, and renders; ours imports
the file and renders the same latents with constant noise, in float32 on the CPU. An export must load into its
classes strictly, and be equal. The metric code of NVIDIA's programs scores some of them beside ours.
"""
