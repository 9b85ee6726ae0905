"""Plans of runs: presets x axes x seeds, or the runs of studies. No torch.

Every run is one fact-train command.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fact_metrics.base.errors import UsageError, UserError, unknown_name
from fact_train.run_folder import default_outdir, run_label
from fact_train.settings.config import TrainConfig, differing_fields, fields_of, flag, flag_with
from fact_train.settings.fields import fit, parse_text, value_text
from fact_train.settings.presets import configure, get_preset
from fact_train.sweeps.study import Study, read_study

AXES = {f.name: f for f in fields_of("science") if f.name != "seed"}
BASE = "base"
LONGEST_NAME = 240  # bytes; file systems take 255, and logs and records add an ending


@dataclass(frozen=True)
class PlannedRun:
    """One run: `fact-train --preset PRESET` with flags, a seed and a folder.

    `setting` says in words what it changes. `metrics` are those that its studies measure.
    """

    preset: str
    config: TrainConfig
    outdir: Path
    setting: str = BASE
    priority: int = 1  # lower is first
    metrics: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.outdir.name

    @property
    def seed(self) -> int:
        return self.config.seed

    def command(self, *, scored: Sequence[str] = ()) -> list[str]:
        """The command of this run; with `scored` it also scores the last snapshot with these metrics."""
        preset = get_preset(self.preset)
        base = preset.at(self.config.resolution)
        changed = {f.name for f in fields_of() if getattr(self.config, f.name) != getattr(base, f.name)} | {
            *preset.needs,
            "seed",
            "kimg",
        }
        if self.config.resolution != preset.config.resolution:
            changed.add("resolution")
        flags = [_argument(f.name, getattr(self.config, f.name)) for f in fields_of() if f.name in changed]
        scoring = [f"--eval={','.join(scored)}", f"--eval-kimg={self.config.kimg or 1:g}"] if scored else []
        return [f"--preset={self.preset}", *flags, f"--outdir={self.outdir}", *scoring]


@dataclass
class Plan:
    """Runs, a line for each thing that cannot be planned, and a line for each study that waits."""

    runs: list[PlannedRun]
    problems: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


# Axes


@dataclass(frozen=True)
class Axis:
    """A field and the values that it takes in turn."""

    name: str
    values: tuple[Any, ...]


def parse_axis(text: str) -> Axis:
    """`r1_gamma=auto,1,10`; semicolons separate values that contain commas. UsageError if unusable."""
    name, equals, values = text.partition("=")
    name = name.strip().lstrip("-").replace("-", "_")
    if name not in AXES:
        if name == "seed":
            raise UsageError(f"--axis {text}: use --seeds for training seeds.")
        raise unknown_name("axis", name, AXES)
    parts = [part.strip() for part in values.split(";" if ";" in values else ",")]
    if not equals or not all(parts):
        raise UsageError(f"--axis {text}: give values, such as --axis {name}=VALUE,VALUE.")
    f, parsed = AXES[name], []
    for part in parts:
        try:
            value = fit(f, parse_text(f, part))
        except ValueError as error:
            raise UsageError(f"--axis {name}={part}: {error}.") from None
        bounds = f.metadata["bounds"]
        if bounds is not None and isinstance(value, int | float) and not bounds.holds(value):
            raise UsageError(f"--axis {name}={part}: {bounds.rule}.")
        if value in parsed:
            raise UsageError(f"--axis {text}: the value {part} is given twice.")
        parsed.append(value)
    return Axis(name, tuple(parsed))


def plan_axes(
    presets: Sequence[str],
    axes: Sequence[Axis],
    seeds: Sequence[int],
    changes: Mapping[str, Any],
    *,
    root: Path,
    one_factor: bool = False,
) -> Plan:
    """Every combination of the axes' values, or with `one_factor` the base and one change at a time.

    `changes` holds for all runs. A combination that contradicts itself is a problem; the others are planned.
    """
    names = [axis.name for axis in axes]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--axis {name} is given twice; list all its values in one.")
        if name in changes:
            raise UsageError(f"{flag_with(name, changes[name])} and --axis {name} contradict each other.")
    plan = Plan([])
    for preset in presets:
        base, _ = configure(preset, dict(changes))
        for axis in axes:
            if all(value == getattr(base, axis.name) for value in axis.values):
                raise UsageError(
                    f"--axis {axis.name}={value_text(axis.values[0])} changes nothing: "
                    f"it is the value of {preset}."
                )
        for setting in _combinations(axes, base, one_factor):
            add_setting(plan, preset, {**changes, **setting}, setting, seeds, root)
    _refuse_empty(plan)
    return plan


def _combinations(axes: Sequence[Axis], base: TrainConfig, one_factor: bool) -> Iterable[dict[str, Any]]:
    if not one_factor:
        for values in itertools.product(*(axis.values for axis in axes)):
            yield dict(zip([axis.name for axis in axes], values, strict=True))
        return
    yield {}
    for axis in axes:
        for value in axis.values:
            if value != getattr(base, axis.name):
                yield {axis.name: value}


def add_setting(
    plan: Plan,
    preset: str,
    changes: dict[str, Any],
    setting: dict[str, Any],
    seeds: Sequence[int],
    root: Path,
) -> None:
    """Plan a setting for each seed, or note why it cannot run."""
    text = ", ".join(f"{name}={value_text(value)}" for name, value in setting.items()) or BASE
    try:
        cfg, reference = configure(preset, changes)
    except UserError as error:
        plan.problems.append(f"{preset} with {text} cannot run: {error}")
        return
    label = run_label(preset, reference, cfg)
    for seed in seeds:
        outdir = root / default_outdir(preset, label, seed).name
        if len(outdir.name.encode()) > LONGEST_NAME:
            plan.problems.append(
                f"{preset} with {text} cannot run: the name of its folder would have {len(outdir.name)} "
                f"characters; the limit is {LONGEST_NAME}. Change fewer settings, or add a preset."
            )
            return
        plan.runs.append(PlannedRun(preset, dataclasses.replace(cfg, seed=seed), outdir, text))


# Studies


def plan_studies(
    files: Sequence[Path],
    seeds: Sequence[int] | None,
    changes: Mapping[str, Any],
    *,
    root: Path,
) -> Plan:
    """The runs of studies, each once. `seeds` keeps those of a study that are among them.

    `changes` are schedule and machine fields. A file that cannot be read, and a run on which two studies
    disagree, are problems; the rest is planned.
    """
    for f in fields_of("science"):
        if f.name in changes:
            raise UsageError(
                f"{flag_with(f.name, changes[f.name])} with --study: a study fixes its settings."
            )
    plan = Plan([])
    by_name: dict[str, PlannedRun] = {}
    owners: dict[str, str] = {}
    for file in _study_files(files):
        try:
            study = read_study(file)
        except UserError as error:
            plan.problems.append(str(error))
            continue
        if study.blocked:
            plan.notes.append(f"{study.name} cannot run yet: {study.blocked}")
        for run in _study_runs(study, seeds, changes, root):
            known = by_name.setdefault(run.name, run)
            owner = owners.setdefault(run.name, study.name)
            different = [*differing_fields(known.config, run.config)]
            different += ["kimg"] if known.config.kimg != run.config.kimg else []
            if different:
                plan.problems.append(
                    f"{study.name} and {owner} disagree about the run {run.name}: {different[0]} is "
                    f"{value_text(getattr(run.config, different[0]))} and "
                    f"{value_text(getattr(known.config, different[0]))}; that of {owner} is run."
                )
                continue
            by_name[run.name] = dataclasses.replace(
                known,
                priority=min(known.priority, run.priority),
                metrics=tuple(dict.fromkeys([*known.metrics, *run.metrics])),
            )
    plan.runs = list(by_name.values())
    _refuse_empty(plan)
    return plan


def _study_files(paths: Sequence[Path]) -> Iterable[Path]:
    """The files, and all studies of the folders among them."""
    for path in paths:
        found = sorted(path.glob("*.toml")) if path.is_dir() else [path]
        if not found:
            raise UsageError(f"--study {path}: the folder holds no study (.toml).")
        yield from found


def _study_runs(
    study: Study, seeds: Sequence[int] | None, changes: Mapping[str, Any], root: Path
) -> Iterable[PlannedRun]:
    for run in study.runs():
        if seeds is None or run.seed in seeds:
            yield PlannedRun(
                run.preset,
                dataclasses.replace(run.config, **changes),
                root / run.name,
                run.setting.name,
                study.priority,
                study.metrics,
            )


# Order

ORDERS: dict[str, Callable[[PlannedRun], tuple[int, ...]]] = {
    "priority": lambda run: (run.priority, run.seed),
    "seed": lambda run: (run.seed, run.priority),
}


def in_order(runs: Iterable[PlannedRun], order: str) -> list[PlannedRun]:
    """The runs in one of ORDERS, otherwise as planned: all settings of a seed before the next seed."""
    if order not in ORDERS:
        raise unknown_name("order", order, ORDERS)
    return sorted(runs, key=ORDERS[order])


def _argument(name: str, value: Any) -> str:
    return flag_with(name, value) if isinstance(value, bool) else f"{flag(name)}={value_text(value)}"


def _refuse_empty(plan: Plan) -> None:
    lines = [*plan.problems, *plan.notes]
    if not plan.runs:
        raise UsageError(lines[0] if len(lines) == 1 else "\n".join(["there is nothing to run.", *lines]))
