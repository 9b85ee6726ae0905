"""Style mixing (Karras et al. 2019, sec. 3.1)."""

import torch
from torch import Tensor, nn


def style_mixing(
    mapping: nn.Module,
    ws: Tensor,
    c: Tensor | None,
    *,
    prob: float,
    generator: torch.Generator,
    host_generator: torch.Generator,
) -> Tensor:
    """With probability `prob`, layers from a random cut on take a second latent's w (one cut per batch).

    The cut falls between layers, and so on a multiple of the K rows of ws that each layer owns.

    `generator` draws the latents on its device; `host_generator`, of the CPU, whether and where to cut.
    """
    num_ws = ws.shape[1] // mapping.vectors
    if prob <= 0 or num_ws < 2:
        return ws
    draw = torch.rand([], generator=host_generator).item()
    cut = int(torch.randint(1, num_ws, [], generator=host_generator)) * mapping.vectors
    z = torch.randn(ws.shape[0], *mapping.z_shape, generator=generator, device=generator.device)
    if draw >= prob:
        return ws
    other = mapping(z.to(ws.device), c)
    return torch.cat([ws[:, :cut], other[:, cut:]], dim=1)
