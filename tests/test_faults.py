"""The campaign of faults: its seeds, its fault layer, its verdicts, and a short run of it."""

import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import faults
from benchmarks.faults import disk, inputs, kills, mutate
from benchmarks.faults.layer import Count, full_from, killed_at, read_only_from, watch
from benchmarks.faults.targets import Target
from benchmarks.hostile import files, runner
from benchmarks.hostile.runner import Outcome, run_command
from fact_eval.weights.files import guess_format
from fact_metrics.base.arrays import open_npz
from fact_metrics.base.atomic import write_text
from fact_metrics.base.errors import UserError
from fact_metrics.base.torch_files import load_torch
from fact_train.training.stats import StatsWriter

ROOT = Path(__file__).parent.parent


# Seeds

DOCUMENT = json.dumps({"schema": 1, "config": {"a": [1, 2, {"b": "x"}]}, "name": "y"}).encode()


@pytest.mark.parametrize("spoil", [mutate.of_bytes, mutate.of_json, mutate.of_lines, mutate.of_png])
def test_a_seed_makes_the_same_bad_input_again_and_another_seed_another(spoil) -> None:
    made = [spoil(DOCUMENT, random.Random(str(seed))) for seed in range(200)]
    assert made == [spoil(DOCUMENT, random.Random(str(seed))) for seed in range(200)]
    assert len(set(made)) > 100 and made.count(DOCUMENT) < 10


def test_every_value_of_a_document_is_changed_by_some_seed() -> None:
    changed = [mutate.change_value(json.loads(DOCUMENT), random.Random(str(seed))) for seed in range(400)]
    good = json.loads(DOCUMENT)
    for name in good:
        assert any(value.get(name) != good[name] for value in changed), name
    inner = [v["config"]["a"] for v in changed if isinstance(v.get("config"), dict) and "a" in v["config"]]
    assert any(isinstance(a, list) and len(a) == 3 and a[:2] == [1, 2] and a[2] != {"b": "x"} for a in inner)


# The fault layer, in commands that are functions here


@pytest.fixture
def command(monkeypatch):
    """Makes `run_command` call a function in place of a command."""

    def use(function) -> None:
        monkeypatch.setattr(runner, "_main", lambda argv: function() or 0)

    return use


def write_three() -> int:
    """A folder, a file that appears whole, and a refusal in the program's name."""
    try:
        os.makedirs("run", exist_ok=True)
        Path("run/.a.partial").write_text("whole")
        os.replace("run/.a.partial", "run/a")
    except OSError as error:
        print(f"fact-train: could not save a: {error.strerror}")
        return 1
    return 0


def test_changes_are_counted_and_faults_come_where_they_are_set(tmp_path: Path, command) -> None:
    command(write_three)
    count = Count()
    run_command(("x",), tmp_path, prepare=lambda: watch(tmp_path, lambda number, path: count.add() and None))
    assert count.value == 3  # mkdir, open, rename
    for number, kind in ((1, "read-only"), (2, "read-only"), (3, "read-only"), (2, "full")):
        at = tmp_path / f"{kind}{number}"
        at.mkdir()
        fault = {"read-only": read_only_from, "full": full_from}[kind](number)
        monkey = run_command(("x",), at, prepare=partial(watch, at, fault))
        assert "could not save" in monkey.output and not (at / "run" / "a").exists(), (kind, number)
        assert (at / "run").exists() == (number > 1)
    ended = run_command(("x",), tmp_path, prepare=partial(watch, tmp_path, killed_at(3)))
    assert ended.code == -9 and not ended.hung and (tmp_path / "run/.a.partial").read_text() == "whole"


def test_a_command_has_a_session_and_a_limit_and_nobody_to_ask(tmp_path: Path, command) -> None:
    def look() -> None:
        print(os.getsid(0) == os.getpid(), os.read(0, 1))
        try:
            bytearray(runner.MEMORY)
        except MemoryError:
            print("refused")

    command(look)
    assert run_command(("x",), tmp_path).output == "True b''\nrefused\n"


@pytest.mark.parametrize(("kill_after", "left"), [(None, True), (3.0, False)])
def test_what_a_command_started_ends_with_it(tmp_path, command, monkeypatch, kill_after, left) -> None:
    monkeypatch.setattr(runner, "GRACE", 0.2)

    def start() -> None:
        print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
        if kill_after:
            signal.pause()

    command(start)
    ended = run_command(("x",), tmp_path, kill_after=kill_after)
    assert (ended.left, ended.hung) == (left, False)
    state = Path(f"/proc/{int(ended.output)}/stat")
    for _ in range(100):  # until its new parent has noticed
        if not state.exists() or state.read_text().split()[2] == "Z":
            break
        time.sleep(0.02)
    else:
        pytest.fail("sleep still runs")


@pytest.mark.parametrize(("queued", "hung"), [(0.0, True), (60.0, False)])
def test_waiting_for_a_processor_is_no_hang(tmp_path, command, monkeypatch, queued, hung) -> None:
    monkeypatch.setattr(runner, "SECONDS", 0.1)
    monkeypatch.setattr(runner, "_queued", lambda pid: queued)
    command(lambda: time.sleep(60 if hung else 0.5))
    assert run_command(("x",), tmp_path).hung == hung


def test_time_in_the_queue_is_read_from_the_kernel(tmp_path) -> None:
    assert 0 <= runner._queued(os.getpid()) < time.clock_gettime(time.CLOCK_BOOTTIME)
    assert runner._queued(2**22 + 1) == 0.0  # no process has this number


def _target(results) -> Target:
    return Target("toy", ("x",), lambda at: None, results)


def read_a(at: Path) -> dict[str, str]:
    return {"a": (at / "run" / "a").read_text()} if (at / "run" / "a").exists() else {}


def append_a() -> None:
    """A command that is not safe to kill: it goes on from whatever is there."""
    os.makedirs("run", exist_ok=True)
    with open("run/a", "a") as file:
        file.write("x")
        file.flush()
        with open("run/b", "a"):
            pass


def test_kills_compare_hashes_and_name_what_differs(tmp_path: Path, command) -> None:
    command(write_three)
    (found,) = kills.kill_targets([_target(read_a)], tmp_path / "safe", kills=4, seed=0)
    assert (found.kills, found.finished, found.equal, found.faults) == (4, 2, 2, [])
    assert 0 < found.at_writes < 4
    command(append_a)
    (found,) = kills.kill_targets([_target(read_a)], tmp_path / "unsafe", kills=6, seed=0)
    assert found.equal < found.finished and "a differ" in found.faults[0]


def test_disk_faults_ask_for_a_line_and_whole_files(tmp_path: Path, command) -> None:
    command(write_three)
    for found in disk.injected([_target(read_a)], tmp_path / "good", every=1):
        assert (found.changes, found.faults_set, found.faults) == (3, 3, []) and found.equal == 3
        assert found.refused >= 2

    def silent() -> None:
        Path("a").write_text("whole")

    command(silent)
    found, _ = disk.injected([_target(lambda at: {})], tmp_path / "bad", every=1)
    assert "Traceback" in found.faults[0] or "exit 1" in found.faults[0]


def test_inputs_are_judged_by_lines_memory_and_exit_code() -> None:
    def judged(code: int, output: str, peak: float = 10) -> list[str]:
        return inputs.faults_of(Outcome(code, 0.1, peak, output, ()))

    assert judged(1, "fact-eval: x is damaged; delete it") == [] == judged(0, "")
    assert judged(1, "") == ["no line"] and judged(1, "boom") == ["no line"]
    assert judged(2, "fact-eval: x\n" * 21) == ["many lines"]
    assert judged(7, "") == ["another exit code"]
    assert judged(1, "fact-eval: x", peak=1001) == ["memory"]
    kinds = {inputs.error_kind(f"fact-eval: run-{i}/x.pt is damaged (byte {i}); delete it") for i in range(3)}
    assert len(kinds) == 1 and kinds != {inputs.error_kind("fact-eval: x.pt has schema 4")}


def test_the_installed_program_must_say_what_the_forked_one_says(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_text("x")
    forked, fresh = (
        run_command(("fact-eval", "ref", "x.npz"), tmp_path, fresh=fresh) for fresh in (False, True)
    )
    assert (forked.code, inputs.error_lines(forked.output)) == (1, [forked.output.strip()])
    assert (fresh.code, fresh.output) == (forked.code, forked.output)

    def outcome(output: str, code: int = 1) -> Outcome:
        return Outcome(code, 0.1, 10, output, ())

    assert inputs.differences(outcome("fact-eval: x"), outcome("warning\nfact-eval: x")) == []
    assert inputs.differences(outcome("fact-eval: x"), outcome("fact-eval: y")) == ["other in a new process"]
    assert inputs.differences(outcome("fact-eval: x"), outcome("fact-eval: x", 2)) == [
        "other in a new process"
    ]
    assert "no line" in inputs.differences(outcome("fact-eval: x"), outcome(""))


def test_every_so_many_inputs_one_is_read_twice(tmp_path: Path, monkeypatch) -> None:
    asked = []

    def run_case(case, folder, *, fresh=False):
        folder.mkdir(parents=True)
        asked.append((case.name, fresh))
        return Outcome(1, 0.1, 10, "fact-eval: x" + " y" * fresh, ())

    monkeypatch.setattr(inputs, "run_case", run_case)
    case = lambda number, seed: runner.Case(f"{number}", (), lambda at: None)  # noqa: E731
    (found,) = inputs.run_entries([SimpleNamespace(name="e", case=case)], tmp_path, inputs=200, seed=0)
    assert [name for name, fresh in asked if fresh] == ["50", "150"]
    assert (found.inputs, found.fresh, len(asked)) == (200, 2, 202)
    assert found.faults[0].startswith("50: exit 1: other in a new process: ") and len(found.faults) == 2


def test_an_interrupted_row_is_kept_and_nothing_follows(tmp_path: Path, monkeypatch) -> None:
    def run_case(case, folder, *, fresh=False):
        folder.mkdir(parents=True, exist_ok=True)
        if case.name == "2":
            raise KeyboardInterrupt
        return Outcome(1, 0.1, 10, "fact-eval: x", ())

    monkeypatch.setattr(inputs, "run_case", run_case)
    case = lambda number, seed: runner.Case(f"{number}", (), lambda at: None)  # noqa: E731
    rows = inputs.run_entries([SimpleNamespace(name="e", case=case)] * 2, tmp_path, inputs=9, seed=0)
    assert next(rows).inputs == 2
    with pytest.raises(KeyboardInterrupt):
        next(rows)


def test_an_interruption_ends_the_command_too(tmp_path: Path, command, monkeypatch) -> None:
    started = []

    def interrupt(reader: int) -> bytes:
        os.set_blocking(reader, True)
        started.append(int(os.read(reader, 100)))
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_available", interrupt)
    command(lambda: (print(os.getpid(), flush=True), time.sleep(60)) and 0)
    with pytest.raises(KeyboardInterrupt):
        run_command(("x",), tmp_path)
    assert os.waitstatus_to_exitcode(os.waitpid(started[0], 0)[1]) == -signal.SIGKILL


# What the campaign found


def test_a_header_that_numpy_cannot_tokenize_is_a_damaged_array(tmp_path: Path) -> None:
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (3,".ljust(117) + "\n"  # Python 2 files end so
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(24)
    path = files.npz(tmp_path / "x.npz", {"mu": member})
    with open_npz(path) as archive, pytest.raises(UserError, match=r"x\.npz: mu is not a readable array"):
        archive.header("mu")


def test_a_zip_with_a_broken_directory_is_refused_as_weights_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(2)}, path)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02")] ^= 1
    path.write_bytes(content)
    assert guess_format(path) == "state_dict"
    with pytest.raises(UserError, match="is not a file of tensors"):
        load_torch(path)


# A short run, and the published table


@pytest.fixture(scope="module")
def short() -> dict:
    """Kills and disk faults of one command, one bad input a kind of file; in a process of its own."""
    only = ",".join(("board", *faults.ENTRIES))
    code = "import json; from benchmarks import faults; "
    code += (
        f"print(json.dumps(faults.run(kills=2, inputs=1, every=2, parts='kills,disk,inputs', only={only!r})))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_short_campaign_finds_nothing(short) -> None:
    assert [fault for part in faults.PARTS for row in short[part] for fault in row["faults"]] == []
    assert [(row["kills"], row["equal"]) for row in short["kills"]] == [(2, 1)]
    assert [(row["kind"], row["changes"]) for row in short["disk"]] == [("full", 3), ("read-only", 3)]
    assert all(row["equal"] == row["faults_set"] == 2 for row in short["disk"])
    assert [row["entry"] for row in short["inputs"]] == list(faults.ENTRIES)


def test_rows_that_were_not_measured_again_stay(short) -> None:
    earlier = {"inputs": [{"entry": "images", "inputs": 1000}, {"entry": "states", "inputs": 5}]}
    found = faults.merged({**short, "inputs": [{"entry": "images", "inputs": 7}]}, earlier)
    assert [(row["entry"], row["inputs"]) for row in found["inputs"]] == [("images", 7), ("states", 5)]
    assert found["kills"] == short["kills"]


def test_the_published_table_is_that_of_the_result() -> None:
    page = (ROOT / "benchmarks" / "README.md").read_text()
    result = json.loads((ROOT / "benchmarks" / "results" / "faults.json").read_text())
    assert faults.with_tables(page, result) == page


# A disk that refuses, in training


def test_a_read_only_disk_is_one_line_and_hides_no_other_error(tmp_path: Path, command) -> None:
    def save() -> int:
        try:
            write_text(Path("a"), "whole")
        except UserError as error:
            print(f"fact-train: {error}")
            return 1
        return 0

    command(save)
    for number in (1, 2, 3):  # of the open, the rename and the removal of what is left
        at = tmp_path / str(number)
        at.mkdir()
        ended = run_command(("x",), at, prepare=partial(watch, at, read_only_from(number)))
        assert "Traceback" not in ended.output, ended.output
        assert (ended.code, (at / "a").exists()) == ((1, False) if number < 3 else (0, True))


def test_tensorboard_on_a_full_disk_prints_no_traceback(tmp_path: Path, command) -> None:
    def train() -> int:
        writer = StatsWriter(Path("."), nimg=0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        try:
            writer._board.add_scalar("a", 1.0)
            writer._board.flush()
        except OSError as error:
            print(f"fact-train: {error.strerror}")
            return 1
        return 0

    command(train)
    ended = run_command(("x",), tmp_path)
    assert ended.code == 1 and "Traceback" not in ended.output, ended.output
    assert inputs.error_lines(ended.output) == ["fact-train: File too large"]


def test_a_real_disk_is_filled_and_locked_or_said_to_be_missing(tmp_path: Path, command) -> None:
    command(write_three)
    found = list(disk.real([_target(read_a)], tmp_path))
    if isinstance(found[0], str):
        assert found[0].startswith("no tmpfs here: ")
        return
    full, locked = found
    assert (full.faults, locked.faults) == ([], []) and (locked.faults_set, locked.refused) == (1, 1)
    assert full.equal == full.faults_set == len(disk.FREE_KB) and full.refused >= 1
