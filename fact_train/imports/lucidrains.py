"""lucidrains/stylegan2-pytorch and the StylEx programs made from it: recognised, and refused with the reason.

Its networks share the name StyleGAN2 and not the layers. Gains, learning rates, the unit length of z and the
range [0, 1] of its images would fold into our weights; docs/imports.md lists the five things that would not.
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
    program = "its generator" if NAMES[0] in content else "this StylEx is made from it, and its generator"
    raise Unrepresentable(
        f"{program} (GE.blocks) has a second convolution at 4 px, interpolates bilinearly before "
        "convolutions, blurs RGB by [1, 2, 1], and feeds all layers one noise map by strengths per channel"
    )
