"""Files of reference statistics: mean and covariance of the features of real images, from any project.

Readable are torch-fidelity's cache (`<name>-...-stat-fid-....pt`), npz files of `mu` and `sigma` (from
pytorch-fid, clean-fid, EDM), with `mu_s` and `sigma_s` (guided-diffusion), and NVIDIA's pickles (metric cache
of StyleGAN2-ADA and StyleGAN3; EDM2). Code inside a file is never executed: npz of plain numbers, and one
unpickler that builds arrays only (metrics/base/pickles.py). Sizes are checked before arrays are read. Our
files name the detector and the images; the others do not. A reference is identified by the hash of its
content, not by its name.
"""

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch

from fact_metrics.base.arrays import DAMAGED, open_npz
from fact_metrics.base.atomic import write_atomically
from fact_metrics.base.canonical import canonical_json
from fact_metrics.base.errors import UserError
from fact_metrics.base.limits import PICKLE, STATISTICS_WIDTH
from fact_metrics.base.pickles import PlainArray, read_pickle
from fact_metrics.base.schema import DatasetShape, fits, parse_document
from fact_metrics.engines.frechet import FeatureStatistics

NEEDS_IMAGES = "holds statistics, and this metric takes features: give the real images as the reference"
SUFFIXES = (".npz", ".pt", ".pkl", ".pickle", ".safetensors")
OURS = "fact-stylegan reference statistics"
SCHEMA = 1
# numpy.cov rounds less than this; a matrix with more asymmetry is not a covariance.
ASYMMETRY = 1e-6
# Keys of mean and covariance in other projects' files.
PAIRS = (("mu", "sigma"), ("mu_s", "sigma_s"))
SAVE_AGAIN = "save it again"


class MetadataShape(msgspec.Struct):
    """The metadata of a file of ours; safetensors stores texts only."""

    schema: str
    n: str
    correction: str
    detector: str
    dataset: str
    sha256: str


class DetectorShape(msgspec.Struct):
    """A detector's fingerprint, as far as messages quote it."""

    detector: str
    width: int


@dataclass(frozen=True)
class Moments:
    """Mean [D] and covariance [D, D], float64, divided by n - correction; n is None if not recorded."""

    mean: torch.Tensor
    cov: torch.Tensor
    n: int | None
    correction: int

    @property
    def width(self) -> int:
        return len(self.mean)


@dataclass(frozen=True)
class ReferenceStatistics:
    """The content of a file; `detector` and `dataset` describe the features in files of ours, else None."""

    path: Path
    kind: str
    parts: tuple[Moments, ...]
    detector: dict | None = None
    dataset: dict | None = None

    @property
    def sha256(self) -> str:
        """Hash of the content: equal statistics in files of different kinds are the same reference."""
        digest = hashlib.sha256()
        for part in self.parts:
            head = {"n": part.n, "correction": part.correction, "width": part.width}
            digest.update(canonical_json(head).encode())
            digest.update(part.mean.numpy().tobytes())
            digest.update(part.cov.numpy().tobytes())
        digest.update(canonical_json({"detector": self.detector, "dataset": self.dataset}).encode())
        return digest.hexdigest()

    def part(self, width: int) -> Moments | None:
        """The moments of features of that width; None if the file has none."""
        return next((part for part in self.parts if part.width == width), None)

    def statistics(self, width: int, *, correction: int) -> FeatureStatistics:
        """Statistics of features of that width; n = 0 if the file has no image count.

        If n is known, the covariance is rescaled to a division by n - correction. UserError for a width that
        the file does not have.
        """
        part = self.part(width)
        if part is None:
            widths = " and ".join(f"{part.width}" for part in self.parts)
            raise UserError(f"{self.path} holds statistics of {widths} features, the metric's are {width}")
        cov = part.cov
        if part.n is not None and part.correction != correction:
            cov = cov * ((part.n - part.correction) / (part.n - correction))
        return FeatureStatistics(part.n or 0, part.mean, cov, correction=correction)

    def describe(self) -> dict:
        """The content without the numbers, as JSON."""
        return {
            "file": self.path.name,
            "kind": self.kind,
            "sha256": self.sha256,
            "parts": [{"width": p.width, "n": p.n, "covariance": f"N - {p.correction}"} for p in self.parts],
            "detector": self.detector,
            "dataset": self.dataset,
        }


def is_statistics(path: str | Path) -> bool:
    """Whether the path is a file of statistics, not of images; the file may still be damaged."""
    path = Path(path).expanduser()
    if path.suffix not in SUFFIXES or not path.is_file():
        return False
    if path.suffix != ".npz":
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return any({f"{mu}.npy", f"{sigma}.npy"} <= set(archive.namelist()) for mu, sigma in PAIRS)
    except DAMAGED:
        return False


def read_statistics(path: str | Path) -> ReferenceStatistics:
    """The statistics of a file. UserError if it is damaged or of an unknown kind."""
    path = Path(path).expanduser()
    readers = {".npz": _read_npz, ".pt": _read_torch, ".safetensors": _read_ours}
    try:
        return readers.get(path.suffix, _read_pickle)(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def save_statistics(
    path: Path, statistics: FeatureStatistics, *, detector: dict, dataset: dict
) -> ReferenceStatistics:
    """Write statistics with the detector's fingerprint and the dataset's description; returns the content."""
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: statistics are saved as .safetensors; give that ending")
    part = Moments(statistics.mean.cpu(), statistics.cov.cpu(), statistics.n, statistics.correction)
    statistics_file = ReferenceStatistics(path, "fact-stylegan", (part,), detector, dataset)
    metadata = {
        "format": OURS,
        "schema": str(SCHEMA),
        "n": str(part.n),
        "correction": str(part.correction),
        "detector": canonical_json(detector),
        "dataset": canonical_json(dataset),
        "sha256": statistics_file.sha256,
    }
    content = save({"mean": part.mean.contiguous(), "cov": part.cov.contiguous()}, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda partial: partial.write_bytes(content) and None)
    return statistics_file


def _read_ours(path: Path) -> ReferenceStatistics:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != OURS:
                raise UserError(
                    f"{path} holds no reference statistics; fact-eval ref DATA --save FILE writes them"
                )
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in ("mean", "cov")}
            _check_shapes(path, shapes["mean"], shapes["cov"])
            tensors = {name: file.get_tensor(name) for name in ("mean", "cov")}
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); {SAVE_AGAIN}") from error
    try:
        fits(metadata, MetadataShape)
        n, correction = int(metadata["n"]), int(metadata["correction"])
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); {SAVE_AGAIN}") from error
    if metadata["schema"] != str(SCHEMA):
        raise UserError(f"{path} is of schema {metadata['schema']}; this version reads {SCHEMA}")
    if not (correction in (0, 1) and n > correction):
        raise UserError(f"{path} is damaged: {n} images; {SAVE_AGAIN}")
    part = _moments(path, tensors["mean"], tensors["cov"], n=n, correction=correction)
    detector = parse_document(metadata["detector"], DetectorShape, path, way_out=SAVE_AGAIN)
    dataset = parse_document(metadata["dataset"], DatasetShape, path, way_out=SAVE_AGAIN)
    statistics = ReferenceStatistics(path, "fact-stylegan", (part,), detector, dataset)
    if statistics.sha256 != metadata["sha256"]:
        raise UserError(f"{path} is damaged: its hash does not match; {SAVE_AGAIN}")
    return statistics


def _read_npz(path: Path) -> ReferenceStatistics:
    with open_npz(path) as archive:
        arrays = {}
        for mu, sigma in PAIRS:
            if {mu, sigma} <= set(archive.names):
                _check_shapes(path, archive.header(mu).shape, archive.header(sigma).shape)
                arrays |= {name: archive.read(name) for name in (mu, sigma)}
        names = _listed(archive.names)
    parts = _pairs(path, arrays)
    if not parts:
        raise UserError(f"{path} holds {names}; statistics are called mu and sigma")
    kind = "npz of mu, sigma, mu_s, sigma_s" if len(parts) > 1 else "npz of mu and sigma"
    return ReferenceStatistics(path, kind, parts)


def _read_torch(path: Path) -> ReferenceStatistics:
    """torch-fidelity's cache of FID statistics: a dict of two numpy arrays, written by torch.save."""
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
            PICKLE.check(archive.getinfo(name).file_size, path, "save its arrays with numpy.savez")
            data = archive.read(name)
    except OSError:
        raise
    except DAMAGED as error:
        raise UserError(f"{path} is not a statistics file of torch-fidelity ({error})") from error
    content = read_pickle(data, source=path)
    parts = _pairs(path, content) if isinstance(content, dict) else ()
    if not parts:
        raise UserError(f"{path} holds {_listed(content)}; torch-fidelity's FID statistics are mu and sigma")
    return ReferenceStatistics(path, "torch-fidelity", parts)


def _read_pickle(path: Path) -> ReferenceStatistics:
    """NVIDIA's pickles. Only arrays and plain values are read; any other class is rejected."""
    PICKLE.check(path.stat().st_size, path, "save its arrays with numpy.savez")
    content = read_pickle(path.read_bytes(), source=path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__}, no statistics")
    if content.get("raw_mean") is not None and content.get("raw_cov") is not None:
        return ReferenceStatistics(path, "NVIDIA metric cache", (_nvidia(path, content),))
    parts = _pairs(path, content)
    for value in content.values():  # EDM2: one pair per metric
        parts += _pairs(path, value) if isinstance(value, dict) else ()
    if not parts:
        raise UserError(f"{path} holds {_listed(content)}; statistics are called mu and sigma")
    return ReferenceStatistics(path, "NVIDIA pickle of mu and sigma", parts)


def _listed(content: object) -> str:
    """What a file holds instead of statistics, in a few words."""
    if not isinstance(content, dict | list):
        return type(content).__name__
    names = [str(name)[:40] for name in list(content)[:8]]
    return ", ".join(names) or "nothing"


def _nvidia(path: Path, content: Mapping) -> Moments:
    """StyleGAN's FeatureStats: sums of x and of x x' over N = num_items images, both divided by N."""
    n = content.get("num_items")
    if type(n) is not int or n < 1:
        raise UserError(f"{path} is not a metric cache of StyleGAN (num_items is {str(n)[:20]})")
    mean, second = (_array(path, content[name]) for name in ("raw_mean", "raw_cov"))
    _check_shapes(path, mean.shape, second.shape)
    mean, second = (torch.from_numpy(sums.astype(np.float64)) / n for sums in (mean, second))
    return _moments(path, mean, second - mean.outer(mean), n=n, correction=0)


def _pairs(path: Path, content: Mapping) -> tuple[Moments, ...]:
    """Every mean and covariance under the usual names; they are divided by N - 1, and N is not stored."""
    pairs = [(content[mu], content[sigma]) for mu, sigma in PAIRS if {mu, sigma} <= set(content)]
    return tuple(_moments(path, mu, sigma, n=None, correction=1) for mu, sigma in pairs)


def _array(path: Path, value: object) -> np.ndarray:
    """An array of a file, of plain numbers; a pickle's array is built here."""
    try:
        value = value.numpy() if isinstance(value, PlainArray | torch.Tensor) else value
    except (UserError, TypeError, RuntimeError) as error:
        raise UserError(f"{path}: {error}; save it with numpy.savez") from error
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise UserError(f"{path}: mean and covariance are not plain numbers ({type(value).__name__})")
    return value


def _check_shapes(path: Path, mean: tuple[int, ...], cov: tuple[int, ...]) -> None:
    """Raise UserError unless these are the shapes of a mean and a covariance that are read."""
    if len(mean) != 1 or cov != (mean[0], mean[0]) or mean[0] == 0:
        raise UserError(f"{path}: a mean of shape {list(mean)} has no covariance of shape {list(cov)}")
    STATISTICS_WIDTH.check(mean[0], path, "give the real images as the reference")


def _moments(path: Path, mean, cov, *, n: int | None, correction: int) -> Moments:
    """Checked moments in float64. UserError if the values are not a mean and a covariance."""
    mean, cov = (_array(path, x) for x in (mean, cov))
    _check_shapes(path, mean.shape, cov.shape)
    mean, cov = (torch.from_numpy(x.astype(np.float64)) for x in (mean, cov))
    if not (torch.isfinite(mean).all() and torch.isfinite(cov).all()):
        raise UserError(f"{path} holds values that are not finite")
    if (cov - cov.T).abs().max() > ASYMMETRY * cov.abs().max() or (cov.diagonal() < 0).any():
        raise UserError(f"{path}: not a covariance: not symmetric, or a negative variance")
    return Moments(mean, (cov + cov.T) / 2, n, correction)
