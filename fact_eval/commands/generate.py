"""`fact-eval generate`: images of a snapshot by seed, a grid, an interpolation, a style-mixing matrix."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fact_eval.commands.options import Batch, DeviceName, Threads, say
from fact_metrics.base.errors import UsageError

# Kind of output -> the endings of --out, the empty one for a folder; reports/sample_files.py has the writers.
ENDINGS = {
    "images": ("", ".zip", ".npz"),
    "grid": (".png",),
    "interpolate": (".webp", ".gif", ".mp4"),
    "mix": (".png",),
}
# Option -> the kind that it needs.
OPTIONS_OF = {
    "columns": "grid",
    "frames": "interpolate",
    "fps": "interpolate",
    "loop": "interpolate",
    "mix_layers": "mix",
}
FRAMES, FPS, MOST_FPS, COLUMNS = 30, 25.0, 50, 10


def generate(
    snapshot: Annotated[Path, typer.Argument(help="A checkpoint, or a run folder for its latest snapshot.")],
    out: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="Folder, .zip or .npz for images; .png for --grid and --mix; .webp, .gif or .mp4 for "
            "--interpolate. It must not exist.",
        ),
    ],
    seeds: Annotated[
        str,
        typer.Option(
            metavar="SEEDS",
            help="Image seeds: 0, a list such as 0,1,2 or a range such as 0-99. Seed S * 10000000 + I is "
            "image I of evaluation seed S.",
        ),
    ] = "0-15",
    psi: Annotated[
        float, typer.Option(metavar="FLOAT", help="Truncation towards the mean w; 1 is none, as in scoring.")
    ] = 1.0,
    class_index: Annotated[
        int | None,
        typer.Option(
            "--class",
            metavar="INT",
            help="Class of all images. [default: labels of random training images, as in scoring]",
        ),
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Write one picture of all seeds.")] = False,
    columns: Annotated[
        int | None,
        typer.Option(min=1, metavar="INT", help=f"With --grid: images in a row. [default: {COLUMNS}]"),
    ] = None,
    interpolate: Annotated[
        Literal["z", "w"] | None,
        typer.Option(
            metavar="z|w",
            help="Write an animation from seed to seed: on great circles in z, or on straight lines in w.",
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="INT", help=f"With --interpolate: frames from seed to seed. [default: {FRAMES}]"
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(metavar="FLOAT", help=f"With --interpolate: frames per second. [default: {FPS:g}]"),
    ] = None,
    loop: Annotated[
        bool | None,
        typer.Option(
            "--loop/--no-loop", help="With --interpolate: return to the first seed. [default: --loop]"
        ),
    ] = None,
    mix: Annotated[
        str | None,
        typer.Option(
            metavar="SEEDS",
            help="Write a style-mixing matrix: --seeds are its rows, these seeds its columns.",
        ),
    ] = None,
    mix_layers: Annotated[
        str | None,
        typer.Option(
            metavar="LAYERS",
            help="With --mix: layers whose style comes from the column, such as 0-3. "
            "[default: the first half, the coarse ones]",
        ),
    ] = None,
    noise: Annotated[
        Literal["random", "const", "off"] | None,
        typer.Option(
            metavar="random|const|off",
            help="Noise inputs. [default: as in scoring; const with --interpolate and --mix]",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="Training images of a conditional generator, if their location has changed.",
        ),
    ] = None,
    device: DeviceName = "auto",
    batch: Batch = 64,
    threads: Threads = None,
) -> None:
    """Generate images of a checkpoint.

    The same seeds give the same images as in scoring. Images carry their seed in their name and PNG text.
    """
    kind = _kind(grid, interpolate, mix)
    given = {"columns": columns, "frames": frames, "fps": fps, "loop": loop, "mix_layers": mix_layers}
    _check_options(kind, {name for name, value in given.items() if value is not None})
    _check_out(out, kind)
    if fps is not None and not 0 < fps <= MOST_FPS:
        raise UsageError(f"--fps {fps:g}: it must be above 0 and at most {MOST_FPS}")
    if noise == "random" and kind in ("interpolate", "mix"):
        raise UsageError(f"--noise random would differ between the images of --{kind}; use const or off")

    from fact_eval.reports.sample_files import check_animation, write_animation, write_images, write_picture
    from fact_eval.reports.sampler import (
        Sampler,
        interpolate_seeds,
        labels_for,
        mix_styles,
        open_checkpoint,
        parse_image_seeds,
        parse_layers,
    )
    from fact_metrics.base.devices import resolve_device, set_threads
    from fact_metrics.base.progress import Progress

    numbers = parse_image_seeds(seeds, "--seeds")
    column_seeds = parse_image_seeds(mix, "--mix") if mix is not None else ()
    if interpolate and len(numbers) < 2:
        raise UsageError(f"--interpolate {interpolate} needs two seeds or more, --seeds {seeds} is one")
    check_animation(out)
    chosen = str(resolve_device(device))
    set_threads(threads)
    loaded = open_checkpoint(snapshot, device=chosen)
    labels_of = labels_for(loaded, data=data, class_index=class_index)
    sampler = Sampler(loaded, psi=psi, noise=noise, labels_of=labels_of, device=chosen, batch=batch)
    text = sampler.describe(class_index=class_index)
    if kind == "mix":
        layers = parse_layers(mix_layers, loaded.G.num_ws)
        text |= {"rows": seeds, "columns": mix, "layers": ",".join(map(str, layers))}
        cells = mix_styles(sampler, numbers, column_seeds, layers=layers)
        write_picture(out, cells, columns=len(column_seeds) + 1, text=text)
    elif kind == "interpolate":
        loop = loop is not False
        frames = frames or FRAMES
        total = frames * (len(numbers) if loop else len(numbers) - 1) + (not loop)
        with Progress().stage(f"{out.name}, generating", total, unit="frames", patience=5.0) as stage:
            pictures = interpolate_seeds(sampler, numbers, space=interpolate, frames=frames, loop=loop)
            write_animation(out, _counted(pictures, stage), fps=fps or FPS)
    else:
        with Progress().stage(f"{out.name}, generating", len(numbers), patience=5.0) as stage:
            batches = _counted(sampler.draw(numbers), stage, sizes=lambda item: len(item[0]))
            if kind == "grid":
                images = [images for _, images in batches]
                text |= {"seeds": seeds}
                write_picture(out, images, columns=min(columns or COLUMNS, len(numbers)), text=text)
            else:
                write_images(out, batches, count=len(numbers), text=text)
    say(f"{kind}: {len(numbers):,} seeds of {loaded.path.name}, psi {psi:g}")
    print(out)


def _kind(grid: bool, interpolate: str | None, mix: str | None) -> str:
    chosen = [
        name
        for name, wanted in (("grid", grid), ("interpolate", interpolate), ("mix", mix is not None))
        if wanted
    ]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} write different files; give one of them")
    return chosen[0] if chosen else "images"


def _check_options(kind: str, given: set[str]) -> None:
    for name in OPTIONS_OF:
        if name in given and OPTIONS_OF[name] != kind:
            raise UsageError(f"--{name.replace('_', '-')} needs --{OPTIONS_OF[name]}")


def _check_out(out: Path, kind: str) -> None:
    endings = ENDINGS[kind]
    if out.suffix.lower() not in endings:
        known = " or ".join(ending or "a folder" for ending in endings)
        what = "single images go to" if kind == "images" else f"--{kind} writes"
        raise UsageError(f"--out {out}: {what} {known}")
    if out.exists():
        raise UsageError(f"--out {out} exists; delete it or choose another name")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out}: the folder {out.parent} does not exist")


def _counted(items, stage, sizes=lambda item: 1):
    """The items as they are; the stage follows them."""
    done = 0
    for item in items:
        yield item
        stage.update(done := done + sizes(item))
