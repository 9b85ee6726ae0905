"""Imported networks on the board: sections of their own, the columns of ours, the file behind every row."""

import dataclasses

from board_toys import DIRTY, control, ranked, record
from board_toys import toy_columns as _columns_of_every_test  # noqa: F401

from fact_leaderboard.build import build_board
from fact_leaderboard.publish import publish_records
from fact_leaderboard.records import append_records, read_records
from fact_leaderboard.render import board_json, render_board, render_terminal, section_title
from fact_metrics.base.canonical import canonical_sha256

ORIGIN = {"format": "stylegan2-ada-pytorch", "file": "faces.pkl", "file_sha256": "f" * 64}


def imported(name="faces", **changes):
    """A record of an imported file: no training of ours stands behind it."""
    return record(
        f"{name} (imported from stylegan2-ada-pytorch)",
        **{
            **dict(run_id=f"imported-{name}-vs-toy", source="imported", snapshot=f"{name}.pkl"),
            **dict(training={"imported": ORIGIN}, train_seed=None, kimg=None, config_sha256=None),
            **changes,
        },
    )


def test_imported_networks_have_a_section_of_their_own_behind_ours():
    records = [record("a"), record("b", value=2.0), control("noise"), imported(value=0.5), imported("cats")]
    ours, theirs = build_board(records)
    assert (ours.imported, theirs.imported) == (False, True)
    assert ranked(ours) == ["a", "b"] and ours.best("toy_distance") == 1.0
    assert ranked(theirs) == [
        "faces (imported from stylegan2-ada-pytorch)",
        "cats (imported from stylegan2-ada-pytorch)",
    ]
    assert section_title(theirs) == "toy, 8x8, gray, imported"
    assert [section["imported"] for section in board_json([ours, theirs])] == [False, True]


def test_a_board_without_imported_networks_stays_as_it_was():
    (section,) = build_board([record("a"), control("noise")])
    assert "imported" not in render_board([section]) + render_terminal([section])


def test_the_row_names_the_format_the_file_and_its_hash():
    text = render_board(build_board([imported()]))
    assert "## toy, 8x8, gray, imported" in text and "other programs trained" in text
    (row,) = [line for line in text.splitlines() if line.startswith("|   1 |")]
    assert "imported from stylegan2-ada-pytorch" in row and "faces.pkl, sha256 ffffffffffff" in row
    without = imported(training={"imported": ["hostile"]}, snapshot_sha256="e" * 64)
    assert "faces.pkl, sha256 eeeeeeeeeeee" in render_board(build_board([without]))
    assert "toy, 8x8, gray, imported" in render_terminal(build_board([imported()]))


def test_the_columns_are_gated_by_the_protocols_of_our_rows():
    other = {"detector": "pixels", "k": 5}
    changed = dict(protocol=other, protocol_sha256=canonical_sha256(other))
    later = {**record().provenance, "finished": "2036-01-01T00:00:00Z"}
    ours, theirs = build_board([record("a"), imported(**changed, provenance=later)])
    assert ranked(ours) == ["a"] and ours.unranked == ()
    assert theirs.ranked == () and "k 5, not 3" in theirs.unranked[0].why
    (alone,) = build_board([imported(**changed)])
    assert len(alone.ranked) == 1


def test_an_imported_row_is_published_from_committed_code_alone(tmp_path):
    append_records(tmp_path / "imported-faces" / "results.jsonl", [imported()])
    changed, refused = publish_records([tmp_path / "imported-faces"], tmp_path / "published")
    assert refused == [] and [path.name for path in changed] == ["imported-faces-vs-toy.jsonl"]
    assert read_records(changed[0])[0].training == {"imported": ORIGIN}
    dirty = dataclasses.replace(imported("cats"), provenance={**imported().provenance, "git": DIRTY})
    append_records(tmp_path / "imported-cats" / "results.jsonl", [dirty])
    assert "uncommitted" in publish_records([tmp_path / "imported-cats"], tmp_path / "published")[1][0]
