"""Adaptive discriminator augmentation: p follows how far D overfits (Karras et al. 2020, sec. 3.2)."""

import torch
from torch import Tensor

from fact_train import distributed


class AdaptiveP:
    """The controller of p: raised while r_t = E[sign D(real)] exceeds its target, lowered while it is below.

    Every `interval` steps p moves by batch * interval / (kimg * 1000), so that it goes from 0 to 1 in `kimg`
    thousand images at the fastest; it stays at or above 0 and, if given, at or below `ceiling`. p lives on
    the device and is never waited for.
    """

    def __init__(
        self,
        start: float,
        *,
        target: float,
        interval: int,
        kimg: float,
        batch: int,
        ceiling: float | None,
        device: torch.device,
    ) -> None:
        self.target, self.interval, self.ceiling = target, interval, ceiling
        self.change = batch * interval / (kimg * 1000)
        self.p = torch.tensor(start, dtype=torch.float64, device=device)
        self._seen = torch.zeros(2, dtype=torch.float64, device=device)  # sum of the signs, their number

    def observe(self, signs: Tensor) -> None:
        """The signs of D's scores of some real images, as D saw them."""
        total = signs.detach().double().sum()
        self._seen = self._seen + torch.stack([total, torch.full_like(total, signs.numel())])

    def update(self, steps: int) -> Tensor | None:
        """After `steps` steps: where the interval is over, moves p and returns r_t over all processes."""
        if steps % self.interval:
            return None
        total, count = distributed.average_(self._seen.clone())
        r_t = total / count
        self.p = (self.p + torch.sign(r_t - self.target) * self.change).clamp(0.0, self.ceiling)
        self._seen = torch.zeros_like(self._seen)
        return r_t

    def state_dict(self) -> dict[str, Tensor]:
        return {"p": self.p, "seen": self._seen}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.p, self._seen = state["p"].to(self.p.device), state["seen"].to(self.p.device)
