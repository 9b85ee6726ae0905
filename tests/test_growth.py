"""What grows with the number of records: counted operations, not seconds."""

import dataclasses
import json
import sqlite3
import tracemalloc
from collections import Counter

import pytest
from board_toys import only, record
from board_toys import toy_columns as _columns_of_every_test  # noqa: F401

from fact_leaderboard import build, record_index, records
from fact_leaderboard.records import Record, append_records, iter_records, read_records
from fact_leaderboard.render import board_json, render_board, render_terminal
from fact_metrics.base.errors import UserError


@pytest.fixture
def indexed(monkeypatch):
    """Files of any size have an index, from the second append on."""
    monkeypatch.setattr(record_index, "SMALL", 0)


@pytest.fixture
def parsed(monkeypatch):
    """Counts the lines that are read as records."""
    lines, original = Counter(), Record.from_json.__func__
    counted = classmethod(lambda cls, line: lines.update(["line"]) or original(cls, line))
    monkeypatch.setattr(Record, "from_json", counted)
    return lines


def of_rows(rows, *, seeds=3):
    return [record(f"row{r}", seed=s, value=r + 0.1 * s) for r in range(rows) for s in range(seeds)]


def failed(**changes):
    return record(**{"value": None, "status": "failed", "error": "out of memory", **changes})


def test_a_board_is_tested_once_however_often_it_is_shown(monkeypatch):
    """One test a row and column, and not one a cell and row: rendering was quadratic."""
    tests, original = Counter(), build.difference_of_means
    monkeypatch.setattr(build, "difference_of_means", lambda *a: tests.update(["test"]) or original(*a))
    for rows in (20, 40):
        tests.clear()
        section = only(of_rows(rows))
        for show in (render_board, render_terminal, board_json):
            show([section])
        assert tests["test"] == rows - 1


def test_appending_reads_no_record_however_many_there_are(tmp_path, indexed, parsed):
    path = tmp_path / "results.jsonl"
    append_records(path, of_rows(30))
    append_records(path, [record("makes the index")])
    parsed.clear()
    for number in range(5):
        assert append_records(path, [record(f"new{number}")]) == 1
        assert append_records(path, [record(f"new{number}")]) == 0
    assert not parsed and len(read_records(path)) == 96


def test_small_files_have_no_index(tmp_path):
    append_records(tmp_path / "results.jsonl", of_rows(3))
    assert {path.name for path in tmp_path.iterdir()} == {"results.jsonl", ".results.jsonl.lock"}


def test_an_index_decides_as_the_whole_file_does(tmp_path, monkeypatch):
    """Ok records stay, failures are repeated only with another error, the latest outcome counts."""
    history = [failed(), failed(), failed(error="other"), record(), record(), failed(), record("b")]
    written = {}
    for small in (0, 2**20):
        monkeypatch.setattr(record_index, "SMALL", small)
        path = tmp_path / str(small) / "results.jsonl"
        written[small] = [append_records(path, [one]) for one in history]
        written[small] += [append_records(path, [record()], again=True), append_records(path, history)]
    assert written[0] == written[2**20] == [1, 0, 1, 1, 0, 0, 1, 1, 0]


CHANGES = {
    "a line added": lambda path: path.write_text(path.read_text() + record("other").to_json() + "\n"),
    "a line removed": lambda path: path.write_text("".join(path.read_text().splitlines(True)[1:])),
    "lines reordered": lambda path: path.write_text("".join(path.read_text().splitlines(True)[::-1])),
    "a torn line": lambda path: path.write_text(path.read_text() + '{"schema": 1, "ru'),
    "a line without its end": lambda path: path.write_text(path.read_text() + record("other").to_json()),
    "the file replaced": lambda path: path.write_text(record("other").to_json() + "\n"),
    "the file removed": lambda path: path.unlink(),
    "the index removed": lambda path: path.with_name(".results.jsonl.index").unlink(),
    "the index garbled": lambda path: path.with_name(".results.jsonl.index").write_bytes(b"no database" * 99),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_an_index_that_does_not_fit_the_file_is_made_again(change, tmp_path, indexed):
    path = tmp_path / "results.jsonl"
    append_records(path, of_rows(2)[:1])
    append_records(path, of_rows(2))
    change(path)
    there = {one.key for one in iter_records(path)}
    again = [*of_rows(2), record("other")]
    assert append_records(path, again) == len({one.key for one in again} - there)
    assert {one.key for one in read_records(path)} == {one.key for one in again}
    assert len(read_records(path)) == len(again)


def test_an_append_that_is_cut_short_leaves_no_index_that_lies(tmp_path, indexed, monkeypatch):
    path = tmp_path / "results.jsonl"
    append_records(path, [record()])
    append_records(path, [record()])

    def records_then_stop():
        yield record("b")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        append_records(path, records_then_stop())
    assert append_records(path, [record("b")]) == 0
    assert [one.label for one in read_records(path)] == ["a", "b"]


def test_an_index_that_cannot_be_written_is_one_line(tmp_path, indexed, monkeypatch):
    def full(self, key, outcome):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(record_index.KnownOutcomes, "put", full)
    path = tmp_path / "results.jsonl"
    with pytest.raises(UserError) as refused:
        append_records(path, [record()])
    reason = "database or disk is full; fix that and run the same command again"
    assert str(refused.value) == f"could not write {path}: {reason}"


@pytest.mark.parametrize("tail", [1, 7, 2**16])
def test_the_last_line_is_found_from_the_end(tail, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "TAIL", tail)
    path = tmp_path / "results.jsonl"
    for text, expected in (
        (b"", b""),
        (b"ab", b"ab"),
        (b"a\nbc", b"bc"),
        (b"a\n\nbcdefgh", b"bcdefgh"),
        (b"a\n", b""),
    ):
        path.write_bytes(text)
        with open(path, "rb") as file:
            assert records._last_line(file) == (len(text) - len(expected), expected)


def test_reading_holds_one_line_at_a_time(tmp_path):
    """Peak memory of going through the records, of twice as many."""
    peaks = []
    for rows in (200, 400):
        path = tmp_path / f"{rows}.jsonl"
        path.write_text("".join(one.to_json() + "\n" for one in of_rows(rows)))
        list(iter_records(path))  # what is shared is held from now on
        tracemalloc.start()
        assert sum(1 for _ in iter_records(path)) == 3 * rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 0.5 * path.stat().st_size


def test_records_of_one_run_share_their_equal_parts(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text("".join(one.to_json() + "\n" for one in of_rows(2)))
    first, *others = read_records(path)
    for name in ("protocol", "dataset", "training"):
        assert all(getattr(other, name) is getattr(first, name) for other in others), name


def test_parts_that_differ_in_type_alone_are_not_shared(tmp_path):
    """1, 1.0 and True are equal in Python; a record must be written again as it was read."""
    path = tmp_path / "results.jsonl"
    lines = [record(f"row{i}", extras={"n": value}).to_json() for i, value in enumerate((1, 1.0, True))]
    path.write_text("".join(f"{line}\n" for line in lines))
    assert [one.to_json() for one in read_records(path)] == lines


def test_a_protocol_that_does_not_have_its_hash_is_refused_where_an_equal_hash_was_met_before():
    sound = record()
    assert Record.from_json(sound.to_json()) == sound
    data = dataclasses.asdict(sound) | {"protocol": {**sound.protocol, "k": 99}}
    with pytest.raises(ValueError, match="not the hash of protocol"):
        Record.from_json(json.dumps(data))
