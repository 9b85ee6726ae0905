"""The number of CPU threads: chosen by speed, in scoring too, and only where nothing else decides it."""

import json

import pytest
import torch

import fact_metrics.base.threads as threads_module
from fact_metrics.base.threads import GFLOP, Choice, choose, seconds_of_convolutions, settle_threads


@pytest.fixture(autouse=True)
def threads_stay():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("speeds", "chosen"),
    [
        ({2: 290, 1: 205}, 2),  # quiet
        ({2: 75, 1: 195}, 1),  # beside another program
        ({2: 195, 1: 205}, 2),  # no gain beyond chance
        ({16: 400, 8: 900, 4: 600, 2: 300, 1: 150}, 8),
        ({16: 100, 8: 200, 4: 300, 2: 400, 1: 500}, 1),
        ({16: 1000, 8: 700, 4: 900}, 16),  # the first halving that does not pay is the last
        ({3: 100, 1: 150}, 1),
    ],
)
def test_threads_are_halved_as_long_as_that_is_faster(speeds: dict[int, float], chosen: int) -> None:
    choice = choose(max(speeds), lambda n: 16 / speeds[n])
    assert choice.threads == chosen and list(choice.seconds) == list(speeds)[: len(choice.seconds)]
    line = choice.describe(amount=16, unit="img/s")
    assert all(f"{speeds[n]} img/s on {n}" in line for n in choice.seconds)
    assert line.startswith(f"threads: {chosen} of" if chosen < max(speeds) else f"threads: all {chosen} (")


def test_numbers_of_threads_are_tried_in_turn_after_a_warm_up() -> None:
    tried = []

    def seconds_of(threads: int) -> float:
        tried.append(threads)
        return 1e3 if len(tried) <= 2 and slow_start else 0.01 * threads

    slow_start = False
    assert choose(2, seconds_of) == Choice(1, {2: 0.02, 1: 0.01}) and tried == [2, 1] * 4
    tried.clear()
    slow_start = True  # a step that takes minutes is taken once
    assert choose(2, seconds_of) == Choice(2, {2: 1e3, 1: 1e3}) and tried == [2, 1]


@pytest.mark.parametrize(("busy", "chosen"), [(False, 3), (True, 1)])
def test_scoring_chooses_among_the_threads_that_torch_has(busy, chosen, monkeypatch) -> None:
    torch.set_num_threads(3)
    seconds = {3: 2.0 if busy else 0.5, 1: 1.0}
    monkeypatch.setattr(threads_module, "seconds_of_convolutions", seconds.__getitem__)
    said = settle_threads(None, device="cpu")
    assert torch.get_num_threads() == chosen
    on = f"({GFLOP / seconds[3]:.0f} GFLOP/s on 3, {GFLOP:.0f} GFLOP/s on 1); --threads sets the number"
    assert said == ("threads: 1 of 3, more are slower now " if busy else "threads: all 3 ") + on


@pytest.mark.parametrize(
    ("before", "threads", "device", "processes", "after"),
    [
        (3, 2, "cpu", 1, 2),  # --threads
        (3, None, "cuda:0", 1, 3),
        (1, None, "cpu", 1, 1),
        (3, None, "cpu", 2, 5),  # torchrun: an even share
    ],
)
def test_nothing_is_measured_where_the_number_is_given(
    before, threads, device, processes, after, monkeypatch
) -> None:
    torch.set_num_threads(before)
    monkeypatch.setattr(threads_module, "choose", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr("fact_metrics.base.devices.available_threads", lambda: 5)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    assert settle_threads(threads, device=device) is None and torch.get_num_threads() == after


def test_the_sample_of_scoring_computes_on_the_threads_it_is_told(monkeypatch) -> None:
    used = []
    convolution = threads_module.F.conv2d

    def watched(*args, **kwargs):
        used.append(torch.get_num_threads())
        return convolution(*args, **kwargs)

    monkeypatch.setattr(threads_module.F, "conv2d", watched)
    assert seconds_of_convolutions(2) > 0
    assert used == [2] * threads_module.LAYERS


def test_the_busy_table_divides_by_what_is_fairly_ours() -> None:
    from benchmarks.busy import table

    training = {
        "one thread": {0: [200.0], 1: [190.0, 180.0, 200.0], 2: [90.0]},
        "2 threads": {0: [300.0], 1: [80.0], 2: [40.0]},
        "chosen": {0: [294.0], 1: [150.0], 2: [75.0]},
    }
    choices = {n: [{"threads": 1 + (n == 0), "seconds": 0.5 + n}] for n in (0, 1, 2)}
    result = {
        "threads": 2,
        "seconds": 20.0,
        "tasks": {"training": training},
        "choices": {"training": choices},
    }
    shown = table(result)
    assert table(json.loads(json.dumps(result))) == shown  # as it is read from its file
    rows = {
        line.split("|")[1].strip(): [c.strip() for c in line.split("|")[5:8]]
        for line in shown.split("\n")[2:5]
    }
    # Of two threads' 300, two thirds beside one process and half beside two; one thread makes less.
    assert rows["training, 2 threads"] == ["1.00", f"{80 / 200:.2f}", f"{40 / 150:.2f}"]
    assert rows["training, chosen"] == ["0.98", "0.75", "0.50"]
    assert "Threads chosen, training: 0 busy: 2; 1 busy: 1; 2 busy: 1. A choice took 0.5 - 2.5 s." in shown
