"""Studies: a question as a TOML file, read into the runs that answer it. No torch.

A study compares settings with a reference on a primary metric:

    question = "Which R1 weight gives the best images?"
    list = "injection"
    source = "style experiments"
    base = "mnist-stylegan2-study"
    axis = "r1_gamma"
    settings = ["auto", 1, 10, 100]
    primary = "fid5k_full_efficientnet_lite0"
    relevant_difference = 20
    held_fixed = "Everything else, with one style vector."

`[[setting]]` tables with `name` and `fields` replace `settings` where a setting changes several fields.
`[factors]` repeats the comparison: every setting is compared within each combination of their levels.
The name of a study is that of its file.
"""

import dataclasses
import functools
import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fact_metrics.base.errors import UserError
from fact_metrics.registry import get_spec
from fact_train.datasets import dataset_entry
from fact_train.run_folder import default_outdir, run_label
from fact_train.settings.config import TrainConfig
from fact_train.settings.fields import value_text
from fact_train.settings.presets import PRESETS, get_preset
from fact_train.settings.sources import SOURCES
from fact_train.sweeps.study_values import (
    RUN_FIELDS,
    check_keys,
    check_name,
    parse_seeds,
    read_fields,
    read_positive,
    read_priority,
    read_text,
    trains_encoder,
)

_DIGITS = (
    "fid5k_full_efficientnet_lite0",
    "fid5k_full_digits",
    "legible5k",
    "covered5k",
    "precision5k3_test_pixels",
    "recall5k3_test_pixels",
    "style_diversity1k_train_pixels",
    "noise_diversity1k_train_pixels",
)
_EXPLANATION = (
    "recon5k_mse",
    "recon5k_ssim",
    "reconfid5k_full_efficientnet_lite0",
    "agreement5k",
    "wgap5k_frechet",
    "sharpness5k_test",
)
# List of questions -> the metrics that all its studies measure where they fit, so that they can share runs.
LISTS: dict[str, tuple[str, ...]] = {
    "injection": _DIGITS,
    "stylex": (*_DIGITS, *_EXPLANATION),
    "null": _DIGITS,
}
SEEDS, BASE_SEEDS = "0-2", "0-5"


@dataclass(frozen=True)
class Setting:
    """A configuration of a study: what it changes of the base, and the setting that it is compared with."""

    name: str
    fields: Mapping[str, Any]
    note: str = ""
    against: str = ""  # name of a reference; empty for a reference itself


@dataclass(frozen=True)
class StudyRun:
    """One training run: `fact-train --preset PRESET`, the fields as flags, a seed, a folder of this name."""

    name: str
    setting: Setting
    preset: str
    label: str  # of its records
    fields: Mapping[str, Any]  # that differ from the preset, kimg included
    config: TrainConfig  # with its seed and kimg

    @property
    def seed(self) -> int:
        return self.config.seed

    @functools.cached_property
    def key(self) -> tuple[str, float, int]:
        """Identity in records: configuration hash, thousand images, training seed."""
        return self.config.sha256(), self.config.kimg, self.config.seed


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question and the runs that answer it.

    `references` are what settings are compared with: the base, or one for each combination of factors.
    `relevant_difference` is absolute, in units of the primary metric; a smaller one does not matter.
    `blocked` says what is missing to run the study; until it is removed from the file, the base, fields,
    settings and metrics are not read.
    """

    name: str
    question: str
    list: str
    source: str  # a key of SOURCES
    base: str
    primary: str
    relevant_difference: float
    held_fixed: str
    expected: str = ""  # what the source says, in plain words
    axis: str = ""  # the field that the question is about; `--list-axes` shows the answer there
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    references: tuple[Setting, ...] = ()
    settings: tuple[Setting, ...] = ()
    seeds: tuple[int, ...] = ()
    base_seeds: tuple[int, ...] = ()
    metrics: tuple[str, ...] = ()  # the primary one first
    priority: int = 2  # 1 is run first
    blocked: str = ""

    @property
    def kimg(self) -> float:
        """Thousand images of the base."""
        return self.config(Setting("", {})).kimg

    def fields_of(self, setting: Setting) -> dict[str, Any]:
        """What a run of the setting changes of the preset."""
        preset = get_preset(self.base).config
        fields = {**self.fields, **setting.fields}
        return {name: value for name, value in fields.items() if getattr(preset, name) != value}

    def config(self, setting: Setting, seed: int = 0) -> TrainConfig:
        """The configuration of a setting. Raises UsageError if its fields contradict each other."""
        preset = get_preset(self.base).config
        return dataclasses.replace(preset, **self.fields_of(setting), seed=seed)

    def seeds_of(self, setting: Setting) -> tuple[int, ...]:
        """The training seeds of a setting."""
        return self.seeds if setting.against else self.base_seeds

    def runs(self) -> tuple[StudyRun, ...]:
        """Every run, by seed, references first."""
        return self._runs

    @functools.cached_property
    def _runs(self) -> tuple[StudyRun, ...]:
        return tuple(
            self.run(setting, seed)
            for seed in sorted({*self.seeds, *self.base_seeds})
            for setting in (*self.references, *self.settings)
            if seed in self.seeds_of(setting)
        )

    def run(self, setting: Setting, seed: int) -> StudyRun:
        """The run of a setting with this seed, whether the study asks for it or not."""
        preset, config = get_preset(self.base).config, self.config(setting, seed)
        label = run_label(self.base, preset, config)
        length = f"-kimg={setting.fields['kimg']:g}" if "kimg" in setting.fields else ""
        name = default_outdir(self.base, label, seed).name + length
        return StudyRun(name, setting, self.base, label, self.fields_of(setting), config)


def read_studies(folder: Path) -> tuple[Study, ...]:
    """All studies of a folder, by name. UserError if two of them disagree about one run."""
    studies = tuple(read_study(path) for path in sorted(Path(folder).glob("*.toml")))
    owners: dict[str, tuple[Study, StudyRun]] = {}
    for study in studies:
        for run in study.runs():
            other, known = owners.setdefault(run.name, (study, run))
            if known.key != run.key:
                raise UserError(
                    f"{study.name} and {other.name} disagree about the run {run.name}: "
                    f"{_difference(run, known)}; give both the same fields and kimg."
                )
    return studies


def _difference(run: StudyRun, other: StudyRun) -> str:
    for f in RUN_FIELDS:
        a, b = getattr(run.config, f), getattr(other.config, f)
        if a != b:
            return f"{f} is {value_text(a)} and {value_text(b)}"
    raise AssertionError("configurations with different keys differ in a field")


# Reading one file

TEXTS = ("question", "list", "source", "base", "primary", "held_fixed")
OPTIONAL = (
    *("expected", "axis", "settings", "setting", "factors", "fields", "kimg", "seeds", "base_seeds"),
    *("metrics", "priority", "blocked"),
)
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def read_study(path: Path) -> Study:
    """The study of a TOML file. UserError, one line with the file, for anything wrong in it."""
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}.") from error
    try:
        return _study(path.stem, values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _study(name: str, values: dict[str, Any]) -> Study:
    if not NAME.fullmatch(name):
        raise UserError("name the file in small letters, digits and hyphens, such as r1-weight.toml.")
    check_keys(values, (*TEXTS, "relevant_difference", *OPTIONAL), "key")
    texts = {key: read_text(values, key) for key in TEXTS}
    check_name(values["list"], LISTS, "list")
    check_name(values["source"], SOURCES, "source")
    study = Study(
        name=name,
        **texts,
        relevant_difference=read_positive(values, "relevant_difference"),
        expected=read_text(values, "expected", optional=True),
        blocked=read_text(values, "blocked", optional=True),
        seeds=parse_seeds(values.get("seeds", SEEDS)),
        base_seeds=parse_seeds(values.get("base_seeds", BASE_SEEDS)),
        priority=read_priority(values.get("priority", 2)),
    )
    return study if study.blocked else _with_runs(study, values)


def _with_runs(study: Study, values: dict[str, Any]) -> Study:
    """The study with its base, metrics and settings, all checked."""
    check_name(study.base, PRESETS, "preset")
    fields = read_fields(values.get("fields", {}), "fields")
    if "kimg" in values:
        fields |= read_fields({"kimg": values["kimg"]}, "the study")
    shared = _shared_metrics(study.list, get_preset(study.base).config)
    metrics = _metrics(study.primary, shared, values.get("metrics", []))
    axis, changes = _changes(values)
    references = _references(values.get("factors", {}))
    settings = tuple(
        dataclasses.replace(
            change,
            name=change.name if reference.name == "base" else f"{reference.name}, {change.name}",
            fields={**reference.fields, **change.fields},
            against=reference.name,
        )
        for reference in references
        for change in changes
    )
    study = dataclasses.replace(
        study,
        primary=metrics[0],
        metrics=metrics,
        fields=fields,
        axis=axis,
        references=references,
        settings=settings,
    )
    _check_settings(study)
    _check_metrics(study)
    return study


def _changes(values: dict[str, Any]) -> tuple[str, tuple[Setting, ...]]:
    """The axis, and what each setting changes of its reference."""
    tables, axis = values.get("setting", []), values.get("axis", "")
    if axis:
        check_name(axis, RUN_FIELDS, "field")
    if ("settings" in values) == bool(tables):
        raise UserError("give settings with their axis, or [[setting]] tables.")
    if "settings" in values:
        if not axis:
            raise UserError("settings need an axis: the field that they are values of.")
        if not isinstance(values["settings"], list) or not values["settings"]:
            raise UserError("settings must be a list of values.")
        return axis, tuple(_level(axis, value) for value in values["settings"])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UserError("setting must be a list of tables: [[setting]].")
    changes = []
    for table in tables:
        check_keys(table, ("name", "fields", "note"), "key of [[setting]]")
        name = read_text(table, "name")
        fields = read_fields(table.get("fields", {}), f"setting {name!r}")
        changes.append(Setting(name, fields, read_text(table, "note", optional=True)))
    return axis, tuple(changes)


def _level(name: str, value: Any) -> Setting:
    fields = read_fields({name: value}, f"setting {name}")
    return Setting(f"{name}={value_text(fields[name])}", fields)


def _references(factors: Any) -> tuple[Setting, ...]:
    """The base, or one reference for each combination of the levels of the factors."""
    if not isinstance(factors, dict):
        raise UserError("factors must be a table: [factors].")
    if not factors:
        return (Setting("base", {}),)
    levels = []
    for factor, given in factors.items():
        if isinstance(given, list):
            levels.append([_level(factor, value) for value in given])
        elif isinstance(given, dict):
            where = f"factor {factor}"
            levels.append([Setting(f"{factor}={level}", read_fields(f, where)) for level, f in given.items()])
        else:
            raise UserError(f"factor {factor} must be a list of values, or a table of levels with fields.")
        if len(levels[-1]) < 2:
            raise UserError(f"factor {factor} needs two levels or more.")
    return tuple(
        Setting(
            ", ".join(level.name for level in combination),
            {name: value for level in combination for name, value in level.fields.items()},
        )
        for combination in itertools.product(*levels)
    )


def _check_settings(study: Study) -> None:
    """Every setting is valid, and is another run than all the rest."""
    seen: dict[tuple, Setting] = {}
    for setting in (*study.references, *study.settings):
        try:
            config = study.config(setting)
        except UserError as error:
            raise UserError(f"setting {setting.name!r}: {error}") from None
        same = seen.setdefault((config.sha256(), config.kimg), setting)
        if same is setting:
            continue
        shared = set(study.seeds_of(same)) & set(study.seeds_of(setting))
        if study.list == "null" and setting.against == same.name:
            if shared:
                raise UserError(f"a null study compares different seeds; {min(shared)} is on both sides.")
        elif setting.against == same.name:
            raise UserError(f"setting {setting.name!r} changes nothing against its base {same.name!r}.")
        else:
            raise UserError(f"settings {same.name!r} and {setting.name!r} are the same run; drop one.")


def _shared_metrics(name: str, base: TrainConfig) -> list[str]:
    """The metrics of a list that mean something on the base's dataset."""
    traits = dataset_entry(base.data).traits
    return [metric for metric in LISTS[name] if get_spec(metric).fits(traits)]


def _metrics(primary: str, shared: Sequence[str], more: Any) -> tuple[str, ...]:
    if not isinstance(more, list) or not all(isinstance(name, str) for name in more):
        raise UserError("metrics must be a list of names.")
    return tuple(dict.fromkeys(get_spec(name).name for name in (primary, *shared, *more)))


def _check_metrics(study: Study) -> None:
    """The runs of the study can have all its metrics."""
    specs = [get_spec(metric) for metric in study.metrics]
    traits = dataset_entry(get_preset(study.base).config.data).traits
    for spec in specs:
        what = "the primary metric" if spec.name == study.primary else "metric"
        if not spec.fits(traits):
            raise UserError(
                f"{what} {spec.name} is for {spec.needs_trait} only; {study.base} has other data."
            )
    encoder_metric = next((spec.name for spec in specs if spec.needs_encoder), None)
    for setting in (*study.references, *study.settings) if encoder_metric else ():
        config = study.config(setting)
        if not trains_encoder(config):
            what = "the primary metric" if encoder_metric == study.primary else "metric"
            raise UserError(
                f"{what} {encoder_metric} needs a trained encoder; {setting.name!r} of {study.base} has none."
            )
