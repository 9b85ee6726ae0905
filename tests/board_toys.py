"""Records of toy configurations and the board of them; imported by tests/test_leaderboard*.py."""

import pytest
from eval_toys import make_record

from fact_leaderboard import columns
from fact_leaderboard.build import build_board
from fact_leaderboard.columns import Column

DIRTY = {"commit": "c" * 40, "dirty": True}


@pytest.fixture(autouse=True)
def toy_columns(monkeypatch):
    toys = (Column("toy_distance", "distance", ".2f"), Column("toy_share", "share"))
    monkeypatch.setattr(columns, "COLUMNS", toys)


def record(label="a", *, seed=0, value=1.0, metric="toy_distance", run_id=None, **changes):
    """A record of a run of the configuration `label`, trained with `seed`."""
    run_id = run_id or f"{label}-seed{seed}"
    sha = (run_id + str(changes.get("kimg", 4))).ljust(64, "0")
    fields = dict(
        label=label, run_id=run_id, train_seed=seed, value=value, metric=metric, config_sha256=label * 64
    )
    return make_record(
        **{**fields, "snapshot_sha256": sha, "higher_is_better": metric == "toy_share", **changes}
    )


def control(source, **changes):
    return record(
        source,
        run_id=f"{source}-toy",
        source=source,
        train_seed=None,
        kimg=None,
        snapshot=None,
        training={},
        **changes,
    )


def only(records, **options):
    (section,) = build_board(records, **options)
    return section


def ranked(section):
    return [row.label for row in section.ranked]
