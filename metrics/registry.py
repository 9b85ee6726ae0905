"""Metrics by name: published names, every name of the grammar, and the values of both. No torch until then.

Every module of `families/` is read here; it lists its `Family` records as FAMILIES. A new metric is one new
file there; another protocol of a known family is a name (family.py has the grammar) and no edit at all.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import fact_metrics.families
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.family import Family, parse
from fact_metrics.inputs import DeclaredInputs, MetricInputs
from fact_metrics.spec import MetricSpec, MetricValue

if TYPE_CHECKING:
    from fact_metrics.engines.degenerate import Rows

FAMILIES: dict[str, Family] = {}  # by key: the name, and the variant if there are several


def register(family: Family) -> None:
    """Add a family or a variant of one. Raises ValueError if it, or a name that it publishes, is taken."""
    taken = {family.key} & FAMILIES.keys() or family.published.keys() & published_names().keys()
    if taken:
        raise ValueError(f"{' and '.join(sorted(taken))}: registered twice")
    FAMILIES[family.key] = family


def published_names() -> dict[str, str]:
    """The name of the grammar that each published name stands for."""
    return {name: stands for family in FAMILIES.values() for name, stands in family.published.items()}


def get_spec(name: str) -> MetricSpec:
    """The metric of a published name, or of any name of the grammar.

    A name of the grammar that has a published one gives that: one protocol has one name in records.
    Raises UsageError: one line that says which part of the name is wrong and what fits there.

    >>> get_spec("kid10k_full_pixels").needs[0].count
    10000
    >>> get_spec("fid50k_full_inception_pool3").name
    'fid50k_full'
    """
    return _resolve(name)[1]


def get_specs(names: Sequence[str]) -> list[MetricSpec]:
    """The metrics of names, in that order, each once. Raises UsageError as `get_spec`."""
    return list({spec.name: spec for spec in map(get_spec, names)}.values())


def find_spec(name: str) -> MetricSpec | None:
    """The metric of a name; None if there is none, such as one that only an older version had."""
    try:
        return get_spec(name)
    except UsageError:
        return None


def list_metrics(traits: Collection[str] | None = None) -> list[str]:
    """The listed names by family, or those that mean something on a dataset with these traits.

    The grammar makes more names than these: `fact-eval list` explains it.
    """
    return [spec.name for spec in list_specs() if traits is None or spec.fits(traits)]


def list_specs() -> list[MetricSpec]:
    """The metrics of all listed names, sorted by family and name."""
    specs = [get_spec(name) for family in FAMILIES.values() for name in family.listed]
    return sorted(specs, key=lambda spec: (spec.family, spec.name))


def compute_metric(spec: MetricSpec, inputs: MetricInputs) -> MetricValue:
    """The value of a metric, with `extras["degenerate"]` if it means nothing.

    Raises UserError for too few images, UndeclaredNeed if it reads what its spec does not declare.
    """
    from fact_metrics.engines.degenerate import find_degenerate

    declared = DeclaredInputs(spec, inputs)
    sides = _describe_sides(spec, declared)
    value = _resolve(spec.name)[0].compute(spec, declared)
    reason = find_degenerate(spec, value, sides)
    return replace(value, extras={**value.extras, "degenerate": reason}) if reason else value


def fewest_images(spec: MetricSpec) -> int:
    """The fewest images of each side that a value follows from; k neighbours take one image more."""
    return max(_resolve(spec.name)[0].minimum, int(spec.settings.get("k", 0)) + 1)


def _describe_sides(spec: MetricSpec, inputs: DeclaredInputs) -> dict[str, Rows]:
    """The features of a metric by side, as far as there are any. UserError where they are too few."""
    from fact_metrics.engines.degenerate import describe_rows

    sides, fewest = {}, fewest_images(spec)
    for need in spec.needs:
        if need.side == "real" and spec.from_statistics:
            correction = 0 if spec.settings.get("covariance") == "N" else 1
            if inputs.statistics(need, correction=correction) is not None:
                continue
        if (there := len(inputs.features(need))) < fewest:
            raise UserError(f"{spec.name} needs {fewest} {need.side} images or more, there are {there}")
        if need.side == "real":
            sides[need.side] = inputs.cached_real(need, "equal rows", describe_rows)
        else:
            own = partial(describe_rows, inputs.features(need))
            sides[need.side] = inputs.shared(("equal rows", need), own)
    return sides


def compute_difference(spec: MetricSpec, gen_a, gen_b, real) -> tuple[float, float | None]:
    """Value of B less value of A, and its standard error (None: too few images), of a `paired` metric.

    `gen_a`, `gen_b` [N, D] are features of two runs, row i of both from one latent; `real` [M, D].
    """
    return _resolve(spec.name)[0].difference(spec, gen_a, gen_b, real)


def _resolve(name: str) -> tuple[Family, MetricSpec]:
    published = published_names()
    family, choice = parse(published.get(name, name), FAMILIES.values())
    of_grammar = family.name_of(choice)
    names = {stands: own for own, stands in published.items()}
    return family, family.spec(choice, names.get(of_grammar, of_grammar))


for _module in pkgutil.iter_modules(fact_metrics.families.__path__):
    for _family in importlib.import_module(f"fact_metrics.families.{_module.name}").FAMILIES:
        register(_family)
