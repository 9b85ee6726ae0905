"""Numbers that their own controls put in doubt are marked, in the report and on the board."""

import pytest
from board_toys import record

from fact_eval.reports.attributes import attributes_table
from fact_leaderboard import columns
from fact_leaderboard.build import build_board
from fact_leaderboard.columns import EXPLANATIONS, Column
from fact_leaderboard.explained import control_is_above_chance, flagged_metrics, flips_by_method
from fact_leaderboard.render import board_json, render_board, render_terminal
from fact_metrics.base.plain_text import FLAGGED
from fact_metrics.engines.attributes import wilson_interval

METHODS = ("attfind_greedy", "gradient", "random", "control")
DOUBT = "a classifier with random weights flip 0.80, random coordinates 0.02: a flip does not depend on the"


@pytest.fixture(autouse=True)
def explanation_columns(monkeypatch):
    shown = tuple(
        Column(f"flips250_{method}", f"flips, {method}", protocol=EXPLANATIONS) for method in METHODS
    )
    monkeypatch.setattr(columns, "COLUMNS", shown)


def explained(*, seed=0, own_only=(), **flips):
    """Records of flips of 250 images by method, of one run."""
    records = []
    for method, value in {
        "attfind_greedy": 0.9,
        "gradient": 0.5,
        "random": 0.02,
        "control": 0.03,
        **flips,
    }.items():
        low, high = wilson_interval(value, 250)
        records.append(
            record(
                seed=seed,
                metric=f"flips250_{method}",
                value=value,
                higher_is_better=True,
                ci={"level": 0.95, "low": low, "high": high, "method": "Wilson", "n": 250},
                extras={"own_only": True} if method in own_only else {},
                protocol={"settings": {"classifier": "c" * 64, "classes": ["8", "9"], "method": method}},
            )
        )
    return records


def test_a_control_near_chance_flags_nothing() -> None:
    records = explained()
    assert control_is_above_chance(flips_by_method(records)) is False and flagged_metrics(records) == {}
    assert FLAGGED not in render_board(build_board(records)) + attributes_table(records)
    assert "control with random weights: 0.030, random: 0.020, near chance" in attributes_table(records)


def test_a_control_above_chance_flags_every_method_but_the_two() -> None:
    records = explained(control=0.8)
    flagged = flagged_metrics(records)
    assert set(flagged) == {"flips250_attfind_greedy", "flips250_gradient"}
    assert all(DOUBT in reason for reason in flagged.values())
    sections = build_board(records)
    for text in (render_board(sections), render_terminal(sections)):
        assert f"0.900** {FLAGGED}" in text or f"0.900 {FLAGGED}" in text
        assert (
            f"{FLAGGED} a: flips, attfind\\_greedy: " in text
            or f"{FLAGGED} a: flips, attfind_greedy: " in text
        )
        assert f"0.020 {FLAGGED}" not in text and f"0.800 {FLAGGED}" not in text
    (row,) = board_json(sections)[0]["ranked"]
    assert set(row["flagged"]) == set(flagged)
    assert f"{FLAGGED} attfind-greedy, gradient: attributes of {DOUBT}" in attributes_table(records)


def test_intervals_that_touch_flag_nothing() -> None:
    assert control_is_above_chance(flips_by_method(explained(control=0.05))) is False
    assert control_is_above_chance(flips_by_method(explained(control=0.10))) is True
    assert control_is_above_chance(flips_by_method(explained()[:2])) is None


def test_what_fools_its_own_classifier_alone_is_marked() -> None:
    records = explained(own_only=("gradient",))
    assert flagged_metrics(records) == {
        "flips250_gradient": "flips its own classifier only, not the second one"
    }
    assert f"{FLAGGED} gradient: flips its own classifier only" in attributes_table(records)


def test_a_row_of_several_seeds_says_in_how_many() -> None:
    records = [*explained(seed=0, control=0.8), *explained(seed=1), *explained(seed=2, control=0.8)]
    assert flagged_metrics(records)["flips250_gradient"].endswith("(in 2 of 3 explanations)")
    (section,) = build_board(records)
    assert render_board([section]).count("(in 2 of 3 explanations)") == 2
