"""The feature cache gives back exactly what was stored under exactly that key, and never a damaged file."""

import pytest
import torch

from fact_eval.cache import FeatureCache, cache_folder, code_sha256
from metrics.errors import UserError

KEY = {"images": {"source": "generator", "snapshot": "a" * 64, "seed": 0}, "detector": {"detector": "pixels"}}


@pytest.fixture
def said():
    return []


@pytest.fixture
def cache(tmp_path, said):
    return FeatureCache(tmp_path, report=said.append)


def features(n=10, width=3):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(n))


def test_features_come_back_as_they_were_stored(cache):
    stored = features()
    cache.store(KEY, stored)
    assert torch.equal(cache.load(KEY, 10), stored)


def test_a_longer_entry_serves_a_shorter_request_and_not_a_longer_one(cache):
    cache.store(KEY, features())
    assert torch.equal(cache.load(KEY, 4), features()[:4])
    assert cache.load(KEY, 11) is None
    assert len(cache.entries()) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"images": {**KEY["images"], "seed": 1}},
        {"images": {**KEY["images"], "snapshot": "b" * 64}},
        {"detector": {"detector": "pixels", "resize": "none"}},
        {"code": "new"},
    ],
)
def test_any_change_of_the_key_misses(cache, change):
    cache.store(KEY, features())
    assert cache.load({**KEY, **change}, 10) is None
    assert cache.load(KEY, 10) is not None


@pytest.mark.parametrize("damage", ["flip", "truncate header", "truncate data", "empty", "foreign"])
def test_a_damaged_entry_is_said_removed_and_made_again(cache, said, damage):
    path = cache.store(KEY, features(100))
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-5] ^= 1
    elif damage == "foreign":
        data = bytearray(b"not a safetensors file, but long enough to hold a header")
    else:
        data = data[: {"truncate header": 20, "truncate data": len(data) - 7, "empty": 0}[damage]]
    path.write_bytes(data)
    assert cache.load(KEY, 100) is None
    assert not path.exists() and len(said) == 1 and "damaged" in said[0]
    cache.store(KEY, features(100))
    assert torch.equal(cache.load(KEY, 100), features(100))


def test_a_store_that_fails_leaves_the_old_entry_and_no_part_of_the_new(cache, monkeypatch):
    path = cache.store(KEY, features(5))

    def full_disk(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(UserError, match="No space left"):
        cache.store(KEY, features(50))
    monkeypatch.undo()
    assert torch.equal(cache.load(KEY, 5), features(5))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_entries_say_what_they_hold_and_clear_frees_them(cache):
    path = cache.store(KEY, features())
    (path.parent / f".{path.name}.partial-1").write_bytes(b"leftover of a killed writer")
    (entry,) = cache.entries()
    shown = entry.describe()
    assert (shown["source"], shown["detector"], shown["rows"], shown["of"]) == (
        "generator",
        "pixels",
        10,
        "a" * 12,
    )
    assert cache.clear() > entry.size
    assert cache.entries() == [] and not list(path.parent.iterdir())


def test_a_damaged_entry_can_be_listed_and_cleared(cache):
    cache.store(KEY, features()).write_bytes(b"junk")
    (entry,) = cache.entries()
    assert entry.describe()["source"] == "damaged"
    cache.clear()
    assert cache.entries() == []


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
