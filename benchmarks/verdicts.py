"""How often boards and studies see a difference: wrongly, and rightly. `python -m benchmarks verdicts`.

Boards of drawn values go through the code that marks the published one (`Section.tied`). A false board calls
any of its equal configurations worse in any column. The power is the share of cells called worse of one
configuration that is worse by so many standard deviations of a training seed in every column.

Studies of drawn values compare settings of 3 seeds with a base of 6, with the spread of each alone and with
the one that is learnt from all (`Spread`).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.pairs import start
from fact_leaderboard.answers.effects import ALPHA, Comparison, Pair
from fact_leaderboard.answers.spread import Spread
from fact_leaderboard.build import Cell, Row, Section
from fact_leaderboard.columns import Column
from fact_leaderboard.intervals import mean_over_seeds, variance_floor
from fact_metrics.registry import get_spec

COLUMNS = 13
CONFIGURATIONS = (2, 6, 20)
SEEDS = (3, 5, 10)
BOARDS = 1000
SHIFTS = (1, 2, 3, 5, 10)  # standard deviations

PLAIN = get_spec("kid10k_full_digits")  # compared in differences

Draw = Callable[[np.random.Generator, tuple[int, int, int]], np.ndarray]


def _correlated(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Columns of a run with a correlation of 0.8."""
    shared = rng.standard_normal((shape[0], 1, shape[2]))
    return 0.8**0.5 * shared + 0.2**0.5 * rng.standard_normal(shape)


def _lognormal(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """exp(N(0, 1)) less its mean, over its standard deviation."""
    return (rng.lognormal(size=shape) - np.exp(0.5)) / np.sqrt(np.e * (np.e - 1))


def _normal(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    return rng.standard_normal(shape)


def _student(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    return rng.standard_t(3, shape)


# Name, values, spread of the second half of the configurations, step of the metric.
CASES: tuple[tuple[str, Draw, float, float | None], ...] = (
    ("normal", _normal, 1.0, None),
    ("lognormal", _lognormal, 1.0, None),
    ("Student's t, 3 degrees of freedom", _student, 1.0, None),
    ("normal, columns correlated by 0.8", _correlated, 1.0, None),
    ("normal, half of the rows with 5 times the spread", _normal, 5.0, None),
    ("t, half of the rows with 5 times the spread", _student, 5.0, None),
    ("whole numbers, N(9.5, 0.5) rounded", lambda rng, shape: np.rint(rng.normal(9.5, 0.5, shape)), 1.0, 1.0),
    ("whole numbers, N(9.3, 0.3) rounded", lambda rng, shape: np.rint(rng.normal(9.3, 0.3, shape)), 1.0, 1.0),
    ("lognormal, half of the rows with 5 times the spread", _lognormal, 5.0, None),
)

# How the spreads of configurations differ: the factor of each, the base first.
SPREADS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "equal": lambda rng, n: np.ones(n),
    "exp(N(0, 0.3))": lambda rng, n: np.exp(rng.normal(0, 0.3, n)),
    "exp(N(0, 0.7))": lambda rng, n: np.exp(rng.normal(0, 0.7, n)),
    "every other one 5 times": lambda rng, n: np.where(np.arange(n) % 2, 5.0, 1.0),
    "the last one 5 times": lambda rng, n: np.where(np.arange(n) == n - 1, 5.0, 1.0),
    "the base 5 times": lambda rng, n: np.where(np.arange(n) == 0, 5.0, 1.0),
}
NOISE: dict[str, Draw] = {"normal": _normal, "t, 3 degrees of freedom": _student}
POOLS = (6, 20)  # configurations
BASE_SEEDS, SETTING_SEEDS = 6, 3
TRUE_SHIFT = 2.5  # mean standard deviations of a training seed


def run(
    *, seconds: float = 0.0, device: str = "auto", threads: int | None = None, boards: int = BOARDS
) -> dict[str, Any]:
    """Shares of false boards by case, rows and seeds, and the power by difference and seeds."""
    _, about, limits = start("cpu", threads)
    with limits:
        false = [
            {"case": case[0], "rows": rows, "seeds": seeds, "share": _false_boards(case, rows, seeds, boards)}
            for case in CASES
            for seeds in SEEDS[:2]
            for rows in CONFIGURATIONS
        ]
        power = [
            {"shift": shift, "rows": rows, "seeds": seeds, "share": _power(shift, rows, seeds, boards)}
            for shift in SHIFTS
            for rows in CONFIGURATIONS[:2]
            for seeds in SEEDS
        ]
        studies = [
            {
                "spreads": spreads,
                "noise": noise,
                "configurations": pool,
                **_studies(spreads, noise, pool, boards),
            }
            for spreads in SPREADS
            for noise in NOISE
            for pool in POOLS
        ]
    found = {"false": false, "power": power, "studies": studies}
    return {"machine": about, "boards": boards, "columns": COLUMNS, **found}


def table(result: dict[str, Any]) -> str:
    """Both tables, as Markdown."""
    return "\n\n".join(
        [
            f"False boards of {result['boards']:,}, {result['columns']} columns:",
            _grid(result["false"], "case", "values"),
            "Power, per cell:",
            _grid(result["power"], "shift", "worse by, sd"),
            f"Settings of studies, {SETTING_SEEDS} seeds against {BASE_SEEDS}; true: {TRUE_SHIFT} sd apart:",
            _studies_table(result["studies"]),
        ]
    )


def _studies_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| spreads of configurations | values | configurations | false, alone | false, pooled | "
        "true, alone | true, pooled |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        shares = (row[f"{kind}_{how}"] for kind in ("false", "true") for how in ("alone", "pooled"))
        cells = " | ".join(f"{100 * share:.1f} %" for share in shares)
        lines.append(f"| {row['spreads']} | {row['noise']} | {row['configurations']} | {cells} |")
    return "\n".join(lines)


def _grid(rows: list[dict[str, Any]], name: str, title: str) -> str:
    heads = list(dict.fromkeys((row["rows"], row["seeds"]) for row in rows))
    lines = [
        f"| {title} | " + " | ".join(f"{k} rows, {n} seeds" for k, n in heads) + " |",
        "|---|" + "---:|" * len(heads),
    ]
    found = {(row[name], row["rows"], row["seeds"]): row["share"] for row in rows}
    for value in dict.fromkeys(row[name] for row in rows):
        cells = [f"{100 * found[value, *head]:.1f} %" for head in heads]
        lines.append(f"| {value} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def board_of(values: np.ndarray, *, step: float | None = None) -> Section:
    """The board of values [rows, columns, seeds], lower is better."""
    columns = tuple(Column(f"metric{c}", f"metric {c}") for c in range(values.shape[1]))
    floor = variance_floor(step=step)
    rows = []
    for number, row in enumerate(values.tolist()):
        means = [mean_over_seeds(seeds, floor=floor) for seeds in row]
        cells = {c.metric: Cell(mean, None, None) for c, mean in zip(columns, means, strict=True)}
        rows.append(Row(f"row{number}", "run", None, None, tuple(range(values.shape[2])), cells, ()))
    lower = {column.metric: False for column in columns}
    return Section({"name": "drawn"}, "embedded", columns, lower, {}, tuple(rows), (), ())


def called_worse(section: Section) -> list[list[bool]]:
    """Per row and column, whether the board neither calls the value best nor ties it with the best."""
    return [
        [
            section.best(column.metric) is not None
            and row.cells[column.metric].mean.mean != section.best(column.metric)
            and row.cells[column.metric].mean not in section.tied(column.metric)
            for column in section.columns
        ]
        for row in section.ranked
    ]


def _false_boards(case: tuple[str, Draw, float, float | None], rows: int, seeds: int, boards: int) -> float:
    _, draw, spread, step = case
    rng = np.random.default_rng(rows * 100 + seeds)
    spreads = np.where(np.arange(rows) < rows // 2, 1.0, spread)[:, None, None]
    false = 0
    for _ in range(boards):
        values = draw(rng, (rows, COLUMNS, seeds)) * spreads
        false += np.any(called_worse(board_of(values, step=step)))
    return float(false / boards)


def _power(shift: float, rows: int, seeds: int, boards: int) -> float:
    rng = np.random.default_rng(1000 + rows * 100 + seeds)
    called = []
    for _ in range(max(boards // 5, 1)):
        values = _normal(rng, (rows, COLUMNS, seeds))
        values[-1] += shift
        called.append(np.mean(called_worse(board_of(values))[-1]))
    return float(np.mean(called))


def _studies(spreads: str, noise: str, configurations: int, trials: int) -> dict[str, float]:
    """Shares of settings called different at 5 %: equal ones and different ones, both ways."""
    rng = np.random.default_rng(configurations)
    called = {f"{kind}_{how}": [] for kind in ("false", "true") for how in ("alone", "pooled")}
    for _ in range(max(trials // configurations, 2)):
        factors = SPREADS[spreads](rng, configurations)
        seeds = [BASE_SEEDS] + [SETTING_SEEDS] * (configurations - 1)
        drawn = [f * NOISE[noise](rng, (1, 1, n)).ravel() for f, n in zip(factors, seeds, strict=True)]
        for how, spread in (("alone", Spread()), ("pooled", Spread.of(drawn, PLAIN))):
            for values, factor in zip(drawn[1:], factors[1:], strict=True):
                for kind, shift in (("false", 0.0), ("true", TRUE_SHIFT * np.sqrt(factor * factors[0]))):
                    pair = Pair("a", "base", (values + shift).tolist(), drawn[0].tolist())
                    called[f"{kind}_{how}"].append(Comparison.of(pair, spread).estimate.p < ALPHA)
    return {name: float(np.mean(own)) for name, own in called.items()}
