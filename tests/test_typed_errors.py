"""Errors are told apart by type and fields, never by their wording."""

import ast
import gzip
from pathlib import Path

import numpy as np
import pytest
from data_files import idx, idx_files, write_files
from eval_toys import make_data, make_pictures
from PIL import Image

from fact_eval.jobs.pictures import open_reference, plan_pictures
from fact_eval.jobs.plan import Request
from fact_metrics.base.errors import UserError
from fact_metrics.features.weight_store import MissingWeights, find_weights
from fact_train.classifiers.training import train_classifier
from fact_train.data import open_dataset
from fact_train.data.errors import BadResolution, MissingSplit, NeedsOption, UnusableFiles

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("metrics", "fact_train", "fact_eval", "baselines", "leaderboard", "benchmarks")
SEARCHES = {
    *("startswith", "endswith", "find", "rfind", "index", "rindex", "count", "partition", "rpartition"),
    *("match", "search", "fullmatch", "findall"),
}


def wording_checks(source: str) -> list[int]:
    """Lines that look into what an exception says: its text compared, searched or cut up, or its `args`."""
    tree = ast.parse(source)
    errors = {node.name for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.name}
    errors |= {"error", "exception", "exc", "err"}
    texts: set[str] = set()

    def is_text(node: ast.AST) -> bool:
        """Whether an expression is made of an exception's text."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and inner.id in texts:
                return True
            called = isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name)
            if called and inner.func.id in ("str", "repr") and _names(inner) & errors:
                return True
            if isinstance(inner, ast.FormattedValue) and isinstance(inner.value, ast.Name):
                if inner.value.id in errors:
                    return True
        return False

    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr)
            and node.value
            and is_text(node.value)
        ):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            texts |= {target.id for target in targets if isinstance(target, ast.Name)}
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            found = any(is_text(side) for side in (node.left, *node.comparators))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            looks = node.func.attr in SEARCHES or (node.func.attr == "split" and node.args)
            found = looks and any(is_text(part) for part in (node.func.value, *node.args))
        elif isinstance(node, ast.Attribute):
            found = node.attr == "args" and isinstance(node.value, ast.Name) and node.value.id in errors
        else:
            continue
        if found:
            lines.append(node.lineno)
    return sorted(set(lines))


def _names(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_code_looks_into_the_wording_of_an_error(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    found = {str(p.relative_to(ROOT)): wording_checks(p.read_text(encoding="utf-8")) for p in files}
    assert {path: lines for path, lines in found.items() if lines} == {} and files


@pytest.mark.parametrize(
    "line",
    [
        'if "no test split" in str(problem): pass',
        'if "no test split" not in str(problem): raise',
        "kind = [word for word in words if word in str(problem)]",
        "what, _, rest = str(problem).partition('; ')",
        "short = str(problem).split(': ')[0]",
        "full = str(problem).startswith('no space')",
        "same = f'{problem}' == 'no space'",
        "found = re.search('split', repr(problem))",
        "first = problem.args[0]",
        "text = str(problem)\n    if 'split' in text: pass",
    ],
)
def test_the_check_sees_wording_looked_into(line: str) -> None:
    source = f"try:\n    f()\nexcept ValueError as problem:\n    {line}\n"
    assert wording_checks(source)


@pytest.mark.parametrize(
    "line",
    [
        "raise UserError(f'{path}: {problem}') from problem",
        "reason = str(problem).splitlines()[0]",
        "reason = ' '.join(str(problem).split()) or type(problem).__name__",
        "lines.append(str(problem))",
        "if isinstance(problem, OSError) and 'x' in names: pass",
        "if problem.split == 'test': pass",
    ],
)
def test_the_check_lets_an_error_be_shown(line: str) -> None:
    assert wording_checks(f"try:\n    f()\nexcept ValueError as problem:\n    {line}\n") == []


# Data that has no such split


def train_files_only(folder: Path, count: int = 20) -> Path:
    files = idx_files(count=count)
    return write_files(folder, {name: content for name, content in files.items() if "t10k" not in name})


def npz(folder: Path) -> Path:
    folder.mkdir()
    np.savez(folder / "a.npz", arr_0=np.zeros((3, 8, 8), np.uint8))
    return folder / "a.npz"


@pytest.mark.parametrize("make", [train_files_only, npz, lambda folder: make_pictures(folder, 3)])
def test_a_missing_split_is_named_by_the_error_whatever_the_data_is(tmp_path, make) -> None:
    data = make(tmp_path / "data")
    assert len(open_dataset(data)) > 0
    with pytest.raises(MissingSplit, match="has no test split; ") as caught:
        open_dataset(data, split="test")
    assert caught.value.split == "test" and caught.value.path == data


def test_an_idx_split_with_one_of_its_files_missing_is_damaged_not_missing(tmp_path) -> None:
    files = idx_files()
    del files["t10k-images-idx3-ubyte.gz"]
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte: no such file") as caught:
        open_dataset(write_files(tmp_path, files), split="test")
    assert not isinstance(caught.value, MissingSplit)


def test_a_classifier_of_an_idx_folder_without_test_files_is_scored_on_a_tenth_kept_aside(tmp_path) -> None:
    labels = np.arange(200, dtype=np.uint8) % 2
    pixels = np.repeat(200 * labels, 64).reshape(200, 8, 8)
    files = {"train-images-idx3-ubyte": idx(pixels), "train-labels-idx1-ubyte": idx(labels)}
    data = write_files(tmp_path / "data", files)
    out = tmp_path / "c.safetensors"
    card = train_classifier(out, data=str(data), epochs=3, batch=16, report=lambda line: None)
    assert card["held_out"] == {"split": "train", "n": 20}


def test_a_damaged_test_split_stops_a_classifier(tmp_path) -> None:
    files = idx_files() | {"t10k-images-idx3-ubyte.gz": gzip.compress(b"no idx file, no test split")}
    data = write_files(tmp_path / "data", files)
    with pytest.raises(UserError, match="t10k-images"):
        train_classifier(tmp_path / "c", data=str(data), epochs=1, report=lambda line: None)


# Images that training would take with an option


def test_pictures_that_an_option_of_training_would_mend_are_to_be_saved_at_the_right_size(tmp_path) -> None:
    folder = tmp_path / "save; --crop"  # a name that reads like a way out
    folder.mkdir()
    Image.new("L", (16, 8)).save(folder / "a.png")
    with pytest.raises(NeedsOption, match="choose --crop") as caught:
        open_dataset(folder)
    assert caught.value.problem.endswith("a.png is 16x8, not square")
    reference = open_reference(str(make_data(tmp_path / "data")))
    with pytest.raises(NeedsOption) as caught:
        plan_pictures(folder, reference, tmp_path, Request(()))
    assert str(caught.value).endswith("16x8, not square; save the pictures at 8x8, the reference's size")


def test_a_full_disk_is_not_mistaken_for_pictures_of_the_wrong_size(tmp_path, monkeypatch) -> None:
    """Its message names options of training too."""
    reference = open_reference(str(make_data(tmp_path / "data")))
    pictures = make_pictures(tmp_path / "pictures", 3)

    def full(descriptor, offset, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    monkeypatch.setattr("fact_train.data.pixels.IN_MEMORY_BYTES", 0)
    with pytest.raises(UserError, match="lower --resolution or --max-images"):
        plan_pictures(pictures, reference, tmp_path, Request(()))


def test_every_unusable_file_comes_with_its_error(tmp_path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(b"no picture")
    rgba = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    rgba.save(tmp_path / "c.png")
    with pytest.raises(UnusableFiles) as caught:
        open_dataset(tmp_path)
    assert [isinstance(error, NeedsOption) for error in caught.value.errors] == [False, False, True]
    assert caught.value.problems == [str(error) for error in caught.value.errors]


def test_a_resolution_that_is_no_power_of_two_is_the_requests_mistake_with_a_way_out() -> None:
    with pytest.raises(BadResolution, match="try --resolution 32") as caught:
        open_dataset("mnist", resolution=40)
    assert caught.value.exit_code == 2 and caught.value.way_out == "try --resolution 32"


def test_missing_weights_name_the_file(monkeypatch, tmp_path) -> None:
    for variable in ("FACT_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.delenv("FACT_WEIGHTS_SHARED", raising=False)
    with pytest.raises(MissingWeights) as caught:
        find_weights("clip_vit_b32")
    assert caught.value.name == "clip_vit_b32"
