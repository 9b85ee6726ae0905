"""Named resize modes of the detectors; a mode is part of a detector's fingerprint (evaluation.md, section 2).

none      images keep their size
torch     F.interpolate bilinear, half-pixel centres, no antialias (pytorch-fid, clean-fid legacy_pytorch)
torch-aa  the same with antialias: equal to `torch` when enlarging (torchmetrics >= 1.8)
tf1       TensorFlow 1: bilinear, source = target * in / out without half pixel, no antialias;
          torch-fidelity's to the bit (torch-fidelity, guided-diffusion)
tf1-grid  the same by grid sampling in float32, whose positions are rounded: `tf1` to 0.03 at 1,024 pixels
          (NVIDIA's TorchScript, clean-fid legacy_tensorflow)
clean     Pillow's bicubic with antialias on float channels, clipped to [0, 255]; to 3e-5 of
          255 (clean-fid)
pil-u8    Pillow's bicubic with antialias on uint8, to the bit (CMMD, dgm-eval's DINOv2, clean-fid's CLIP)

Every mode works on whole batches on the device of the images.
"""

import functools
import math

import torch
import torch.nn.functional as F

RESIZE_MODES = ("none", "torch", "torch-aa", "tf1", "tf1-grid", "clean", "pil-u8")
# Pillow's arithmetic on uint8: weights in units of 2^-22, rounded after each of the two passes.
PILLOW_BITS = 22
PILLOW_CUBIC = -0.5
CUBIC_SUPPORT = 2.0


def resize(images: torch.Tensor, *, mode: str, size: int | tuple[int, int] | None = None) -> torch.Tensor:
    """Images [N, C, H, W] at [size, size] or at (height, width), not quantised except by `pil-u8`.

    Floats in [0, 255] give floats; `pil-u8` takes uint8 and gives float32 whole numbers. Raises ValueError on
    an unknown mode or another type.
    """
    if mode not in RESIZE_MODES:
        raise ValueError(f"unknown resize mode {mode!r}; known: {', '.join(RESIZE_MODES)}")
    if (mode == "pil-u8") != (images.dtype == torch.uint8):
        raise ValueError(f"resize mode {mode} takes {'uint8' if mode == 'pil-u8' else 'float'} images")
    shape = (size, size) if isinstance(size, int) else size
    if mode == "none" or tuple(images.shape[-2:]) == shape:
        return images if images.is_floating_point() else images.float()
    if mode == "tf1":
        return _tf1(images, shape)
    if mode == "tf1-grid":
        return _tf1_grid(images, shape)
    if mode == "pil-u8":
        return _pillow_u8(images, shape)
    if mode == "clean":
        return _clean(images, shape)
    return F.interpolate(
        images, size=shape, mode="bilinear", align_corners=False, antialias=mode == "torch-aa"
    )


def _clean(images: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """In float64, where torch's kernel is Pillow's to 3e-5; with float32 weights it is off by up to 0.009."""
    resized = F.interpolate(images.double(), size=shape, mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp_(0, 255).to(images.dtype)


def _tf1(images: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Columns first, then rows, each as low + (high - low) * share: torch-fidelity's order of rounding."""
    (above, below, down), (left, right, across) = (
        _tf1_taps(length, size, images.device) for length, size in zip(images.shape[-2:], shape, strict=True)
    )
    if images.shape[-2] > 2 * shape[0]:  # most rows are read by nobody
        rows = torch.cat([above, below]).unique()
        images = images.index_select(-2, rows)
        above, below = torch.searchsorted(rows, above), torch.searchsorted(rows, below)
    first, second = images.index_select(-1, left), images.index_select(-1, right)
    images = second.sub_(first).mul_(across).add_(first)  # one rounding each: addcmul would fuse two
    first, second = images.index_select(-2, above), images.index_select(-2, below)
    return second.sub_(first).mul_(down.unsqueeze(-1)).add_(first)


def _tf1_grid(images: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """A grid with half pixels, moved by half a source pixel less half a target pixel; the border is held."""
    height, width = images.shape[-2:]
    theta = torch.eye(2, 3, device=images.device)
    theta[0, 2], theta[1, 2] = 1 / width - 1 / shape[1], 1 / height - 1 / shape[0]
    theta = theta.expand(len(images), -1, -1)
    grid = F.affine_grid(theta, [*images.shape[:2], *shape], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _tf1_taps(
    length: int, size: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Indices of the two pixels each target lies between, and the second one's share, in float32."""
    scale = torch.tensor(length / size, dtype=torch.float32, device=device)
    position = torch.arange(size, dtype=torch.float32, device=device) * scale
    low = position.long()
    return low, (low + 1).clamp_max_(length - 1), position - low


def _pillow_u8(images: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Whole-number weights times bytes are exact in float64, so both passes round as Pillow's integers do.

    Columns first, as Pillow does for square images, and did for all before version 13.
    """
    x = images.double()
    half, unit = 2.0 ** (PILLOW_BITS - 1), 2.0**PILLOW_BITS
    rows, columns = (
        _pillow_weights(n, size).to(x.device) for n, size in zip(x.shape[-2:], shape, strict=True)
    )
    if x.shape[-1] != shape[1]:
        x = ((x @ columns.T + half) / unit).floor_().clamp_(0, 255)
    if x.shape[-2] != shape[0]:
        x = ((rows @ x + half) / unit).floor_().clamp_(0, 255)
    return x.float()


@functools.lru_cache(maxsize=8)
def _pillow_weights(length: int, size: int) -> torch.Tensor:
    """[size, length] float64 whole numbers: the antialiased cubic kernel, each row summing to about 2^22.

    Rows are normalised before they are rounded, half away from zero.
    """
    scale = length / size
    stretch = max(scale, 1.0)
    support = CUBIC_SUPPORT * stretch
    weights = torch.zeros(size, length, dtype=torch.float64)
    for index in range(size):
        centre = (index + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), length)
        row = [_cubic((x - centre + 0.5) / stretch) for x in range(first, last)]
        total = math.fsum(row)
        rounded = [math.trunc(w / total * 2**PILLOW_BITS + math.copysign(0.5, w)) for w in row]
        weights[index, first:last] = torch.tensor(rounded, dtype=torch.float64)
    return weights


def _cubic(x: float) -> float:
    """Keys' cubic convolution kernel with a = -0.5."""
    x, a = abs(x), PILLOW_CUBIC
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    if x < 2:
        return (((x - 5) * x + 8) * x - 4) * a
    return 0.0
