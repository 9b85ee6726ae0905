"""Fill the generated tables of the documentation; with --check, write nothing and exit 1 if one is stale.

A table stands in a Markdown page between `<!-- generated: NAME -->` and `<!-- end -->`. Its rows come from
the public registries.
"""

import argparse
import re
import sys
import tomllib
import typing
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REGION = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", flags=re.S)


# The registries. Whoever moves one changes its function here, and nothing else in this file.


def registered_presets():
    """(name, Preset) pairs in the order of `fact-train --list-presets`."""
    from fact_train.settings.presets import PRESETS

    return PRESETS.items()


def preset_sources() -> list[dict]:
    """What the sources of presets set: presets, read (where), values {field: value, None: unset}."""
    tables = tomllib.loads((ROOT / "docs" / "preset_sources.toml").read_text(encoding="utf-8"))
    merged = []
    for source in tables["source"]:
        values = {}
        for part in [*(tables["values"][name] for name in source["common"]), source["values"]]:
            values |= {field: None if value == "unset" else value for field, value in part.items()}
        merged.append({**source, "values": values})
    return merged


def config_fields():
    """dataclasses.Field of every configuration field, in order; metadata holds help, panel and scope."""
    from fact_train.settings.config import fields_of

    return fields_of()


def flag_of(field: str) -> str:
    from fact_train.settings.config import flag

    return flag(field)


def findings_of(field) -> list[str]:
    """What studies measured of a field, or what the notes report."""
    from fact_train.settings.axes import findings
    from fact_train.settings.measured import read_measured

    return findings(field, read_measured())


def registered_metrics():
    from fact_metrics.registry import list_specs

    return list_specs()


def registered_detectors():
    from fact_metrics.features import detector_spec, list_detectors

    return [detector_spec(name) for name in list_detectors()]


def weight_files():
    from fact_metrics.features.weight_store import WEIGHTS

    return WEIGHTS.values()


def registered_datasets():
    """DatasetEntry of every dataset that is opened by its name."""
    from fact_train.datasets import DATASETS

    return [entry for entry in DATASETS.values() if entry.opener is not None]


def board_columns():
    from fact_leaderboard.columns import COLUMNS

    return COLUMNS


def reported_baselines():
    from fact_baselines.load import load_reported

    return load_reported()


# The tables, one function each; a new one is an entry of TABLES.


def presets_table() -> str:
    rows = []
    for name, preset in registered_presets():
        minutes = "" if preset.minutes is None else f"{preset.minutes:g}"
        memory = "" if preset.memory_gb is None else f"{preset.memory_gb:g} GB"
        needs = ", ".join(f"`{flag_of(field)}`" for field in preset.needs)
        kimg = f"{preset.config.kimg:,g}"
        rows.append([f"`{name}`", preset.summary, kimg, minutes, memory, needs, preset.source])
    header = ["preset", "what", "kimg", "minutes, 2 cores", "memory", "you give", "source"]
    return table(header, rows)


def preset_differences() -> str:
    """A row for each field in which presets are not their source, shared by presets with one reason."""
    rows: dict[tuple, list[list[str]]] = {}
    for source in preset_sources():
        for name in source["presets"]:
            preset = dict(registered_presets())[name]
            for field, why in preset.differs.items():
                known = hasattr(preset.config, field)
                theirs = spelled(source["values"].get(field)) if known else ""
                ours = spelled(getattr(preset.config, field)) if known else ""
                key = source["read"], f"`{flag_of(field)}`" if known else field, theirs, why
                rows.setdefault(key, []).append([f"`{source['label']}`", ours])
    header = ["preset", "source", "field", "theirs", "ours", "why"]
    return table(
        header, [[both(row, 0), key[0], key[1], key[2], both(row, 1), key[3]] for key, row in rows.items()]
    )


def both(rows: Sequence[Sequence[str]], column: int) -> str:
    """The different values of a column, in their order."""
    return ", ".join(dict.fromkeys(row[column] for row in rows))


def flags_reference() -> str:
    panels: dict[str, list[list[str]]] = {}
    for field in config_fields():
        values, default = values_of(field.type), spelled(field.default)
        row = [f"`{flag_of(field.name)}`", values, default, field.metadata["help"]]
        panels.setdefault(field.metadata["panel"], []).append(row)
    header = ["flag", "values", "default", "meaning"]
    return "\n".join(f"## {panel}\n\n{table(header, rows)}" for panel, rows in panels.items())


def axes_table() -> str:
    rows = []
    for field in config_fields():
        found = findings_of(field)
        if found:
            values, default = values_of(field.type), spelled(field.default)
            rows.append([f"`{flag_of(field.name)}`", values, default, " ".join(found)])
    return table(["flag", "values", "default", "measured by a study, or else reported by the notes"], rows)


def metrics_list() -> str:
    rows = []
    for spec in registered_metrics():
        unit = f" ({spec.unit})" if spec.unit else ""
        better = "↑" if spec.higher_is_better else "↓"
        weights = ", ".join(f"`{name}`" for name in spec.weights)
        rows.append([f"`{spec.name}`", better, spec.summary + unit, weights, spec.citation])
    return table(["metric", "better", "meaning", "weights to fetch", "source"], rows)


def detectors_list() -> str:
    rows = []
    for spec in registered_detectors():
        facts = spec.fingerprint
        size = f", {facts['size']} px" if facts.get("size") else ""
        weights = ", ".join(f"`{name}`" for name in spec.weights) or "none to fetch"
        crop = f"; {facts['crop']}" if "crop" in facts else ""
        read = f"{facts['resize']}{size}{crop}"
        width = f"{facts['width']:,}"
        rows.append([f"`{spec.name}`", width, spec.summary, facts["layer"], read, facts["range"], weights])
    return table(["detector", "width", "meaning", "layer", "resize", "range", "weights"], rows)


def weights_table() -> str:
    rows = [[f"`{file.name}`", file.size, file.origin, f"`{file.sha256[:12]}`"] for file in weight_files()]
    return table(["file", "size", "origin", "SHA-256 begins"], rows)


def datasets_table() -> str:
    rows = []
    for entry in registered_datasets():
        detector = f"`{entry.detector}`: {entry.evidence}" if entry.evidence else ""
        tested = "yes" if entry.has_test_split else "no"
        rows.append([f"`--data {entry.name}`", entry.summary, tested, detector])
    return table(["dataset", "what", "test split", "recommended detector"], rows)


def columns_table() -> str:
    on = {"all": "every dataset", "test": "with a test split", "full": "without a test split"}
    rows = [[c.header, f"`{c.metric}`", c.protocol, on[c.on]] for c in board_columns()]
    return table(["column", "metric", "protocol", "datasets"], rows)


def baselines_table() -> str:
    rows = []
    for reported in reported_baselines():
        models = len({result.model for result in reported.results})
        size = f"{reported.resolution} px"
        rows.append([reported.dataset, size, str(models), str(len(reported.results)), reported.source])
    return table(["dataset", "images", "models", "numbers", "source"], rows)


def limits_table() -> str:
    from fact_metrics.base.limits import LIMITS

    return table(["what", "at most"], [[limit.what, limit.text(limit.most)] for limit in LIMITS])


TABLES: dict[str, Callable[[], str]] = {
    "presets": presets_table,
    "preset-differences": preset_differences,
    "flags": flags_reference,
    "axes": axes_table,
    "metrics": metrics_list,
    "detectors": detectors_list,
    "weights": weights_table,
    "datasets": datasets_table,
    "columns": columns_table,
    "baselines": baselines_table,
    "limits": limits_table,
}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, a line a row; a bar or an angle bracket inside a cell stays text."""
    lines = [list(header), ["---"] * len(header), *[[escaped(cell) for cell in row] for row in rows]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def escaped(text: str) -> str:
    """Text as a table cell: `|`, `<` and `*` are not markup there, except inside backticks."""
    parts = text.replace("|", "\\|").split("`")
    outside = [re.sub(r"([<*])", r"\\\1", part) if i % 2 == 0 else part for i, part in enumerate(parts)]
    return "`".join(outside)


def values_of(annotation: object) -> str:
    """What a flag takes, from its field's type: the words of a Literal, `int`, `off`."""
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(annotation))
    if annotation is bool:
        return "on, off"
    if isinstance(annotation, type) and annotation is not type(None):
        return {int: "integer", float: "number", str: "text"}[annotation]
    options = [option for option in typing.get_args(annotation) if option is not type(None)]
    nothing = ["`none`"] if type(None) in typing.get_args(annotation) else []
    return ", ".join([*map(values_of, options), *nothing])


def spelled(value: object) -> str:
    """A default as it is typed on the command line."""
    if value is None:
        return "`none`"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"`{value}`"


def filled(text: str) -> str:
    """A page with its generated regions made anew. KeyError for a region that TABLES does not know."""
    return REGION.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", text)


def stale_pages(folder: Path = ROOT / "docs") -> dict[Path, str]:
    """The pages that are not current, with the text that they must hold."""
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.md"))}
    current = {path: filled(text) for path, text in pages.items()}
    return {path: text for path, text in current.items() if text != pages[path]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is stale")
    arguments = parser.parse_args()
    stale = stale_pages()
    for path, text in stale.items():
        if not arguments.check:
            path.write_text(text, encoding="utf-8")
        print(f"{'stale' if arguments.check else 'wrote'} {path.relative_to(ROOT)}", file=sys.stderr)
    if arguments.check and stale:
        print("run `make docs` and commit the pages", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
