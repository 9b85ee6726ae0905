"""Progress is for people: lines where nobody watches, bars on a terminal, and always what matters."""

import io

import pytest
import rich.progress

from fact_metrics.base import progress as module
from fact_metrics.base.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_a_stage_is_one_line_with_time_and_rate():
    stream = io.StringIO()
    with Progress(stream=stream).stage("images of a run", 200) as stage:
        for done in range(0, 200, 50):
            stage.update(done + 50)
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("images of a run: 200 images in ") and line.endswith(" images/s")


def test_long_work_says_how_long_is_left(monkeypatch):
    clock = iter([0.0, 5.0, 25.0, 30.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    with Progress(stream=stream).stage("slow", 100) as stage:
        stage.update(20)  # at 5 s: too early for a line
        stage.update(50)  # at 25 s
    assert stream.getvalue().splitlines()[0] == "slow: 50 of 100 images, about 25 s left"


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
@pytest.mark.parametrize(("seconds", "lines"), [(1.9, 0), (2.0, 1)])
def test_what_is_done_within_patience_leaves_no_line_and_long_work_does(monkeypatch, kind, seconds, lines):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    stream = kind()
    with Progress(stream=stream).stage("decoding", 1, patience=2.0) as stage:
        stage.update(9, 9)
        now[0] = seconds
    assert stream.getvalue().count("decoding: 9 images in") == lines


def test_one_bar_at_a_time(monkeypatch):
    bars, start, stop = [0], rich.progress.Progress.start, rich.progress.Progress.stop
    monkeypatch.setattr(rich.progress.Progress, "start", lambda bar: (bars.append(bars[-1] + 1), start(bar)))
    monkeypatch.setattr(rich.progress.Progress, "stop", lambda bar: (bars.append(bars[-1] - 1), stop(bar)))
    stream = Terminal()
    progress = Progress(stream=stream)
    with progress.stage("outer", 4) as outer, progress.stage("inner", 2) as inner:
        inner.update(2), outer.update(4)
    with progress.stage("next", 1) as following:
        following.update(1)
    assert bars == [0, 1, 0, 1, 0]
    assert "outer" in stream.getvalue() and "inner: 2 images in" in stream.getvalue()


def test_on_a_terminal_a_bar_moves_and_notes_stay():
    stream = Terminal()
    progress = Progress(stream=stream)
    with progress.stage("scoring", 4) as stage:
        stage.update(2)
        progress.note("fid = 1.5")
        stage.update(8, total=8)
    progress.note("done")
    shown = stream.getvalue()
    assert "scoring" in shown and "8/8" in shown and "fid = 1.5\n" in shown and shown.endswith("done\n")


def test_a_quiet_progress_keeps_its_notes():
    stream = io.StringIO()
    progress = Progress(quiet=True, stream=stream)
    with progress.stage("scoring", 4) as stage:
        stage.update(4)
    progress.remark("all 4 are in the store")
    progress.note("fid = 1.5")
    assert stream.getvalue() == "fid = 1.5\n"
