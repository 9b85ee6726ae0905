"""Parity of what is computed from images: SSIM, PSNR, MSE, and PPL against a plain rewrite."""

import math

import numpy as np
import torch
from torch import nn

from benchmarks.parity import Parity
from fact_eval.checks.peers import mse_scikit_learn
from fact_metrics.engines.pair_distances import compute_mse, compute_psnr, compute_ssim
from fact_metrics.engines.path_length import PATHS, LatentPath, compute_ppl, measure_path
from fact_metrics.features import Detector


def picture_pairs(n: int, *, channels: int = 3, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth random float32 pictures [n, C, size, size] in [-1, 1] and noisy versions of them."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, channels, 8, 8, generator=rng) * 2 - 1
    a = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return a, (a + 0.2 * torch.randn(a.shape, generator=rng)).clamp(-1, 1)


def plain_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of one channel [H, W] in [0, 1]: Wang et al. 2004, eq. 13, with the filter of scipy.ndimage."""
    from scipy.ndimage import gaussian_filter

    def local(x):
        return gaussian_filter(x, 1.5, radius=5)[5:-5, 5:-5]

    ma, mb = local(a), local(b)
    va, vb, cov = local(a * a) - ma * ma, local(b * b) - mb * mb, local(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    return float(np.mean((2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))))


def ssim() -> Parity:
    a, b = picture_pairs(4)
    channels = [((x.double() + 1) / 2).flatten(0, 1).numpy() for x in (a, b)]
    return Parity(
        metric="SSIM",
        setting="4 RGB pairs of 64 px",
        ours=compute_ssim(a, b).mean().item(),
        peer="definition, scipy.ndimage",
        theirs=float(np.mean([plain_ssim(x, y) for x, y in zip(*channels, strict=True)])),
        tolerance=1e-6,
    )


def mse() -> Parity:
    a, b = picture_pairs(4)
    return Parity(
        metric="MSE",
        setting="4 RGB pairs of 64 px",
        ours=compute_mse(a, b).mean().item(),
        peer="scikit-learn",
        theirs=mse_scikit_learn(a, b),
        tolerance=1e-6,
    )


def psnr() -> Parity:
    a, b = picture_pairs(1)
    error = np.mean((a.double().numpy() - b.double().numpy()) ** 2)
    return Parity(
        metric="PSNR",
        setting="one RGB pair of 64 px",
        ours=compute_psnr(a, b).item(),
        peer="definition, numpy",
        theirs=float(20 * np.log10(2) - 10 * np.log10(error)),
        tolerance=1e-6,
    )


class WavesGenerator:
    """GeneratorInputs in float64: a mapping network of one layer, images of waves whose phases are w."""

    z_dim, num_ws, w_dim, num_channels = 8, 2, 6, 1

    def __init__(self, resolution: int) -> None:
        self.resolution = resolution
        rng = np.random.default_rng(0)
        self.weight = torch.from_numpy(rng.normal(size=(self.z_dim, self.w_dim)) / self.z_dim**0.5)
        axis = torch.linspace(0, 1, resolution, dtype=torch.float64)
        directions = torch.from_numpy(rng.normal(size=(self.w_dim, 2)) * 6)
        self.phases = directions[:, :1, None] * axis[:, None] + directions[:, 1:, None] * axis

    def latents(self, indices, *, stream="image"):
        salt = {"image": 0, "path end": 1, "path position": 2}[stream]
        rows = [np.random.default_rng([salt, i]).normal(size=self.z_dim) for i in indices]
        return torch.from_numpy(np.stack(rows))

    def labels(self, indices):
        return None

    def mapping(self, z, c):
        normal = z / z.square().mean(dim=1, keepdim=True).sqrt()
        return torch.tanh(normal @ self.weight).unsqueeze(1).expand(-1, self.num_ws, -1)

    def noise(self, indices, *, stream="image"):
        rows = [np.random.default_rng([3, i]).normal(size=(1, 4, 4)) for i in indices]
        return [torch.from_numpy(np.stack(rows))]

    def synthesis(self, ws, noise, *, fused_modconv=None):
        waves = sum(
            torch.sin(phase + 3 * w[:, None, None]) / self.w_dim
            for phase, w in zip(self.phases, ws[:, 0].T, strict=True)
        )
        rough = nn.functional.interpolate(noise[0], size=self.phases.shape[1:], mode="nearest")
        return waves.unsqueeze(1) + 0.1 * rough * waves.unsqueeze(1).square()

    def progress(self, done, total):
        pass


class SquaredDifferences(Detector):
    """A distance without weights, in the precision of the images: the mean squared difference."""

    name, width = "squared_differences", 1

    def settings(self):
        return {}

    def embed(self, images):
        return images.float().mean(dim=(1, 2, 3)).unsqueeze(1)

    def distance(self, a, b):
        return (a - b).square().mean(dim=(1, 2, 3))


def plain_ppl(generator, detector, path: LatentPath, *, samples: int, epsilon: float = 1e-4) -> float:
    """PPL written down from its definition, one image at a time."""

    def image(i: int, latent: np.ndarray) -> np.ndarray:
        latent = torch.from_numpy(latent)
        if path.space == "z":
            latent = generator.mapping(latent[None], generator.labels([i]))[0]
        x = generator.synthesis(latent[None], generator.noise([i]))[0].numpy()
        if path.crop:
            c = x.shape[1] // 8
            x = x[:, 3 * c : 7 * c, 2 * c : 6 * c]
        f = x.shape[1] // 256
        return x if f < 2 else x.reshape(len(x), x.shape[1] // f, f, x.shape[2] // f, f).mean(axis=(2, 4))

    def on_the_sphere(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
        a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
        across = b - np.dot(a, b) * a
        angle = t * np.arccos(np.dot(a, b))
        return a * np.cos(angle) + across / np.linalg.norm(across) * np.sin(angle)

    distances = []
    for i in range(samples):
        ends = [generator.latents([i], stream=stream)[0].numpy() for stream in ("image", "path end")]
        t = 0.0
        if path.sampling == "full":
            t = (1 + math.erf(generator.latents([i], stream="path position")[0, 0] / math.sqrt(2))) / 2
        if path.space == "z":
            steps = [on_the_sphere(*ends, t), on_the_sphere(*ends, t + epsilon)]
        else:
            a, b = (
                generator.mapping(torch.from_numpy(z)[None], generator.labels([i]))[0].numpy() for z in ends
            )
            steps = [a + (b - a) * t, a + (b - a) * (t + epsilon)]
        pair = [torch.from_numpy(image(i, step))[None] for step in steps]
        distances.append(detector.distance(*pair).item() / epsilon**2)
    low, high = np.percentile(distances, 1, method="lower"), np.percentile(distances, 99, method="higher")
    return float(np.mean([x for x in distances if low <= x <= high]))


def _ppl(name: str, *, resolution: int, pairs: int) -> Parity:
    generator, detector = WavesGenerator(resolution), SquaredDifferences()
    distances = measure_path(generator, detector, PATHS[name], pairs=range(pairs))
    return Parity(
        metric="PPL",
        setting=f"{name}, {pairs} pairs of {resolution} px in float64",
        ours=compute_ppl(distances),
        peer="plain rewrite",
        theirs=plain_ppl(generator, detector, PATHS[name], samples=pairs),
        tolerance=1e-6,
    )


# From 102 pairs on the percentiles cut something off; from 512 px on images are averaged down.
def ppl_zfull() -> Parity:
    return _ppl("ppl_zfull", resolution=64, pairs=250)


def ppl_zend() -> Parity:
    return _ppl("ppl_zend", resolution=64, pairs=250)


def ppl_wfull() -> Parity:
    return _ppl("ppl_wfull", resolution=64, pairs=250)


def ppl_wend() -> Parity:
    return _ppl("ppl_wend", resolution=64, pairs=250)


def ppl2_wend() -> Parity:
    return _ppl("ppl2_wend", resolution=64, pairs=250)


def ppl2_wend_large() -> Parity:
    return _ppl("ppl2_wend", resolution=512, pairs=10)


ROWS = (
    ssim,
    mse,
    psnr,
    ppl_zfull,
    ppl_zend,
    ppl_wfull,
    ppl_wend,
    ppl2_wend,
    ppl2_wend_large,
)
