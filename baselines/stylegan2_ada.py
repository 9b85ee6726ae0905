"""Importer of StyleGAN2-ADA weights: the parameter names of NVlabs/stylegan2-ada-pytorch, one to one onto
ours.

Only names differ: a style-injected convolution keeps its weight and affine under `inject`, and the resampling
filter is a constant here. Values are taken over as they are.
"""

import re
from collections.abc import Mapping

from torch import Tensor

_INJECTED = re.compile(r"^(synthesis\.b\d+\.(?:conv[01]|torgb))\.(weight|affine\..*)$")


def import_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the state dict of a reference generator or discriminator for our Generator or Discriminator."""
    out = {}
    for name, value in state.items():
        if name.endswith("resample_filter"):
            continue
        out[_INJECTED.sub(r"\1.inject.\2", name)] = value
    return out
