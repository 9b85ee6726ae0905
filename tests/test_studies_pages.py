"""STUDIES.md, pages, plots and the command: their numbers, their state, equal bytes for equal records."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from study_toys import FID, QUESTION, study_records, write_study

from fact_eval import cli
from fact_leaderboard.answers import plot
from fact_leaderboard.answers.answer import answer_study
from fact_leaderboard.answers.files import PAGE, STUDIES, check_answers, write_answers
from fact_leaderboard.answers.pages import markdown_table, studies_page, study_page, text_table
from fact_leaderboard.answers.samples import Evidence
from fact_leaderboard.publish import HOME, published_records
from fact_leaderboard.records import append_records
from fact_metrics.base.errors import UserError
from fact_train.settings.axes import findings
from fact_train.settings.config import fields_of
from fact_train.settings.measured import read_measured
from fact_train.sweeps.study import Study, read_study

BLOCKED = QUESTION + 'blocked = "No trainer can do it."\n'


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return read_study(write_study(tmp_path / STUDIES))


def records_of(study: Study, **options):
    return study_records(study, lambda name: 60.0 if name == "r1_gamma=1" else 100.0, spread=3.0, **options)


def call(capsys, *argv) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(map(str, argv)))
    out, err = capsys.readouterr()
    return stopped.value.code, out, err


def write(home: Path, records) -> list[Path]:
    return write_answers(home, records, axes=home / "measured.json")


def check(home: Path, records) -> None:
    check_answers(home, records, axes=home / "measured.json")


# Files


def test_one_question_per_file_and_a_page_only_with_results(study: Study, tmp_path: Path) -> None:
    write_study(tmp_path / STUDIES, BLOCKED, name="blocked")
    write_study(tmp_path / STUDIES, QUESTION + 'axis = "mirror"\nsettings = [true]\n', name="mirror")
    written = {path.name for path in write(tmp_path, records_of(study))}
    assert written == {PAGE, "measured.json", "r1-weight.md", "r1-weight.png"}
    page = (tmp_path / PAGE).read_text()
    counts = "3 questions: 1 answered, 0 answered in part, 0 undecided, 1 not run, 1 blocked."
    assert f"{counts} 12 of 15 runs have records" in page
    assert page.index("(studies/r1-weight.md)") < page.index("(studies/mirror.toml)")  # answered ones first
    assert "not run; 3 of 9 runs missing" in page and "No trainer can do it." in page
    assert "training took 12.0 minutes" in page


def test_files_follow_the_records_and_stale_ones_are_seen(study: Study, tmp_path: Path) -> None:
    records = records_of(study)
    write(tmp_path, records)
    check(tmp_path, records)
    assert write(tmp_path, records) == []
    with pytest.raises(UserError, match="stale; fact-eval leaderboard builds them again"):
        check(tmp_path, records_of(study, seed=1))
    png = tmp_path / STUDIES / "r1-weight.png"
    for spoil in (lambda: png.write_bytes(b"x"), png.unlink):
        spoil()
        with pytest.raises(UserError, match=r"r1-weight\.png is stale"):
            check(tmp_path, records)
        write(tmp_path, records)
    write(tmp_path, [])
    assert not png.exists() and not png.with_suffix(".md").exists()
    check(tmp_path, [])


def test_equal_records_in_any_order_give_equal_bytes_in_another_process(study: Study, tmp_path: Path) -> None:
    records = records_of(study)
    results = tmp_path / "results"
    append_records(results / "a.jsonl", reversed(records))
    write(tmp_path, records)
    command = [sys.executable, "-m", "fact_eval", "study", str(tmp_path / STUDIES / "r1-weight.toml")]
    options = ["--results", str(results), "--out", str(tmp_path / "again")]
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([*command, *options], check=True, capture_output=True, env=env)
    for name in ("r1-weight.md", "r1-weight.png"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / STUDIES / name).read_bytes()


def test_axes_show_what_was_measured_in_place_of_what_was_reported(study: Study, tmp_path: Path) -> None:
    field = next(f for f in fields_of() if f.name == "r1_gamma")
    write(tmp_path, [])
    (reported,) = findings(field, read_measured(tmp_path / "measured.json"))
    assert reported.startswith("Reported by the style experiments: auto")
    write(tmp_path, records_of(study))
    (measured,) = findings(field, read_measured(tmp_path / "measured.json"))
    answer = answer_study(study, Evidence(records_of(study)))
    assert measured == f"Measured: {answer.sentence} (study r1-weight)"


def test_the_committed_answers_are_up_to_date() -> None:
    check_answers(HOME, published_records())


# What pages say


def test_a_page_shows_every_setting_with_the_numbers_of_its_effect(study: Study) -> None:
    answer = answer_study(study, Evidence(records_of(study, metrics=(FID, "legible5k"))))
    page = study_page(answer)
    for effect in answer.primary:
        row = next(line for line in page.splitlines() if line.startswith(f"| {effect.setting} |"))
        cells = [cell.strip() for cell in row.split("|")[1:-1]]
        interval = f"{effect.value:+.1f} [{effect.low:+.1f}, {effect.high:+.1f}]"
        assert cells[1:4] == ["base", f"{effect.mean:.1f}", "3"] and interval in cells
        assert cells[-1] == effect.verdict
    assert "legible5k ↑" in page and "recall5k3_test_pixels" not in page  # nothing measured: no column
    assert "Held fixed: Everything else." in page


def test_missing_runs_are_named_with_the_command(study: Study) -> None:
    answer = answer_study(study, Evidence([r for r in records_of(study) if r.train_seed < 2]))
    page = study_page(answer)
    assert "Missing: mnist-stylegan2-seed2, mnist-stylegan2-seed3" in page
    assert "fact-train sweep --study leaderboard/studies/r1-weight.toml" in page
    assert "8 of 12" not in page and "6 of 12 runs have records" in page


def test_the_order_of_studies_is_that_of_their_lists(study: Study, tmp_path: Path) -> None:
    text = QUESTION.replace('"injection"', '"null"') + 'seeds = "6-11"\n[[setting]]\nname = "again"\n'
    null = read_study(write_study(tmp_path, text, name="null"))
    page = studies_page([answer_study(s, Evidence([])) for s in (null, study)])
    assert page.index("The style-injection list") < page.index("Comparisons of equal settings")


def test_tables_escape_bars_and_align_columns() -> None:
    assert markdown_table(["a"], [["b|c"]]).endswith("| b\\|c |")
    assert text_table(["name", "x"], [["longer name", "1"]]) == "name         x\nlonger name  1"


# Plots


def test_a_forest_plot_draws_its_intervals_in_the_color_of_the_verdict(study: Study, tmp_path: Path) -> None:
    answer = answer_study(study, Evidence(records_of(study)))
    plot.forest_plot(answer, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        colors = set(map(tuple, np.asarray(image.convert("RGB")).reshape(-1, 3).tolist()))
    better, worse = ((10, 92, 54), (163, 35, 31))
    assert better in colors and worse not in colors
    assert plot.plotted(tmp_path / "a.png") == plot.digest(answer)
    assert plot.plotted(tmp_path / "none.png") is None


def test_sample_grids_stand_side_by_side(tmp_path: Path) -> None:
    for name, gray in (("a", 0), ("b", 255)):
        Image.new("L", (64, 64), gray).save(tmp_path / f"{name}.png")
    plot.draw_samples({"base": tmp_path / "a.png", "x": tmp_path / "b.png"}, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        row = [image.convert("L").getpixel((x, image.height // 2)) for x in range(image.width)]
    assert row[image.width // 4] == 0 and row[3 * image.width // 4] == 255


# The command


def test_the_command_answers_from_published_and_local_records(study: Study, tmp_path: Path, capsys) -> None:
    file = tmp_path / STUDIES / "r1-weight.toml"
    records, results, runs = records_of(study), tmp_path / "results", tmp_path / "runs"
    append_records(results / "base.jsonl", [r for r in records if "r1_gamma" not in r.run_id])
    append_records(runs / "x" / "results.jsonl", [r for r in records if "r1_gamma" in r.run_id])
    where = ("study", file, "--results", results)
    code, out, err = call(capsys, *where)
    assert code == 0, err
    assert "not run" in out and "6 of 12 runs are missing" in out
    code, out, _ = call(capsys, *where, "--runs", runs)
    assert code == 0 and "better: r1_gamma=1" in out
    code, out, _ = call(capsys, *where, "--runs", runs, "--json")
    (answer,) = json.loads(out)
    assert (answer["status"], answer["missing"]) == ("answered", [])
    assert [e["verdict"] for e in answer["effects"][FID]] == ["better", "no relevant difference"]
    assert len(answer["values"]["base"][FID]) == 6


def test_sample_grids_of_runs_at_hand_are_drawn(study: Study, tmp_path: Path, capsys) -> None:
    run = study.runs()[0]
    folder = tmp_path / "runs" / run.name
    append_records(folder / "results.jsonl", records_of(study))
    options = {"schema": 1, "run_id": run.name, "label": run.label, "preset": run.preset}
    options["dataset"] = {"name": "mnist", "split": "train", "sha256": "0" * 64, "n": 60000, "resolution": 32}
    options["dataset"] |= {"channels": 1, "classes": 10}
    options |= {"config": run.config.to_dict(), "config_sha256": run.config.sha256(), "seed": run.seed}
    (folder / "training_options.json").write_text(json.dumps(options))
    Image.new("L", (64, 64), 200).save(folder / "fakes000100.png")
    file, out = tmp_path / STUDIES / "r1-weight.toml", tmp_path / "out"
    code, _, err = call(capsys, "study", file, "--runs", tmp_path / "runs", "--out", out)
    assert code == 0 and "r1-weight.md, .png and -samples.png" in err
    with Image.open(out / "r1-weight-samples.png") as image:
        assert image.convert("L").getpixel((image.width // 2, image.height // 2)) == 200


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere.toml"], "nowhere.toml cannot be read: No such file or directory"),
        (["."], "no study in ."),
        (["r1.toml", "--runs", "nowhere"], "nowhere is not a folder"),
        (["r1.toml", "--results", "nowhere"], "--results nowhere is not a folder"),
    ],
)
def test_bad_arguments_are_one_line(argv, message, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    if "." not in argv:
        write_study(tmp_path, name="r1")
    code, out, err = call(capsys, "study", *argv)
    assert code in (1, 2) and message in err and len(err.splitlines()) == 1 and out == ""
