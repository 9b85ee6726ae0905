"""What a run reports: means over a tick, whether each term is finite, stats.jsonl and TensorBoard."""

import json
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fact_metrics.base.atomic import write_text
from fact_metrics.base.schema import BadDocument, decode
from fact_train.run_folder import TickShape
from fact_train.training.trackers import SafeTracker


class Stats:
    """Running count, sum and sum of squares of named tensors, in float64 on their device.

    Each entry also holds the first step whose values were not finite, so that no step has to wait for a GPU
    to find out.
    """

    def __init__(self) -> None:
        self._entries: dict[str, Tensor] = {}

    def report(self, name: str, values: Tensor, *, step: int) -> None:
        """Add the values of one step under a name such as Loss/G."""
        x = values.detach().double().flatten()
        new = torch.stack([torch.full_like(x[0], x.numel()), x.sum(), x.square().sum()])
        bad = torch.where(new[1].isfinite(), -1.0, float(step)).double()
        old = self._entries.get(name)
        if old is not None:
            new = old[:3] + new
            bad = torch.where(old[3] >= 0, old[3], bad)
        self._entries[name] = torch.cat([new, bad.reshape(1)])

    def first_non_finite(self) -> tuple[str, int] | None:
        """(term, step) of the earliest non-finite report, or None."""
        bad = [(int(e[3]), name) for name, e in self._entries.items() if float(e[3]) >= 0]
        return (min(bad)[1], min(bad)[0]) if bad else None

    def collect(self) -> dict[str, dict[str, float]]:
        """{name: {mean, std, num}} since the last call; starts afresh."""
        out = {}
        for name, entry in sorted(self._entries.items()):
            count, total, squares, _ = entry.tolist()
            mean = total / count
            out[name] = {
                "mean": mean,
                "std": math.sqrt(max(squares / count - mean * mean, 0.0)),
                "num": int(count),
            }
        self._entries = {}
        return out

    def state_dict(self) -> dict[str, Tensor]:
        return {name: entry.cpu().clone() for name, entry in self._entries.items()}

    def load_state_dict(self, state: dict[str, Tensor], *, device: torch.device | str = "cpu") -> None:
        """Go on from a state. Raises ValueError where an entry is not of this class."""
        if any(entry.shape != (4,) or entry.dtype != torch.float64 for entry in state.values()):
            raise ValueError("statistics of another form")
        self._entries = {name: entry.to(device) for name, entry in state.items()}


class StatsWriter:
    """Appends one JSON line a tick to stats.jsonl and the same values to TensorBoard and the tracker.

    Opening at `nimg` > 0 first deletes the ticks that an interrupted run wrote beyond that point, so that no
    tick stands there twice.
    """

    def __init__(self, outdir: Path, *, nimg: int, tracker: SafeTracker | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter  # heavy; only a training run needs it

        self.path, self._tracker = Path(outdir) / "stats.jsonl", tracker
        _rewind(self.path, nimg=nimg)
        if not isinstance(threading.excepthook, _QuietThreads):
            threading.excepthook = _QuietThreads(threading.excepthook)
        self._board = SummaryWriter(log_dir=str(outdir), purge_step=nimg // 1000 if nimg else None)

    def write(self, values: dict, *, nimg: int) -> None:
        """`values` is Stats.collect() plus scalars of the tick."""
        line = json.dumps({**values, "nimg": nimg, "timestamp": time.time()}, allow_nan=False)
        with open(self.path, "a", encoding="utf-8") as f:
            f.write(line + "\n")
            f.flush()
            os.fsync(f.fileno())
        scalars = {name: v["mean"] if isinstance(v, dict) else v for name, v in values.items()}
        for name, scalar in scalars.items():
            self._board.add_scalar(name, scalar, global_step=nimg // 1000)
        self._board.flush()
        if self._tracker is not None:
            self._tracker.call("write", scalars, kimg=nimg // 1000)

    def image(self, name: str, pixels: Tensor, *, nimg: int) -> None:
        """A [C, H, W] uint8 picture."""
        self._board.add_image(name, pixels, global_step=nimg // 1000)
        if self._tracker is not None:
            self._tracker.call("image", name, pixels, kimg=nimg // 1000)

    def close(self) -> None:
        self._board.close()
        if self._tracker is not None:
            self._tracker.call("close")


class _QuietThreads:
    """A threading.excepthook for TensorBoard: its next call raises the error again, where it counts."""

    def __init__(self, before: Callable[[threading.ExceptHookArgs], object]) -> None:
        self._before = before

    def __call__(self, args: threading.ExceptHookArgs) -> None:
        if not (isinstance(args.exc_value, OSError) and type(args.thread).__name__ == "_AsyncWriterThread"):
            self._before(args)


def peak_memory_gb(device: torch.device) -> float:
    """Most memory so far, GiB: of the device where it is a GPU, of the process otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _rewind(path: Path, *, nimg: int) -> None:
    """Delete the ticks after `nimg` images, and all for 0."""
    if not path.exists():
        return
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            tick = decode(line, TickShape, path, way_out="remove the line")
        except BadDocument:
            continue  # a line torn by a crash
        if tick.nimg <= nimg and nimg > 0:
            lines.append(line)
    write_text(path, "".join(line + "\n" for line in lines))
