"""Fused against unfused modulated convolution of one snapshot: images and layers, per precision, with times.

`metrics/families/consistency.py` compares images in one precision; here the network runs in every precision
of the device, from the same latents. In float64 only rounding of about 1e-16 may remain, so a larger
difference is a defect. float64 is also the reference for the error of each path in the other precisions.

    float64     weights, styles and activations
    float32     as trained, TF32 off
    tf32        float32 with TF32 allowed; on a GPU that has it
    bfloat16    activations and convolutions; styles and demodulation stay in float32
    float16     the same in float16
"""

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fact_eval.images.sources import GeneratorSource
from fact_metrics.base.errors import UserError, unknown_name
from fact_metrics.base.image_size import ImageSize
from fact_metrics.base.tf32 import tf32
from fact_metrics.engines.consistency import (
    ConvolutionRecorder,
    RenderingPairs,
    compute_consistency_psnr,
    measure_pairs,
)
from fact_metrics.engines.fid_error import compute_fid_stderr
from fact_metrics.engines.frechet import compute_fid
from fact_metrics.engines.pair_distances import SMALLEST_LPIPS, mean_and_stderr
from fact_train.data import Dataset
from fact_train.snapshot import Snapshot

PAIRS = 200
BATCH = 32
ROUNDS = 7
LAYER = ".inject"  # name of the style-injected convolutions in a synthesis network


@dataclass(frozen=True)
class Precision:
    """The arithmetic of a network; `eps` is the relative rounding of the inputs of a convolution."""

    dtype: torch.dtype
    eps: float
    tf32: bool = False


PRECISIONS = {
    "float64": Precision(torch.float64, torch.finfo(torch.float64).eps),
    "float32": Precision(torch.float32, torch.finfo(torch.float32).eps),
    "tf32": Precision(torch.float32, 2.0**-10, tf32=True),
    "bfloat16": Precision(torch.bfloat16, torch.finfo(torch.bfloat16).eps),
    "float16": Precision(torch.float16, torch.finfo(torch.float16).eps),
}


@dataclass(frozen=True)
class ImagesRow:
    """Images of one precision. Differences of images that span [-1, 1]; errors are standard errors.

    `error_fused`, `error_unfused`: largest distance of each path from float64. `milliseconds_*`: median of
    alternating calls for one batch. `paths`: the code that ran for fused and for unfused.
    """

    precision: str
    paths: tuple[str, str]
    max_abs: float
    mean_abs: float
    psnr: float
    lpips: float
    lpips_stderr: float | None
    pixels_changed: float
    pixels_changed_stderr: float | None
    fid: float
    fid_stderr: float | None
    error_fused: float
    error_unfused: float
    milliseconds_fused: float
    milliseconds_unfused: float


@dataclass(frozen=True)
class LayerRow:
    """One style-injected convolution, both paths on the inputs that it has in the unfused network.

    `relative`: largest difference over largest output; `rounding`: the same in units of the precision's eps.
    """

    precision: str
    layer: str
    paths: tuple[str, str]
    max_abs: float
    relative: float
    rounding: float


@dataclass(frozen=True)
class Report:
    """Rows of every applicable precision, and why the others are not applicable."""

    snapshot: str
    device: str
    pairs: int
    batch: int
    images: list[ImagesRow]
    layers: list[LayerRow]
    not_applicable: dict[str, str]

    def worst_layer(self, precision: str) -> str:
        """The layer whose paths differ most, relative to its outputs."""
        rows = [row for row in self.layers if row.precision == precision]
        return max(rows, key=lambda row: row.relative).layer


def report(
    snapshot: Snapshot,
    *,
    device: str = "cpu",
    labels_of: Dataset | None = None,
    seed: int = 0,
    pairs: int = PAIRS,
    batch: int = BATCH,
    rounds: int = ROUNDS,
    precisions: Sequence[str] = tuple(PRECISIONS),
    say: Callable[[str], None] | None = None,
) -> Report:
    """Compare both paths of a snapshot's EMA generator, which must lie on `device`.

    `pairs` images are compared; `batch` of them are timed in `rounds` calls per path and compared layer by
    layer. `labels_of`: the training set of a conditional generator. Raises UsageError for an unknown
    precision and ValueError for fewer than 2 pairs or images per batch. Raises UserError if the network has
    only one path, does not compute in the precision, or generates images too small for LPIPS.
    """
    size = ImageSize.of(snapshot.G.img_resolution)
    if min(size.height, size.width) < SMALLEST_LPIPS:
        side = f"images of {snapshot.G.img_resolution} pixels"
        raise UserError(f"{snapshot.path} generates {side}; LPIPS needs {SMALLEST_LPIPS} or more")
    if min(pairs, batch) < 2:
        raise ValueError(f"{pairs} pairs in batches of {batch}: at least 2 are needed")
    for name in precisions:
        if name not in PRECISIONS:
            raise unknown_name("precision", name, PRECISIONS)
    options = {"seed": seed, "device": device, "labels_of": labels_of}
    truth = _Batch(PrecisionSource(snapshot, PRECISIONS["float64"], **options), batch).render(fused=False)
    images, layers, not_applicable = [], [], {}
    for name in precisions:
        reason = _why_not(PRECISIONS[name], torch.device(device))
        if say is not None:
            say(f"{name}: {reason or f'{pairs} pairs'}")
        if reason:
            not_applicable[name] = reason
            continue
        source = PrecisionSource(snapshot, PRECISIONS[name], **options)
        one = _Batch(source, batch)
        images.append(
            _images_row(name, measure_pairs(source, pairs=pairs, device=device), one, truth, rounds)
        )
        layers += _layer_rows(name, source, one)
    return Report(snapshot.path.name, device, pairs, batch, images, layers, not_applicable)


class PrecisionSource(GeneratorSource):
    """Images of a snapshot's generator whose synthesis network runs in another precision."""

    def __init__(self, snapshot: Snapshot, precision: Precision, **options: Any) -> None:
        super().__init__(snapshot, **options)
        self.G, self.precision = copy.deepcopy(self.G), precision
        if precision.dtype == torch.float64:
            self.G.synthesis.double()
        else:  # activations take the type of the constant they start from
            const = self.G.synthesis.b4.const
            const.data = const.data.to(precision.dtype)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Context in which modules of the synthesis network compute in the precision."""
        with tf32(self.precision.tf32), torch.inference_mode():
            if self.precision.dtype == torch.float64:
                with _FloatIsFloat64():
                    yield
            else:
                yield

    def synthesis(self, ws: Tensor, noise: list[Tensor], *, fused_modconv: bool | None = None) -> Tensor:
        """Images [N, C, H, W], about [-1, 1]; float64 in float64, else float32."""
        if self.precision.dtype == torch.float64:
            ws, noise = ws.double(), [one.double() for one in noise]
        with self.computing():
            return super().synthesis(ws, noise, fused_modconv=fused_modconv)


class _FloatIsFloat64(TorchFunctionMode):
    """`x.float()` gives float64; the networks request float32 in no other way."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.float:
            return args[0].double()
        return func(*args, **(kwargs or {}))


class _Batch:
    """The latents of the first images of a source, for repeated rendering."""

    def __init__(self, source: PrecisionSource, size: int) -> None:
        indices = range(size)
        self.source, self.size = source, size
        self.ws = source.mapping(source.latents(indices), source.labels(indices))
        self.noise = source.noise(indices)

    def render(self, *, fused: bool) -> Tensor:
        return self.source.synthesis(self.ws, self.noise, fused_modconv=fused)

    def milliseconds(self, rounds: int) -> tuple[float, float]:
        """Median time of fused and of unfused calls, alternating, after one warm-up call each."""
        times: dict[bool, list[float]] = {True: [], False: []}
        for round_ in range(rounds + 1):
            for fused in times:
                start = time.perf_counter()
                self.render(fused=fused)
                if self.ws.is_cuda:
                    torch.cuda.synchronize(self.ws.device)
                if round_:
                    times[fused].append(1000 * (time.perf_counter() - start))
        return statistics.median(times[True]), statistics.median(times[False])


def _images_row(name: str, pairs: RenderingPairs, one: _Batch, truth: Tensor, rounds: int) -> ImagesRow:
    lpips, lpips_stderr = mean_and_stderr(pairs.lpips)
    changed, changed_stderr = mean_and_stderr(pairs.changed)
    features = pairs.features_fused, pairs.features_unfused
    errors = [(one.render(fused=fused) - truth).abs().max().item() for fused in (True, False)]
    times = one.milliseconds(rounds)
    return ImagesRow(
        precision=name,
        paths=pairs.paths,
        max_abs=pairs.max_abs.max().item(),
        mean_abs=pairs.mean_abs.double().mean().item(),
        psnr=compute_consistency_psnr(pairs.mse),
        lpips=lpips,
        lpips_stderr=lpips_stderr,
        pixels_changed=changed,
        pixels_changed_stderr=changed_stderr,
        fid=compute_fid(*features),
        fid_stderr=compute_fid_stderr(*features, reference="paired"),
        error_fused=errors[0],
        error_unfused=errors[1],
        milliseconds_fused=times[0],
        milliseconds_unfused=times[1],
    )


def _layer_rows(name: str, source: PrecisionSource, one: _Batch) -> list[LayerRow]:
    rows = []
    for layer, (module, args, kwargs) in _layer_inputs(source, one).items():
        recorders = [ConvolutionRecorder(one.size) for _ in range(2)]
        outputs = []
        for fused, recorder in zip((True, False), recorders, strict=True):
            with source.computing(), recorder:
                outputs.append(module(*args, **{**kwargs, "fused": fused}).double())
        if computed := set().union(*(recorder.dtypes for recorder in recorders)) - {source.precision.dtype}:
            raise UserError(f"{layer} computed in {computed.pop()} instead of {name}")
        difference = (outputs[0] - outputs[1]).abs().max().item()
        relative = difference / (outputs[1].abs().max().item() or 1.0)
        rows.append(
            LayerRow(
                precision=name,
                layer=layer.removesuffix(LAYER),
                paths=(recorders[0].path, recorders[1].path),
                max_abs=difference,
                relative=relative,
                rounding=relative / source.precision.eps,
            )
        )
    return rows


def _layer_inputs(source: PrecisionSource, one: _Batch) -> dict[str, tuple[torch.nn.Module, tuple, dict]]:
    """The inputs of every style-injected convolution while the unfused network renders the batch."""
    layers = {name: m for name, m in source.G.synthesis.named_modules() if name.endswith(LAYER)}
    inputs = {}
    hooks = []
    for name, module in layers.items():

        def record(module, args, kwargs, name=name):
            copies = tuple(x.clone() if isinstance(x, Tensor) else x for x in args)
            inputs[name] = (module, copies, kwargs)

        hooks.append(module.register_forward_pre_hook(record, with_kwargs=True))
    try:
        one.render(fused=False)
    finally:
        for hook in hooks:
            hook.remove()
    return inputs


def _why_not(precision: Precision, device: torch.device) -> str | None:
    """Why a precision is not applicable on a device; None if it is."""
    if precision.tf32 and not (device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)):
        return f"not applicable: {device.type} has no TF32"
    x, w = (torch.ones(shape, dtype=precision.dtype, device=device) for shape in ((1, 4, 4, 4), (4, 2, 3, 3)))
    try:
        torch.nn.functional.conv2d(x, w, groups=2)
        torch.nn.functional.conv_transpose2d(x, w, groups=2)
    except RuntimeError as error:
        return f"not supported on {device.type}: {str(error).splitlines()[0]}"
    return None
