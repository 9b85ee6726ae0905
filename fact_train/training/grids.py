"""Sample grids: real images, and generated ones from the same latents throughout a run."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from fact_metrics.base.atomic import write_atomically
from fact_metrics.base.image_size import ImageSize, Resolution
from fact_metrics.base.pixels import to_uint8
from fact_train.data import Dataset
from fact_train.networks.generator import Generator
from fact_train.seeds import generator_for


def grid_size(resolution: Resolution) -> tuple[int, int]:
    """(rows, columns) so that the picture is about 640-2560 pixels wide and half as high."""
    size = ImageSize.of(resolution)
    columns = min(max(2560 // size.width, 4), 20)
    return max(min(columns * size.width // (2 * size.height), 20), 2), columns


def tile(images: Tensor, columns: int) -> Tensor:
    """[N, C, H, W] to one picture [C, rows * H, columns * W]."""
    n, c, h, w = images.shape
    rows = n // columns
    return (
        images[: rows * columns]
        .reshape(rows, columns, c, h, w)
        .permute(2, 0, 3, 1, 4)
        .reshape(c, rows * h, columns * w)
    )


def save_png(path: Path, picture: Tensor) -> None:
    """Write a uint8 picture [C, H, W], C 1 or 3, atomically."""
    array = picture.permute(1, 2, 0).cpu().numpy()
    image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    write_atomically(path, lambda partial: image.save(partial, format="PNG"))


def real_grid(dataset: Dataset, *, seed: int) -> Tensor:
    """Picture of real images; with labels, one row a class if the rows suffice."""
    return tile(dataset.images(grid_indices(dataset, seed=seed)), grid_size(dataset.resolution)[1])


def grid_indices(dataset: Dataset, *, seed: int) -> Tensor:
    """Indices of the images in reals.png, row by row: int64 [rows * columns]."""
    rows, columns = grid_size(dataset.resolution)
    gen = generator_for("cpu", "grid", seed)
    order = torch.randperm(len(dataset), generator=gen)
    labels = _class_labels(dataset)
    if labels is not None:
        of_class = [order[labels[order] == k][:columns] for k in range(dataset.num_classes)]
        chosen = [idx for idx in of_class if len(idx) == columns][:rows]
        if len(chosen) == rows:
            return torch.cat(chosen)
    return order[torch.arange(rows * columns) % len(order)]


class SampleGrid:
    """The same latents, labels and noise maps every time it is drawn.

    `c` [rows * columns, c_dim] replaces the labels: the class parts of w in StylEx.
    """

    def __init__(
        self,
        G: Generator,
        dataset: Dataset,
        *,
        seed: int,
        device: torch.device,
        c: Tensor | None = None,
    ) -> None:
        self.rows, self.columns = grid_size(G.img_resolution)
        count = self.rows * self.columns
        gen = generator_for("cpu", "grid", seed)
        self.z = torch.randn(count, *G.z_shape, generator=gen).to(device)
        self.c = None if c is None else c.to(device)
        if G.c_dim and c is None:
            classes = torch.arange(self.rows).repeat_interleave(self.columns) % G.c_dim
            self.c = torch.nn.functional.one_hot(classes, G.c_dim).float().to(device)
            if _class_labels(dataset) is None:  # vector labels: take those of real images
                index = torch.randint(len(dataset), [count], generator=gen)
                self.c = dataset.labels(index).to(device)

    @torch.no_grad()
    def draw(self, G: Generator, *, batch: int = 50) -> Tensor:
        """Picture [C, H, W] uint8 of G's samples at these latents, constant noise."""
        parts = []
        for i in range(0, len(self.z), batch):
            c = None if self.c is None else self.c[i : i + batch]
            parts.append(to_uint8(G(self.z[i : i + batch], c, noise_mode="const")).cpu())
        return tile(torch.cat(parts), self.columns)


def pairs_picture(above: Tensor, below: Tensor, columns: int) -> Tensor:
    """Two sets of images [N, C, H, W] as one picture: each row of `above`, then the same row of `below`."""
    rows = [torch.cat([a, b]) for a, b in zip(above.split(columns), below.split(columns), strict=True)]
    return tile(torch.cat(rows), columns)


def _class_labels(dataset: Dataset) -> Tensor | None:
    if not dataset.num_classes:
        return None
    labels = dataset.labels(torch.arange(len(dataset)))
    return labels if labels.dtype == torch.int64 else None
