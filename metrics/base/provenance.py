"""Where a number comes from: commit, packages, device, command, times. No absolute path gets in."""

import importlib.metadata
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fact_metrics.base.git_state import git_state

PACKAGES = ("fact-stylegan", "torch", "torchvision", "numpy", "safetensors", "pillow")


def utc_now() -> str:
    """The time as `2026-01-31T12:00:00Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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
        "device": device_name(device),
        "threads": threads,
        "world_size": world_size,
        "precision": "float32, TF32 off",
        "argv": portable_argv(sys.argv if argv is None else argv),
    }


def device_name(device: str) -> str:
    """`cpu`, or the name of the GPU that torch calls `cuda:N`."""
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device)


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
