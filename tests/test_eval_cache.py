"""The store gives back exactly what was stored under that key, chunk by chunk, and never damaged rows."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import fact_eval
import fact_leaderboard
import fact_metrics
import fact_train
from fact_eval.features.code_key import features_code
from fact_eval.features.store import FeatureCache, cache_folder, garbage
from fact_metrics.base.errors import UserError
from fact_metrics.base.fingerprints import code_sha256

KEY = {
    "images": {"source": "generator", "snapshot": "a" * 64, "seed": 0},
    "detector": {"detector": "pixels"},
    "code": "c",
    "device": "cpu",
}


@pytest.fixture
def said():
    return []


@pytest.fixture
def cache(tmp_path, said, monkeypatch):
    monkeypatch.setattr(FeatureCache, "chunk", 4)
    return FeatureCache(tmp_path, report=said.append)


def features(n=10, width=3):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(n))


def fill(cache, key=KEY, n=10):
    """Stores n rows in chunks; returns them and the files."""
    rows = features(n)
    return rows, [cache.store(key, i, part) for i, part in enumerate(rows.split(cache.chunk))]


def joined(found):
    return torch.cat([found[number] for number in sorted(found)])


def test_features_come_back_as_they_were_stored(cache):
    stored, paths = fill(cache)
    assert len(paths) == 3
    assert torch.equal(joined(cache.load(KEY, 10)), stored)


def test_a_longer_entry_serves_a_shorter_request(cache):
    stored, _ = fill(cache)
    assert torch.equal(joined(cache.load(KEY, 6)), stored[:6])
    assert len(cache.entries()) == 1


def test_a_longer_request_finds_the_whole_chunks_of_a_shorter_entry(cache):
    stored, _ = fill(cache)
    assert sorted(cache.load(KEY, 15)) == [0, 1]  # the last one was cut short at 10
    assert torch.equal(joined(cache.load(KEY, 15)), stored[:8])


def test_chunks_that_are_held_are_not_read_again(cache):
    fill(cache)
    assert sorted(cache.load(KEY, 10, skip={0, 2})) == [1]


@pytest.mark.parametrize(
    "change",
    [
        {"images": {**KEY["images"], "seed": 1}},
        {"images": {**KEY["images"], "snapshot": "b" * 64}},
        {"detector": {"detector": "pixels", "resize": "none"}},
        {"code": "new"},
        {"device": "cuda"},
    ],
)
def test_any_change_of_the_key_misses(cache, change):
    fill(cache)
    assert cache.load({**KEY, **change}, 10) == {}
    assert len(cache.load(KEY, 10)) == 3


@pytest.mark.parametrize("damage", ["flip", "truncate header", "truncate data", "empty", "foreign", "moved"])
def test_a_damaged_chunk_is_said_removed_and_the_others_kept(cache, said, damage):
    stored, paths = fill(cache)
    data = bytearray(paths[1].read_bytes())
    if damage == "flip":
        data[-5] ^= 1
    elif damage == "foreign":
        data = bytearray(b"not a safetensors file, but long enough to hold a header")
    elif damage == "moved":  # whole, and of another place
        data = paths[0].read_bytes()
    else:
        data = data[: {"truncate header": 20, "truncate data": len(data) - 7, "empty": 0}[damage]]
    paths[1].write_bytes(data)
    assert cache.damaged(cache.entries()[0]) == [paths[1]]
    assert sorted(cache.load(KEY, 10)) == [0, 2]
    assert not paths[1].exists() and len(said) == 1 and "damaged" in said[0]
    cache.store(KEY, 1, stored[4:8])
    assert torch.equal(joined(cache.load(KEY, 10)), stored)
    assert cache.damaged(cache.entries()[0]) == []


def test_a_store_that_fails_leaves_the_old_chunk_and_no_part_of_the_new(cache, monkeypatch):
    stored, paths = fill(cache)
    before = sorted(p.name for p in paths[0].parent.iterdir())

    def full_disk(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(UserError, match="No space left"):
        cache.store(KEY, 0, features(4))
    monkeypatch.undo()
    monkeypatch.setattr(FeatureCache, "chunk", 4)
    assert torch.equal(joined(cache.load(KEY, 10)), stored)
    assert sorted(p.name for p in paths[0].parent.iterdir()) == before


def test_entries_say_what_they_hold_and_can_be_removed(cache):
    _, paths = fill(cache)
    (paths[0].parent / ".000009.safetensors.partial-1").write_bytes(b"leftover of a killed writer")
    old = cache.root / "ab" / "entry-of-an-older-format.safetensors"
    old.parent.mkdir()
    old.write_bytes(b"x" * 100)
    (entry,) = cache.entries()
    shown = entry.describe()
    assert (shown["source"], shown["detector"], shown["rows"], shown["chunks"], shown["of"]) == (
        *("generator", "pixels", 10, 3),
        "a" * 12,
    )
    assert cache.remove_leftovers(dry_run=True) == 127 and old.exists()
    assert cache.remove_leftovers() == 127 and not old.exists()
    assert cache.remove([entry]) == entry.size > 0
    assert cache.entries() == []


def test_an_entry_whose_key_is_damaged_is_listed_and_is_garbage(cache):
    _, paths = fill(cache)
    (paths[0].parent / "key.json").write_bytes(b"junk")
    (entry,) = cache.entries()
    assert entry.describe()["source"] == "damaged"
    assert "damaged" in garbage([entry], code="c", now=0.0)[entry.path]


def test_garbage_is_other_code_what_lay_unused_and_the_oldest_beyond_the_size(cache):
    for seed in range(3):
        fill(cache, {**KEY, "images": {**KEY["images"], "seed": seed}})
    fill(cache, {**KEY, "code": "old"})
    now = time.time()
    for entry in cache.entries():
        os.utime(entry.path / "key.json", (now, now - 86400 * (1 + 10 * entry.key["images"]["seed"])))
    entries = cache.entries()
    path = {(e.key["code"], e.key["images"]["seed"]): e.path for e in entries}
    assert set(garbage(entries, code="c", now=now)) == {path["old", 0]}
    assert set(garbage(entries, code="c", now=now, days=15)) == {path["old", 0], path["c", 2]}
    two = 2.5 * entries[0].size
    assert set(garbage(entries, code="c", now=now, max_bytes=two)) == {path["old", 0], path["c", 2]}
    assert len(garbage(entries, code="c", now=now, max_bytes=0)) == 4


def test_reading_makes_an_entry_recently_used(cache):
    _, paths = fill(cache)
    os.utime(paths[0].parent / "key.json", (0, 0))
    cache.load(KEY, 10)
    assert cache.entries()[0].used > time.time() - 60


def test_who_comes_second_waits_for_the_first(cache, said):
    order = []

    def second():
        with cache.locked([KEY]):
            order.append("second")

    with cache.locked([KEY]):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"] and "waiting for it" in said[0]


def test_an_entry_that_is_being_written_is_not_removed(cache, said):
    fill(cache)
    with cache.locked([KEY]):
        assert cache.remove(cache.entries()) == 0
    assert "being written" in said[0] and len(cache.entries()) == 1


def test_a_killed_holder_frees_the_lock(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from fact_eval.features.store import FeatureCache;"
        f"held = FeatureCache(Path({str(tmp_path)!r})).locked([{KEY!r}]); held.__enter__();"
        "print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with FeatureCache(tmp_path).locked([KEY]):
        pass


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("FACT_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "fact-stylegan")


def test_the_code_hash_sees_every_edit_and_no_move(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder / "code").mkdir(parents=True)
        (tmp_path / folder / "code" / "x.py").write_text("x = 1\n")
    a, b = (tmp_path / folder / "code" for folder in ("a", "b"))
    assert code_sha256(a) == code_sha256(b)
    (b / "x.py").write_text("x = 2\n")
    assert code_sha256(a) != code_sha256(b)
    (b / "x.py").write_text("x = 1\n")
    (b / "y.py").write_text("")
    assert code_sha256(a) != code_sha256(b)


def features_code_in(folder):
    """features_code() of the packages in `folder`, by a fresh process; torch must not be imported for it."""
    code = (
        "import sys; from fact_eval.features.code_key import features_code; "
        "print(features_code(), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    sha256, torch_imported = done.stdout.split()
    assert torch_imported == "False"
    return sha256


def test_the_features_key_follows_the_code_that_makes_images_and_features_and_needs_no_torch(tmp_path):
    for package in (fact_eval, fact_train, fact_metrics, fact_leaderboard):
        root = Path(package.__file__).parent
        for path in root.rglob("*.py"):
            copy = tmp_path / package.__name__ / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    before = features_code_in(tmp_path)
    assert before == features_code()
    for name in (
        "fact_train/networks/injection/modconv.py",
        "fact_train/networks/ops.py",
        "fact_metrics/features/resize.py",
        "fact_eval/images/sampling.py",
    ):
        path = tmp_path / name
        code = path.read_bytes()
        path.write_bytes(code + b"\n")
        assert features_code_in(tmp_path) != before, name
        path.write_bytes(code)
    board = tmp_path / "fact_leaderboard" / "build.py"
    board.write_bytes(board.read_bytes() + b"\n")
    assert features_code_in(tmp_path) == before
