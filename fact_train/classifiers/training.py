"""Training of the explained classifier on any labelled dataset, and its accuracy on held-out images."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.pixels import to_signed
from fact_metrics.base.progress import Progress
from fact_metrics.base.torch_files import load_torch
from fact_train.classifiers.classifier import (
    Card,
    check_not_degenerate,
    class_balance,
    classify,
    save_classifier,
)
from fact_train.data import Dataset, batch_indices, open_dataset
from fact_train.data.errors import MissingSplit
from fact_train.networks.classifier import Classifier
from fact_train.seeds import generator_for

HELD_OUT = 0.1  # of the training images, where a dataset has no test split
REST = "rest"

Group = dict  # {"name": str, "labels": [int, ...]}


def parse_classes(text: str, *, num_classes: int) -> list[Group]:
    """Classes of C from labels: `all`; `8,9`; `8,rest` (one against all the others). UsageError otherwise."""
    names = [str(k) for k in range(num_classes)] if text == "all" else text.split(",")
    names = [name.strip() for name in names]
    known = [int(name) for name in names if name.isdigit() and int(name) < num_classes]
    wrong = [name for name in names if name != REST and not (name.isdigit() and int(name) < num_classes)]
    if wrong or len(set(names)) != len(names) or len(names) < 2:
        raise UsageError(
            f"--classes {text}: give all, or two or more different labels of 0 to {num_classes - 1}, such as "
            "0,1, the last of them perhaps `rest` for all others."
        )
    others = [k for k in range(num_classes) if k not in known]
    if REST in names and not others:
        raise UsageError(f"--classes {text}: no label is left for `rest`.")
    return [{"name": name, "labels": others if name == REST else [int(name)]} for name in names]


def targets_of(labels: Tensor, groups: Sequence[Group]) -> Tensor:
    """Class of C for every label [N]: int64 [N], -1 for labels in no class."""
    table = torch.full([int(labels.max()) + 1 if len(labels) else 1], -1)
    for target, group in enumerate(groups):
        for label in group["labels"]:
            if label < len(table):
                table[label] = target
    return table[labels]


def train_classifier(
    out: Path,
    *,
    data: str,
    classes: str = "all",
    arch: str = "convnet",
    input_size: int | None = None,
    init: Path | None = None,
    epochs: int = 3,
    batch: int = 128,
    lr: float = 2e-3,
    seed: int = 0,
    device: torch.device | str = "cpu",
    report: Callable[[str], None] = print,
    **options,
) -> Card:
    """Train C, score it on the test split (or on a held-out tenth), write `out`; returns its card.

    `options` go to `open_dataset`. Classes are drawn equally often, whatever their share of the data.
    UserError where there are no class labels, or where the result gives all images the same class.
    """
    with Progress().decoding(data) as progress:
        train = open_dataset(data, split="train", progress=progress, **options)
    groups = _groups(train, classes)
    index, targets = _labelled(train, groups)
    held_out, index_held, targets_held = _held_out(data, train, index, targets, groups, options)
    if held_out is train:
        trained_on = ~torch.isin(index, index_held)
        index, targets = index[trained_on], targets[trained_on]
    counts = targets.bincount(minlength=len(groups))
    if not counts.all():
        missing = groups[int(counts.argmin())]["name"]
        raise UserError(f"{data}: no training image of class {missing}; leave it out of --classes.")
    shown = ", ".join(f"{g['name']} {n:,}" for g, n in zip(groups, counts.tolist(), strict=True))
    report(f"training images of each class: {shown}")
    started = time.monotonic()
    net = _new(arch, train, groups, input_size, seed, init).to(device)
    _fit(net, train, index, targets, epochs, batch, lr, seed, device, report)
    net.eval().requires_grad_(False)
    logits = classify(net, held_out, index_held, device)
    confusion = confusion_matrix(logits.argmax(dim=1), targets_held, num_classes=len(groups))
    accuracy = float(confusion.diagonal().sum() / confusion.sum())
    card = {
        "arch": arch,
        "resolution": train.resolution,
        "channels": train.num_channels,
        "input_size": input_size,
        "classes": groups,
        "accuracy": accuracy,
        "confusion": confusion.tolist(),  # rows: true class, columns: predicted class
        "held_out": {"split": held_out.split, "n": len(index_held)},
        "dataset": train.describe(),
        "recipe": {
            "epochs": epochs,
            "batch": batch,
            "lr": lr,
            "seed": seed,
            "init": None if init is None else Path(init).name,
            "torch": torch.__version__,
        },
        "seconds": round(time.monotonic() - started, 1),
        "date": datetime.now(UTC).date().isoformat(),
    }
    check_not_degenerate(str(out), card, class_balance(net, train, seed=seed, device=device), train)
    card = save_classifier(out, net, card)
    report(f"held-out accuracy {accuracy:.4f} on {len(index_held):,} images ({held_out.split} split)")
    report(confusion_text(card))
    return card


def confusion_matrix(predicted: Tensor, true: Tensor, *, num_classes: int) -> Tensor:
    """Counts, int64 [K, K]: row the true class, column the predicted class."""
    flat = (true * num_classes + predicted).bincount(minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def confusion_text(card: Card) -> str:
    """The confusion matrix with its class names, for people."""
    names = [group["name"] for group in card["classes"]]
    width = max(6, *(len(name) + 1 for name in names))
    rows = [" " * width + "".join(f"{name:>{width}}" for name in names) + "   (columns: what it says)"]
    for name, counts in zip(names, card["confusion"], strict=True):
        rows.append(f"{name:>{width}}" + "".join(f"{n:>{width}}" for n in counts))
    return "\n".join(rows)


def _groups(train: Dataset, classes: str) -> list[Group]:
    labels = train.labels(range(len(train)))
    if labels is None or labels.dtype != torch.int64:
        kind = "no labels" if labels is None else "vectors for labels"
        raise UserError(f"{train.name} has {kind}; a classifier is trained on class indices (dataset.json).")
    return parse_classes(classes, num_classes=train.num_classes)


def _labelled(dataset: Dataset, groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
    """Indices of the images in some class, and their targets."""
    targets = targets_of(dataset.labels(range(len(dataset))), groups)
    index = (targets >= 0).nonzero().flatten()
    return index, targets[index]


def _held_out(
    data: str, train: Dataset, index: Tensor, targets: Tensor, groups: Sequence[Group], options: dict
) -> tuple[Dataset, Tensor, Tensor]:
    try:
        test = open_dataset(data, split="test", **{**options, "max_images": None})
    except MissingSplit:
        pass
    else:
        return test, *_labelled(test, groups)
    count = max(int(len(index) * HELD_OUT), 1)
    chosen = batch_indices(size=len(index), seed=0, position=0, count=count)
    return train, index[chosen], targets[chosen]


def _new(
    arch: str,
    train: Dataset,
    groups: Sequence[Group],
    input_size: int | None,
    seed: int,
    init: Path | None,
) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for("cpu", "classifier", seed).initial_seed())
        net = Classifier(
            arch=arch, img_channels=train.num_channels, num_classes=len(groups), input_size=input_size
        )
    if init is not None:
        _load_initial_weights(net, Path(init))
    return net


def _load_initial_weights(net: Classifier, path: Path) -> None:
    """Load a state dict of the same architecture; a last layer of another shape keeps its random weights.

    UsageError where the file is missing, UserError where it cannot be read or is of another architecture.
    """
    if not path.is_file():
        raise UsageError(f"--init {path} does not exist.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = load_torch(path)
        if not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError("it holds other things than tensors")
    except Exception as error:  # whatever a foreign file makes its reader say
        raise UserError(f"--init {path} cannot be read ({error}).") from error
    own = net.net.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    if len(fitting) < len(own) - 2:  # all but the last layer's weight and bias
        raise UserError(
            f"--init {path} holds {len(fitting)} of {len(own)} tensors of {net.arch}; give its state dict."
        )
    net.net.load_state_dict(fitting, strict=False)


def _fit(
    net: Classifier,
    train: Dataset,
    index: Tensor,
    targets: Tensor,
    epochs: int,
    batch: int,
    lr: float,
    seed: int,
    device: torch.device | str,
    report: Callable[[str], None],
) -> None:
    """AdamW, one cosine cycle; every batch draws its classes with equal probability."""
    steps_per_epoch = max(len(index) // batch, 1)
    opt = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=lr, total_steps=epochs * steps_per_epoch)
    gen = generator_for("cpu", "classifier batches", seed)
    weights = 1.0 / targets.bincount().double()[targets]
    net.train()
    for epoch in range(epochs):
        drawn = torch.multinomial(weights, steps_per_epoch * batch, replacement=True, generator=gen)
        total = 0.0
        for chosen in drawn.split(batch):
            x = to_signed(train.images(index[chosen]).to(device))
            loss = F.cross_entropy(net(x), targets[chosen].to(device))
            opt.zero_grad(set_to_none=True)
            loss.backward()
            opt.step()
            schedule.step()
            total += float(loss.detach())
        report(f"epoch {epoch + 1}/{epochs}  loss {total / steps_per_epoch:.4f}")
