"""Train the digit classifier of the `digits` detectors: `fact-eval train-digits`, 5 minutes on one core.

Digits are augmented mildly. One picture in four is not a digit (noise, blots, scribbles, shuffled or blended
digits) and is trained towards the uniform distribution: outlier exposure, Hendrycks et al. 2019,
arXiv:1812.04606. Without it the classifier assigned half of all noise images a digit with confidence, and
legibility would reward junk.
"""

import argparse
import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save as save_safetensors

from fact_metrics.engines.legibility import compute_legibility
from fact_metrics.features.networks.batchnorm import fold_batchnorm
from fact_metrics.features.networks.digits import DigitsNet

COMMAND = "fact-eval train-digits"
EPOCHS = 12


def train_digits(
    out: str | Path,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    batch: int = 192,
    junk_batch: int = 64,
    lr: float = 4e-3,
    weight_decay: float = 1e-2,
    report: Callable[[str], None] = print,
) -> dict:
    """Train on MNIST's train split, score on its test split, write `out`/digits.safetensors and digits.json.

    Returns the content of digits.json: accuracy, share of legible test digits, share of legible junk, recipe,
    sha256. Trains on one thread, so the weights do not depend on the number of cores.
    """
    from fact_train.data import open_dataset

    train, test = (open_dataset("mnist", split=split, channels=1) for split in ("train", "test"))
    everything = [(data.images(range(len(data))), data.labels(range(len(data)))) for data in (train, test)]
    recipe = {"seed": seed, "epochs": epochs, "batch": batch, "junk_batch": junk_batch, "lr": lr}
    recipe |= {"weight_decay": weight_decay, "dataset_sha256": train.sha256, "torch": torch.__version__}
    started = time.monotonic()
    with _one_thread():
        net = fit_digits(
            *everything[0],
            seed=seed,
            epochs=epochs,
            batch=batch,
            junk_batch=junk_batch,
            lr=lr,
            weight_decay=weight_decay,
            report=report,
        )
    seconds = time.monotonic() - started
    weights = save_safetensors({name: value.contiguous() for name, value in net.state_dict().items()})
    card = {
        "schema": 1,
        "sha256": hashlib.sha256(weights).hexdigest(),
        **score_digits(fold_batchnorm(net), *everything[1], seed=seed),
        "command": COMMAND,
        "recipe": recipe,
        "seconds": round(seconds),
        "date": datetime.now(UTC).date().isoformat(),
    }
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "digits.safetensors", weights)
    _write(folder / "digits.json", (json.dumps(card, indent=1) + "\n").encode())
    report(f"wrote {folder / 'digits.safetensors'}: test accuracy {card['accuracy']:.4f}")
    return card


def fit_digits(
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    seed: int,
    epochs: int,
    batch: int,
    junk_batch: int,
    lr: float,
    weight_decay: float,
    report: Callable[[str], None] = print,
) -> DigitsNet:
    """A DigitsNet trained on uint8 images [N, 1, 32, 32] with class labels [N]; AdamW, one cosine cycle."""
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = DigitsNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=weight_decay)
    steps_per_epoch = len(images) // batch
    steps = epochs * steps_per_epoch
    warmup = max(1, steps // 20)
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=rng)
        total = 0.0
        for step in range(steps_per_epoch):
            done = epoch * steps_per_epoch + step
            decay = 0.5 * (1 + math.cos(math.pi * done / steps))
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1, (done + 1) / warmup) * decay
            chosen = order[step * batch : (step + 1) * batch]
            digits = images[chosen].float() / 255
            junk = make_junk(digits, labels[chosen], count=junk_batch, rng=rng)
            x = augment(torch.cat([digits, junk]), rng=rng)
            logits = net(x.contiguous(memory_format=torch.channels_last))[1]
            loss = F.cross_entropy(logits[:batch], labels[chosen])
            loss = loss - 0.5 * logits[batch:].log_softmax(dim=1).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.item()
        report(f"epoch {epoch + 1}/{epochs}  loss {total / steps_per_epoch:.4f}")
    return net


@torch.inference_mode()
def score_digits(net: DigitsNet, images: torch.Tensor, labels: torch.Tensor, *, seed: int) -> dict:
    """Accuracy, and share of legible images (families/legibility.py), of digits and of each kind of junk."""
    digits = images.float() / 255
    probabilities = _probabilities(net, digits)
    rng = torch.Generator().manual_seed(seed + 1)
    legible_junk = {}
    for kind, make in JUNK.items():
        junk = make(digits[:2000], labels[:2000], rng)
        legible_junk[kind] = compute_legibility(_probabilities(net, junk))
    return {
        "accuracy": (probabilities.argmax(dim=1) == labels).double().mean().item(),
        "legible_digits": compute_legibility(probabilities),
        "legible_junk": legible_junk,
    }


def augment(pictures: torch.Tensor, *, rng: torch.Generator) -> torch.Tensor:
    """Pictures [N, 1, 32, 32] in [0, 1], moved and bent a little; contrast, blur and noise varied.

    Applied to digits and junk alike; otherwise traces of resampling and noise would distinguish them.
    """
    n = len(pictures)
    angle, shear = _uniform(n, -0.2, 0.2, rng), _uniform(n, -0.15, 0.15, rng)
    scale_x, scale_y = _uniform(n, 0.88, 1.14, rng), _uniform(n, 0.88, 1.14, rng)
    shift = _uniform((n, 2), -2 / 16, 2 / 16, rng)
    cos, sin = angle.cos(), angle.sin()
    rows = torch.stack([cos * scale_x, shear - sin * scale_y, shift[:, 0]], dim=1)
    columns = torch.stack([sin * scale_x, cos * scale_y, shift[:, 1]], dim=1)
    grid = F.affine_grid(torch.stack([rows, columns], dim=1), list(pictures.shape), align_corners=False)
    bend = _uniform((n, 2, 5, 5), -0.08, 0.08, rng)
    grid = grid + F.interpolate(bend, size=pictures.shape[-2:], mode="bicubic").permute(0, 2, 3, 1)
    moved = F.grid_sample(pictures, grid, align_corners=False)
    blur = _uniform((n, 1, 1, 1), -1, 1, rng).clamp(min=0)
    moved = moved + blur * (_blurred(moved) - moved)
    noise = torch.randn(pictures.shape, generator=rng) * _uniform((n, 1, 1, 1), -0.2, 0.2, rng).clamp(min=0)
    return (moved * _uniform((n, 1, 1, 1), 0.75, 1.1, rng) + noise).clamp(0, 1)


def make_junk(
    digits: torch.Tensor, labels: torch.Tensor, *, count: int, rng: torch.Generator
) -> torch.Tensor:
    """`count` pictures [count, 1, 32, 32] in [0, 1] that are not digits, all kinds of JUNK in equal parts."""
    parts = []
    for index, make in enumerate(JUNK.values()):
        size = (count * (index + 1)) // len(JUNK) - (count * index) // len(JUNK)
        chosen = torch.randint(len(digits), (size,), generator=rng)
        parts.append(make(digits[chosen], labels[chosen], rng))
    return torch.cat(parts)


def _noise(digits: torch.Tensor, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    low, high = _uniform((2, len(digits), 1, 1, 1), 0, 1, rng)
    return low + (high - low) * torch.rand(digits.shape, generator=rng)


def _plain(digits: torch.Tensor, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    level = _uniform((len(digits), 1, 1, 1), -0.3, 1.3, rng)
    return (level + 0.05 * torch.randn(digits.shape, generator=rng)).clamp(0, 1)


def _blots(digits: torch.Tensor, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    n = len(digits)
    field = _smooth_field(n, rng) - _uniform((n, 1, 1, 1), -0.5, 1.5, rng)
    return (field * _uniform((n, 1, 1, 1), 0.5, 12, rng)).sigmoid()


def _scribbles(digits: torch.Tensor, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    n = len(digits)
    lines = (_smooth_field(n, rng) / _uniform((n, 1, 1, 1), 0.15, 0.4, rng)).square().neg().exp()
    return lines * _uniform((n, 1, 1, 1), 0.5, 1, rng)


def _shuffled(digits: torch.Tensor, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    n, side = len(digits), 8
    tiles = F.unfold(digits, side, stride=side)
    order = torch.rand(n, 1, tiles.shape[2], generator=rng).argsort(dim=2)
    return F.fold(tiles.gather(2, order.expand_as(tiles)), digits.shape[-2:], side, stride=side)


def _blended(digits: torch.Tensor, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    other = _other_class(labels, rng)
    weight = _uniform((len(digits), 1, 1, 1), 0.4, 0.6, rng)
    gain = _uniform((len(digits), 1, 1, 1), 1, 2, rng)
    return (gain * (weight * digits + (1 - weight) * digits[other])).clamp(0, 1)


def _inverted(digits: torch.Tensor, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    return 1 - digits * _uniform((len(digits), 1, 1, 1), 0.4, 1, rng)


JUNK: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]] = {
    "noise": _noise,
    "plain": _plain,
    "blots": _blots,
    "scribbles": _scribbles,
    "shuffled": _shuffled,
    "blended": _blended,
    "inverted": _inverted,
}


def _blurred(pictures: torch.Tensor, *, sigma: float = 1.5, radius: int = 4) -> torch.Tensor:
    taps = torch.arange(-radius, radius + 1) / sigma
    kernel = (-0.5 * taps.square()).exp()
    kernel = kernel / kernel.sum()
    rows = F.conv2d(pictures, kernel.view(1, 1, -1, 1), padding=(radius, 0))
    return F.conv2d(rows, kernel.view(1, 1, 1, -1), padding=(0, radius))


def _smooth_field(n: int, rng: torch.Generator) -> torch.Tensor:
    coarse = [torch.randn(n, 1, side, side, generator=rng) for side in (3, 5, 8)]
    fields = [F.interpolate(field, size=(32, 32), mode="bicubic") for field in coarse]
    weights = _uniform((n, 3, 1, 1), 0, 1, rng)
    mixed = sum(weights[:, i : i + 1] * field for i, field in enumerate(fields))
    return mixed / weights.square().sum(dim=1, keepdim=True).sqrt()


def _other_class(labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    differs = (labels[:, None] != labels[None, :]).float()
    differs[differs.sum(dim=1) == 0] = 1
    return torch.multinomial(differs, 1, generator=rng).squeeze(1)


def _uniform(shape: int | tuple[int, ...], low: float, high: float, rng: torch.Generator) -> torch.Tensor:
    return torch.rand(shape, generator=rng) * (high - low) + low


def _probabilities(net: DigitsNet, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([net(part)[1].softmax(dim=1) for part in x.split(500)])


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def main(argv: list[str] | None = None) -> None:
    """Command line: `python -m fact_eval.weights.train_digits --out FOLDER`."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="folder for digits.safetensors and digits.json")
    parser.add_argument("--seed", type=int, default=0, help="random seed of weights, order and augmentation")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="passes over the 60,000 training digits")
    options = parser.parse_args(argv)
    train_digits(options.out, seed=options.seed, epochs=options.epochs)


if __name__ == "__main__":
    main()
