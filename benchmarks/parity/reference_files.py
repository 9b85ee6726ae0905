"""Weight files in the formats of the reference packages, filled with random numbers, and PNGs to try them on.

The published files cannot be downloaded everywhere; equality of the code can be shown with any weights.
Random ones are scaled so that activations neither vanish nor explode.
"""

import functools
import hashlib
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fact_metrics.features import weight_store

IMAGES, RESOLUTION = 3, 64
# A matrix of more numbers than this repeats them, a row starting so many after the one above: small files.
LARGE, STEP = 2_000_000, 97


@functools.cache
def folder() -> Path:
    """A temporary folder for as long as the process lives."""
    keep = tempfile.TemporaryDirectory()
    folder.keep = keep
    return Path(keep.name)


@functools.cache
def pictures() -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Files of two sets of three colour PNGs, smooth with noise on top: first of low, then of high contrast.

    A network with random weights maps all images to nearly one direction, and their contrast to the length
    of that vector. Of two sets of equal contrast FID is a small difference of large numbers: it multiplies
    a relative error of the features by up to 57 (`Case.fid_condition`). With these sets the factor is 5.
    """
    rng = np.random.default_rng(0)
    sets = []
    for name, contrast, noise in (("low", 8, 3), ("high", 100, 70)):
        (folder() / name).mkdir()
        for i in range(IMAGES):
            coarse = rng.normal(128, contrast, (3, 6, 6))
            smooth = nn.functional.interpolate(
                torch.from_numpy(coarse)[None], size=RESOLUTION, mode="bicubic"
            )
            image = smooth[0].permute(1, 2, 0).numpy() + rng.normal(0, noise, (RESOLUTION, RESOLUTION, 3))
            path = folder() / name / f"{i}.png"
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)
        sets.append(tuple(sorted((folder() / name).glob("*.png"))))
    return sets[0], sets[1]


def read_pictures(files: tuple[Path, ...]) -> Tensor:
    """uint8 [N, 3, H, W]."""
    return torch.stack([torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for path in files])


def random_tensors(shapes: Mapping[str, tuple[int, ...]], *, seed: int = 0) -> dict[str, Tensor]:
    """Tensors under those names: N(0, 2 / fan in) for weights, about 1 for gains, above 0 for variances."""
    rng = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            tensors[name] = _matrix(shape, rng)
        elif name.endswith("var"):
            tensors[name] = 0.5 + torch.rand(shape, generator=rng)
        elif name.endswith(("weight", "gamma")):
            tensors[name] = 0.75 + 0.5 * torch.rand(shape, generator=rng)
        else:
            tensors[name] = 0.1 * torch.randn(shape, generator=rng)
    return tensors


def shapes_of(net: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's tensors, counters of training left out."""
    state = net.state_dict()
    return {name: tuple(v.shape) for name, v in state.items() if not name.endswith("num_batches_tracked")}


def save(name: str, tensors: Mapping[str, Tensor]) -> Path:
    """The tensors as a state dict, under the published file name."""
    path = folder() / weight_store.WEIGHTS[name].filename
    torch.save(dict(tensors), path)
    return path


def save_script(name: str, script: torch.jit.ScriptModule) -> Path:
    """The module as TorchScript, under the published file name."""
    path = folder() / weight_store.WEIGHTS[name].filename
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(script, path)
    return path


def script_of(tensors: Mapping[str, Tensor]) -> torch.jit.ScriptModule:
    """A TorchScript module that does nothing and holds those tensors, as an archive of a network does."""
    root = nn.Module()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        module.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(root)


@contextmanager
def installed(*names: str) -> Iterator[None]:
    """Within it the files saved under these names are the published ones: their hashes are the right ones."""
    published = {name: weight_store.WEIGHTS[name] for name in names}
    before = os.environ.get(weight_store.FOLDER)
    os.environ[weight_store.FOLDER] = str(folder())
    for name, file in published.items():
        content = (folder() / file.filename).read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        weight_store.WEIGHTS[name] = replace(file, sha256=sha256, sha256_prefix=None, bytes=len(content))
    try:
        yield
    finally:
        weight_store.WEIGHTS.update(published)
        if before is None:
            del os.environ[weight_store.FOLDER]
        else:
            os.environ[weight_store.FOLDER] = before


def _matrix(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    columns = math.prod(shape[1:])
    scale = (2 / columns) ** 0.5
    if math.prod(shape) <= LARGE:
        return scale * torch.randn(shape, generator=rng)
    numbers = scale * torch.randn(shape[0] * STEP + columns, generator=rng)
    return numbers.as_strided((shape[0], columns), (STEP, 1)).unflatten(1, shape[1:])
