"""Adaptive discriminator augmentation: p follows how far D overfits (Karras et al. 2020, sec. 3.2)."""

import torch
from torch import Tensor

from fact_train import distributed


class AdaptiveP:
    """The controller of p: raises it while r_t = E[sign D(real)] exceeds the target, lowers it otherwise.

    Every `interval` steps p moves by batch * interval / (kimg * 1000): it takes at least `kimg` thousand
    images from 0 to 1. p stays at or above 0 and, if given, at or below `ceiling`. It is a tensor on the
    device, so that no step has to synchronise.
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
        """Accumulate the signs of D's scores of real images, of any shape."""
        total = signs.detach().double().sum()
        self._seen = self._seen + torch.stack([total, torch.full_like(total, signs.numel())])

    def update(self, steps: int) -> Tensor | None:
        """After `steps` steps: at the end of an interval, move p and return r_t over all processes."""
        if steps % self.interval:
            return None
        total, count = distributed.average_(self._seen.clone())
        r_t = total / count
        self.p = (self.p + torch.sign(r_t - self.target) * self.change).clamp(0.0, self.ceiling)
        self._seen = torch.zeros_like(self._seen)
        return r_t

    def share(self) -> None:
        """Give every process the mean of what all have accumulated: any one of their states is then whole."""
        self._seen = distributed.average_(self._seen.clone())

    def state_dict(self) -> dict[str, Tensor]:
        return {"p": self.p, "seen": self._seen}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.p, self._seen = state["p"].to(self.p.device), state["seen"].to(self.p.device)
