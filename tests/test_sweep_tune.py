"""`fact-train tune`: what is chosen, what ends early, and what the same command does next."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from eval_toys import make_record

from fact_metrics.base.errors import UsageError
from fact_train.cli import app
from fact_train.sweeps import tune as tuning
from fact_train.sweeps import worker
from fact_train.sweeps.search import COMPLETE, DIVERGED, FAILED, JOURNAL, PRUNED, Search
from fact_train.sweeps.space import Dimension, parse_dimension, parse_space

optuna = pytest.importorskip("optuna")
METRIC = "fid5k_full_pixels"

# A run whose metric is (log10 r1_gamma - 1)^2 + 1 / kimg, and which saves its state when it is told to stop.
RUN = r"""
import json, math, re, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *a: sys.exit(75))
given = dict(re.findall(r"--([\w-]+)=(\S+)", " ".join(sys.argv[1:])))
folder = Path(given["outdir"]); folder.mkdir(parents=True, exist_ok=True)
gamma, results = float(given["r1-gamma"]), folder / "results.jsonl"
with open(folder / "starts", "a") as file: file.write("s")
if given.get("mapping-layers") == "3": sys.exit("no such data")
if gamma > BROKEN:
    (folder / "diverged.json").write_text("{}"); sys.exit("Loss/G is not finite")
done = len(results.read_text().splitlines()) if results.exists() else 0
for kimg in range(done + 1, 5):
    time.sleep(PAUSE)
    record = json.loads(RECORD) | {"kimg": kimg, "value": (math.log10(gamma) - 1) ** 2 + 1 / kimg}
    (folder / f"network-snapshot-{kimg:06d}.safetensors").touch()
    with open(results, "a") as file: file.write(json.dumps(record) + "\n")
"""


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Makes trials run the script instead of fact-train; returns a function that starts a search."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tuning, "LOOK", 0.05)
    monkeypatch.setattr(worker, "POLL", 0.05)

    def start(*argv: str, broken: float = 1e9, pause: float = 0.02) -> int:
        record = make_record(metric=METRIC).to_json()
        code = RUN.replace("BROKEN", str(broken)).replace("PAUSE", str(pause)).replace("RECORD", repr(record))
        monkeypatch.setattr(
            tuning, "worker_command", lambda module, arguments: (sys.executable, "-c", code, *arguments)
        )
        fixed = ["tune", "--preset=mnist-stylegan2", "--kimg=4", f"--metric={METRIC}", "--device=cpu"]
        return app([*fixed, *argv], standalone_mode=False) or 0

    return start


def journal(folder: str = "runs/tune-mnist-stylegan2") -> list[dict]:
    return [json.loads(line) for line in (Path(folder) / JOURNAL).read_text().splitlines()]


def ends() -> list[dict]:
    return [event for event in journal() if "state" in event]


SPACE = "--space=r1_gamma=log:0.01:10000"


def test_a_search_finds_the_minimum_ends_bad_trials_and_prints_the_best_command(runs, capsys) -> None:
    assert runs(SPACE, "--trials=24", "--jobs=2", pause=0.2) == 0
    out, err = capsys.readouterr()
    states = [event["state"] for event in ends()]
    assert len(states) == 24 and set(states) == {COMPLETE, PRUNED} and states.count(PRUNED) >= 2
    values = [event["value"] for event in ends() if event["state"] == COMPLETE]
    assert min(values) < 0.25 + 0.1  # 1 / kimg at the end, and gamma within a factor of two of the best
    command = next(line for line in out.splitlines() if line.startswith("fact-train "))
    best = float(re.search(r"--r1-gamma=(\S+)", command)[1])
    assert (math.log10(best) - 1) ** 2 + 0.25 == pytest.approx(min(values))
    assert "--eval" not in command and "best: trial" in out
    assert Path("runs/tune-mnist-stylegan2/tune.png").stat().st_size > 5000 and "plot: " in err
    rows = [line.split() for line in out.splitlines() if re.match(r" *\d+ ", line)]
    assert len(rows) == 24 and float(rows[0][2]) == pytest.approx(min(values), rel=1e-3)


def test_the_same_command_does_nothing_and_more_trials_are_new_ones(runs, capsys) -> None:
    assert runs(SPACE, "--trials=3", "--jobs=1") == 0
    before = journal()
    assert runs(SPACE, "--trials=3", "--jobs=1") == 0
    assert journal() == before
    assert runs(SPACE, "--trials=6", "--jobs=1") == 0
    chosen = [event["chosen"]["r1_gamma"] for event in journal() if "chosen" in event]
    assert len(chosen) == len(set(chosen)) == 6  # a new start does not repeat the first choices
    capsys.readouterr()


def test_a_stopped_search_goes_on_with_the_same_trials(runs, capsys) -> None:
    assert runs(SPACE, "--trials=2", "--jobs=2", "--minutes=0.02", pause=1.0) == 75
    assert "2 trials left; run the same command again" in capsys.readouterr().err
    chosen = [event for event in journal() if "chosen" in event]
    file = Path("runs/tune-mnist-stylegan2") / JOURNAL
    with open(file, "ab") as torn:
        torn.write(b'{"trial": 0, "kimg"')
    assert runs(SPACE, "--trials=2", "--jobs=2") == 0
    assert [event for event in journal() if "chosen" in event] == chosen
    assert sorted(event["trial"] for event in ends()) == [0, 1]
    starts = [path.read_text() for path in Path("runs").glob("*/*/starts")]
    assert starts == ["ss", "ss"]
    capsys.readouterr()


def test_diverged_and_failed_trials_stop_nothing_and_are_named(runs, capsys) -> None:
    assert runs(SPACE, "--trials=8", "--jobs=2", broken=10) == 0
    err = capsys.readouterr().err
    states = {event["state"] for event in ends()}
    assert DIVERGED in states and COMPLETE in states and "Loss/G is not finite" in err
    assert runs(SPACE, "--trials=2", "--runs=other", broken=0) == 1
    assert "no trial was trained to its end" in capsys.readouterr().err


def test_a_combination_that_contradicts_itself_fails_alone(runs, capsys) -> None:
    code = runs("--space=injection=modconv,vectors", "--space=style_vectors=1,4", SPACE, "--trials=12")
    assert code == 0
    failed = [event for event in ends() if event["state"] == FAILED]
    assert failed and all("--style-vectors 4" in event["why"] for event in failed)
    capsys.readouterr()


def test_another_search_in_the_same_folder_is_refused(runs, capsys) -> None:
    assert runs(SPACE, "--trials=1") == 0
    with pytest.raises(UsageError, match="is of another search: space is"):
        runs("--space=r1_gamma=log:1:10", "--trials=1")
    with pytest.raises(UsageError, match="is of another search: seed is 0 there and 3 here"):
        runs(SPACE, "--trials=1", "--seed=3")
    capsys.readouterr()


def test_a_maximised_metric_is_maximised(tmp_path: Path) -> None:
    space = [Dimension("r1_gamma", "log:1:100", (1.0, 100.0), "log")]
    search = Search(tmp_path, {}, space, maximize=True)
    for value in (1.0, 3.0, 2.0):
        search.tell(search.ask(), COMPLETE, value)
    again = Search(tmp_path, {}, space, maximize=True)
    assert [trial.value for trial in again.ended()] == [3.0, 2.0, 1.0]
    assert again._study.best_value == 3.0


def test_ranges_and_lists_become_values_of_their_fields() -> None:
    assert parse_dimension("r1_gamma=log:0.1:100").values == (0.1, 100.0)
    assert parse_dimension("map-depth=uniform:2:8").whole
    noise = parse_dimension("noise=off,random")
    assert noise.scale is None and noise.value("random") == "random"
    mirror = parse_dimension("mirror=on,off")
    assert [mirror.value(chosen) for chosen in mirror.distribution().choices] == [True, False]
    assert parse_dimension("r1_gamma=log:0.1:100").value(3.14159265) == 3.142


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["r1_gama=log:1:2"], "unknown axis 'r1_gama'; did you mean r1_gamma"),
        (["r1_gamma=log:1"], "give r1_gamma=log:LOW:HIGH"),
        (["r1_gamma=log:0:1"], "a log range starts above 0"),
        (["r1_gamma=uniform:2:1"], "2 is not below 1"),
        (["r1_gamma=log:-1:1"], "it must not be negative"),
        (["r1_gamma=uniform:auto:1"], "has no range of numbers"),
        (["noise=off"], "give noise=log:LOW:HIGH, noise=uniform:LOW:HIGH or a list"),
        (["r1_gamma=1,2", "r1_gamma=3,4"], "--space r1_gamma is given twice"),
        (["batch=8,16"], "--batch and --space batch contradict"),
    ],
)
def test_an_unusable_space_is_one_line(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_space(texts, {"batch": 8})
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "--space is missing"),
        ((SPACE, "--metric=fid5k_ful_pixels"), "'ful' is no split"),
        (
            (SPACE, "--metric=legible5k", "--data=photos"),
            "--metric legible5k is for digits only, not for photos",
        ),
        ((SPACE, "--executor=slrum"), "did you mean slurm"),
    ],
)
def test_an_unusable_request_is_one_line_before_anything_starts(runs, argv, message) -> None:
    with pytest.raises(UsageError, match=message):
        runs(*argv)
    assert not Path("runs").exists()


def test_without_optuna_one_line_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['optuna'] = None; sys.argv[1:] = "
        f"['tune', '--preset=mnist', '{SPACE}', '--metric={METRIC}']; from fact_train.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert (
        done.stderr.strip() == "fact-train: fact-train tune needs optuna: pip install 'fact-stylegan[tune]'"
    )
