"""Study files: what they are read into, which runs they share, and one clear line for everything wrong."""

import subprocess
import sys
from pathlib import Path

import pytest
from study_toys import QUESTION, R1, write_study

from fact_metrics.base.errors import UserError
from fact_train.settings.presets import PRESETS, get_preset
from fact_train.sweeps.study import read_studies, read_study
from fact_train.sweeps.study_values import parse_seeds

HOME = Path(__file__).resolve().parent.parent / "leaderboard" / "studies"
VECTORS = '{ injection = "vectors", fused_modconv = "always", style_vectors = 16 }'


def read(folder: Path, text: str, name: str = "r1-weight"):
    return read_study(write_study(folder, text, name=name))


def test_a_study_of_one_axis_has_the_base_and_a_run_per_setting_and_seed(tmp_path: Path) -> None:
    study = read(tmp_path, QUESTION + R1)
    assert (study.name, study.base, study.kimg) == ("r1-weight", "mnist-stylegan2", 100)
    runs = study.runs()
    by_setting = {
        s: [r.seed for r in runs if r.setting.name == s] for s in ("base", "r1_gamma=1", "r1_gamma=100")
    }
    assert by_setting == {"base": [0, 1, 2, 3, 4, 5], "r1_gamma=1": [0, 1, 2], "r1_gamma=100": [0, 1, 2]}
    assert len(runs) == 12
    base, changed = (next(r for r in runs if r.setting.name == s) for s in ("base", "r1_gamma=100"))
    assert base.key == (get_preset("mnist-stylegan2").config.sha256(), 100.0, 0)
    assert changed.config.r1_gamma == 100 and changed.fields == {"r1_gamma": 100.0}
    assert changed.name == "mnist-stylegan2-seed0-r1_gamma=100.0"


def test_run_names_and_labels_are_those_of_the_command(tmp_path: Path) -> None:
    study = read(tmp_path, QUESTION + "kimg = 20\n" + R1)
    run = next(r for r in study.runs() if r.setting.name == "r1_gamma=1" and r.seed == 2)
    flags = ["--preset", "mnist-stylegan2", "--kimg", "20", "--r1-gamma", "1", "--seed", "2", "--dry-run"]
    code = "from fact_train.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=True)
    assert f'"outdir": "runs/{run.name}"' in done.stdout


def test_factors_repeat_the_comparison_within_each_combination(tmp_path: Path) -> None:
    factors = f'[factors]\nnoise = ["off", "random"]\n[factors.K]\n1 = {{}}\n16 = {VECTORS}\n'
    study = read(tmp_path, QUESTION + R1 + factors)
    assert [r.name for r in study.references] == [
        "noise=off, K=1",
        "noise=off, K=16",
        "noise=random, K=1",
        "noise=random, K=16",
    ]
    assert len(study.settings) == 8
    setting = study.settings[-1]
    assert (setting.name, setting.against) == ("noise=random, K=16, r1_gamma=100", "noise=random, K=16")
    config = study.config(setting)
    assert (config.noise, config.style_vectors, config.r1_gamma) == ("random", 16, 100)


def test_named_settings_change_several_fields_and_may_train_shorter(tmp_path: Path) -> None:
    table = '[[setting]]\nname = "slow"\nfields = { g_lr = 0.001, kimg = 50 }\nnote = "Half."\n'
    study = read(tmp_path, QUESTION + table)
    (setting,) = study.settings
    run = next(r for r in study.runs() if r.setting == setting)
    assert (run.config.g_lr, run.config.kimg, setting.note) == (0.001, 50, "Half.")
    assert run.name.endswith("-kimg=50")  # beside the run of the full length


def test_none_switches_a_field_off(tmp_path: Path) -> None:
    study = read(
        tmp_path,
        QUESTION + '[fields]\nr1_gamma_final = "none"\n[[setting]]\nname="x"\nfields={mirror=true}\n',
    )
    assert study.config(study.settings[0]).r1_gamma_final is None


def test_a_blocked_study_has_no_runs_and_waits_for_its_base(tmp_path: Path) -> None:
    text = (QUESTION + R1).replace("mnist-stylegan2", "a-later-preset")
    study = read(tmp_path, 'blocked = "The preset is not there yet."\n' + text)
    assert study.runs() == () and study.base == "a-later-preset"
    with pytest.raises(UserError, match="unknown preset 'a-later-preset'"):
        read(tmp_path, text)


BAD = [
    ("question = ", "", "is not TOML"),
    ('list = "injection"\n', "", "list is missing"),
    ('list = "injection"', 'list = "inject"', "unknown list 'inject'; did you mean injection?"),
    ('"style experiments"', '"style experiment"', "did you mean style experiments"),
    ('"mnist-stylegan2"', '"mnist-stylegan3"', "unknown preset 'mnist-stylegan3'; did you mean"),
    ("relevant_difference = 25", "relevant_difference = 0", "relevant_difference must be a positive number"),
    ("relevant_difference", "relevant_diff", "unknown key 'relevant_diff'; did you mean relevant_difference"),
    ('"r1_gamma"', '"r1_gama"', "unknown field 'r1_gama'; did you mean r1_gamma"),
    ('"r1_gamma"', '"seed"', "unknown field 'seed'"),
    ("[1, 100]", '[1, "much"]', "r1_gamma = 'much': it must be a number or auto"),
    ("[1, 100]", "[1, -2]", "r1_gamma = -2: it must not be negative"),
    ("[1, 100]", "[1, 5]", "'r1_gamma=5' changes nothing against its base 'base'"),
    ("[1, 100]", "[1, 1]", "settings 'r1_gamma=1' and 'r1_gamma=1' are the same run"),
    ("[1, 100]", "[]", "settings must be a list of values"),
    ("settings = [1, 100]", "", "give settings with their axis, or [[setting]] tables"),
    ('axis = "r1_gamma"\n', "", "settings need an axis"),
    ("[1, 100]", '[1, 100]\n[[setting]]\nname = "x"', "give settings with their axis, or [[setting]] tables"),
    ("[1, 100]", "[1, 100]\nseeds = \"2-0\"", "seeds are '2-0'"),
    ("[1, 100]", "[1, 100]\nseeds = 3", "seeds are 3; write them as 0-2"),
    ("[1, 100]", "[1, 100]\npriority = 9", "priority is 9"),
    ("[1, 100]", "[1, 100]\nmetrics = [\"fid5k_full_pixel\"]", "unknown detector 'pixel'"),
    ("[1, 100]", "[1, 100]\nmetrics = [\"recon5k_mse\"]", "metric recon5k_mse needs a trained encoder"),
    ("fid5k_full_efficientnet_lite0", "recon5k_mse", "the primary metric recon5k_mse needs a"),
    ("[1, 100]", "[1, 100]\n[factors]\nnoise = [\"off\"]", "factor noise needs two levels"),
    ("[1, 100]", "[1, 100]\n[fields]\nstyle_vectors = 4", "--style-vectors 4: --injection modconv takes one"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), BAD)
def test_bad_input_is_one_line_with_file_and_way_out(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = QUESTION + R1
    assert old in text
    with pytest.raises(UserError) as error:
        read(tmp_path, text.replace(old, new))
    line = str(error.value)
    assert message in line and "\n" not in line
    assert line.startswith(str(tmp_path / "r1-weight.toml"))


def test_label_metrics_need_a_dataset_of_their_kind(tmp_path: Path) -> None:
    text = (
        (QUESTION + R1)
        .replace('"mnist-stylegan2"', '"cifar"')
        .replace("fid5k_full_efficientnet_lite0", "legible5k")
    )
    with pytest.raises(UserError, match="the primary metric legible5k is for digits only"):
        read(tmp_path, text)
    study = read(tmp_path, text.replace("legible5k", "fid5k_full_efficientnet_lite0"))
    assert not any("legible" in metric or "digits" in metric for metric in study.metrics)


def test_an_untrained_encoder_has_no_reconstruction(tmp_path: Path) -> None:
    text = QUESTION.replace('"mnist-stylegan2"', '"mnist"').replace(
        "fid5k_full_efficientnet_lite0", "recon5k_mse"
    )
    fields = '{ rec_in_d_phase = false, encoder_lr_mult = 1, encoder_init = "random" }'
    table = f'[[setting]]\nname = "gan"\nfields = {fields}\n'
    with pytest.raises(UserError, match="'gan' of mnist has none"):
        read(tmp_path, text + table)


def test_two_studies_that_disagree_about_one_run_are_one_line(tmp_path: Path) -> None:
    write_study(tmp_path, QUESTION + "kimg = 20\n" + R1, name="short")
    write_study(tmp_path, QUESTION + R1, name="long")
    with pytest.raises(
        UserError, match=r"^short and long disagree about the run .*: kimg is 20 and 100"
    ) as error:
        read_studies(tmp_path)
    assert "\n" not in str(error.value)


def test_a_null_study_compares_different_seeds(tmp_path: Path) -> None:
    null = QUESTION.replace('"injection"', '"null"') + '[[setting]]\nname = "again"\nfields = {}\n'
    with pytest.raises(UserError, match="0 is on both sides"):
        read(tmp_path, null)
    study = read(
        tmp_path, QUESTION.replace('"injection"', '"null"') + 'seeds = "6-11"\n[[setting]]\nname = "again"\n'
    )
    assert [run.seed for run in study.runs()] == list(range(12))
    assert len({run.config.sha256() for run in study.runs()}) == 1


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-2", (0, 1, 2)), ("3", (3,)), ("0-1,5", (0, 1, 5)), ("4,2", (2, 4))]
)
def test_seeds(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "0-", "0,0", "1-0", "-1", None, True])
def test_bad_seeds(text) -> None:
    with pytest.raises(UserError, match="seeds are"):
        parse_seeds(text)


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    code = (
        "import sys; from fact_train.sweeps.study import read_study; "
        f"read_study({str(path)!r}).runs(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_committed_study_reads_and_none_waits_for_a_preset_that_exists() -> None:
    studies = read_studies(HOME)
    assert {study.list for study in studies} == {"injection", "stylex", "null"}
    waiting = [study.name for study in studies if study.base in study.blocked and study.base in PRESETS]
    assert waiting == []
