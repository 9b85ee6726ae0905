"""The built wheel works in a fresh environment, also from a folder with a StyleGAN fork's own packages."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOREIGN = ("metrics", "training", "leaderboard", "baselines", "torch_utils", "dnnlib_free")
DIES = "import dnnlib_that_is_not_installed\n"  # what a fork's package does outside of its own environment


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of an environment that holds the wheel; what it depends on comes from the present environment."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    archive = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=True).stdout
    for name in archive.decode().split("\0"):
        if name and (ROOT / name).exists() and not name.startswith(("tests/", "benchmarks/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *options, "--wheel-dir", folder, source], check=True, capture_output=True)
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    wheel = next(folder.glob("*.whl"))
    subprocess.run([*pip, "--python", python, "install", *options[:2], "--no-index", wheel], check=True)
    purelib = next((environment / "lib").glob("python*/site-packages"))
    # A path file's own folder is searched for modules, not for path files: our editable install stays out.
    (purelib / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n" + base_packages())
    return environment / "bin"


def base_packages() -> str:
    """Where else the present environment finds its packages, one folder a line."""
    return "".join(f"{path}\n" for path in sys.path if path.endswith("site-packages"))


@pytest.fixture(scope="module")
def fork(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the checkout of a StyleGAN fork: packages of common names that cannot be imported."""
    folder = tmp_path_factory.mktemp("fork")
    for name in FOREIGN:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(DIES)
    return folder


def run(*command: object, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(cwd), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_only_packages_of_unique_names(installed: Path) -> None:
    packages = next((installed.parent / "lib").glob("python*/site-packages"))
    ours = {
        path.name for path in packages.iterdir() if path.is_dir() and not path.name.endswith(".dist-info")
    }
    ours -= {"__pycache__"}
    assert ours == {"fact_baselines", "fact_eval", "fact_leaderboard", "fact_metrics", "fact_train"}


def test_commands_work_beside_foreign_packages(installed: Path, fork: Path) -> None:
    assert "mnist-stylegan2" in run(installed / "fact-train", "--list-presets", cwd=fork)
    assert "fid50k_full" in run(installed / "fact-eval", "list", cwd=fork)
    assert "mnist-stylegan2" in run(installed / "python", "-m", "fact_train", "--list-presets", cwd=fork)


def test_the_editable_install_works_beside_foreign_packages(fork: Path) -> None:
    folder = Path(sys.executable).parent
    assert "fid50k_full" in run(folder / "fact-eval", "list", cwd=fork)
    where = run(sys.executable, "-c", "import fact_metrics; print(fact_metrics.__file__)", cwd=fork)
    assert Path(where.strip()) == ROOT / "metrics" / "__init__.py"


def test_training_and_scoring_use_the_data_inside_the_wheel(installed: Path, fork: Path) -> None:
    trained = run(
        *(installed / "fact-train", "--preset", "mnist-stylegan2", "--kimg", "0.064", "--channel-base", "64"),
        *("--channel-max", "8", "--batch", "32", "--threads", "1", "--device", "cpu"),
        cwd=fork,
    )
    folder = next((fork / "runs").iterdir())
    assert (folder / "network-snapshot-000000.safetensors").exists(), trained
    where = run(installed / "python", "-c", "import fact_metrics; print(fact_metrics.__file__)", cwd=fork)
    assert str(installed.parent) in where
    board = run(installed / "fact-eval", "leaderboard", "--json", cwd=fork)
    assert "mnist-stylegan2" in board
