"""The training loop: set up, resume, probe, then step, tick, save until done. Nothing else."""

import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from fact_metrics.base.devices import resolve_device, set_threads
from fact_metrics.base.errors import UserError
from fact_metrics.base.memory import keep_freed_memory
from fact_metrics.base.progress import Progress
from fact_train import distributed, run_folder
from fact_train.data import open_dataset
from fact_train.settings.config import TrainConfig
from fact_train.snapshot import save_snapshot
from fact_train.training import checkpoint, grids
from fact_train.training.probe import Probe, probe
from fact_train.training.run_log import RunLog, tick_line
from fact_train.training.stats import StatsWriter, peak_memory_gb
from fact_train.training.stylex import new_trainer
from fact_train.training.trainer import Trainer

AfterSnapshot = Callable[..., None]  # (outdir, device=, say=, done=)


class NonFiniteLoss(UserError):
    """Training diverged; the message names the step, the term and the last good checkpoint."""


class Stopped(UserError):
    """A signal ended the run after its state was saved. Exit 130 for Ctrl-C, 75 for SIGTERM."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Result:
    """What a finished call did."""

    outdir: Path
    snapshot: Path
    nimg: int
    trained: bool  # False: the run was complete already


def train(
    cfg: TrainConfig, outdir: Path, *, preset: str, label: str, after_snapshot: AfterSnapshot | None = None
) -> Result:
    """Train until cfg.kimg, going on from the folder's newest checkpoint.

    `after_snapshot(outdir, device=, say=, done=)` is called by every process after each snapshot, and with
    `done` once training has ended. UserError for whatever the user can mend.
    """
    keep_freed_memory()
    device = resolve_device(cfg.device)
    threads = set_threads(cfg.threads)
    distributed.init(device)
    try:
        return _train(cfg, Path(outdir), preset, label, device, threads, after_snapshot)
    finally:
        distributed.shutdown()


def _train(
    cfg: TrainConfig,
    outdir: Path,
    preset: str,
    label: str,
    device: torch.device,
    threads: int,
    after_snapshot: AfterSnapshot | None,
) -> Result:
    """Rank 0 holds the folder and writes; the other processes of a group only train."""
    with Progress(quiet=distributed.rank() > 0).decoding(cfg.data) as progress:
        dataset = open_dataset(
            cfg.data,
            split="train",
            resolution=cfg.resolution,
            resize=cfg.resize,
            crop=cfg.crop,
            channels=cfg.channels,
            alpha=cfg.alpha,
            max_images=cfg.max_images,
            progress=progress,
        )
    trainer = new_trainer(cfg, dataset, device, threads=threads)
    with run_folder.locked(outdir) if distributed.rank() == 0 else nullcontext():
        return _train_locked(trainer, outdir, preset, label, threads, after_snapshot)


def _train_locked(
    trainer: Trainer,
    outdir: Path,
    preset: str,
    label: str,
    threads: int,
    after_snapshot: AfterSnapshot | None,
) -> Result:
    lead = distributed.rank() == 0
    log = RunLog(outdir, enabled=lead)
    cfg, dataset, device = trainer.cfg, trainer.dataset, trainer.device
    if lead:
        run_id = run_folder.prepare(
            outdir,
            cfg,
            preset=preset,
            label=label,
            dataset=dataset.describe(),
            classifier=trainer.card,
        )
    distributed.barrier()
    if not lead:
        run_id = run_folder.read_options(outdir)["run_id"]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resumed = checkpoint.load_latest(outdir, trainer)
    for w in caught:
        log.say(f"warning: {w.message}")
    target = round(cfg.kimg * 1000)
    final = outdir / run_folder.snapshot_name(trainer.nimg)
    saved = after_snapshot and partial(after_snapshot, outdir, device=str(device), say=log.say)
    if trainer.nimg >= target and final.exists():
        if saved is not None:
            saved(done=True)
        return Result(outdir, final, trainer.nimg, trained=False)

    for note in trainer.notes:
        log.say(note)
    grid = trainer.grid()
    if lead and resumed is None:
        grids.save_png(outdir / "reals.png", grids.real_grid(dataset, seed=cfg.seed))
        grids.save_png(outdir / "fakes_init.png", grid.draw(trainer.G_ema))
    found: Probe = probe(trainer)
    workers = trainer.crew.describe() if device.type == "cpu" else f"{threads} CPU threads"
    log.say(f"device {device}, {distributed.world_size()} process(es), {workers}")
    log.say(found.describe(images_left=target - trainer.nimg))
    if resumed is not None:
        log.say(f"resuming at {trainer.nimg / 1000:g} kimg from {resumed.name}")

    writer = StatsWriter(outdir, nimg=trainer.nimg) if lead else None
    with _signals() as stop, log.live(target=target, done=trainer.nimg):
        _loop(trainer, cfg, outdir, run_id, grid, writer, log, stop, target, saved)
    if writer is not None:
        writer.close()
    final = outdir / run_folder.snapshot_name(trainer.nimg)
    if lead and not final.exists():  # stopped exactly at the end, or a target that was passed long ago
        _save_snapshot(final, trainer, run_id)
    if saved is not None:
        saved(done=True)
    return Result(outdir, final, trainer.nimg, trained=True)


def _loop(
    trainer: Trainer,
    cfg: TrainConfig,
    outdir: Path,
    run_id: str,
    grid: grids.SampleGrid,
    writer: StatsWriter | None,
    log: RunLog,
    stop: list[int],
    target: int,
    saved: Callable[..., None] | None,
) -> None:
    tick_size = max(round(cfg.kimg_per_tick * 1000), 1)
    on_cpu = trainer.device.type == "cpu"
    tick_start, tick_nimg = time.perf_counter(), trainer.nimg
    while trainer.nimg < target:
        before = trainer.nimg
        trainer.step()
        log.advance(trainer.nimg)
        done = trainer.nimg >= target
        tick, passed = trainer.nimg // tick_size, trainer.nimg // tick_size > before // tick_size
        signum = distributed.any_rank(stop[0], trainer.device)
        saving = done or signum or (passed and tick % cfg.snapshot_ticks == 0)
        if on_cpu or passed or saving:  # on a GPU, reading the flag would wait for the device
            _refuse_non_finite(trainer, outdir, weights=bool(saving))
        if signum and not done:
            if writer is not None:
                checkpoint.save_checkpoint(outdir, trainer)
            code = 130 if signum == signal.SIGINT else 75
            raise Stopped(
                f"stopped by {signal.Signals(signum).name} at {trainer.nimg / 1000:g} kimg with the state "
                f"saved in {outdir}; run the same command again to go on.",
                code,
            )
        if not (passed or done):
            continue
        now = time.perf_counter()
        stats = trainer.stats.collect()
        seconds, images = now - tick_start, trainer.nimg - tick_nimg
        tick_start, tick_nimg = now, trainer.nimg
        if writer is None:
            if saving and not done and saved is not None:
                saved(done=False)
            continue
        timing = {
            "Timing/sec_per_kimg": seconds / (images / 1000),
            "Timing/img_per_sec": images / seconds,
            "Timing/total_sec": now - log.started,
            "Resources/peak_mem_gb": peak_memory_gb(trainer.device),
        }
        log.tick(tick_line(tick, trainer.nimg, stats, timing))
        writer.write(
            {**stats, **timing, "Progress/tick": tick, "Progress/kimg": trainer.nimg / 1000},
            nimg=trainer.nimg,
        )
        if done or tick % cfg.image_ticks == 0:
            for name, picture in trainer.pictures(grid).items():
                grids.save_png(outdir / f"{name}{trainer.nimg // 1000:06d}.png", picture)
                writer.image(name, picture, nimg=trainer.nimg)
        if saving:
            _save_snapshot(outdir / run_folder.snapshot_name(trainer.nimg), trainer, run_id)
            checkpoint.save_checkpoint(outdir, trainer)
            if not done and saved is not None:
                saved(done=False)
        tick_start = time.perf_counter()


def _save_snapshot(path: Path, trainer: Trainer, run_id: str) -> None:
    save_snapshot(
        path,
        trainer.snapshot_networks,
        cfg=trainer.cfg,
        dataset=trainer.dataset.describe(),
        nimg=trainer.nimg,
        run_id=run_id,
        classifier=trainer.card,
    )


def _refuse_non_finite(trainer: Trainer, outdir: Path, *, weights: bool) -> None:
    found = trainer.stats.first_non_finite()
    if found is None and weights and not trainer.weights_finite():
        found = ("a weight", trainer.steps - 1)
    if found is None:
        return
    term, step = found
    good = checkpoint.list_checkpoints(outdir)
    kept = f"the last good checkpoint is {good[-1]}" if good else "no checkpoint had been saved yet"
    raise NonFiniteLoss(
        f"{term} is not finite at step {step} ({step * trainer.cfg.batch / 1000:g} kimg); {kept}. "
        "Lower --g-lr and --d-lr, or raise --r1-gamma."
    )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A one-element list that holds the number of the first SIGINT or SIGTERM; a second one acts at once."""
    stop = [0]
    previous = {}

    def handle(signum: int, frame: object) -> None:
        stop[0] = signum
        for s, old in previous.items():
            signal.signal(s, old)

    for s in (signal.SIGINT, signal.SIGTERM):
        previous[s] = signal.signal(s, handle)
    try:
        yield stop
    finally:
        for s, old in previous.items():
            signal.signal(s, old)
