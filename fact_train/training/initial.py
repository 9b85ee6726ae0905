"""Fine-tuning: the networks of a checkpoint as the start of a run (--init).

A snapshot holds G_ema, and G starts there too; a training state has a G of its own. Optimisers, counters and
the average of path lengths start anew, as in StyleGAN2-ADA's transfer learning.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.file_hashes import file_sha256
from fact_metrics.base.image_size import ImageSize
from fact_train.imports import load_checkpoint
from fact_train.settings.config import TrainConfig, flag
from fact_train.settings.fields import value_text
from fact_train.training.checkpoint import read_checkpoint
from fact_train.training.models.model import Model

AVERAGE_OF = {"G": "G_ema", "E": "E_ema"}  # network -> its average, which stands in for it
OURS = "fact-stylegan"
SHOWN = 3  # tensors that an error names
# Settings that decide which tensors networks have, and their shapes.
SHAPING = (
    *("z_dim", "w_dim", "map_depth", "channel_base", "channel_max", "g_arch", "d_arch", "d_channel_mult"),
    *("d_channel_max", "e_channel_mult", "e_channel_max", "injection", "style_vectors", "style_kernel"),
    *("torgb_style", "noise", "model", "d_cond"),
)


@dataclass(frozen=True)
class Saved:
    """What a file holds: its format, its configuration as far as it is known, its tensors by network."""

    format: str
    config: Mapping[str, Any]
    networks: Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Initial:
    """The tensors that a run starts from, by network, and what of them has no place there."""

    path: Path
    sha256: str
    format: str  # fact-stylegan, or what an importer calls the file
    networks: Mapping[str, Mapping[str, Tensor]]  # network of the run -> tensors that fit
    random: tuple[str, ...] = ()  # tensors of the run that the file does not have, or in another shape
    unused: tuple[str, ...] = ()  # tensors of the file that the run does not have, or in another shape

    def describe(self) -> dict[str, Any]:
        """What training_options.json records."""
        return {
            "file": self.path.name,
            "sha256": self.sha256,
            "format": self.format,
            "random": list(self.random),
            "unused": list(self.unused),
        }

    @torch.no_grad()
    def load_into(self, model: Model) -> str:
        """Copy the tensors; returns a line that says what the run starts from."""
        nets = _networks(model)
        for name, tensors in self.networks.items():
            nets[name].load_state_dict(tensors, strict=False)
        line = f"networks start from {self.path}"
        return f"{line}; random: {', '.join(self.random)}" if self.random else line


def read_initial(cfg: TrainConfig, model: Model) -> Initial:
    """What --init gives a new model.

    UsageError where it does not fit and --init-partial is not given, or where a tensor that stays random
    would never be trained. Raises the errors of reading a checkpoint.
    """
    path = Path(cfg.init)
    file = _read(path)
    saved = file.networks
    networks, random, unused = {}, [], []
    for name, net in _networks(model).items():
        source = saved.get(name) or saved.get(AVERAGE_OF.get(name), {})
        own = net.state_dict()
        fitting = {key: source[key] for key in own if key in source and source[key].shape == own[key].shape}
        networks[name] = fitting
        if name not in AVERAGE_OF:  # G and its average have the same tensors
            random += [f"{name}.{key}" for key in own if key not in fitting]
            unused += [f"{name}.{key}" for key in source if key not in fitting]
    differences = _differences(file, cfg, model)
    if not any(networks.values()):
        raise UsageError(
            f"--init {path}: nothing in it fits this run ({'; '.join(differences) or random[0]})."
        )
    if (random or unused) and not cfg.init_partial:
        raise UsageError(
            f"--init {path} does not fit this run: "
            f"{'; '.join([*differences, _named(random, unused)])}. "
            "Change the run, or add --init-partial to start these tensors from random values."
        )
    _refuse_frozen(path, random, model)
    return Initial(path, file_sha256(path), file.format, networks, tuple(random), tuple(unused))


def _read(path: Path) -> Saved:
    """A training state, or what `load_checkpoint` reads."""
    if not path.is_file():
        raise UsageError(f"--init {path} does not exist; give a snapshot or a training state.")
    try:
        if path.name.startswith("training-state-"):
            state = read_checkpoint(path)
            names = ("G", "D", "G_ema", "E", "E_ema")
            found = {name: dict(state[name]) for name in names if isinstance(state.get(name), dict)}
            return Saved(OURS, state["config"], found)
        snapshot = load_checkpoint(path)
    except UserError as error:
        kind = UsageError if isinstance(error, UsageError) else UserError
        raise kind(f"--init {path}: {error}") from error
    nets = {"G_ema": snapshot.G, "D": snapshot.D, "E_ema": snapshot.E}
    format = OURS if snapshot.origin is None else snapshot.origin["format"]
    found = {name: dict(net.state_dict()) for name, net in nets.items() if net is not None}
    return Saved(format, snapshot.config, found)


def _networks(model: Model) -> dict[str, torch.nn.Module]:
    """Every network of a run that starts from --init, averages included; the classifier has its own file."""
    return {**{n: net for n, net in model.snapshot_networks.items() if n != "C"}, **model.networks}


def _differences(file: Saved, cfg: TrainConfig, model: Model) -> list[str]:
    """In words, where images, labels or settings differ that decide the shapes of tensors."""
    saved = file.networks
    there = _shape_of(saved.get("G_ema") or saved.get("G", {}))
    here = _shape_of(model.gan.G.state_dict())
    lines = [
        f"{what} {there[what]} there and {here[what]} here"
        for what in here
        if there and there[what] != here[what]
    ]
    settings = {name: (file.config[name], getattr(cfg, name)) for name in SHAPING if name in file.config}
    lines += [
        f"{flag(name)} {value_text(old)} there and {value_text(new)} here"
        for name, (old, new) in settings.items()
        if old != new
    ]
    missing = _networks(model).keys() - saved.keys()
    return lines + [f"it holds no {name[0]}" for name in ("D", "E_ema") if name in missing]


def _shape_of(G: Mapping[str, Tensor]) -> dict[str, int | str]:
    """Resolution, image channels and classes, as the tensors of a generator say; {} if they say nothing."""
    sides = [int(found[1]) for key in G if (found := re.match(r"synthesis\.b(\d+)\.", key))]
    ends = [f"synthesis.b{max(sides, default=0)}.torgb.{name}" for name in ("bias", "conv.bias")]
    biases = [G[end] for end in ends if end in G]
    const = G.get("synthesis.b4.const")
    if not biases or const is None or const.ndim != 3:
        return {}
    height, width = (side * max(sides) // 4 for side in const.shape[1:])
    embed = G.get("mapping.embed.weight")
    return {
        "resolution": ImageSize(height, width).resolution,
        "image channels": len(biases[0]),
        "classes": 0 if embed is None else embed.shape[1],
    }


def _named(random: list[str], unused: list[str]) -> str:
    names = list(dict.fromkeys([*random, *unused]))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"tensors that differ are {', '.join(names[:SHOWN])}{more}"


def _refuse_frozen(path: Path, random: list[str], model: Model) -> None:
    """UsageError for a parameter that stays random and is never trained."""
    groups = [group for opt in (model.gan.G_opt, model.gan.D_opt) for group in opt.param_groups]
    trained = {id(p) for group in groups for p in group["params"]}
    followed = {f"{AVERAGE_OF.get(name, name)}.{key}": p for name, net in model.networks.items()
                for key, p in net.named_parameters()}  # fmt: skip
    frozen = [name for name in random if name in followed and id(followed[name]) not in trained]
    if frozen:
        raise UsageError(
            f"--init {path} does not have {frozen[0]}, which would stay random: it is frozen. "
            "Lower --freeze-d, or train the mapping network."
        )
