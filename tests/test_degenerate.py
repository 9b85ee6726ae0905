"""Numbers that mean nothing say so: in `extras`, in tables, on boards, in comparisons and in Python."""

import warnings

import pytest
import torch
from board_toys import control, only, record, toy_columns  # noqa: F401
from eval_toys import make_record
from metric_toys import ToyInputs

import fact_metrics
from fact_eval.compare.records import compare
from fact_eval.reports.tables import comparisons_table, records_table
from fact_leaderboard.records import Record
from fact_leaderboard.render import board_json, render_board, render_terminal
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.engines.degenerate import describe_rows
from fact_metrics.registry import compute_metric, get_spec


def rows(n: int, width: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def measure(name: str, gen: torch.Tensor, real: torch.Tensor):
    return compute_metric(get_spec(name), ToyInputs(lambda need: gen if need.side == "generated" else real))


DISTINCT, BLACK = rows(60), torch.ones(20, 8)
FIVE = rows(5, seed=3).repeat(12, 1)  # a reference of copies
NEIGHBOURS = [f"{name}1k3_full_digits" for name in ("precision", "recall", "density", "coverage")]


# Reasons


@pytest.mark.parametrize(
    "name", [*NEIGHBOURS, "fid1k_full_digits", "kid1k_full_digits", "authpct1k_full_digits"]
)
@pytest.mark.parametrize("side", ["generated", "real"])
def test_constant_features_on_either_side_are_said(name: str, side: str) -> None:
    gen, real = (BLACK, DISTINCT) if side == "generated" else (DISTINCT, BLACK)
    assert measure(name, gen, real).degenerate == f"all 20 {side} images have the same features"
    assert measure(name, DISTINCT, rows(60, seed=1)).degenerate is None


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_reference_of_copies_is_said_once_their_balls_are_empty(name: str) -> None:
    found = measure(name, DISTINCT, FIVE)
    assert found.degenerate == "60 of 60 real images have 3 exact copies or more: balls of radius 0"
    pairs = rows(30, seed=4).repeat(2, 1)  # one copy each: the ball of 3 neighbours has a radius
    assert measure(name, DISTINCT, pairs).degenerate is None


def test_copies_of_reals_make_mifid_a_division_by_zero_without_an_error() -> None:
    real = rows(80)
    found = measure("mifid1k_full_efficientnet_lite0", real + 1e-6 * rows(80, seed=1), real)
    assert found.degenerate.startswith("the generated images are copies") and found.stderr is None
    assert measure("mifid1k_full_efficientnet_lite0", rows(80, seed=1), real).degenerate is None


@pytest.mark.parametrize("name", ["kid1k_full_digits", "fid_infinity1k_full_digits"])
def test_a_distance_far_below_0_is_said(name: str) -> None:
    real = rows(400, 4)
    found = measure(name, real, real)
    assert found.value < -3 * found.stderr
    assert "standard errors below 0" in found.degenerate
    honest = measure(name, rows(400, 4, seed=1), real)
    assert honest.degenerate is None


def test_a_frechet_distance_of_fewer_images_than_features_is_said() -> None:
    gen, real = rows(8), rows(60, seed=1)
    assert measure("fid1k_full_digits", gen, real).degenerate.startswith("8 generated images for 8 features")
    assert measure("fid1k_full_digits", rows(9), real).degenerate is None


def test_equal_rows_are_counted_whatever_the_sign_of_zero() -> None:
    found = describe_rows(
        torch.tensor([[0.0, 1.0], [-0.0, 1.0], [2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [3.0, 1.0]])
    )
    assert found.groups == (2, 3) and not found.constant
    assert [found.empty_balls(k) for k in (1, 2, 3)] == [5, 3, 0]
    assert describe_rows(torch.zeros(1, 3)).constant is False  # one image is no constant set


# Too few images


@pytest.mark.parametrize(
    ("name", "fewest"),
    [
        ("fid1k_full_digits", 2),
        ("kid1k_full_digits", 4),
        ("fid_infinity1k_full_digits", 4),
        ("precision1k3_full_digits", 4),
        ("density1k5_full_digits", 6),
        ("authpct1k_full_digits", 2),
    ],
)
@pytest.mark.parametrize("side", ["generated", "real"])
def test_too_few_images_name_the_metric_and_the_count_it_needs(name: str, fewest: int, side: str) -> None:
    def sides(n: int):
        return (rows(n), DISTINCT) if side == "generated" else (DISTINCT, rows(n))

    for there in range(1, fewest):
        message = f"^{name} needs {fewest} {side} images or more, there are {there}$"
        with pytest.raises(UserError, match=message):
            measure(name, *sides(there))
    assert measure(name, *sides(fewest)).value is not None


def pictures(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)


def test_the_python_interface_names_count_and_refuses_what_no_metric_takes() -> None:
    with pytest.raises(UserError, match=r"1,000 .* there are 3; it needs 4 .*count=N"):
        fact_metrics.compute(pictures(3), pictures(20), "kid1k_full_pixels")
    with pytest.raises(UserError, match=r"there are 9; give more, or count=9"):
        fact_metrics.compute(pictures(9), pictures(20), "kid1k_full_pixels")
    with pytest.raises(UsageError, match="kid1k_full_pixels needs 4 images or more; count is 3"):
        fact_metrics.compute(pictures(3), pictures(20), "kid1k_full_pixels", count=3)
    with pytest.raises(UserError, match=r"kid1k_full_pixels needs 4 real images or more, there are 3$"):
        fact_metrics.compute(pictures(9), pictures(3), "kid1k_full_pixels", count=9)
    for count in (0, -1, 2.5, True, "4"):
        with pytest.raises(UsageError, match="give a whole number of images"):
            fact_metrics.compute(pictures(9), pictures(20), "kid1k_full_pixels", count=count)


def test_the_python_interface_warns_once_and_keeps_the_reason() -> None:
    with pytest.warns(UserWarning, match="fid1k_full_pixels means little: 9 generated images for") as seen:
        found = fact_metrics.compute(pictures(9), pictures(20, 1), "fid1k_full_pixels", count=9)
    assert len(seen) == 1 and found["fid1k_full_pixels"].degenerate in str(seen[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fact_metrics.compute(pictures(9), pictures(20, 1), "kid1k_full_pixels", count=9)


# Where numbers are shown

REASON = {"degenerate": "all 20 generated images have the same features"}


def test_tables_of_records_mark_the_number_and_say_why() -> None:
    marked, plain = records_table([make_record(extras=REASON), make_record()]).splitlines()[2:]
    assert "1.5 †" in marked and f"ok, † {REASON['degenerate']}" in marked and "†" not in plain
    again = Record.from_json(make_record(extras=REASON).to_json())
    assert (
        again.degenerate == REASON["degenerate"] and make_record(extras=REASON, value=None).degenerate is None
    )


def test_a_board_marks_a_degenerate_number_and_never_calls_it_the_best() -> None:
    records = [
        record("worse", value=2.0),
        record("better", value=1.5),
        record("empty", value=0.1, extras=REASON),
    ]
    section = only([*records, control("noise", value=9.0, extras=REASON)])
    assert [row.label for row in section.ranked] == ["better", "worse", "empty"]
    assert section.best("toy_distance") == 1.5
    text, terminal = render_board([section]), render_terminal([section])
    assert " 0.10 † |" in text and "**1.50**" in text and "**0.10" not in text
    for shown in (text, terminal):
        assert f"† empty: distance: {REASON['degenerate']}" in shown
        assert f"† uniform noise: distance: {REASON['degenerate']}" in shown
    assert "0.10 †" in terminal
    cells = {row["label"]: row["metrics"]["toy_distance"] for row in board_json([section])[0]["ranked"]}
    assert cells["empty"]["degenerate"] == REASON["degenerate"] and "degenerate" not in cells["better"]


def test_a_picture_of_a_board_marks_a_degenerate_number() -> None:
    from matplotlib.figure import Figure

    from fact_leaderboard.picture import _draw_cell

    section = only([record("a", value=1.0, extras=REASON), record("b", value=2.0)])
    axis = Figure().subplots()
    for row in section.ranked:
        _draw_cell(axis, 0, 0, row, section.columns[0], section)
    assert sorted(text.get_text() for text in axis.texts) == ["1.00 †", "2.00"]
    assert {text.get_weight() for text in axis.texts} == {"normal"}


def test_a_comparison_with_a_degenerate_number_has_a_mark_and_no_verdict() -> None:
    def side(run: str, value: float, **changes) -> list[Record]:
        return [make_record(run_id=run, value=value, stderr=0.01, seed=0, **changes)]

    (found,), _ = compare(side("a", 1.0), side("b", 9.0, extras=REASON))
    assert found.better == "" and found.p < 0.05
    text = comparisons_table([found])
    assert "9 †" in text and text.splitlines()[-1].endswith(f"of B: {REASON['degenerate']}")
    (honest,), _ = compare(side("a", 1.0), side("b", 9.0))
    assert honest.better != "" and "†" not in comparisons_table([honest])


def test_text_of_a_strangers_reason_is_no_markup() -> None:
    evil = {"degenerate": "<script>|\n# H1 \x1b[2J"}
    section = only([record("a", value=1.0, extras=evil), record("b", value=2.0)])
    text = render_board([section])
    assert "<script>" not in text and "\n# H1" not in text and "\x1b" not in text
    assert "\x1b" not in records_table([Record.from_json(make_record(extras=evil).to_json())])
