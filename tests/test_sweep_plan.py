"""Plans of sweeps: which runs, in which order, as which command, and what is rejected."""

import dataclasses
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fact_leaderboard.publish import published_records
from fact_metrics.base.errors import UsageError, UserError
from fact_train import run_folder
from fact_train.cli import app
from fact_train.settings.config import TrainConfig, fields_of
from fact_train.settings.fields import value_text
from fact_train.settings.presets import PRESETS
from fact_train.sweeps.plan import Axis, PlannedRun, in_order, parse_axis, plan_axes, plan_studies
from fact_train.sweeps.published import published_check

ROOT = Path("runs")
PRESET = "mnist-stylegan2"  # r1_gamma 5, noise off


def plan(axes: list[str], seeds=(0,), changes=None, **options):
    parsed = [parse_axis(text) for text in axes]
    return plan_axes([PRESET], parsed, seeds, changes or {}, root=ROOT, **options)


def resolved(run: PlannedRun, capsys) -> dict:
    """What the run's own command resolves to."""
    app([*run.command(), "--dry-run"], standalone_mode=False)
    return json.loads(capsys.readouterr().out)


def test_the_full_product_has_every_combination_for_every_seed() -> None:
    runs = plan(["r1_gamma=1,10,100", "noise=off,random"], seeds=(0, 1)).runs
    found = {(run.config.r1_gamma, run.config.noise, run.seed) for run in runs}
    assert found == set(itertools.product((1.0, 10.0, 100.0), ("off", "random"), (0, 1)))
    assert len({run.name for run in runs}) == len(runs) == 12


def test_one_factor_changes_one_setting_of_the_base_at_a_time() -> None:
    runs = plan(["r1_gamma=5,10", "noise=off,random"], one_factor=True).runs
    assert [run.setting for run in runs] == ["base", "r1_gamma=10", "noise=random"]
    assert [(run.config.r1_gamma, run.config.noise) for run in runs] == [
        (5.0, "off"),
        (10.0, "off"),
        (5.0, "random"),
    ]


def test_other_flags_hold_for_all_runs() -> None:
    runs = plan(["r1_gamma=1,10"], changes={"kimg": 3.0, "batch": 8, "threads": 1}).runs
    assert {(run.config.kimg, run.config.batch, run.config.threads) for run in runs} == {(3.0, 8, 1)}


@pytest.mark.parametrize("preset", ["mnist-stylegan2", "mnist", "mnist-vectors-16", "mnist-matrix", "auto"])
def test_a_run_is_its_ordinary_command_in_its_ordinary_folder(preset: str, capsys) -> None:
    changes = {"kimg": 2.0, "mirror": True, "pl_weight": 0.5, "device": "cpu", "threads": 2}
    if preset == "auto":
        changes |= {"data": "images", "resolution": 64}
    (run,) = plan_axes([preset], [Axis("r1_gamma", (1.25,))], (3,), changes, root=ROOT).runs
    command = resolved(run, capsys)
    assert command["config"] == run.config.to_dict() and command["preset"] == preset
    ordinary = [argument for argument in run.command() if not argument.startswith("--outdir")]
    app([*ordinary, "--dry-run"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["outdir"] == str(run.outdir)


def _other_values() -> list[tuple[str, object]]:
    """Valid changes of one field each, of all fields that can change alone."""
    found = []
    for f in fields_of():
        value = getattr(PRESETS[PRESET].config, f.name)
        tries = (
            [not value] if isinstance(value, bool) else [None, 1, 2, 0.125, "auto", *f.metadata["choices"]]
        )
        tries += re.findall(r"'(\w+)'", str(f.type))
        for other in tries:
            try:
                changed = dataclasses.replace(PRESETS[PRESET].config, **{f.name: other})
            except UsageError:
                continue
            if getattr(changed, f.name) != value:
                found.append((f.name, getattr(changed, f.name)))
    return found


def test_every_value_of_every_field_survives_the_command_line(capsys) -> None:
    values = _other_values()
    assert len({name for name, _ in values}) > 55
    for name, value in values:
        config = dataclasses.replace(PRESETS[PRESET].config, **{name: value})
        run = PlannedRun(PRESET, config, ROOT / "x")
        assert resolved(run, capsys)["config"] == config.to_dict(), (name, value_text(value))


def test_a_combination_that_contradicts_itself_is_named_and_the_others_are_planned() -> None:
    found = plan(["injection=modconv,vectors", "style_vectors=1,4"])
    assert len(found.runs) == 3
    (problem,) = found.problems
    assert "injection=modconv, style_vectors=4 cannot run: --style-vectors 4" in problem


def test_a_folder_name_that_no_file_system_takes_is_a_problem() -> None:
    changes = {name: 0.125 for name in ("mapping_lr_mult", "pl_decay", "g_lr", "d_lr", "ema_kimg", "beta2")}
    changes |= dict.fromkeys(("z_dim", "w_dim", "channel_max", "ada_interval", "r1_interval", "batch"), 16)
    changes |= dict(augment="ada", augment_p=0.125, ada_kimg=3.0, ada_target=0.5, style_mixing_prob=0.5)
    with pytest.raises(UsageError, match="with r1_gamma=1 cannot run: the name of its folder would have 2"):
        plan(["r1_gamma=1"], changes=changes)


@pytest.mark.parametrize(
    ("axes", "changes", "message"),
    [
        (["r1_gama=1"], {}, "unknown axis 'r1_gama'; did you mean r1_gamma"),
        (["kimg=1,2"], {}, "unknown axis 'kimg'"),
        (["seed=1,2"], {}, "use --seeds"),
        (["r1_gamma"], {}, "give values"),
        (["r1_gamma=1,"], {}, "give values"),
        (["r1_gamma=much"], {}, "--axis r1_gamma=much: it must be a number or auto"),
        (["r1_gamma=-1"], {}, "--axis r1_gamma=-1: it must not be negative"),
        (["r1_gamma=1,1.0"], {}, "the value 1.0 is given twice"),
        (["noise=of"], {}, "it must be one of"),
        (["r1_gamma=5"], {}, "--axis r1_gamma=5 changes nothing: it is the value of mnist-stylegan2"),
        (["r1_gamma=1", "r1_gamma=2"], {}, "given twice; list all its values in one"),
        (["r1_gamma=1,2"], {"r1_gamma": 3.0}, "--r1-gamma 3 and --axis r1_gamma contradict"),
        (["style_vectors=4"], {}, "--style-vectors 4: --injection modconv takes one"),
    ],
)
def test_an_unusable_axis_is_one_line(axes: list[str], changes: dict, message: str) -> None:
    with pytest.raises(UsageError) as error:
        plan(axes, changes=changes)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_semicolons_separate_values_with_commas() -> None:
    axis = parse_axis("diffaugment-policy=color;color,translation")
    assert axis == Axis("diffaugment_policy", ("color", "color,translation"))


def test_switches_are_on_or_off() -> None:
    assert parse_axis("mirror=on,off").values == (True, False)
    with pytest.raises(UsageError, match="True or False"):
        parse_axis("mirror=yes")


# Studies

STUDY = """
question = "Which R1 weight is best?"
list = "injection"
source = "style experiments"
base = "mnist-stylegan2"
kimg = {kimg}
axis = "r1_gamma"
settings = {settings}
seeds = "0-1"
base_seeds = "0-2"
primary = "fid5k_full_digits"
relevant_difference = 1.0
held_fixed = "All else."
priority = {priority}
"""


def study(folder: Path, name: str, settings: list, *, kimg: float = 2, priority: int = 2) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(STUDY.format(settings=settings, kimg=kimg, priority=priority))
    return path


def test_runs_that_studies_share_are_planned_once_with_the_metrics_of_both(tmp_path: Path) -> None:
    a = study(tmp_path, "a", [1, 10])
    b = study(tmp_path, "b", [10, 100], priority=1)
    b.write_text(b.read_text().replace("fid5k_full_digits", "kid5k_full_digits"))
    found = plan_studies([a, b], None, {"threads": 1}, root=ROOT)
    assert not found.problems
    assert len(found.runs) == 3 + 3 * 2
    shared = [run for run in found.runs if run.setting == "r1_gamma=10"]
    assert {run.priority for run in shared} == {1} and len(shared) == 2
    assert all({"fid5k_full_digits", "kid5k_full_digits"} <= set(run.metrics) for run in shared)
    assert {run.config.threads for run in found.runs} == {1}
    only = plan_studies([a, b], (2,), {}, root=ROOT)
    assert [(run.setting, run.seed) for run in only.runs] == [("base", 2)]


def test_a_folder_stands_for_its_studies_and_a_broken_one_stops_nothing(tmp_path: Path) -> None:
    study(tmp_path, "a", [1])
    (tmp_path / "b.toml").write_text("question = 3")
    found = plan_studies([tmp_path], None, {}, root=ROOT)
    assert len(found.runs) == 5 and len(found.problems) == 1
    assert str(tmp_path / "b.toml") in found.problems[0]


def test_a_blocked_study_is_noted_and_is_no_problem(tmp_path: Path) -> None:
    blocked = study(tmp_path, "b", [10])
    blocked.write_text('blocked = "A reason."' + re.sub(r"(axis|settings) = .*", "", blocked.read_text()))
    found = plan_studies([study(tmp_path, "a", [1]), blocked], None, {}, root=ROOT)
    assert found.notes == ["b cannot run yet: A reason."] and not found.problems and found.runs
    with pytest.raises(UsageError, match=r"^b cannot run yet: A reason"):
        plan_studies([blocked], None, {}, root=ROOT)


def test_studies_that_disagree_about_a_run_are_named(tmp_path: Path) -> None:
    files = [study(tmp_path, "a", [1]), study(tmp_path, "b", [10], kimg=3)]
    found = plan_studies(files, None, {}, root=ROOT)
    assert len(found.problems) == 3  # the base on three seeds
    assert "b and a disagree about the run mnist-stylegan2-seed0: kimg is 3 and 2" in found.problems[0]
    assert {run.config.kimg for run in found.runs if run.setting == "base"} == {2.0}


def test_a_study_fixes_its_settings(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--batch 8 with --study: a study fixes its settings"):
        plan_studies([study(tmp_path, "a", [1])], None, {"batch": 8}, root=ROOT)


def test_all_settings_of_a_seed_start_before_the_next_seed() -> None:
    def keys(order: str) -> list[tuple[int, int, str]]:
        return [(run.priority, run.seed, run.setting) for run in in_order(runs, order)]

    config = TrainConfig()
    runs = [
        PlannedRun(PRESET, dataclasses.replace(config, seed=seed), ROOT / "x", setting, priority)
        for priority, setting in ((2, "c"), (1, "a"), (1, "b"))
        for seed in (0, 1)
    ]
    assert keys("priority") == [
        *((1, 0, "a"), (1, 0, "b"), (1, 1, "a"), (1, 1, "b"), (2, 0, "c"), (2, 1, "c")),
    ]
    assert keys("seed") == [
        *((1, 0, "a"), (1, 0, "b"), (2, 0, "c"), (1, 1, "a"), (1, 1, "b"), (2, 1, "c")),
    ]
    with pytest.raises(UsageError, match="unknown order"):
        in_order(runs, "size")


def test_published_runs_are_those_with_the_same_hash_images_and_seed() -> None:
    record = next(r for r in published_records() if r.label == PRESET and r.train_seed == 1)
    config = dataclasses.replace(PRESETS[PRESET].config, seed=1)
    run = PlannedRun(PRESET, config, ROOT / "x")
    assert config.sha256() == record.config_sha256 and record.kimg == 100
    assert published_check(lambda run: [record.metric])(run)
    assert published_check(lambda run: [])(run)
    assert not published_check(lambda run: [record.metric, "kid3k_full_digits"])(run)
    for change in ({"seed": 7}, {"kimg": 99.0}, {"r1_gamma": 4.0}):
        other = dataclasses.replace(run, config=dataclasses.replace(config, **change))
        assert not published_check(lambda run: [])(other), change


def test_a_plan_of_500_runs_of_which_490_are_finished_takes_seconds_and_no_torch(tmp_path: Path) -> None:
    files = [study(tmp_path, "a", [round(0.5 + i / 10, 1) for i in range(166) if i != 45])]
    text = files[0].read_text().replace('seeds = "0-1"', 'seeds = "0-2"')
    files[0].write_text(text.replace('base_seeds = "0-2"', 'base_seeds = "0-6"'))
    runs = plan_studies(files, None, {}, root=tmp_path / "runs").runs
    assert len(runs) >= 500
    for run in runs[:-10]:
        _finish(run)
    code = (
        "import sys, time; from fact_train.cli import app; started = time.monotonic()\n"
        f"app(['sweep', '--study={files[0]}', '--runs={tmp_path / 'runs'}', '-n'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules; print('seconds', time.monotonic() - started)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(runs) - 10} finished, 10 to do" in done.stderr
    assert float(done.stdout.split()[-1]) < 10


DATASET = {
    "name": "mnist", "split": "train", "n": 60000, "sha256": "d" * 64, "resolution": 32, "channels": 1,
    "classes": 10,
}  # fmt: skip


def _finish(run: PlannedRun) -> None:
    """A folder as a finished run leaves it, as far as plans read it."""
    run.outdir.mkdir(parents=True)
    options = {
        "schema": 1,
        "run_id": run.name,
        "label": run.setting,
        "preset": run.preset,
        "dataset": DATASET,
    }
    options |= {"config": run.config.to_dict(), "config_sha256": run.config.sha256(), "seed": run.seed}
    (run.outdir / "training_options.json").write_text(json.dumps(options))
    header = json.dumps(
        {"__metadata__": {"fact": json.dumps({"nimg": round(run.config.kimg * 1000)})}}
    ).encode()
    content = len(header).to_bytes(8, "little") + header
    (run.outdir / run_folder.snapshot_name(round(run.config.kimg * 1000))).write_bytes(content)
    (run.outdir / "stats.jsonl").write_text(json.dumps({"nimg": 2000, "Timing/sec_per_kimg": 2.0}) + "\n")


# Metrics


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--eval=fid5k_full_digits,legible5k", "--data=photos"), "for digits only, not for photos"),
        (("--eval=recon10k_lpips_stlpips_alex",), "needs a trained encoder: mnist-stylegan2-seed0"),
        (("--eval=fid50k_full",), "--eval: "),
    ],
)
def test_metrics_that_a_run_cannot_have_are_refused_before_training(
    tmp_path: Path, monkeypatch, argv: tuple[str, ...], message: str
) -> None:
    monkeypatch.setenv("FACT_WEIGHTS", str(tmp_path / "none"))
    with pytest.raises(UserError, match=message):
        app(["sweep", f"--preset={PRESET}", f"--runs={tmp_path / 'runs'}", *argv], standalone_mode=False)
    assert not (tmp_path / "runs").exists()
