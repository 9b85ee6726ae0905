"""Adds, fetches and checks weight files; a manifest beside them records their SHA-256.

metrics/features/weight_store.py says what the files are and where they are looked up. A file gets its name
only when it is complete and its hash is known; writers of one folder take a lock.
"""

import hashlib
import shutil
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fact_eval.weights.download import download
from fact_metrics.base.arrays import DAMAGED
from fact_metrics.base.atomic import write_atomically, write_json
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.provenance import utc_now
from fact_metrics.features.weight_store import (
    MANIFEST,
    SCHEMA,
    WEIGHTS,
    Format,
    Installed,
    WeightFile,
    file_sha256,
    look_up,
    read_manifest,
    shared_folders,
    weight_file,
    weights_folder,
)
from fact_metrics.features.weight_store import (
    trust as trust_hash,
)


@dataclass(frozen=True)
class Checked:
    """Result of `check_weights` for one file; `problem` is None if the file is right."""

    name: str
    path: Path
    sha256: str
    problem: str | None


def identify(path: Path, name: str | None = None) -> WeightFile | None:
    """The known weight file with this content, preferably the named one; None for other content."""
    sha256 = file_sha256(path)
    same = [file for file in WEIGHTS.values() if file.sha256 == sha256]
    return next((file for file in same if file.name == name), same[0] if same else None)


def add_weights(path: Path, name: str | None = None, *, trust: bool = False) -> Installed:
    """Copy a file into the weights folder and record it; the published file of a name, unless trusted.

    A trusted file must at least open as weights. UsageError or UserError says what else the file is.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path} is not a file; give the weight file to add")
    requested = None if name is None else weight_file(name)
    known = identify(path, name)
    if known is not None and requested is not None and known.sha256 != requested.sha256:
        raise UserError(f"{path} is {known.name} ({known.filename}), not {requested.name}")
    if known is not None:
        return _place(path, requested or known, known.sha256, known.format, trusted=False)
    sha256 = file_sha256(path)
    named = requested or next((f for f in WEIGHTS.values() if f.filename == path.name), None)
    if named is None:
        raise UserError(
            f"{path} is not a known weight file (sha256 {sha256}); name the weights it replaces with "
            f"--as NAME --trust (fact-eval weights list); their scores then have a separate protocol"
        )
    if not trust or requested is None:
        raise UserError(
            f"{path} is not {named.filename}: {path.stat().st_size / 1e6:,.1f} MB of {named.size}, sha256 "
            f"{sha256}, expected {named.sha256}. Fetch it again; --as {named.name} --trust accepts it, "
            f"under a separate protocol"
        )
    from fact_metrics.features.weight_files import read_file

    format = guess_format(path)
    read_file(path, format)
    trust_hash(sha256, requested.name)
    return _place(path, requested, sha256, format, trusted=True)


def fetch_weights(name: str, *, report: Callable[[int], None] = lambda done: None) -> tuple[Installed, bool]:
    """The installed file, and whether this call downloaded it; concurrent processes download it once."""
    file = weight_file(name)
    installed, _ = look_up(name)
    if installed is not None:
        return installed, False
    folder = weights_folder()
    path = folder / file.filename
    with _locked(folder, f".{file.filename}.lock"):
        installed, _ = look_up(name)  # another process may have fetched it meanwhile
        if installed is not None:
            return installed, False
        download(file.url, path, sha256=file.sha256, progress=report)
        return _record(path, file, file.sha256, file.format, trusted=False, origin=file.url), True


def check_weights() -> list[Checked]:
    """Every weight file in the weights folder and the shared folders, hashed now.

    Right files that the user copied into the weights folder are added to its manifest.
    """
    checked: list[Checked] = []
    for folder in (weights_folder(), *shared_folders()):
        manifest = read_manifest(folder)
        for name, entry in manifest.items():
            checked.append(_check(name, folder / entry["filename"], entry["sha256"]))
        listed = {entry["filename"] for entry in manifest.values()}
        for file in WEIGHTS.values():
            path = folder / file.filename
            if file.filename in listed or not path.is_file():
                continue
            checked.append(_check(file.name, path, file.sha256))
            if checked[-1].problem is None and folder == weights_folder():
                _record(path, file, file.sha256, file.format, trusted=False, origin="found there")
        for path in sorted(folder.glob("*.partial")):
            checked.append(Checked("", path, "", "incomplete; `fact-eval weights fetch` resumes it"))
    return checked


def guess_format(path: Path) -> Format:
    """Format of an unknown file, from its name and the names inside; no code in it is executed."""
    if path.suffix == ".safetensors":
        return "safetensors"
    try:
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return "torchscript"
    except DAMAGED:  # no zip, or a damaged one: the reader of state_dicts says which
        pass
    return "state_dict"


def source_of(path: Path) -> str:
    """Which kind of folder a file is in: own, shared or torch."""
    if path.parent == weights_folder():
        return "own"
    return "shared" if path.parent in shared_folders() else "torch"


def _check(name: str, path: Path, expected: str) -> Checked:
    try:
        with open(path, "rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return Checked(name, path, "", f"cannot be read: {error.strerror or error}")
    if actual == expected:
        return Checked(name, path, actual, None)
    way_out = f"remove it, then `fact-eval weights fetch {name}`"
    return Checked(name, path, actual, f"sha256 {actual}, expected {expected}: {way_out}")


def _place(path: Path, file: WeightFile, sha256: str, format: Format, *, trusted: bool) -> Installed:
    """Copy the file into the weights folder and record it."""
    folder = weights_folder()
    filename = f"{file.name}-trusted-{sha256[:8]}{path.suffix}" if trusted else file.filename
    target = folder / filename
    with _locked(folder, f".{filename}.lock"):
        if not (target.exists() and target.samefile(path)):
            write_atomically(target, lambda partial: _copy(path, partial, sha256))
        return _record(target, file, sha256, format, trusted=trusted, origin="added by hand")


def _copy(source: Path, partial: Path, sha256: str) -> None:
    """Copy; UserError if the copy does not have the hash."""
    shutil.copyfile(source, partial)
    with open(partial, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise UserError(f"{source} changed while it was copied; run the same command again")


def _record(
    path: Path, file: WeightFile, sha256: str, format: Format, *, trusted: bool, origin: str
) -> Installed:
    """Add a file of the weights folder to its manifest."""
    folder, stat = path.parent, path.stat()
    entry = {
        "filename": path.name,
        "sha256": sha256,
        "bytes": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "format": format,
        "trusted": trusted,
        "from": origin,
        "added": utc_now(),
    }
    with _locked(folder, f".{MANIFEST}.lock"):
        files = {**read_manifest(folder), file.name: entry}
        write_json(folder / MANIFEST, {"schema": SCHEMA, "files": dict(sorted(files.items()))})
    return Installed(path, sha256, format, trusted)


@contextmanager
def _locked(folder: Path, name: str):
    """Hold a lock file of the folder. UserError if the folder is not writable."""
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / name)
        lock.acquire()
    except OSError as error:
        raise UserError(
            f"weights folder {folder} cannot be written: {error.strerror or error}; set FACT_WEIGHTS to one "
            f"that can be"
        ) from error
    try:
        yield
    finally:
        lock.release()
