"""Mapping network: latents z (and labels c) to the intermediate latents w (Karras et al. 2019, sec. 2)."""

import torch
from torch import Tensor, nn

from fact_train.networks.ops import FullyConnected, normalize_2nd_moment

W_AVG_DECAY = 0.005  # per batch of latents in training: w_avg keeps 0.995 of itself


class Mapping(nn.Module):
    """[N, z_dim] latents and [N, c_dim] labels -> [N, num_ws, w_dim] (or [N, w_dim] where num_ws is None)."""

    def __init__(
        self,
        *,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        depth: int,
        lr_mult: float = 0.01,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws, self.depth = z_dim, c_dim, w_dim, num_ws, depth
        if c_dim:
            self.embed = FullyConnected(c_dim, w_dim)
        widths = [z_dim + (w_dim if c_dim else 0)] + [w_dim] * depth
        for i in range(depth):
            self.add_module(
                f"fc{i}", FullyConnected(widths[i], widths[i + 1], activation="lrelu", lr_mult=lr_mult)
            )
        if num_ws is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
    ) -> Tensor:
        """Normalise z and the label embedding, run the layers, then pull w towards w_avg by 1 -
        truncation_psi.
        """
        parts = []
        if self.z_dim:
            parts.append(normalize_2nd_moment(z.float()))
        if self.c_dim:
            parts.append(normalize_2nd_moment(self.embed(c.float())))
        w = torch.cat(parts, dim=1)
        for i in range(self.depth):
            w = getattr(self, f"fc{i}")(w)
        if self.num_ws is None:
            return w
        if truncation_psi != 1:
            w = self.w_avg.lerp(w, truncation_psi)
        return w.unsqueeze(1).expand(-1, self.num_ws, -1)


class ClassPartMapping(Mapping):
    """StylEx's noise branch: w = [mapping(z), class part], [N, z_dim] and [N, class_dim] -> ws.

    Truncation pulls the mapping's part alone: the class part is what is asked for, not a sample of anything.
    """

    def __init__(self, *, class_dim: int, **mapping) -> None:
        super().__init__(c_dim=0, **mapping)
        self.class_dim = class_dim

    def forward(self, z: Tensor, c: Tensor, truncation_psi: float = 1.0) -> Tensor:
        return join_class_part(super().forward(z, None, truncation_psi), c)


def join_class_part(ws: Tensor, c: Tensor) -> Tensor:
    """[N, num_ws, w_dim] and class parts [N, K] -> [N, num_ws, w_dim + K], the same K for every layer."""
    return torch.cat([ws, c.float().unsqueeze(1).expand(-1, ws.shape[1], -1)], dim=2)
