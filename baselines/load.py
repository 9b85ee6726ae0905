"""What papers report (`<dataset>/<source>.json`) and which presets we measure as baselines (`measured.json`).

One file holds one dataset's numbers from one paper or README. A reported number keeps the name and protocol
it was published with; boards show it in a table of its own and never rank it with a measured one.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from fact_metrics.base.errors import UserError

ROOT = Path(__file__).parent
SCHEMA = 1
Number = float | int


@dataclass(frozen=True, kw_only=True)
class Reported:
    """One number of one paper. None: the source does not say."""

    model: str
    paper: str
    metric: str  # as the source calls it
    value: Number
    spread: Number | None  # what the source prints behind +-
    runs: int | None  # evaluation runs behind value and spread
    n_generated: int | None
    n_real: int | None
    protocol: str
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReportedSet:
    """The numbers one source reports on one dataset."""

    dataset: str
    resolution: int | str
    source: str
    results: tuple  # of Reported
    note: str | None = None


def load_reported(root: Path = ROOT) -> list[ReportedSet]:
    """Every baselines/<dataset>/<source>.json, sorted by path. Raises UserError that names file and field."""
    return [read_reported(path) for path in sorted(Path(root).glob("*/*.json"))]


def read_reported(path: Path) -> ReportedSet:
    """One file, checked against the schema. Raises UserError that names the file and what is wrong in it."""
    data = _read(path)
    rows = data.pop("results", None)
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: results must be a list of at least one number")
    results = tuple(_checked(Reported, row, f"{path} result {i}") for i, row in enumerate(rows, start=1))
    reported = _checked(ReportedSet, {**data, "results": results}, str(path))
    if reported.dataset != path.parent.name:
        raise UserError(f"{path}: dataset is {reported.dataset!r}, but the folder is {path.parent.name!r}")
    return reported


def measured_presets(path: Path = ROOT / "measured.json") -> dict[str, dict]:
    """Preset name -> {dataset, train_seeds, role} of the rows this project measures as baselines."""
    presets = _read(path).get("presets")
    if not isinstance(presets, dict) or any("role" not in entry for entry in presets.values()):
        raise UserError(f"{path}: presets must map names to objects with dataset, train_seeds and role")
    return presets


def _read(path: Path) -> dict:
    try:
        data = json.loads(Path(path).read_text())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(data, dict) or data.pop("schema", None) != SCHEMA:
        raise UserError(f"{path}: schema must be {SCHEMA}")
    return data


def _checked(cls, data: object, where: str):
    """An instance of a dataclass from JSON, every field present and of its type."""
    if not isinstance(data, dict):
        raise UserError(f"{where}: must be an object")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if unknown := sorted(data.keys() - fields.keys()):
        raise UserError(f"{where}: unknown field {unknown[0]!r}")
    for name, f in fields.items():
        if name not in data:
            if f.default is dataclasses.MISSING:
                raise UserError(f"{where}: field {name!r} is missing")
            continue
        if isinstance(data[name], bool) or not isinstance(data[name], f.type):
            raise UserError(f"{where}: field {name!r} is {data[name]!r}")
    return cls(**data)
