"""lucidrains/stylegan2-pytorch and the StylEx programs made from it: recognised, and refused with the reason.

Its networks share the name StyleGAN2 and not the layers: feature maps are interpolated bilinearly before a
convolution, noise has a strength per channel, and there is no gain behind an activation.
"""

from typing import Any

from fact_train.imports.imported import Imported, Unrepresentable

FORMAT = "lucidrains/stylegan2-pytorch"
NAMES = ("GAN", "StylEx")  # the key of the state dict: of the original, and of its StylEx programs


def recognises(content: Any) -> bool:
    if not isinstance(content, dict):
        return False
    states = [content.get(name) for name in NAMES]
    names = {name for state in states if isinstance(state, dict) for name in state}
    return any(isinstance(name, str) and name.startswith("GE.blocks.") for name in names)


def convert(content: dict[str, Any]) -> Imported:
    raise Unrepresentable(
        "its generator (GE.blocks) interpolates bilinearly before convolutions, and its noise has a strength "
        "per channel"
    )
