"""Images of any generator as an ONNX graph: latents and perhaps labels in, images out, run by onnxruntime.

A graph is data: its operators are onnxruntime's own, and it is read from one file, whose hash its records
carry.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fact_eval.images.sampling import image_seed
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.extras import need
from fact_metrics.base.limits import CHECKPOINT
from fact_metrics.base.pixels import to_uint8
from fact_metrics.spec import SAMPLING

# --z -> latents [z_dim] of one image
LATENTS = {
    "normal": lambda n, gen: torch.randn(n, generator=gen),
    "uniform": lambda n, gen: torch.rand(n, generator=gen) * 2 - 1,
    "sphere": lambda n, gen: torch.nn.functional.normalize(torch.randn(n, generator=gen), dim=0) * n**0.5,
}
# --pixel-range -> float images as uint8
PIXELS = {
    "signed": to_uint8,
    "unit": lambda images: to_uint8(images * 2 - 1),
    "byte": lambda images: images.round().clamp(0, 255).to(torch.uint8),
}
LABELS = ("data", "uniform")  # or the number of a class
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
BYTES = "tensor(uint8)"
WEIGHTS_ELSEWHERE = "session.model_external_initializers_file_folder_path"
LUMA = (19595, 38470, 7471)  # / 65536, as Pillow converts RGB to gray


@dataclass(frozen=True)
class GraphOptions:
    """How a graph is fed and read: the flags of `fact-eval run FILE.onnx`."""

    z_dim: int | None = None  # None: as the graph says
    z: str = "normal"
    labels: str | None = None  # None: `data` if the graph takes labels
    pixel_range: str | None = None  # None: signed, unless the graph makes uint8


class OnnxGenerator:
    """A graph with its inputs identified. UserError where it cannot be run, UsageError for options."""

    def __init__(self, path: Path, options: GraphOptions, *, device: str = "cpu"):
        self.path, self.options = Path(path), options
        CHECKPOINT.check(self.path.stat().st_size, self.path, "export a smaller network")
        content = self.path.read_bytes()
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._session = self._open(content, device)
        self.z_input, self.label_input = self._find_inputs()
        self.z_dim = options.z_dim or _width(self.z_input)
        self.classes = None if self.label_input is None else _classes(self.label_input)
        output = self._session.get_outputs()[0]
        if output.type != BYTES and output.type not in FLOATS:
            raise UserError(f"{self.path}: output {output.name} is {output.type}, not an image")
        if output.type == BYTES and options.pixel_range is not None:
            chosen = f"--pixel-range {options.pixel_range}"
            raise UsageError(f"{chosen}: {self.path.name} makes uint8 images; leave it out")
        self._check_labels()

    @cached_property
    def sample(self) -> Tensor:
        """The graph's own output for two fixed latents of class 0: its size, channels and range."""
        z = torch.stack([LATENTS[self.options.z](self.z_dim, _fixed(i)) for i in range(2)])
        labels = None if self.label_input is None else torch.zeros(2, dtype=torch.long)
        return self._run(z, labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images."""
        return tuple(self.sample.shape[1:])

    @property
    def warnings(self) -> list[str]:
        """What looks wrong in two sample images."""
        lines, name = [], self.path.name
        if self.sample.dtype != torch.uint8:
            low, high = float(self.sample.min()), float(self.sample.max())
            chosen = self.options.pixel_range or "signed"
            if chosen == "signed" and low >= 0 and high <= 1:
                lines.append(f"{name} makes values from {low:.2g} to {high:.2g}; try --pixel-range unit")
            if chosen != "byte" and high > 3:
                lines.append(f"{name} makes values up to {high:.3g}; try --pixel-range byte")
        again = self.__dict__.pop("sample")
        if not torch.equal(again, self.sample):
            lines.append(f"{name} draws random numbers of its own: scores change from run to run")
        return lines

    def images(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """uint8 [N, C, H, W] of latents [N, z_dim] and class indices [N] or label vectors [N, K]."""
        made = self._run(z, labels)
        if made.dtype == torch.uint8:
            return made
        return PIXELS[self.options.pixel_range or "signed"](made.float())

    def describe(self) -> dict[str, Any]:
        """Everything of graph and options that can change an image, as JSON."""
        version = self._runtime.__version__
        return {"graph": self.sha256, **asdict(self.options), "z_dim": self.z_dim, "onnxruntime": version}

    def _open(self, content: bytes, device: str):
        self._runtime = need("onnxruntime", "onnx", f"{self.path.name}")
        provider = "CUDAExecutionProvider" if device.startswith("cuda") else "CPUExecutionProvider"
        if provider not in self._runtime.get_available_providers():
            raise UsageError(f"--device {device}: this onnxruntime has no CUDA; install onnxruntime-gpu")
        settings = self._runtime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        settings.log_severity_level = 4  # an error arrives as an exception
        settings.add_session_config_entry(WEIGHTS_ELSEWHERE, os.devnull)  # the hash is that of one file
        try:
            return self._runtime.InferenceSession(content, settings, providers=[provider])
        except Exception as error:  # onnxruntime's exceptions share no class
            raise UserError(
                f"{self.path} is not a graph that onnxruntime can run ({_line(error)})"
            ) from error

    def _find_inputs(self):
        """The latent and, if there is one, the label among the graph's inputs."""
        inputs, wanted = self._session.get_inputs(), self.options.z_dim
        shown = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
        latents = [i for i in inputs if i.type in FLOATS and len(i.shape) > 1]
        if wanted is not None:
            latents = sorted(
                (i for i in latents if _width(i) in (wanted, None)), key=lambda i: _width(i) is None
            )
        if not latents or (wanted or _width(latents[0])) is None:
            flag = "--z-dim is missing" if wanted is None else f"--z-dim {wanted}"
            raise UsageError(f"{flag}: the inputs of {self.path.name} are {shown}")
        others = [i for i in inputs if i is not latents[0]]
        if len(others) > 1 or not all(map(_is_label, others)):
            raise UserError(
                f"{self.path.name} takes {shown}: only a latent and a label are given; export the graph with "
                "constants in place of its other inputs"
            )
        return latents[0], (others[0] if others else None)

    def _check_labels(self) -> None:
        chosen, name = self.options.labels, self.path.name
        if chosen is None:
            return
        if self.label_input is None:
            raise UsageError(f"--labels {chosen}: {name} takes no labels; leave it out")
        if chosen == "uniform" and self.classes is None:
            raise UsageError(f"--labels uniform: {name} does not state its classes; use data or a class")
        if chosen not in LABELS and not chosen.isdigit():
            raise UsageError(f"--labels {chosen}: it must be {', '.join(LABELS)} or the number of a class")
        if chosen.isdigit() and self.classes is not None and int(chosen) >= self.classes:
            raise UsageError(f"--labels {chosen}: {name} has classes 0 to {self.classes - 1}")

    def _run(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """[N, C, H, W] in the graph's own type. Graphs of a fixed batch are called several times."""
        fixed = self.z_input.shape[0]
        size = fixed if isinstance(fixed, int) else len(z)
        parts = [self._call(z[i : i + size], labels[i : i + size] if labels is not None else None, size)
                 for i in range(0, len(z), size)]  # fmt: skip
        return _channels_first(torch.cat(parts), self.path)

    def _call(self, z: Tensor, labels: Tensor | None, size: int) -> Tensor:
        n = len(z)
        feeds = {self.z_input.name: _fill(z, self.z_input, size)}
        if labels is not None:
            feeds[self.label_input.name] = _fill(self._encode(labels), self.label_input, size)
        try:
            (made,) = self._session.run([self._session.get_outputs()[0].name], feeds)
        except Exception as error:  # as above
            raise UserError(f"{self.path} failed: {_line(error)}") from error
        return torch.from_numpy(np.ascontiguousarray(made[:n]))

    def _encode(self, labels: Tensor) -> Tensor:
        """Labels as the graph takes them: indices, or one-hot vectors."""
        if self.label_input.type in INTEGERS or labels.ndim == 2:
            return labels
        return torch.nn.functional.one_hot(labels, self.classes).float()


class OnnxSource:
    """Images of a graph; image i of a seed has the latent and label of a snapshot's image i."""

    size = None

    def __init__(self, generator: OnnxGenerator, *, seed: int, channels: int, labels_of=None):
        self.generator, self.seed, self.channels = generator, seed, channels
        self._labels_of = labels_of

    def images(self, indices: Sequence[int]) -> Tensor:
        """uint8 [N, channels, H, W] on the CPU."""
        draw, n = LATENTS[self.generator.options.z], self.generator.z_dim
        z = torch.stack([draw(n, self._random(i, "image")) for i in indices])
        return with_channels(self.generator.images(z, self._labels(indices)), self.channels)

    def describe(self) -> dict:
        return {
            "source": "onnx",
            **self.generator.describe(),
            "seed": self.seed,
            "channels": self.channels,
            "labels_of": None if self._labels_of is None else self._labels_of.sha256,
            "sampling": SAMPLING,
        }

    def _labels(self, indices: Sequence[int]) -> Tensor | None:
        generator = self.generator
        if generator.label_input is None:
            return None
        chosen = generator.options.labels or "data"
        if chosen.isdigit():
            return torch.full([len(indices)], int(chosen))
        n = generator.classes if chosen == "uniform" else len(self._labels_of)
        drawn = [int(torch.randint(n, (), generator=self._random(i, "labels"))) for i in indices]
        return torch.tensor(drawn) if chosen == "uniform" else self._labels_of.labels(drawn)

    def _random(self, index: int, stream: str) -> torch.Generator:
        return torch.Generator().manual_seed(image_seed(self.seed, index, stream))


def with_channels(images: Tensor, channels: int) -> Tensor:
    """uint8 images with 1 or 3 channels, converted as picture files are."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    weights = torch.tensor(LUMA).view(1, 3, 1, 1)
    return ((images.int() * weights).sum(dim=1, keepdim=True).add(1 << 15) >> 16).to(torch.uint8)


def _fixed(index: int) -> torch.Generator:
    return torch.Generator().manual_seed(index)


def _width(graph_input) -> int | None:
    """Numbers of one row of an input; None where the graph does not say."""
    inside = [size for size in graph_input.shape[1:] if size != 1]
    if len(graph_input.shape) < 2 or len(inside) > 1 or not all(isinstance(size, int) for size in inside):
        return None
    return inside[0] if inside else 1


def _is_label(graph_input) -> bool:
    """Class indices [N] or [N, 1], or vectors of known width."""
    if graph_input.type in INTEGERS:
        return len(graph_input.shape) in (1, 2)
    return graph_input.type in FLOATS and len(graph_input.shape) == 2 and _width(graph_input) is not None


def _classes(graph_input) -> int | None:
    return None if graph_input.type in INTEGERS else _width(graph_input)


def _fill(rows: Tensor, graph_input, size: int) -> np.ndarray:
    """Rows in an input's type and rank, repeated from the last up to a fixed batch."""
    rows = torch.cat([rows, rows[-1:].expand(size - len(rows), *rows.shape[1:])])
    rows = rows.reshape(size, *rows.shape[1:], *[1] * (len(graph_input.shape) - rows.ndim))
    return rows.numpy().astype({**FLOATS, **INTEGERS}[graph_input.type])


def _channels_first(images: Tensor, path: os.PathLike) -> Tensor:
    if images.ndim == 4 and images.shape[1] in (1, 3):
        return images
    if images.ndim == 4 and images.shape[3] in (1, 3):
        return images.permute(0, 3, 1, 2)
    raise UserError(f"{path}: the output has shape {list(images.shape)}, not [N, C, H, W] or [N, H, W, C]")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
