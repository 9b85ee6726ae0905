"""A remembered hash is that of the file, whatever was done to it since."""

import hashlib
import os

import pytest

from fact_metrics.base import file_hashes as module
from fact_metrics.base.file_hashes import file_sha256


@pytest.fixture
def reads(monkeypatch, tmp_path):
    """Paths whose bytes were read; every file is large, and old enough."""
    read, paths = module._read, []
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "LARGE", 0)
    monkeypatch.setattr(module, "SETTLED", -1.0)
    monkeypatch.setattr(module, "_read", lambda path: paths.append(path.name) or read(path))
    return paths


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_read_once(tmp_path, reads):
    path = tmp_path / "a"
    path.write_bytes(b"first")
    assert file_sha256(path) == file_sha256(path) == sha256(path)
    assert reads == ["a"]


@pytest.mark.parametrize("how", ["written", "written with the old date", "replaced", "swapped"])
def test_what_was_changed_is_read_again(tmp_path, reads, how):
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"first")
    other.write_bytes(b"other")
    before = path.stat()
    file_sha256(path), file_sha256(other)
    if how.startswith("written"):
        path.write_bytes(b"fresh")
    if how == "replaced":
        other.replace(path)
    if how == "swapped":
        path.rename(tmp_path / "c"), other.rename(path)
    if how == "written with the old date":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file_sha256(path) == sha256(path) != hashlib.sha256(b"first").hexdigest()


def test_small_and_fresh_files_are_always_read_and_a_damaged_memo_is_passed_over(
    tmp_path, reads, monkeypatch
):
    path = tmp_path / "a"
    path.write_bytes(b"first")
    file_sha256(path)
    (memo,) = (tmp_path / "cache" / "hashes").iterdir()
    memo.write_text("{")
    assert file_sha256(path) == sha256(path) and reads == ["a"] * 2
    memo.unlink()
    for name, value in (("LARGE", 1 << 20), ("SETTLED", 3600.0)):
        monkeypatch.setattr(module, name, value)
        assert file_sha256(path) == sha256(path) and not memo.exists()
