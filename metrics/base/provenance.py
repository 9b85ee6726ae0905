"""Where a number comes from: commit, packages, device, command, times. No absolute path gets in."""

import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

PACKAGES = ("fact-stylegan", "torch", "torchvision", "numpy", "safetensors", "pillow")
# Only these make numbers: a README or a freshly written board does not make a measurement "dirty".
CODE = ("metrics", "fact_train", "fact_eval", "pyproject.toml", "constraints.txt")


def utc_now() -> str:
    """The time as `2026-01-31T12:00:00Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def git_state(root: Path | None = None) -> dict:
    """{"commit", "dirty"} of the checkout that holds this code; both None outside a git checkout.

    dirty: a tracked file of the code that makes numbers (CODE) differs from the commit, or an untracked one
    lies there.
    """
    root = Path(root) if root else Path(__file__).resolve().parents[2]
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None or _git(root, "ls-files", "--error-unmatch", "pyproject.toml") is None:
        return {"commit": None, "dirty": None}
    status = _git(root, "status", "--porcelain", "--", *CODE)
    return {"commit": commit, "dirty": bool(status)}


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that numbers depend on."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def portable_argv(argv: Sequence[str]) -> list[str]:
    """The command line with the bare program name; absolute paths become relative, or their last names."""
    return [Path(argv[0]).name, *(_portable(argument) for argument in argv[1:])] if argv else []


def collect(*, device: str, threads: int, world_size: int = 1, argv: Sequence[str] | None = None) -> dict:
    """Provenance of one scoring process, as JSON; `device` is what torch calls it ("cpu", "cuda:0")."""
    return {
        "git": git_state(),
        "packages": package_versions(),
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "device": _device_name(device),
        "threads": threads,
        "world_size": world_size,
        "precision": "float32, TF32 off",
        "argv": portable_argv(sys.argv if argv is None else argv),
    }


def _portable(argument: str) -> str:
    option, equals, value = argument.partition("=")
    if argument.startswith("-") and equals:
        return f"{option}={_portable(value)}"
    path = Path(argument)
    if not path.is_absolute():
        return argument
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.name


def _device_name(device: str) -> str:
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
