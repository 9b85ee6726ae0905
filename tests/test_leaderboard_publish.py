"""Publishing: records are copied once and kept, the written board is what they say."""

import pytest
from board_toys import DIRTY, control, ranked, record
from board_toys import toy_columns as _columns_of_every_test  # noqa: F401
from eval_toys import CLEAN, DATASET

from fact_leaderboard.build import build_board
from fact_leaderboard.publish import check_board, local_sections, publish_records, write_board
from fact_leaderboard.records import append_records, read_records
from fact_metrics.base.errors import UserError


def test_publishing_copies_the_latest_ok_records_once(tmp_path):
    run, results = tmp_path / "runs" / "a", tmp_path / "results"
    failed = record("a", metric="toy_share", status="failed", value=None, error="no disk")
    append_records(run / "results.jsonl", [record("a", value=1.0), failed])
    append_records(run / "results.jsonl", [record("a", value=2.0)], again=True)
    changed, refused = publish_records([tmp_path / "runs"], results)
    assert [path.name for path in changed] == ["a-seed0.jsonl"] and not refused
    assert [r.value for r in read_records(changed[0])] == [2.0]
    assert publish_records([tmp_path / "runs"], results) == ([], [])


def test_publishing_keeps_what_was_published_before(tmp_path):
    results = tmp_path / "results"
    append_records(results / "a-seed0.jsonl", [record("a", kimg=2)])
    append_records(tmp_path / "runs" / "results.jsonl", [record("a", kimg=4)])
    publish_records([tmp_path / "runs"], results)
    assert [r.kimg for r in read_records(results / "a-seed0.jsonl")] == [2, 4]


def test_publishing_refuses_a_run_of_uncommitted_code_and_takes_the_others(tmp_path):
    for label, git in (("a", DIRTY), ("b", CLEAN)):
        append_records(tmp_path / "runs" / label / "results.jsonl", [record(label, training={"git": git})])
    changed, refused = publish_records([tmp_path / "runs"], tmp_path / "results")
    assert [path.name for path in changed] == ["b-seed0.jsonl"]
    assert len(refused) == 1 and refused[0].startswith("a-seed0: trained with uncommitted code")
    changed, refused = publish_records([tmp_path / "runs"], tmp_path / "results", allow_dirty=True)
    assert [path.name for path in changed] == ["a-seed0.jsonl"] and not refused


def test_the_written_board_is_checked_byte_for_byte(tmp_path):
    out, results = tmp_path / "BOARD.md", tmp_path / "results"
    append_records(results / "a.jsonl", [record()])
    with pytest.raises(UserError, match="stale"):
        check_board(out, results)
    assert write_board(out, results) and not write_board(out, results)
    check_board(out, results)
    append_records(results / "b.jsonl", [record("b")])
    with pytest.raises(UserError, match="stale"):
        check_board(out, results)


def test_the_committed_board_is_up_to_date(monkeypatch):
    monkeypatch.undo()
    check_board()


def test_the_local_board_shows_the_datasets_at_hand_beside_their_published_rows(tmp_path):
    results = tmp_path / "results"
    other = {**DATASET, "name": "other", "sha256": "f" * 64}
    append_records(results / "x.jsonl", [record("published"), record("elsewhere", dataset=other)])
    append_records(tmp_path / "runs" / "a" / "results.jsonl", [record("mine", value=0.5)])
    (section,) = local_sections(tmp_path / "runs", results)
    assert ranked(section) == ["mine", "published"]


def test_the_picture_of_the_board_shows_its_names_and_numbers_and_the_best_in_bold(tmp_path, monkeypatch):
    from matplotlib import pyplot as plt
    from PIL import Image

    from fact_leaderboard.picture import draw_board

    monkeypatch.setattr(plt, "close", lambda figure: None)
    sections = build_board([record("a"), record("b", value=2.0), control("noise", value=0.5)])
    picture = Image.open(draw_board(sections, tmp_path / "board.png"))
    texts = {text.get_text(): text.get_weight() for text in plt.gcf().axes[0].texts}
    monkeypatch.undo()
    plt.close("all")
    assert {"a", "b", "uniform noise", "distance ↓"} <= texts.keys()
    assert (texts["1.00"], texts["2.00"], texts["0.50"]) == ("bold", "normal", "normal")
    assert picture.width >= 800 and len(picture.convert("L").getcolors()) > 20


def test_sample_grids_stand_above_their_model_in_the_picture_of_the_board(tmp_path):
    import numpy as np
    from PIL import Image

    from fact_leaderboard.picture import NAMES, WIDTH, draw_board

    grid = tmp_path / "grid.png"
    Image.new("RGB", (32, 32), (255, 0, 255)).save(grid)
    sections = build_board([record("a"), record("b", value=2.0)])
    picture = Image.open(draw_board(sections, tmp_path / "grids.png", grids=[f"b={grid}"])).convert("RGB")
    magenta = (np.asarray(picture) == (255, 0, 255)).all(axis=2)
    assert magenta.sum() > 150 * 150  # an inch or more
    columns = np.flatnonzero(magenta.any(axis=0)) / 150
    assert NAMES + WIDTH < columns.min() and columns.max() < NAMES + 2 * WIDTH  # of the second model
    with pytest.raises(UserError, match="LABEL=FILE"):
        draw_board(sections, tmp_path / "x.png", grids=["nothing"])
