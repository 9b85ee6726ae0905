"""One run in its folder: steps, ticks, pictures and saves, until the target is reached or a signal comes."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from fact_metrics.base.atomic import write_json
from fact_metrics.base.devices import available_threads
from fact_metrics.base.errors import UserError
from fact_train import distributed, run_folder
from fact_train.snapshot import save_snapshot
from fact_train.training import checkpoint, grids
from fact_train.training.run_log import RunLog, tick_line
from fact_train.training.signals import StopSignal, stop_signal
from fact_train.training.stats import StatsWriter, peak_memory_gb
from fact_train.training.threads import choose_threads, fell, may_choose
from fact_train.training.trackers import SafeTracker, Tracked
from fact_train.training.trainer import Trainer

AfterSnapshot = Callable[..., None]  # (outdir, device=, say=, done=)


class NonFiniteLoss(UserError):
    """Training diverged; the message names the step, the term and the last good checkpoint."""


class Stopped(UserError):
    """A signal ended the run after its state was saved. Exit 130 for Ctrl-C, 75 for SIGTERM."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass
class TickClock:
    """When and at how many images the present tick began."""

    nimg: int
    started: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class StepEnd:
    """What is to be done after a step."""

    tick: int
    tick_over: bool
    done: bool  # the target is reached
    signum: int  # signal that any process received, 0 without one
    saving: bool


@dataclass
class Run:
    """A trainer, the folder it trains in, and what the run writes there.

    `target` is in images. Rank 0 writes; the other processes train, and call
    `after_snapshot(outdir, device=, say=, done=)` when rank 0 does.
    """

    trainer: Trainer
    outdir: Path
    run_id: str
    target: int
    log: RunLog
    resumed_from: Path | None = None  # checkpoint
    after_snapshot: AfterSnapshot | None = None
    promised: float | None = None  # img/s of the probe
    writer: StatsWriter | None = field(default=None, init=False)  # of rank 0, while the run trains

    @property
    def is_complete(self) -> bool:
        """Whether the target is reached and its snapshot is written."""
        return self.trainer.nimg >= self.target and self._has_snapshot()

    @property
    def snapshot_path(self) -> Path:
        """File of the snapshot at the images shown so far."""
        return self.outdir / run_folder.snapshot_name(self.trainer.nimg)

    def _has_snapshot(self) -> bool:
        """Whether the snapshot of the present state is written; its name alone is shared within one kimg."""
        path = self.snapshot_path
        try:
            return path.exists() and run_folder.snapshot_nimg(path) == self.trainer.nimg
        except UserError:  # damaged: written again
            return False

    @cached_property
    def grid(self) -> grids.SampleGrid:
        """The latents of all pictures of the run."""
        return self.trainer.model.grid()

    def save_first_pictures(self) -> None:
        """reals.png and, of the untrained network, fakes_init.png."""
        trainer = self.trainer
        if self.log.enabled:
            reals = grids.real_grid(trainer.dataset, seed=trainer.cfg.seed)
            grids.save_png(self.outdir / "reals.png", reals)
            grids.save_png(self.outdir / "fakes_init.png", self.grid.draw(trainer.model.gan.G_ema))

    def train(self) -> None:
        """Step until the target. NonFiniteLoss where training diverges, Stopped after a signal."""
        nimg = self.trainer.nimg
        if self.log.enabled:
            if self._is_save_point(nimg) and not self._has_snapshot():
                self.save_snapshot()  # a kill came between the state and its snapshot
            (self.outdir / run_folder.DIVERGED_FILE).unlink(missing_ok=True)
        self.writer = self._open_writer() if self.log.enabled else None
        with stop_signal() as stop, self.log.live(target=self.target, done=nimg):
            self._step_to_target(stop)
        if self.writer is not None:
            self.writer.close()

    def _open_writer(self) -> StatsWriter:
        cfg = self.trainer.cfg
        tracker = None
        if cfg.log_to != "none":
            tracked = Tracked(self.run_id, self.outdir, cfg.to_dict())
            tracker = SafeTracker(cfg.log_to, tracked, self.log.say)
        return StatsWriter(self.outdir, nimg=self.trainer.nimg, tracker=tracker)

    def save_final_snapshot(self) -> Path:
        """Path of the snapshot where training ended, written now if the loop has not written it.

        It has not where the run had stopped exactly at its end, or had passed the target long ago.
        """
        if self.log.enabled and not self._has_snapshot():
            self.save_snapshot()
        return self.snapshot_path

    def save_snapshot(self) -> None:
        """Write the networks as they are now."""
        save_snapshot(
            self.snapshot_path,
            self.trainer.model.snapshot_networks,
            cfg=self.trainer.cfg,
            dataset=self.trainer.dataset.describe(),
            nimg=self.trainer.nimg,
            run_id=self.run_id,
            classifier=self.trainer.model.classifier_card,
        )

    def notify(self, *, done: bool) -> None:
        """Call `after_snapshot`, if there is one."""
        if self.after_snapshot is not None:
            device = str(self.trainer.device)
            self.after_snapshot(self.outdir, device=device, say=self.log.say, done=done)

    def _step_to_target(self, stop: StopSignal) -> None:
        on_cpu = self.trainer.device.type == "cpu"
        clock = TickClock(self.trainer.nimg)
        while self.trainer.nimg < self.target:
            end = self._step(stop)
            if on_cpu or end.tick_over or end.saving:  # on a GPU, reading the flag would wait for the device
                self._refuse_non_finite(weights=end.saving)
            if end.signum and not end.done:
                self._stop(end.signum)
            if end.tick_over or end.done:
                self._end_tick(end, clock)
                clock = TickClock(self.trainer.nimg)

    def _step(self, stop: StopSignal) -> StepEnd:
        trainer = self.trainer
        trainer.step()
        self.log.advance(trainer.nimg)
        done = trainer.nimg >= self.target
        tick, tick_over = self._tick(trainer.nimg)
        signum = distributed.any_rank(stop.number, trainer.device)
        saving = done or bool(signum) or self._is_save_point(trainer.nimg)
        return StepEnd(tick, tick_over, done, signum, saving)

    def _tick(self, nimg: int) -> tuple[int, bool]:
        """The tick at `nimg` images, and whether the step that led there ended one."""
        tick_images = max(round(self.trainer.cfg.kimg_per_tick * 1000), 1)
        tick = nimg // tick_images
        return tick, tick > (nimg - self.trainer.cfg.batch) // tick_images and nimg > 0

    def _is_save_point(self, nimg: int) -> bool:
        tick, tick_over = self._tick(nimg)
        return tick_over and tick % self.trainer.cfg.snapshot_ticks == 0

    def _end_tick(self, end: StepEnd, clock: TickClock) -> None:
        """Report the tick; pictures, snapshot and checkpoint where they are due."""
        now = time.perf_counter()
        stats = self.trainer.stats.collect()
        if end.saving:
            self.trainer.share_state()
        if self.writer is not None:
            self._write_stats(end.tick, stats, now, clock)
            if end.done or end.tick % self.trainer.cfg.image_ticks == 0:
                self._write_pictures()
            if end.saving:
                # The state first: a folder with snapshots and no state has lost it.
                checkpoint.save_checkpoint(self.outdir, self.trainer)
                self.save_snapshot()
        if end.saving and not end.done:  # the last snapshot: once training has ended
            self.notify(done=False)
            if self.trainer.cfg.follow_load:
                self._choose_threads()

    def _write_stats(self, tick: int, stats: dict, now: float, clock: TickClock) -> None:
        nimg = self.trainer.nimg
        seconds, images = now - clock.started, nimg - clock.nimg
        timing = {
            "Timing/sec_per_kimg": seconds / (images / 1000),
            "Timing/img_per_sec": images / seconds,
            "Timing/total_sec": now - self.log.started,
            "Resources/peak_mem_gb": peak_memory_gb(self.trainer.device),
        }
        self.log.say(tick_line(tick, nimg, stats, timing))
        self._warn_once(images / seconds)
        progress = {"Progress/tick": tick, "Progress/kimg": nimg / 1000}
        self.writer.write({**stats, **timing, **progress}, nimg=nimg)

    def _warn_once(self, img_per_sec: float) -> None:
        """Say once that the run has become slow beside other programs, if it does not follow their load."""
        trainer = self.trainer
        if self.promised is None or trainer.cfg.follow_load or not may_choose(trainer.device):
            return
        warning = fell(img_per_sec, promised=self.promised, threads=trainer.threads)
        if warning is not None:
            self.log.say(warning)
            self.promised = None

    def _choose_threads(self) -> None:
        """Choose the threads again, at a checkpoint that is saved: a resume from it repeats the choice."""
        trainer, before = self.trainer, self.trainer.threads
        choice = choose_threads(trainer, most=available_threads())
        if trainer.threads != before:
            self.log.say(choice.describe(amount=trainer.cfg.batch, unit="img/s"))
            for warning in run_folder.note_start(self.outdir, nimg=trainer.nimg, machine=trainer.machine):
                self.log.say(f"warning: {warning}")

    def _write_pictures(self) -> None:
        nimg = self.trainer.nimg
        for name, picture in self.trainer.model.pictures(self.grid).items():
            grids.save_png(self.outdir / f"{name}{nimg // 1000:06d}.png", picture)
            self.writer.image(name, picture, nimg=nimg)

    def _stop(self, signum: int) -> None:
        self.trainer.share_state()
        if self.writer is not None:
            checkpoint.save_checkpoint(self.outdir, self.trainer)
        raise Stopped(
            f"stopped by {signal.Signals(signum).name} at {self.trainer.nimg / 1000:g} kimg with the state "
            f"saved in {self.outdir}; run the same command again to continue.",
            130 if signum == signal.SIGINT else 75,
        )

    def _refuse_non_finite(self, *, weights: bool) -> None:
        """NonFiniteLoss where a reported term, or with `weights` a weight, is not finite."""
        trainer = self.trainer
        not_finite = trainer.stats.first_non_finite()
        if not_finite is None and weights and not trainer.weights_finite():
            not_finite = ("a weight", trainer.steps - 1)
        if not_finite is None:
            return
        term, step = not_finite
        good = checkpoint.list_checkpoints(self.outdir)
        way_back = f"the last good checkpoint is {good[-1]}" if good else "no checkpoint had been saved yet"
        message = (
            f"{term} is not finite at step {step} ({step * trainer.cfg.batch / 1000:g} kimg); {way_back}. "
            "Lower --g-lr and --d-lr, or raise --r1-gamma."
        )
        if self.log.enabled:
            found = {"term": term, "step": step, "kimg": step * trainer.cfg.batch / 1000, "message": message}
            write_json(self.outdir / run_folder.DIVERGED_FILE, found)
        raise NonFiniteLoss(message)
