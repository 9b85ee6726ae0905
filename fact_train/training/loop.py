"""Training from a configuration: open the data, resume, probe, then run (run.py) until done."""

import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from fact_metrics.base.devices import resolve_device, set_threads
from fact_metrics.base.errors import UsageError
from fact_metrics.base.memory import keep_freed_memory
from fact_metrics.base.progress import Progress
from fact_train import distributed, run_folder
from fact_train.data import Dataset, open_dataset
from fact_train.settings.config import TrainConfig
from fact_train.training import checkpoint
from fact_train.training.initial import read_initial
from fact_train.training.preflight import refuse_full_disk, start_notes
from fact_train.training.probe import probe
from fact_train.training.run import AfterSnapshot, Run
from fact_train.training.run_log import RunLog
from fact_train.training.threads import choose_threads, may_choose
from fact_train.training.trackers import check_tracker
from fact_train.training.trainer import Trainer


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
    check_tracker(cfg.log_to)
    run_folder.check_folder(outdir, cfg)
    keep_freed_memory()
    device = resolve_device(cfg.device)
    # A resumed run keeps its threads: on a CPU the last bits depend on them.
    kept = run_folder.last_threads(outdir) if device.type == "cpu" else None
    threads = set_threads(cfg.threads or kept)
    distributed.init(device)
    try:
        trainer = Trainer(cfg, _open_data(cfg), device, threads=threads)
        if cfg.follow_load and not may_choose(device):
            raise UsageError("--follow-load: it needs one process on a CPU; leave it out.")
        with run_folder.locked(outdir) if distributed.rank() == 0 else nullcontext():
            choice = None
            if threads > 1 and not (cfg.threads or kept) and may_choose(device):
                choice = choose_threads(trainer, most=threads)
            run = _open_run(trainer, Path(outdir), preset, label, after_snapshot)
            if choice is not None:
                run.log.say(choice.describe(amount=cfg.batch, unit="img/s"))
            return _train(run)
    finally:
        distributed.shutdown()


def _open_data(cfg: TrainConfig) -> Dataset:
    with Progress(quiet=distributed.rank() > 0).decoding(cfg.data) as progress:
        return open_dataset(
            cfg.data,
            split="train",
            resolution=cfg.resolution,
            resize=cfg.resize,
            crop=cfg.crop,
            channels=cfg.channels,
            alpha=cfg.alpha,
            max_images=cfg.max_images,
            labels=cfg.labels,
            image_key=cfg.image_key,
            need_labels=cfg.cond,
            progress=progress,
        )


def _open_run(
    trainer: Trainer, outdir: Path, preset: str, label: str, after_snapshot: AfterSnapshot | None
) -> Run:
    """The run of a folder at its newest checkpoint. Rank 0 writes the folder's options, the others read."""
    is_rank_0 = distributed.rank() == 0
    log = RunLog(outdir, enabled=is_rank_0)
    cfg, initial = trainer.cfg, None
    if cfg.init is not None and not checkpoint.list_checkpoints(outdir):
        initial = read_initial(cfg, trainer.model)
    if is_rank_0:
        run_id = run_folder.prepare(
            outdir,
            cfg,
            preset=preset,
            label=label,
            dataset=trainer.dataset.describe(),
            classifier=trainer.model.classifier_card,
            machine=trainer.machine,
            init=None if initial is None else initial.describe(),
        )
    distributed.barrier()
    if not is_rank_0:
        run_id = run_folder.read_options(outdir)["run_id"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resumed_from = checkpoint.load_latest(outdir, trainer)
    for warning in caught:
        log.say(f"warning: {warning.message}")
    if initial is not None:
        log.say(initial.load_into(trainer.model))
    return Run(
        trainer=trainer,
        outdir=outdir,
        run_id=run_id,
        target=round(cfg.kimg * 1000),
        log=log,
        resumed_from=resumed_from,
        after_snapshot=after_snapshot,
    )


def _train(run: Run) -> Result:
    """Train a run to its target, unless it is there."""
    trainer = run.trainer
    if run.is_complete:
        run.notify(done=True)
        return Result(run.outdir, run.snapshot_path, trainer.nimg, trained=False)
    if distributed.rank() == 0:
        for warning in run_folder.note_start(run.outdir, nimg=trainer.nimg, machine=trainer.machine):
            run.log.say(f"warning: {warning}")
        refuse_full_disk(run.outdir, trainer)
    for note in [*start_notes(trainer), *trainer.model.notes]:
        run.log.say(note)
    if run.resumed_from is None:
        run.save_first_pictures()
    measured = probe(trainer)
    on_cpu = trainer.device.type == "cpu"
    workers = trainer.pool.describe() if on_cpu else f"{trainer.threads} CPU threads"
    run.log.say(f"device {trainer.device}, {distributed.world_size()} process(es), {workers}")
    run.promised = measured.img_per_sec
    run.log.say(measured.describe(images_left=run.target - trainer.nimg))
    if run.resumed_from is not None:
        run.log.say(f"resuming at {trainer.nimg / 1000:g} kimg from {run.resumed_from.name}")
    run.train()
    path = run.save_final_snapshot()
    run.notify(done=True)
    return Result(run.outdir, path, trainer.nimg, trained=True)
