"""NVIDIA's metric code beside ours: its networks, its draws of latents, labels and noise, one detector file.

Hooks on the reference's generator record what its metric code draws; our metrics then score the imported file
on the same draws. The weights of the detectors are random, in the files that both programs read.

Its code runs as it stands, with what this machine lacks put back: numpy's `interpolation=`, scipy's `disp=`,
memory that a GPU pins. Its precision and recall need a GPU for float16 distances: they run in float32, and
once more with every feature, distance and radius rounded to float16.
"""

import json
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import scipy.linalg
import torch
from PIL import Image
from torch import Tensor

from benchmarks.imports.peers import Case, Made
from benchmarks.parity.detectors import script_file, torchvision_file
from benchmarks.parity.reference_files import installed
from fact_eval.images.sources import GeneratorSource
from fact_metrics.api import compute
from fact_metrics.base.pixels import to_uint8
from fact_metrics.features.detector import package_file
from fact_metrics.registry import compute_metric, get_spec
from fact_train.imports import load_checkpoint

IMAGES, PAIRS, PPL_BATCH, RENDERED = 24, 96, 8, 8
NOISE = dict(noise_mode="const", force_fp32=True)
INCEPTION, VGG16 = "inception_torchscript", "vgg16_torchvision"
CASES = {
    "stylegan2-ada-pytorch": ("skip, trained 16 steps", "orig, 10 classes"),
    "stylegan3": ("skip",),
}  # networks that a program's metric code runs on
# What a difference may be, and why. Relative, but for precision and recall, which count images.
FID = 1e-4, "of 2,048 features and 24 images, both covariances are singular: sqrtm keeps 4 to 6 digits"
PPL = 2e-3, "a step of 1e-4 changes a pixel by about 100 float32 roundings, and both codes round apart"
PR = 1e-6, "shares in float32; the reference's float16, which needs a GPU, is float32 here"
ROUNDED = None, "float16 features, distances and radii, as published; ours are exact, so the gap is rounding"
PIXELS = 1e-4, "float32 sums in another order; the largest difference of any pixel"
SPREAD = 1e-4, "rounding alone, so of one size and not equal: the larger of both counts"


@dataclass(frozen=True)
class Agreement:
    """A metric of a network by both programs; `tolerance` None: a difference on purpose, only shown."""

    network: str
    metric: str
    count: int
    ours: float
    theirs: float
    difference: float
    tolerance: float | None
    why: str


class Draws:
    """What the reference's code drew, recorded by hooks that survive its deep copies of the generator."""

    def __init__(self, G: torch.nn.Module):
        self.G = G
        self.z: list[Tensor] = []
        self.c: list[Tensor] = []
        self.noise: list[dict[str, Tensor]] = []

    def __enter__(self) -> "Draws":
        def mapped(module, args, given):
            named = dict(zip(("z", "c"), args, strict=False)) | given
            self.z.append(named["z"].clone())
            self.c.append(named["c"].clone())

        def rendered(module, args, given):
            buffers = module.named_buffers()
            self.noise.append({k: v.clone() for k, v in buffers if k.endswith("noise_const")})

        hooks = ((self.G.mapping, mapped), (self.G.synthesis, rendered))
        self._hooks = [net.register_forward_pre_hook(hook, with_kwargs=True) for net, hook in hooks]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()


class Replayed(GeneratorSource):
    """Our scoring on recorded draws. `pairs`: the second half of a batch belongs to the first, in order."""

    def __init__(self, snapshot, draws: Draws, *, pairs: bool):
        super().__init__(snapshot, seed=0, labels_of=() if snapshot.G.c_dim else None)
        halves = [torch.stack(z.chunk(2), 1) for z in draws.z] if pairs else draws.z
        self._z = torch.cat(halves)
        self._c = torch.cat([c[: len(z)] for c, z in zip(draws.c, halves, strict=True)])
        names = [f"b{layer.resolution}.conv{i}.noise_const" for i, layer in _numbered(snapshot.G.synthesis)]
        each = zip(draws.noise, halves, strict=True)
        rows = [[noise[name].expand(len(z), 1, -1, -1) for name in names] for noise, z in each]
        self._noise = [torch.cat(maps) for maps in zip(*rows, strict=True)]

    def latents(self, indices, *, stream="image"):
        rows = self._z[list(indices)]
        return rows if rows.ndim == 2 else rows[:, 0 if stream == "image" else 1]

    def labels(self, indices):
        return self._c[list(indices)] if self.G.c_dim else None

    def noise(self, indices, *, stream="image"):
        return [maps[list(indices)] for maps in self._noise]


@dataclass
class Inputs:
    """What a metric of a generator alone reads."""

    generator: Replayed
    device: torch.device
    seed: int = 0

    __hash__ = object.__hash__


def _numbered(synthesis) -> Iterator[tuple[int, Any]]:
    """Noise-carrying layers with the number in their name: conv1 of 4 px, then conv0 and conv1."""
    return ((0 if i % 2 else 1, layer) for i, layer in enumerate(synthesis.layers))


def agreements(case: Case, made: Made, folder: Path) -> Iterator[Agreement]:
    """Every metric of one network of the program in the import path; the folder is for its real images."""
    from metrics import metric_utils

    snapshot = load_checkpoint(made.file)
    reals = write_reals(snapshot, case, folder)
    dataset = dict(class_name="training.dataset.ImageFolderDataset", path=str(folder), use_labels=True)
    options = partial(
        metric_utils.MetricOptions, G=made.G, device=torch.device("cpu"), dataset_kwargs=dataset, cache=False
    )
    row = partial(Agreement, case.name)
    detectors(metric_utils)
    with old_names(), installed(INCEPTION, VGG16):
        yield path_length(row, options(), snapshot)
        yield from image_metrics(row, options(G_kwargs=NOISE), snapshot, reals)
        yield from renderings(row, made.G, snapshot)


def write_reals(snapshot, case: Case, folder: Path) -> Tensor:
    """Labelled PNGs that a network like this one could have been trained on: its images under noise."""
    rng = torch.Generator().manual_seed(3)
    z = torch.randn(IMAGES, snapshot.G.z_dim, generator=rng)
    labels = torch.arange(IMAGES) % max(case.classes, 1)
    c = torch.eye(case.classes)[labels] if case.classes else None
    with torch.no_grad():
        images = snapshot.G(z, c, noise_mode="const")
    strength = torch.linspace(0, 0.8, IMAGES).view(-1, 1, 1, 1)
    images = to_uint8(images * (1 - strength) + strength * torch.randn(images.shape, generator=rng))
    names = [f"{i:03d}.png" for i in range(IMAGES)]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name)
    listed = [[name, int(label)] for name, label in zip(names, labels, strict=True)] if case.classes else None
    (folder / "dataset.json").write_text(json.dumps({"labels": listed}))
    return images


def detectors(metric_utils: types.ModuleType) -> None:
    """The reference's detectors by the addresses that its metric code names."""
    from benchmarks.imports.scripted_vgg16 import scripted_vgg16

    state = torch.load(torchvision_file(VGG16, "vgg16"), weights_only=True)
    lins = torch.load(package_file("lpips", "weights/v0.1/vgg.pth"), "cpu", weights_only=True)
    channel_weights = [lins[f"lin{i}.model.1.weight"] for i in range(5)]
    known = {"vgg16": scripted_vgg16(state, channel_weights)}
    known["inception-2015-12-05"] = torch.jit.load(script_file())

    def detector(url: str, **_: object):
        return known[metric_utils.get_feature_detector_name(url)]

    metric_utils.get_feature_detector = detector


def path_length(row: Callable[..., Agreement], options, snapshot) -> Agreement:
    """`ppl2_wend` on the latents, labels and noise of the reference."""
    from metrics import perceptual_path_length

    seed()
    with Draws(options.G) as draws:
        protocol = dict(epsilon=1e-4, space="w", sampling="end", crop=False, batch_size=PPL_BATCH)
        theirs = perceptual_path_length.compute_ppl(options, num_samples=PAIRS, **protocol)
    spec = get_spec(f"ppl{PAIRS}_wend_lpips_vgg")
    ours = compute_metric(spec, Inputs(Replayed(snapshot, draws, pairs=True), options.device)).value
    return row("ppl2_wend", PAIRS, ours, theirs, abs(ours - theirs) / theirs, *PPL)


def image_metrics(row: Callable[..., Agreement], options, snapshot, reals: Tensor) -> Iterator[Agreement]:
    """FID of its Inception and pr50k3, of as many images, against the same PNGs."""
    from metrics import frechet_inception_distance, metric_utils, precision_recall

    seed()
    with Draws(options.G) as draws:
        fid = frechet_inception_distance.compute_fid(options, max_real=None, num_gen=IMAGES)
    names = ["fid50k_full_inception_nvidia", "precision50k3_full", "recall50k3_full"]
    source = Replayed(snapshot, draws, pairs=False)
    found = compute(source.images(range(IMAGES)), reals, names, count=IMAGES)
    ours = {name: found[name].value for name in names}
    yield row("fid50k_full", IMAGES, ours[names[0]], fid, abs(ours[names[0]] - fid) / fid, *FID)
    sizes = dict(max_real=IMAGES, num_gen=IMAGES, nhood_size=3, row_batch_size=32, col_batch_size=32)
    with features_once(metric_utils):
        for rounded, reason in ((False, PR), (True, ROUNDED)):
            seed()  # the latents of the FID again
            with half_precision(precision_recall, rounded=rounded):
                both = precision_recall.compute_pr(options, **sizes)
            note = ", float16" if rounded else ""
            for name, their in zip(names[1:], both, strict=True):
                metric = f"pr50k3 {name.partition('50k')[0]}{note}"
                yield row(metric, IMAGES, ours[name], their, abs(ours[name] - their), *reason)


def renderings(row: Callable[..., Agreement], G: torch.nn.Module, snapshot) -> Iterator[Agreement]:
    """Both evaluation orders of the modulated convolution, by both programs."""
    rng = torch.Generator().manual_seed(4)
    z = torch.randn(RENDERED, snapshot.G.z_dim, generator=rng)
    classes = snapshot.G.c_dim
    c = torch.eye(classes)[torch.arange(RENDERED) % classes] if classes else None
    none = torch.zeros(RENDERED, 0)
    theirs, ours = {}, {}
    with torch.no_grad():
        for fused in (True, False):
            theirs[fused] = G(z, none if c is None else c, fused_modconv=fused, **NOISE)
            ours[fused] = snapshot.G(z, c, noise_mode="const", fused_modconv=fused)
    for fused, name in ((True, "fused"), (False, "unfused")):
        apart = float((ours[fused] - theirs[fused]).abs().max())
        pair = float(ours[fused].abs().max()), float(theirs[fused].abs().max())
        yield row(f"largest value, {name}", RENDERED, *pair, apart, *PIXELS)
    spread = [float((images[True] - images[False]).abs().max()) for images in (ours, theirs)]
    yield row("fused_maxabs", RENDERED, *spread, max(spread), *SPREAD)


def seed() -> None:
    """Of the global generators, which the reference draws from."""
    torch.manual_seed(5)
    np.random.seed(5)


@contextmanager
def old_names() -> Iterator[None]:
    """What the reference calls and this machine has no longer, or not."""
    percentile, sqrtm = np.percentile, scipy.linalg.sqrtm

    def of_numpy_1(*args, interpolation: str = "linear", **given):
        return percentile(*args, **({"method": interpolation} | given))

    with (
        mock.patch.object(np, "percentile", of_numpy_1),
        mock.patch.object(scipy.linalg, "sqrtm", lambda matrix, disp: (sqrtm(matrix), None)),
        mock.patch.object(torch.Tensor, "pin_memory", lambda tensor: tensor),
    ):
        yield


@contextmanager
def features_once(metric_utils: types.ModuleType) -> Iterator[None]:
    """The reference's feature sets, computed at the first call."""
    names = ("compute_feature_stats_for_dataset", "compute_feature_stats_for_generator")
    with ExitStack() as stack:
        for name in names:
            known: list[Any] = []

            def once(known=known, function=getattr(metric_utils, name), **given):
                known[:] = known or [function(**given)]
                return known[0]

            stack.enter_context(mock.patch.object(metric_utils, name, once))
        yield


def half_precision(module: types.ModuleType, *, rounded: bool) -> mock._patch:
    """Precision and recall on a CPU: every float16 is float32, or `rounded` from a float32 distance."""

    def cdist(a: Tensor, b: Tensor) -> Tensor:
        return torch.cdist(a.float(), b.float()).half()

    changed = {"cdist": cdist} if rounded else {"float16": torch.float32}
    return mock.patch.object(module, "torch", types.SimpleNamespace(**{**vars(torch), **changed}))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: both values, their difference and its tolerance, then every reason once."""
    head = ("program", "network", "metric", "images", "ours", "theirs", "difference", "tolerance")
    lines = [head, ["---"] * len(head)]
    reasons = list(dict.fromkeys(row["why"] for row in rows))
    for row in rows:
        bound = "none" if row["tolerance"] is None else f"{row['tolerance']:g}"
        lines.append(
            [
                *(row[key] for key in ("program", "network", "metric")),
                f"{row['count']}",
                *(f"{row[key]:.6g}" for key in ("ours", "theirs")),
                f"{row['difference']:.1e}",
                f"{bound} ({reasons.index(row['why']) + 1})",
            ]
        )
    notes = [f"{i}. {why}." for i, why in enumerate(reasons, start=1)]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *notes])


def faults(rows: list[dict[str, Any]]) -> list[str]:
    """What is beyond its tolerance."""
    bounded = [row for row in rows if row["tolerance"] is not None]
    wrong = [row for row in bounded if not row["difference"] <= row["tolerance"]]
    return [f"{row['program']}, {row['network']}: {row['metric']}" for row in wrong]
