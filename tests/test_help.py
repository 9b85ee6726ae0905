"""`fact-train --help` and `--list-axes`: derived from the fields, complete, readable in 80 columns."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest

from fact_metrics.base.errors import UsageError
from fact_train.cli import app
from fact_train.data.processing import ALPHAS, CROPS, RESIZES
from fact_train.settings.axes import NARROWEST, axes_text
from fact_train.settings.config import TrainConfig, fields_of, flag, flag_with
from fact_train.settings.fields import PANELS, alternatives, placeholder, range_text, value_text
from fact_train.settings.presets import PRESETS, get_preset
from fact_train.settings.sources import SOURCES

BY_NAME = {f.name: f for f in fields_of()}


def help_of(capsys, monkeypatch, *arguments: str, columns: int = 80) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as done:
        app([*arguments, "--help"], prog_name="fact-train")
    assert done.value.code == 0
    return capsys.readouterr().out


def panels(text: str) -> dict[str, list[str]]:
    """Heading -> the entries below it, each on one line."""
    parts = re.split(r"^(\S[^\n]*):$", text.split("\n\n", 1)[1], flags=re.M)
    entries = [re.split(r"^  (?=\S)", body, flags=re.M)[1:] for body in parts[2::2]]
    return {
        name: [" ".join(entry.split()) for entry in each]
        for name, each in zip(parts[1::2], entries, strict=True)
    }


def names_of(f: dataclasses.Field) -> str:
    """A field's flag as help shows it: `--batch INT`, `--cond / --no-cond`."""
    off = [f"/ --no-{flag(f.name)[2:]}", *filter(None, [f.metadata["off_alias"]])]
    return f"{flag(f.name)} {placeholder(f) or ', '.join(off)}"


def shown_values(text: str) -> dict[str, str]:
    """Field -> the value in brackets at the end of its entry."""
    entries = [entry for each in panels(text).values() for entry in each]
    values = {}
    for f in BY_NAME.values():
        (entry,) = [e for e in entries if e.startswith(f"{names_of(f)} ")]
        values[f.name] = re.search(r"\[(?:default: )?([^\]]+)\]$", entry)[1]
    return values


@pytest.mark.parametrize("preset", [None, "mnist", "mnist-matrix-mul", "stylex-reference-old-plants64"])
def test_help_shows_the_values_of_the_preset(capsys, monkeypatch, preset: str | None) -> None:
    arguments = () if preset is None else ("--preset", preset)
    shown = shown_values(help_of(capsys, monkeypatch, *arguments))
    cfg = TrainConfig() if preset is None else get_preset(preset).config
    needs = () if preset is None else get_preset(preset).needs
    expected = {n: "required" if n in needs else value_text(getattr(cfg, n)) for n in BY_NAME}
    assert shown == expected


def test_the_preset_counts_wherever_it_stands_and_follows_the_resolution(capsys, monkeypatch) -> None:
    at_1024 = help_of(capsys, monkeypatch, "--preset", "auto", "--resolution", "1024")
    assert shown_values(at_1024)["batch"] == "4"
    assert shown_values(help_of(capsys, monkeypatch, "--preset", "auto"))["batch"] == "16"
    monkeypatch.setattr(sys, "argv", ["fact-train", "--help", "--preset", "mnist"])
    with pytest.raises(SystemExit):
        app(prog_name="fact-train")
    assert "Preset mnist: " in capsys.readouterr().out


def test_help_of_an_unknown_preset_names_the_closest_one(capsys, monkeypatch) -> None:
    with pytest.raises(UsageError, match="did you mean mnist"):
        help_of(capsys, monkeypatch, "--preset", "mnst")


def test_general_help_says_how_to_see_the_values_of_a_preset(capsys, monkeypatch) -> None:
    text = " ".join(help_of(capsys, monkeypatch).split())
    assert "fact-train --preset NAME --help shows them" in text and "general defaults" in text


@pytest.mark.parametrize("columns", [80, 120])
def test_every_flag_stands_once_under_its_panel_and_is_not_cut(capsys, monkeypatch, columns: int) -> None:
    text = help_of(capsys, monkeypatch, "--preset", "mnist", columns=columns)
    assert max(map(len, text.splitlines())) <= columns and "…" not in text
    assert text.isascii()
    below = panels(text)
    assert [*below] == ["Command", *PANELS, "Commands"]
    places = [(entry, name) for name, each in below.items() for entry in each]
    for f in BY_NAME.values():
        found = [name for entry, name in places if entry.startswith(f"{names_of(f)} ")]
        assert found == [f.metadata["panel"]], f.name


def test_help_needs_no_torch_and_no_rich() -> None:
    code = (
        "import sys; sys.argv = ['fact-train', '--preset', 'mnist', '--help']\n"
        "from fact_train.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    print(sorted({'torch', 'numpy', 'rich.console'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


# --list-axes


def test_every_science_field_is_an_axis_exactly_once_and_nothing_else_is() -> None:
    listed = re.findall(r"^  --([a-z0-9-]+) ", axes_text(), flags=re.M)
    assert sorted(listed) == sorted(f.name.replace("_", "-") for f in fields_of("science"))


@pytest.mark.parametrize("f", fields_of("science"), ids=lambda f: f.name)
def test_an_axis_says_what_it_does_takes_defaults_to_and_comes_from(f) -> None:
    text = " ".join(axes_text().split())
    start = text.index(f" {flag(f.name)} {placeholder(f) or '/'}")
    entry = text[start:]
    assert f"{f.metadata['help']} " in entry
    assert f"Default: {value_text(f.default)}. Source: {f.metadata['source']}." in entry
    assert f.metadata["source"] in SOURCES
    if f.metadata["bounds"]:
        assert f"Values: {range_text(f)}. Default: {value_text(f.default)}." in entry


def test_axes_stand_under_the_panels_of_the_help_and_sources_are_explained() -> None:
    text = axes_text()
    headings = re.findall(r"^[A-Z][A-Za-z -]+$", text, flags=re.M)
    assert headings == [*PANELS, "Sources"]
    used = {f.metadata["source"] for f in fields_of("science")}
    assert used <= set(SOURCES)
    assert all(f"\n  {name}: " in text for name in SOURCES)
    assert set(SOURCES) == used


def test_no_text_sends_users_to_notes_that_they_have_never_seen() -> None:
    texts = [axes_text(), *(f"{p.summary} {p.source}" for p in PRESETS.values())]
    texts += [f.metadata["help"] for f in fields_of()]
    assert not [text for text in texts if "the notes" in text.lower()]


@pytest.mark.parametrize("width", [0, 80, 120, 500])
def test_the_list_fits_the_terminal(width: int) -> None:
    longest = max(map(len, axes_text(width).splitlines()))
    assert longest <= max(min(width, 120), NARROWEST + 20)


def test_names_of_text_fields_are_those_of_their_tables() -> None:
    for name, table in (("resize", RESIZES), ("crop", CROPS)):
        assert BY_NAME[name].metadata["choices"] == tuple(table)
    assert set(alternatives(BY_NAME["alpha"])[0]) == set(ALPHAS)


# Ranges


@pytest.mark.parametrize("f", [f for f in fields_of() if f.metadata["bounds"]], ids=lambda f: f.name)
def test_a_number_outside_the_range_of_its_field_is_rejected_with_the_rule(f) -> None:
    bounds = f.metadata["bounds"]
    outside = next(v for v in (-1, 0, 2) if not bounds.holds(v))
    with pytest.raises(UsageError) as error:
        TrainConfig(**{f.name: outside})
    assert str(error.value).startswith(f"{flag(f.name)} {outside}: {bounds.rule}")
    assert f.default is None or isinstance(f.default, str) or bounds.holds(f.default)


def test_values_and_flags_are_shown_as_they_are_typed() -> None:
    assert [value_text(v) for v in (None, True, False, 10.0, 0.03125, 1e-9, "auto", 3)] == [
        *("none", "on", "off", "10", "0.03125", "1e-09", "auto", "3")
    ]
    assert value_text(0.1 + 0.2) == "0.30000000000000004"
    assert flag_with("mirror", True) == "--mirror" and flag_with("mirror", False) == "--no-mirror"
    assert (
        flag_with("r1_gamma", 10.0) == "--r1-gamma 10" and flag_with("batch_gpu", None) == "--batch-gpu none"
    )


@pytest.mark.parametrize(
    ("name", "shown", "words"),
    [
        ("g_arch", "skip|resnet|orig", "skip, resnet, orig"),
        ("r1_gamma", "FLOAT|auto", "numbers from 0, auto"),
        ("matrix_scale", "FLOAT|sqrt|rsqrt", "numbers except 0, sqrt, rsqrt"),
        ("channels", "1|3|none", "1, 3, none"),
        ("batch_gpu", "INT|none", "whole numbers above 0, none"),
        ("mirror", "", "on, off"),
        ("data", "NAME|PATH", "NAME|PATH"),
        ("crop", "none|center|pad", "none, center, pad"),
    ],
)
def test_what_a_field_takes_is_read_from_its_type(name: str, shown: str, words: str) -> None:
    assert (placeholder(BY_NAME[name]), range_text(BY_NAME[name])) == (shown, words)
