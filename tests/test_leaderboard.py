"""The board: gates, means over training seeds, rank, control rows; the same records give the same bytes."""

import dataclasses
import itertools

import pytest
from board_toys import DIRTY, control, only, ranked, record
from board_toys import toy_columns as _columns_of_every_test  # noqa: F401
from eval_toys import CLEAN, DATASET, make_record

from fact_leaderboard import columns
from fact_leaderboard.build import build_board
from fact_leaderboard.columns import COLUMNS, Column, columns_for
from fact_leaderboard.intervals import independent_difference, variance_floor
from fact_leaderboard.publish import publish_records
from fact_leaderboard.records import append_records, read_records
from fact_leaderboard.render import board_json, render_board, render_terminal
from fact_metrics.base.canonical import canonical_sha256

OTHER = {"detector": "pixels", "k": 5}


def test_every_column_is_a_registered_metric_that_fits_its_board(monkeypatch):
    monkeypatch.undo()
    from fact_metrics.registry import get_specs

    specs = {spec.name: spec for spec in get_specs([column.metric for column in COLUMNS])}
    for dataset, fewest in (("mnist", 13), ("fashion-mnist", 10), ("anything", 10)):
        fitting = [column for column in columns_for(dataset) if specs[column.metric].fits(dataset)]
        headers = [column.header for column in fitting]
        assert len(fitting) >= fewest and len(set(headers)) == len(headers)
        standard = [c for c in columns_for(dataset, "standard") if specs[c.metric].needs_trait is None]
        assert standard[0].metric == "fid50k_full" and len({c.header for c in standard}) == len(standard)
    splits = {column.on: specs[column.metric].reference_split for column in COLUMNS if column.on != "all"}
    assert splits == {"test": "test", "full": "train"}
    for column in COLUMNS:
        assert bool(specs[column.metric].weights) == (column.protocol == "standard"), column.metric


RANDOM = {"detectors": {"toy": {"weights_sha256": "random weights, seed 0"}}, "k": 3}


def test_numbers_of_two_weight_files_are_never_ranked_together():
    own, other = ({"detectors": {"toy": {"weights_sha256": c * 64}}} for c in "ab")
    records = [
        record("a", protocol=own, protocol_sha256=canonical_sha256(own)),
        record("b", value=0.1, protocol=other, protocol_sha256=canonical_sha256(other)),
    ]
    section = only(records)
    assert len(section.ranked) == 1 and len(section.unranked) == 1
    assert "detectors.toy.weights_sha256" in section.unranked[0].why


def test_random_weights_are_listed_and_never_ranked_even_alone_and_last(tmp_path):
    random = record("b", value=0.01, protocol=RANDOM, protocol_sha256=canonical_sha256(RANDOM))
    alone = only([random])
    assert alone.ranked == () and alone.unranked[0].why == "invalid: random weights, a smoke test"
    later = dataclasses.replace(random, provenance={**random.provenance, "finished": "2036-01-01T00:00:00Z"})
    section = only([record("a"), later])
    assert ranked(section) == ["a"] and [row.label for row in section.unranked] == ["b"]
    assert section.protocols["toy_distance"].label == "a"
    assert "random weights" in render_board([section]) and "random weights" in render_terminal([section])


def test_random_weights_are_never_published(tmp_path):
    random = record("b", metric="toy_share", protocol=RANDOM, protocol_sha256=canonical_sha256(RANDOM))
    append_records(tmp_path / "run" / "results.jsonl", [record("b"), random])
    for options in ({}, {"allow_dirty": True}):
        _, refused = publish_records([tmp_path / "run"], tmp_path / "published", **options)
        assert refused == ["b-seed0: 1 records are invalid: random weights, a smoke test"]
    (path,) = (tmp_path / "published").iterdir()
    assert [r.metric for r in read_records(path)] == ["toy_distance"]


def test_a_dataset_has_a_board_for_each_protocol(monkeypatch):
    toys = (
        Column("toy_distance", "distance", ".2f"),
        Column("toy_share", "share", protocol="standard"),
        Column("toy_both", "both", protocol="both"),
    )
    monkeypatch.setattr(columns, "COLUMNS", toys)
    rows = {"a": ("toy_distance", "toy_both"), "b": ("toy_share", "toy_both"), "c": ("toy_both",)}
    rows["d"] = ("toy_distance", "toy_share")
    records = [record(label, metric=metric) for label, metrics in rows.items() for metric in metrics]
    standard, embedded = build_board(records)
    assert (standard.protocol, embedded.protocol) == ("standard", "embedded")
    assert sorted(ranked(standard)) == ["b", "d"] and sorted(ranked(embedded)) == ["a", "c", "d"]
    assert [c.metric for c in standard.columns] == ["toy_share", "toy_both"]
    text = render_board([standard, embedded])
    assert "## toy, 8x8, gray, standard protocol\n" in text and "## toy, 8x8, gray\n" in text
    assert [s["protocol"] for s in board_json([standard, embedded])] == ["standard", "embedded"]


def test_training_seeds_of_one_configuration_are_one_row_with_mean_and_interval():
    section = only([record(seed=s, value=v) for s, v in enumerate((1.0, 2.0, 3.0))])
    (row,) = section.ranked
    cell = row.cells["toy_distance"]
    assert row.train_seeds == (0, 1, 2) and cell.mean.mean == 2.0
    assert cell.mean.half_width == pytest.approx(2.484, abs=1e-3)  # t(0.975, 2) / sqrt(3)
    assert "2.00 ± 2.48" in render_board([section])


def test_evaluation_seeds_are_averaged_inside_a_run_and_do_not_make_an_interval():
    section = only([dataclasses.replace(record(value=v), seed=i) for i, v in enumerate((1.0, 3.0))])
    cell = section.ranked[0].cells["toy_distance"]
    assert (cell.mean.mean, cell.mean.n, cell.mean.half_width) == (2.0, 1, None)


def test_the_first_column_ranks_by_its_direction():
    values = {"a": 3.0, "b": 1.0, "c": 2.0}
    down = only([record(label, value=v) for label, v in values.items()])
    assert ranked(down) == ["b", "c", "a"]
    up = only([record(label, value=v, metric="toy_share") for label, v in values.items()])
    assert ranked(up) == ["a", "c", "b"]


def test_a_row_without_the_first_number_comes_last_and_stays_blank():
    section = only(
        [record("a", metric="toy_share", value=0.9), record("b"), record("b", metric="toy_share", value=0.1)]
    )
    assert ranked(section) == ["b", "a"]
    line = next(line for line in render_board([section]).splitlines() if line.startswith("|   2 | a"))
    assert line.split("|")[5].strip() == ""


def test_bold_marks_the_best_ranked_value_and_never_a_control_row():
    section = only([record("a", value=2.0), record("b", value=1.0), control("reals", value=0.1)])
    text = render_board([section])
    assert "**1.00**" in text and "**2.00**" not in text and "**0.10**" not in text


def test_a_single_row_is_not_called_the_best():
    assert "**" not in table(render_board([only([record()])]))


def table(text):
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


NEWER = {"commit": "d" * 40, "dirty": False}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"provenance": {"git": DIRTY}}, "scored with uncommitted code"),
        ({"provenance": {"git": {"commit": None, "dirty": None}}}, "scored outside a git checkout"),
        ({"training": {"git": DIRTY}}, "trained with uncommitted code"),
        ({"training": {}}, "trained outside a git checkout"),
        ({"training": {"git": CLEAN, "resumed": [{"git": DIRTY}]}}, "trained with uncommitted code"),
        ({"training": {"git": CLEAN, "resumed": [{"git": NEWER}]}}, "the code of several commits"),
        ({"n_effective": 20}, "too few images: 20 of 30"),
        ({"protocol": OTHER, "protocol_sha256": canonical_sha256(OTHER)}, "other protocol (k 5, not 3)"),
        ({"metric_version": 0}, "version 0, the column is version 1"),
        ({"dataset": {**DATASET, "sha256": "e" * 64}}, "other images: toy train eeeeeeeeeeee"),
    ],
)
def test_what_cannot_be_compared_is_listed_unranked_with_the_reason(change, why):
    odd = {"provenance": {**make_record().provenance, "finished": "2025-01-01T00:00:00Z"}} | change
    section = only([record("good", value=2.0), record("bad", value=1.0, **odd)])
    assert ranked(section) == ["good"]
    (row,) = section.unranked
    assert row.label == "bad" and why in row.why and row.cells["toy_distance"].mean.mean == 1.0
    assert why in render_board([section]).split("Not ranked:")[1]


def test_a_column_follows_the_newest_committed_protocol_not_a_dirty_newer_one():
    old, new, dirty = (
        {"git": git, "finished": f"2026-01-0{day}T00:00:00Z"}
        for day, git in ((1, CLEAN), (2, CLEAN), (3, DIRTY))
    )
    newer = {"protocol": OTHER, "protocol_sha256": canonical_sha256(OTHER)}
    newest_protocol = {"detector": "pixels", "k": 9}
    newest = {"protocol": newest_protocol, "protocol_sha256": canonical_sha256(newest_protocol)}
    section = only(
        [
            record("a", provenance=old),
            record("b", provenance=new, **newer),
            record("c", provenance=dirty, **newest),
        ]
    )
    assert ranked(section) == ["b"]
    assert {row.label for row in section.unranked} == {"a", "c"}


def test_an_old_protocols_number_is_dropped_where_the_row_was_scored_again():
    old = record("a", value=9.0)
    new = record("a", value=1.0, protocol=OTHER, protocol_sha256=canonical_sha256(OTHER),
                 provenance={**old.provenance, "finished": "2026-02-01T00:00:00Z"})  # fmt: skip
    section = only([old, new])
    assert section.ranked[0].cells["toy_distance"].mean.mean == 1.0 and not section.unranked


def test_failures_and_missing_values_make_no_number():
    failed = record("a", status="failed", value=None, error="no disk")
    blank = record("a", metric="toy_share", value=None)
    assert build_board([failed, blank]) == []


def test_metrics_that_are_no_column_do_not_show():
    section = only([record(), record(metric="toy_secret")])
    assert [column.metric for column in section.columns] == ["toy_distance"]


def test_only_the_newest_snapshot_of_a_run_counts():
    section = only([record(kimg=8, value=2.0), record(kimg=4, value=1.0)])
    assert [(row.kimg, row.cells["toy_distance"].mean.mean) for row in section.ranked] == [(8, 2.0)]


def test_control_rows_stand_below_without_rank_and_need_no_clean_commit():
    dirty = {"git": DIRTY, "finished": "2026-01-01T00:00:00Z", "argv": []}
    section = only(
        [record(), control("noise", value=9.0, provenance=dirty), control("reals", value=0.1, n_effective=24)]
    )
    assert [row.source for row in section.controls] == ["reals", "noise"]
    text = render_board([section])
    assert "*real images, held out*" in text and "0.10 (24 images)" in text and "*uniform noise*" in text


def test_control_rows_of_one_dataset_under_two_names_are_no_interval():
    section = only(
        [record(), control("noise", value=9.0), dataclasses.replace(control("noise"), run_id="noise-x")]
    )
    cell = section.controls[0].cells["toy_distance"]
    assert (cell.mean.n, cell.mean.half_width) == (1, None)


def test_on_a_local_board_the_users_own_newer_protocol_leads():
    mine = record("mine", protocol=OTHER, protocol_sha256=canonical_sha256(OTHER),
                  provenance={"git": DIRTY, "finished": "2026-03-01T00:00:00Z"})  # fmt: skip
    section = only([record("published")], local=[mine])
    assert ranked(section) == ["mine"] and [row.label for row in section.unranked] == ["published"]


def test_each_dataset_has_a_board_of_its_own():
    other = {**DATASET, "name": "other", "sha256": "f" * 64}
    larger = {**DATASET, "resolution": 16, "sha256": "1" * 64}
    sections = build_board([record("a"), record("b", dataset=other), record("c", dataset=larger)])
    assert [(s.dataset["name"], s.dataset["resolution"]) for s in sections] == [
        ("other", 8),
        ("toy", 8),
        ("toy", 16),
    ]


def test_local_rows_join_the_published_ones_marked_and_without_the_commit_gate():
    published, local = record("a", value=1.0), record("b", value=2.0, training={"git": DIRTY})
    section = only([published], local=[local, published])
    assert [(row.label, row.local) for row in section.ranked] == [("a", False), ("b", True)]
    assert "b (not published)" in render_board([section])
    shown = render_terminal([section, only([control("noise", value=9.0)])])
    heads = [line.split() for line in shown.splitlines()[3:6]]
    assert heads == [["#2", "#1"], ["b", "a"], ["not", "published"]]
    assert shown.count("#") == 2  # control rows have no rank


def test_a_local_run_of_a_published_name_is_a_row_of_its_own():
    section = only([record(value=1.0)], local=[record(value=2.0, snapshot_sha256="9" * 64)])
    assert [(row.local, row.cells["toy_distance"].mean.n) for row in section.ranked] == [
        (False, 1),
        (True, 1),
    ]


def test_the_order_of_the_records_does_not_change_a_byte():
    trained = {"git": CLEAN, "argv": ["fact-train", "--seed", "1"]}
    records = [record("a", seed=0), record("a", seed=1, value=2.0, training=trained)]
    records += [record("b", value=0.5), control("noise", value=9.0)]
    texts = {render_board(build_board(order)) for order in itertools.permutations(records)}
    assert len(texts) == 1


def test_the_board_says_how_every_number_was_made():
    net = {"weights_sha256": "7" * 64, "resize": "clean"}
    protocol = {"settings": {"k": 3}, "detectors": {"net": net}, "sampling": {"latents": "N(0, 1)"}}
    section = only([record(protocol=protocol, protocol_sha256=canonical_sha256(protocol))])
    text = render_board([section])
    for part in (
        "`toy_distance` version 1",
        "30 generated and 40 real images (toy train, sha256 dddddddddddd); k: 3; detector `net`; none.",
        "- `net`: resize: clean; weights sha256: 777777777777.",
        "- images: latents: N(0, 1).",
        "trained by `fact-train --preset toy` with seeds 0; scored by `fact-eval all runs`; ",
        "commit cccccccccccc, torch 2.15.0, on cpu.",
    ):
        assert part in text, part


def test_a_board_holds_no_date():
    assert "2026" not in render_board([only([record()])])


def test_an_empty_board_says_how_to_fill_it():
    assert "fact-eval publish" in render_board([])


def test_the_json_board_has_the_numbers_of_the_table():
    (section,) = board_json(build_board([record(value=1.25), control("noise", value=9.0)]))
    assert section["ranked"][0]["metrics"]["toy_distance"]["mean"] == 1.25
    assert section["controls"][0]["label"] == "uniform noise"


def test_what_is_not_called_worse_than_the_best_is_marked():
    """Each against the best; Holm's correction over all pairs of the three with seeds by hand."""
    values = {"best": [1.0, 1.2, 1.1], "near": [1.1, 1.4, 1.2], "far": [9.0, 9.1, 9.2], "one": [1.15]}
    records = [record(k, seed=s, value=v) for k, vs in values.items() for s, v in enumerate(vs)]
    section = only([*records, control("reals", value=1.2)])
    floor = variance_floor(stderrs=[records[0].stderr])
    raw = {k: independent_difference(values["best"], values[k], floor=floor).p for k in ("near", "far")}
    assert raw["far"] * 3 < 0.05 <= raw["near"]
    text = render_board([section])
    marked = {line.split("|")[2].strip(): "≈" in line for line in text.splitlines() if line.startswith("|  ")}
    names = {"best": False, "near": True, "far": False, "one": False, "*real images, held out*": False}
    assert {k: v for k, v in marked.items() if k in names} == names
    (board,) = board_json([section])
    tied = {row["label"]: row["tied_with_best"] for row in board["ranked"]}
    assert tied == {"best": [], "near": ["toy_distance"], "far": [], "one": []}
    shown = render_terminal([section])
    assert shown.count("≈") == 2 and "*1.10" in shown  # one of them in the legend


def test_more_rows_and_columns_make_a_board_ask_for_more():
    """The very same pair is called worse on its own, and not among the comparisons of a larger board."""
    pair = {"best": [1.0, 1.2, 1.1], "far": [1.9, 2.0, 1.8]}
    p = independent_difference(*pair.values()).p

    def is_tied(here, there):
        """With so many other rows in the pair's column and in another, which hardly differ."""
        values = {("toy_distance", label): seeds for label, seeds in pair.items()}
        values |= {("toy_distance", f"here{i}"): [5.0 + i, 9.0, 7.0] for i in range(here)}
        values |= {("toy_share", f"there{i}"): [5.0 + i, 9.0, 7.0] for i in range(there)}
        section = only(
            [record(k, seed=s, value=v, metric=m) for (m, k), vs in values.items() for s, v in enumerate(vs)]
        )
        far = next(row for row in section.ranked if row.label == "far")
        return far.cells["toy_distance"].mean in section.tied("toy_distance")

    comparisons = {(0, 0): 1, (3, 0): 10, (4, 0): 15, (4, 2): 16, (4, 3): 18, (5, 0): 21}
    found = {rows: is_tied(*rows) for rows in comparisons}
    assert found == {rows: p * pairs >= 0.05 for rows, pairs in comparisons.items()}
    assert set(found.values()) == {True, False}


def test_seeds_that_agree_on_a_whole_number_have_the_interval_of_its_rounding(monkeypatch):
    """`covered10k` counts classes; three runs with 10 each were shown as 10.0 +- 0.0, and others as worse."""
    monkeypatch.setattr(columns, "COLUMNS", (Column("covered10k", "covered", ".1f"),))
    values = {"ten": [10.0] * 3, "nine": [9.0] * 3, "also nine": [9.0] * 3}
    whole = {"metric": "covered10k", "higher_is_better": True, "stderr": None}
    section = only(
        [record(k, seed=s, value=v, **whole) for k, vs in values.items() for s, v in enumerate(vs)]
    )
    means = [row.cells["covered10k"].mean for row in section.ranked]
    assert [mean.half_width for mean in means] == pytest.approx([4.302653 / 6] * 3, rel=1e-6)
    assert section.tied("covered10k") == set(means[1:])


def test_with_one_seed_of_the_best_nothing_is_tied():
    records = [record("best", value=1.0), *(record("b", seed=s, value=1.0 + s) for s in range(3))]
    section = only(records)
    assert section.best("toy_distance") == 1.0 and section.tied("toy_distance") == frozenset()


def test_the_terminal_shows_the_same_numbers_a_line_per_metric_and_few_models_abreast():
    records = [record(f"model{i}", value=float(i)) for i in range(7)] + [control("noise", value=99.0)]
    text = render_terminal(build_board(records))
    lines = [line for line in text.splitlines() if line.startswith("distance ↓")]
    numbers = [word.removeprefix("*") for line in lines for word in line.split()[2:]]
    assert numbers == [f"{i}.00" for i in range(7)] + ["99.00"]
    assert len(lines) == 2 and max(map(len, text.splitlines())) < 100


def test_the_terminal_names_what_is_not_ranked_and_why():
    text = render_terminal(build_board([record(n_effective=20)]))
    assert "not ranked: a: too few images: 20 of 30" in text
