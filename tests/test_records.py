"""Records: one JSON line each, append-only, never NaN, safe against torn lines and concurrent writers."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from eval_toys import make_record

from fact_leaderboard.records import (
    Record,
    append_records,
    done_keys,
    latest_records,
    read_records,
)
from fact_metrics.base.canonical import canonical_json, canonical_sha256
from fact_metrics.base.errors import UserError


def test_a_record_survives_the_round_trip_through_its_line():
    record = make_record(ci={"level": 0.95, "low": 1.0, "high": 2.0, "method": "bootstrap", "n": 100})
    line = record.to_json()
    assert "\n" not in line
    assert Record.from_json(line) == record


def test_the_protocol_hash_does_not_depend_on_the_order_of_keys():
    a = {"k": 3, "detector": {"name": "pixels", "size": 32}}
    b = {"detector": {"size": 32, "name": "pixels"}, "k": 3}
    assert canonical_sha256(a) == canonical_sha256(b)
    assert canonical_sha256(a) != canonical_sha256({**a, "k": 5})


def test_the_protocol_hash_is_the_one_that_published_records_hold():
    # A change of the canonical spelling would make every published number look like another protocol.
    assert canonical_json({"b": [1, 0.5], "a": "é"}) == '{"a":"é","b":[1,0.5]}'
    # printf '{"a":"é","b":[1,0.5]}' | sha256sum
    expected = "487df58a5a8d7b2df6479781692d59ed51086e4f765f37f8f4fc34703e92ba27"
    assert canonical_sha256({"b": [1, 0.5], "a": "é"}) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_cannot_become_a_value(value):
    with pytest.raises(ValueError, match="write null and status failed"):
        make_record(value=value)


def test_nan_inside_extras_is_written_as_null():
    line = make_record(extras={"per_class": [0.5, math.nan]}).to_json()
    assert json.loads(line)["extras"] == {"per_class": [0.5, None]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "fine"}, "status is 'fine'"),
        ({"source": "dream"}, "source is 'dream'"),
        ({"protocol_sha256": "0" * 64}, "not the hash of protocol"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(make_record(), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"schema": 99}, "schema 99"), ({"colour": "red"}, "unknown field 'colour'"), ({"metric": None}, None)],
)
def test_a_line_of_another_schema_is_not_a_record(change, message):
    data = json.loads(make_record().to_json())
    if message is None:
        del data["metric"]
        message = "field 'metric' is missing"
    else:
        data |= change
    with pytest.raises(ValueError, match=message):
        Record.from_json(json.dumps(data))


def test_appending_keeps_what_is_there_and_writes_one_line_each(tmp_path):
    path = tmp_path / "run" / "results.jsonl"
    records = [make_record(metric=f"m{i}") for i in range(3)]
    assert append_records(path, records[:1]) == 1
    first = path.read_bytes()
    assert append_records(path, records[1:]) == 2
    assert path.read_bytes().startswith(first)
    assert path.read_bytes().count(b"\n") == 3
    assert read_records(path) == records


def test_a_missing_file_holds_no_records(tmp_path):
    assert read_records(tmp_path / "results.jsonl") == []


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_torn_last_line_is_skipped_and_removed_by_the_next_append(tmp_path, cut):
    path = tmp_path / "results.jsonl"
    whole, torn, after = (make_record(metric=name) for name in ("whole", "torn", "after"))
    line = torn.to_json().encode()
    append_records(path, [whole])
    with open(path, "ab") as file:
        file.write(line[:-cut])
    assert read_records(path) == [whole]
    append_records(path, [after])
    assert read_records(path) == [whole, after]
    assert path.read_bytes().count(b"\n") == 2


def test_a_torn_line_inside_a_character_is_survived(tmp_path):
    path = tmp_path / "results.jsonl"
    line = make_record(label="é").to_json().encode()
    path.write_bytes(line[: line.index("é".encode()) + 1])
    assert read_records(path) == []
    append_records(path, [make_record()])
    assert read_records(path) == [make_record()]


def test_a_last_line_that_only_lacks_its_line_end_is_kept(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(make_record(metric="whole").to_json())
    append_records(path, [make_record(metric="after")])
    assert [record.metric for record in read_records(path)] == ["whole", "after"]


def test_a_broken_line_in_the_middle_is_named_with_file_and_number(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(make_record().to_json() + "\n{broken\n" + make_record(seed=1).to_json() + "\n")
    with pytest.raises(UserError, match=r"results\.jsonl line 2 is not a record"):
        read_records(path)


def test_the_latest_ok_record_of_a_key_counts():
    failed = make_record(status="failed", value=None, error="no disk")
    old, new = make_record(value=1.0), make_record(value=2.0)
    other = make_record(metric="other")
    assert latest_records([failed, old, other, new, failed]) == [new, other]
    assert latest_records([failed]) == [failed]
    assert done_keys([failed]) == set()
    assert done_keys([failed, old]) == {old.key}


def test_every_part_of_the_key_makes_another_record():
    base = make_record()
    changes = [
        {"run_id": "other"}, {"snapshot_sha256": "e" * 64}, {"metric": "other"}, {"metric_version": 2},
        {"seed": 1}, {"protocol": {"k": 5}},
    ]  # fmt: skip
    keys = {make_record(**change).key for change in changes}
    assert len(keys | {base.key}) == len(changes) + 1
    assert make_record(value=9.0, label="other").key == base.key


def test_a_key_that_is_done_is_not_written_again_unless_asked(tmp_path):
    path = tmp_path / "results.jsonl"
    append_records(path, [make_record(value=1.0)])
    assert append_records(path, [make_record(value=2.0)]) == 0
    assert append_records(path, [make_record(value=2.0)], again=True) == 1
    assert [record.value for record in read_records(path)] == [1.0, 2.0]


def test_the_same_failure_is_written_once_and_another_one_again(tmp_path):
    path = tmp_path / "results.jsonl"
    failure = make_record(status="failed", value=None, error="no disk")
    assert append_records(path, [failure]) == 1
    assert append_records(path, [failure]) == 0
    assert append_records(path, [dataclasses.replace(failure, error="no memory")]) == 1
    assert append_records(path, [make_record()]) == 1


def test_a_full_disk_is_one_line_and_the_file_stays_readable(tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    append_records(path, [make_record(metric="before")])

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"could not write .*results\.jsonl: No space left on device"):
        append_records(path, [make_record(metric="after")])
    monkeypatch.undo()
    assert read_records(path)[0].metric == "before"


def test_concurrent_writers_lose_and_double_nothing(tmp_path):
    path = tmp_path / "results.jsonl"
    code = (
        "import sys; sys.path.insert(0, sys.argv[3])\n"
        "import dataclasses; from pathlib import Path\n"
        "from fact_leaderboard.records import Record, append_records\n"
        "record = Record.from_json(Path(sys.argv[2]).read_text())\n"
        "for seed in range(25):\n"
        "    append_records(Path(sys.argv[1]), [dataclasses.replace(record, seed=seed)])\n"
    )
    template = tmp_path / "record.json"
    template.write_text(make_record().to_json())
    here = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", code, str(path), str(template), here]
    writers = [subprocess.Popen(command) for _ in range(3)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    assert sorted(record.seed for record in read_records(path)) == list(range(25))
