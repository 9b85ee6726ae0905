"""Files of generated images: a folder, zip or npz of single ones, a PNG of many, an animation.

Every single PNG has its seed in its name and, with everything else that made it, in its text.
"""

import io
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from fact_metrics.base.atomic import write_atomically
from fact_metrics.base.errors import UsageError, UserError
from fact_train.data.pixels import allocate_images

Batches = Iterable[tuple[Sequence[int], Tensor]]  # (seeds, uint8 images [N, C, H, W])
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the same images give the same bytes


def write_images(out: Path, batches: Batches, *, count: int, text: Mapping[str, str]) -> None:
    """Write `count` images as IMAGE_FILES[suffix of out] does; complete or not at all."""
    IMAGE_FILES[out.suffix.lower()](out, batches, count, text)


def write_picture(out: Path, parts: Iterable[Tensor], *, columns: int, text: Mapping[str, str]) -> None:
    """Write images, parts [N, C, H, W], as one PNG, row by row; what a last row lacks is white."""
    images = torch.cat(list(parts))
    missing = torch.full((-len(images) % columns, *images.shape[1:]), 255, dtype=torch.uint8)
    n, c, h, w = (images := torch.cat([images, missing])).shape
    sheet = images.reshape(n // columns, columns, c, h, w).permute(2, 0, 3, 1, 4)
    content = _png(sheet.reshape(c, n // columns * h, columns * w), text)
    write_atomically(out, lambda partial: partial.write_bytes(content) and None)


def write_animation(out: Path, frames: Iterable[Tensor], *, fps: float) -> None:
    """Write frames uint8 [C, H, W] as ANIMATIONS[suffix of out] does; webp and gif repeat without end."""
    write = ANIMATIONS[out.suffix.lower()]
    write_atomically(out, lambda partial: write(partial, map(_picture, frames), fps))


def check_animation(out: Path) -> None:
    """Raise UsageError for an mp4 on a machine without ffmpeg."""
    if out.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        raise UsageError(f"--out {out}: mp4 needs ffmpeg, which is not installed; use .webp or .gif")


# Single images


def _write_folder(out: Path, batches: Batches, count: int, text: Mapping[str, str]) -> None:
    with _whole_folder(out) as folder:
        for name, content in _named_pngs(batches, text):
            (folder / name).write_bytes(content)


def _write_zip(out: Path, batches: Batches, count: int, text: Mapping[str, str]) -> None:
    def write(partial: Path) -> None:
        with zipfile.ZipFile(partial, "w") as archive:  # stored: PNGs are compressed already
            for name, content in _named_pngs(batches, text):
                archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), content)

    write_atomically(out, write)


def _write_npz(out: Path, batches: Batches, count: int, text: Mapping[str, str]) -> None:
    """`images` uint8 [N, H, W, C], `seeds` int64 [N], and a text for each entry of `text`."""
    images, seeds = None, np.zeros(count, np.int64)
    done = 0
    for part, batch in batches:
        rows = batch.permute(0, 2, 3, 1).numpy()
        if images is None:
            images = allocate_images((count, *rows.shape[1:]))
        images[done : done + len(part)], seeds[done : done + len(part)] = rows, part
        done += len(part)

    def write(partial: Path) -> None:
        with open(partial, "wb") as file:  # savez appends .npz to a path
            np.savez(
                file, images=images, seeds=seeds, **{name: np.array(value) for name, value in text.items()}
            )

    write_atomically(out, write)


IMAGE_FILES: dict[str, Callable[[Path, Batches, int, Mapping[str, str]], None]] = {
    "": _write_folder,
    ".zip": _write_zip,
    ".npz": _write_npz,
}


def _named_pngs(batches: Batches, text: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    for seeds, images in batches:
        for seed, image in zip(seeds, images, strict=True):
            yield f"seed{seed:08d}.png", _png(image, {"seed": str(seed), **text})


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A new folder that becomes `out` when the block ends; nothing is left of it after an error."""
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, out)
    except OSError as error:
        raise UserError(f"could not save {out}: {error.strerror or error}; free some space") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


# Pictures


def _picture(image: Tensor) -> Image.Image:
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def _png(image: Tensor, text: Mapping[str, str]) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, value in text.items():
        info.add_text(name, value)
    file = io.BytesIO()
    _picture(image).save(file, "PNG", pnginfo=info)
    return file.getvalue()


# Animations


def _write_with_pillow(form: str, **options) -> Callable[[Path, Iterator[Image.Image], float], None]:
    def write(path: Path, frames: Iterator[Image.Image], fps: float) -> None:
        first = next(frames)
        first.save(
            path, form, save_all=True, append_images=frames, duration=round(1000 / fps), loop=0, **options
        )

    return write


def _write_mp4(path: Path, frames: Iterator[Image.Image], fps: float) -> None:
    """H.264 by ffmpeg, which reads raw frames; sides become even, as its colour format needs."""
    first = next(frames).convert("RGB")
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{first.width}x{first.height}", "-r", f"{fps:g}"]
    even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    command = ["ffmpeg", "-y", "-loglevel", "error", *raw, "-i", "-", *even, "-f", "mp4", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            process.stdin.write(first.tobytes())
            for frame in frames:
                process.stdin.write(frame.convert("RGB").tobytes())
        except BrokenPipeError:
            pass  # ffmpeg has given up; its message follows
        _, complaint = process.communicate()
    if process.returncode:
        raise UserError(f"ffmpeg failed: {' '.join(complaint.decode(errors='replace').split())[:300]}")


ANIMATIONS = {
    ".webp": _write_with_pillow("WEBP", quality=90, method=4),
    ".gif": _write_with_pillow("GIF"),
    ".mp4": _write_mp4,
}
