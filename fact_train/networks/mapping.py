"""Mapping network: latents z (and labels c) to the intermediate latents w (Karras et al. 2019, sec. 2)."""

import torch
from torch import Tensor, nn

from fact_train.networks.ops import FullyConnected, normalize_2nd_moment

LATENT_SPACES = ("w", "w_plus")
LATENT_NORMS = ("row", "joint", "none")
W_AVG_DECAY = 0.005  # per batch of latents in training: w_avg keeps 0.995 of itself


class Mapping(nn.Module):
    """Latents z and labels [N, c_dim] -> ws [N, num_ws * vectors, w_dim] (or [N, w_dim] if num_ws is None).

    z is [N, z_dim], or [N, R, z_dim] where there are more rows: `vectors` K of them in the space `w`, which
    all layers share, and num_ws * K in `w_plus`, where each layer has its own. Layer l owns rows l K to
    l K + K - 1 of ws. All rows go through one network. `norm` row normalises every row of z, joint the rows
    of a layer as one vector, none leaves z as it is; `div_sqrt` divides the result by sqrt K.
    """

    def __init__(
        self,
        *,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        depth: int,
        lr_mult: float = 0.01,
        vectors: int = 1,
        space: str = "w",
        norm: str = "row",
        div_sqrt: bool = False,
    ) -> None:
        super().__init__()
        for value, known in ((space, LATENT_SPACES), (norm, LATENT_NORMS)):
            if value not in known:
                raise ValueError(f"{value!r} is none of {', '.join(known)}")
        self.z_dim, self.c_dim, self.w_dim, self.num_ws, self.depth = z_dim, c_dim, w_dim, num_ws, depth
        self.vectors, self.space, self.norm = vectors, space, norm
        self.z_scale = vectors**-0.5 if div_sqrt else 1.0
        if c_dim:
            self.embed = FullyConnected(c_dim, w_dim)
        widths = [z_dim + (w_dim if c_dim else 0)] + [w_dim] * depth
        for i in range(depth):
            self.add_module(
                f"fc{i}", FullyConnected(widths[i], widths[i + 1], activation="lrelu", lr_mult=lr_mult)
            )
        if num_ws is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    @property
    def z_shape(self) -> tuple[int, ...]:
        """Shape of one latent: (z_dim,), or (rows, z_dim) where there are more."""
        rows = self.vectors * (self.num_ws if self.space == "w_plus" else 1)
        return (self.z_dim,) if rows == 1 else (rows, self.z_dim)

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
    ) -> Tensor:
        """Normalise z and the label embedding, run the layers, then pull w towards w_avg by 1 -
        truncation_psi.
        """
        parts, rows = [], 1
        if self.z_dim:
            if tuple(z.shape[1:]) != self.z_shape:
                raise ValueError(f"z is [N, {', '.join(map(str, z.shape[1:]))}], not of shape {self.z_shape}")
            rows = z.shape[1] if z.ndim == 3 else 1
            normalised = self._normalised(z.float())
            parts.append(normalised if self.z_scale == 1 else normalised * self.z_scale)
        if self.c_dim:
            embedded = normalize_2nd_moment(self.embed(c.float()))
            parts.append(embedded if rows == 1 else embedded.repeat_interleave(rows, dim=0))
        w = torch.cat(parts, dim=1)
        for i in range(self.depth):
            w = getattr(self, f"fc{i}")(w)
        if self.num_ws is None:
            return w
        if truncation_psi != 1:
            w = self.w_avg.lerp(w, truncation_psi)
        if self.space == "w_plus":
            return w.reshape(-1, rows, self.w_dim)
        if rows == 1:
            return w.unsqueeze(1).expand(-1, self.num_ws, -1)
        w = w.reshape(-1, 1, rows, self.w_dim)
        return w.expand(-1, self.num_ws, -1, -1).reshape(-1, self.num_ws * rows, self.w_dim)

    def mean_w(self, ws: Tensor) -> Tensor:
        """[w_dim]: the mean over samples and rows of ws, detached; what w_avg follows."""
        rows = ws.shape[1] if self.space == "w_plus" else self.vectors  # in W the layers repeat each other
        return ws[:, :rows].detach().flatten(0, 1).mean(dim=0)

    def _normalised(self, z: Tensor) -> Tensor:
        """[N * rows, z_dim]."""
        if self.norm == "none":
            return z.reshape(-1, self.z_dim)
        if z.ndim == 3 and self.norm == "joint":
            z = normalize_2nd_moment(z.reshape(-1, self.vectors, self.z_dim))
            return z.reshape(-1, self.z_dim)
        return normalize_2nd_moment(z.reshape(-1, self.z_dim))


class ClassPartMapping(Mapping):
    """StylEx's noise branch: w = [mapping(z), class part], [N, z_dim] and [N, class_dim] -> ws.

    Truncation pulls the mapping's part alone: the class part is what is asked for, not a sample of anything.
    """

    def __init__(self, *, class_dim: int, **mapping) -> None:
        super().__init__(c_dim=0, **mapping)
        self.class_dim = class_dim

    def forward(self, z: Tensor, c: Tensor, truncation_psi: float = 1.0) -> Tensor:
        return join_class_part(super().forward(z, None, truncation_psi), c)

    def mean_w(self, ws: Tensor) -> Tensor:
        """[w_dim]: of the mapping's part alone."""
        return ws[:, 0, : self.w_dim].detach().mean(dim=0)


class ClassFreeMapping(Mapping):
    """The noise branch without C: the mapping predicts the class part of w as well; c is ignored.

    Truncation pulls all of w, which is all a sample.
    """

    def __init__(self, *, class_dim: int, w_dim: int, **mapping) -> None:
        super().__init__(c_dim=0, w_dim=w_dim + class_dim, **mapping)
        self.class_dim = class_dim

    def forward(self, z: Tensor, c: Tensor | None = None, truncation_psi: float = 1.0) -> Tensor:
        return super().forward(z, None, truncation_psi)


# Values of --mapping-class: where the class part of the noise branch comes from.
CLASS_MAPPINGS = {"given": ClassPartMapping, "predicted": ClassFreeMapping}


def join_class_part(ws: Tensor, c: Tensor) -> Tensor:
    """[N, num_ws, w_dim] and class parts [N, K] -> [N, num_ws, w_dim + K], the same K for every layer."""
    return torch.cat([ws, c.float().unsqueeze(1).expand(-1, ws.shape[1], -1)], dim=2)
