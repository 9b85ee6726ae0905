"""Files of strangers, one small test a kind: refused in one line, without memory, and nothing else stops."""

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.hostile import files
from fact_eval.features.reference_stats import read_statistics
from fact_eval.features.store import FeatureCache
from fact_metrics.base import limits, schema, signing
from fact_metrics.base.arrays import open_npz
from fact_metrics.base.errors import UserError
from fact_metrics.base.limits import Budget, Limit
from fact_metrics.base.plain_text import (
    for_cell,
    for_code,
    for_csv,
    for_html,
    for_json,
    for_markdown,
    for_terminal,
    is_file_name,
)
from fact_train.data import open_dataset
from fact_train.data.files import attempt_all, image_files

# Text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, größer ↑ 中文 ± 1", "plain, größer ↑ 中文 ± 1"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\u202egpj", r"\u202egpj"),
        ("\x9b31m", r"\x9b31m"),
        ("zero\u200bwidth\u2028", r"zero\u200bwidth\u2028"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_a_terminal_gets_one_line_of_visible_characters(text: str, shown: str) -> None:
    assert for_terminal(text) == shown


MARKUP = [
    "<script>alert(1)</script>",
    "a | b",
    "# heading",
    "1. list",
    "- list",
    "> quote",
    "`code` *b* **c** _d_ __e__",
    "[x](javascript:alert(1)) ![i](u) [r]: u",
    "&lt;b&gt; &#60;",
    "~~gone~~",
    "line\n\n# heading",
    "<!-- comment",
    "\\*not bold*",
    "snake_case 2 * 3 <= 4 [0, 1] a & b",
]


@pytest.mark.parametrize("text", MARKUP)
@pytest.mark.parametrize("place", ["paragraph", "table"])
def test_markdown_renders_the_text_itself(text: str, place: str) -> None:
    """Rendered by Python-Markdown, which the site uses: the words come back and no tag is added."""
    import html
    import re

    import markdown

    shown = for_markdown(text) if place == "paragraph" else f"| a |\n| --- |\n| {for_cell(text)} |"
    rendered = markdown.markdown(shown, extensions=["tables"])
    body = re.search(r"<(p|td)>(.*)</\1>", rendered, re.S)[2]
    assert "<" not in body and html.unescape(body).strip() == for_terminal(text).strip()


@pytest.mark.parametrize("text", ["a`b", "``", "`", "x", "a``b`c", "<script>", ""])
def test_a_code_span_holds_any_text(text: str) -> None:
    import html
    import re

    import markdown

    if text:
        rendered = markdown.markdown(for_code(text))
        assert html.unescape(re.search(r"<code>(.*)</code>", rendered, re.S)[1]) == text


def test_html_json_and_csv_are_defused_and_json_keeps_its_value() -> None:
    assert for_html('<a href="x">') == "&lt;a href=&quot;x&quot;&gt;"
    value = {"label": "\x1b[2J\u202e𝕏 ü"}
    text = for_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value and "\u202e" not in text and "ü" in text and "𝕏" in text
    assert [for_csv(x) for x in ("=1", "+1", "-1", "@x", "\tx", "a=1")] == [
        *("'=1", "'+1", "'-1", "'@x", "'\tx", "a=1")
    ]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b", "a\0", "a\n", "\x1b", 5, "x" * 5000])
def test_names_that_lead_out_of_a_folder_are_no_file_names(name: object) -> None:
    assert not is_file_name(name)


def test_usual_names_are_file_names() -> None:
    assert all(map(is_file_name, ("mnist-seed0", "images a b", "größe=1.5", "-x", ".hidden", "中文")))


# Documents


@pytest.mark.parametrize(
    "text",
    [
        files.brackets(),
        '{"a":' * 50_000,
        "[" * 200 + "]" * 200,
        b"\xff",
        "NaN",
        "",
        "9" * 10_000,
        '"\\ud800"',
    ],
)
def test_json_that_no_reader_can_take_is_one_error(text: str | bytes) -> None:
    with pytest.raises(ValueError) as error:
        schema.parse_json(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_a_document_names_the_file_the_field_and_the_way_out() -> None:
    with pytest.raises(schema.BadDocument, match=r"x\.json cannot be read \(sha256: expected str, got int\)"):
        document = {"name": "a", "split": "train", "sha256": 5, "n": 1, "resolution": 8, "channels": 1}
        schema.parse_document(json.dumps(document), schema.DatasetShape, "x.json", way_out="restore it")
    with pytest.raises(UserError, match="JSON text of 100 bytes, at most 64 bytes are read"):
        small = Limit(64, "bytes", "JSON text")
        schema.parse_document(" " * 100, schema.DatasetShape, "x.json", way_out="restore it", limit=small)


# Memory


def peak_mb(code: str, *arguments: object) -> tuple[float, str]:
    """Peak memory of a command that must fail with a UserError, and what it said."""
    runner = (
        "import re, sys\nfrom fact_metrics.base.errors import UserError\n"
        f"try:\n    {code}\nexcept UserError as error:\n    print(error)\nelse:\n    sys.exit('accepted')\n"
        # VmHWM is of this program; ru_maxrss would start at that of the process that forked it
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024)"
    )
    command = [sys.executable, "-c", runner, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    *lines, peak = done.stdout.splitlines()
    assert len(lines) == 1
    return float(peak), lines[0]


OPEN = "from fact_train.data import open_dataset; open_dataset(sys.argv[1])"
READ = "from fact_eval.features.reference_stats import read_statistics; read_statistics(sys.argv[1])"
GB = 1 << 30


def mean_of_zeros(path: Path) -> Path:
    return files.zeros_npy(path / "x.npz", "mu", (2 * GB // 8,), "<f8")


def npz_of_zeros(path: Path) -> Path:
    return files.zeros_npy(path / "x.npz", "arr_0", (682, 1024, 1024, 3), "|u1")


def npz_that_lies(path: Path) -> Path:
    return files.npz(path / "x.npz", {"arr_0": files.lying_npy((10**6, 10**6, 3))})


def large_png(path: Path) -> Path:
    (path / "x").mkdir()
    for name in "ab":
        (path / "x" / f"{name}.png").write_bytes(files.png(9000, 9000))
    return path / "x"


def statistics_that_lie(path: Path) -> Path:
    square = files.lying_npy((10**6, 10**6), "<f8")
    return files.npz(path / "x.npz", {"mu": files.lying_npy((10**6,), "<f8"), "sigma": square})


BOMBS = {
    "a PNG with a tail": (OPEN, lambda path: files.png_with_tail(path / "x.zip", 2 * GB), "an image file of"),
    "a tar.gz of zeros": (OPEN, lambda path: files.tar_of_zeros(path / "x.tar.gz", 2 * GB), "unpack to"),
    "an npz of zeros": (OPEN, npz_of_zeros, "unpack to"),
    "an npz that lies": (OPEN, npz_that_lies, "promises 3,000,000,000,000 bytes and 64 follow"),
    "large PNG": (OPEN, large_png, "an image of 81,000,000 pixels"),
    "a mean of zeros": (READ, mean_of_zeros, "holds mu; statistics are called"),
    "statistics that lie": (READ, statistics_that_lie, "promises"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_what_is_refused_takes_less_than_a_gigabyte(tmp_path: Path, kind: str) -> None:
    code, make, message = BOMBS[kind]
    path = make(tmp_path)
    packed = path.stat().st_size if path.is_file() else 0
    assert packed < 5 << 20
    peak, line = peak_mb(code, path)
    assert message in line and str(path) in line and peak < 1000


def test_drawings_and_labels_that_compress_well_are_still_read(tmp_path: Path) -> None:
    """A hundred times smaller than its content, below the limit for small content."""
    images = np.zeros((500, 64, 64), np.uint8)
    images[:, 10:20, 10:20] = 255
    np.savez_compressed(tmp_path / "x.npz", images)
    assert (tmp_path / "x.npz").stat().st_size * 100 < images.nbytes
    assert np.array_equal(open_dataset(tmp_path / "x.npz").images([0, 499])[:, 0], images[[0, 499]])


def test_arrays_are_streamed_in_blocks_of_rows(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fact_metrics.base.arrays.BLOCK", 100)
    array = np.arange(7 * 5 * 3, dtype=np.int32).reshape(7, 5, 3)
    np.savez(tmp_path / "x.npz", array, np.asfortranarray(array))
    with open_npz(tmp_path / "x.npz") as archive:
        blocks = list(archive.rows("arr_0"))
        assert len(blocks) == 7 and np.array_equal(np.concatenate(blocks), array)
        assert np.array_equal(np.concatenate(list(archive.rows("arr_1"))), array)
        assert np.array_equal(archive.read("arr_1"), array)


def test_content_may_exceed_a_limit_only_as_far_as_its_file_allows() -> None:
    limits.check_unpacked(limits.UNPACKED.most, 1, "x")
    limits.check_unpacked(limits.UNPACKED.most * 10, limits.UNPACKED.most // 10, "x")
    with pytest.raises(UserError, match=r"1\.0 MiB unpack to 2,560\.0 MiB or more"):
        limits.check_unpacked(limits.UNPACKED.most * 10, 1 << 20, "x")


def test_a_budget_is_shared_and_one_that_needs_all_of_it_waits() -> None:
    budget, most, now, lock = Budget(10), [0], [0], threading.Lock()

    def work(amount: int) -> None:
        with budget.reserve(amount):
            with lock:
                now[0] += min(amount, 10)
                most[0] = max(most[0], now[0])
            with lock:
                now[0] -= min(amount, 10)

    threads = [threading.Thread(target=work, args=(amount,)) for amount in [3, 4, 99, 10, 1] * 20]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()
    assert 0 < most[0] <= 10


def test_a_large_image_stops_no_other(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fact_metrics.base.pictures.IMAGE_PIXELS", Limit(100, "pixels", "an image"))
    for name, side in (("a", 8), ("b", 16), ("c", 8)):
        Image.new("L", (side, side)).save(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match=r"b\.png: an image of 256 pixels, at most 100 pixels are read"):
        open_dataset(tmp_path)
    with image_files(tmp_path) as found:
        results = attempt_all(found, found.names, lambda i, stream, path: len(stream.read()))
    assert all(isinstance(result, int) for result in results)


def test_names_of_other_encodings_become_text(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    os.mkdir(folder)
    Image.new("L", (8, 8)).save(f"{folder}/a.png")
    assert open_dataset(folder).name == "�"


# Signatures


@pytest.fixture
def config(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FACT_CONFIG", str(tmp_path / "config"))
    monkeypatch.delenv(signing.ENVIRONMENT, raising=False)
    return tmp_path / "config"


def test_the_key_is_the_users_alone_and_stays(config: Path) -> None:
    key = signing.user_key()
    path = config / signing.KEY_FILE
    assert len(key) == 32 and stat.S_IMODE(path.stat().st_mode) == 0o600
    signing._read_key.cache_clear()
    assert signing.user_key() == key and [p.name for p in config.iterdir()] == [signing.KEY_FILE]


@pytest.mark.parametrize("damage", ["readable", "short", "link"])
def test_a_key_that_others_can_read_or_that_is_no_key_is_refused(config: Path, damage: str) -> None:
    signing.user_key()
    path = config / signing.KEY_FILE
    if damage == "readable":
        path.chmod(0o644)
    elif damage == "short":
        path.write_text("abc")
    else:
        path.rename(config / "other")
        path.symlink_to(config / "other")
    signing._read_key.cache_clear()
    with pytest.raises(UserError, match=str(path)) as error:
        signing.user_key()
    assert "\n" not in str(error.value)


def test_processes_that_start_together_make_one_key(config: Path) -> None:
    code = "from fact_metrics.base.signing import user_key; print(user_key().hex())"
    command = [sys.executable, "-c", code]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert len({process.communicate()[0] for process in started}) == 1


def test_signed_files_of_others_do_not_count(config: Path, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "memo.json"
    signing.write_signed(path, {"a": 1})
    assert signing.read_signed(path) == {"a": 1}
    path.write_text(path.read_text().replace('"a":1', '"a":2'))
    assert signing.read_signed(path) is None
    signing.write_signed(path, {"a": 1})
    shutil.copy(path, tmp_path / "other.json")
    assert signing.read_signed(tmp_path / "other.json") is None  # moved to another name
    monkeypatch.setenv("FACT_CONFIG", str(tmp_path / "another user"))
    assert signing.read_signed(path) is None
    for text in (files.brackets(), "[]", "{}", "", '{"value": 1, "hmac": 5}'):
        path.write_text(text)
        assert signing.read_signed(path) is None


KEY = {"images": {"source": "noise"}, "detector": {"detector": "pixels"}, "code": "c", "device": "cpu"}


def test_users_of_one_store_read_their_own_chunks_and_share_by_a_key_file(config, tmp_path, monkeypatch):
    store, rows = FeatureCache(tmp_path / "store"), torch.ones(4, 3)
    store.store(KEY, 0, rows)
    monkeypatch.setenv("FACT_CONFIG", str(tmp_path / "another user"))
    assert store.load(KEY, 4) == {}
    (entry,) = store.entries()
    assert not store.is_own(entry)
    shared = tmp_path / "shared.key"
    shared.write_text("ab" * 32)
    shared.chmod(0o640)
    monkeypatch.setenv(signing.ENVIRONMENT, str(shared))
    store.store(KEY, 0, rows)
    monkeypatch.setenv("FACT_CONFIG", str(config))
    assert torch.equal(store.load(KEY, 4)[0], rows)


@pytest.mark.parametrize("kind", ["forged", "width", "half", "double", "flat", "rows", "NaN"])
def test_a_planted_chunk_is_said_removed_and_made_again(config, tmp_path, kind: str) -> None:
    """Each is well-formed and, but for `forged`, what a writer with the key could have left."""
    from safetensors.torch import save_file

    said: list[str] = []
    store = FeatureCache(tmp_path / "store", report=said.append)
    path = store.store(KEY, 0, torch.ones(4, 3))
    planted = {
        "forged": torch.zeros(4, 3),
        "width": torch.ones(4, 5),
        "half": torch.ones(4, 3).half(),
        "double": torch.ones(4, 3).double(),
        "flat": torch.ones(12),
        "rows": torch.ones(2, 3),
        "NaN": torch.full((4, 3), float("nan")),
    }[kind]
    if kind in ("width", "rows"):
        store.store(KEY, 0, planted)
    elif kind == "NaN":
        with pytest.raises(UserError, match="not finite"):
            store.store(KEY, 0, planted)
        return
    else:
        header = {"entry": path.parent.name, "chunk": "0", "hmac": "0" * 64}
        save_file({"features": planted}, path, header)
    assert store.load(KEY, 4, width=3) == {}
    assert (kind == "rows") == path.exists() and len(said) == (kind != "rows")
    store.store(KEY, 0, torch.ones(4, 3))
    assert torch.equal(store.load(KEY, 4, width=3)[0], torch.ones(4, 3))


def test_a_folder_that_everybody_can_write_is_said_and_not_used(config, tmp_path) -> None:
    said: list[str] = []
    store = FeatureCache(tmp_path / "store", report=said.append)
    store.store(KEY, 0, torch.ones(4, 3))
    store.root.chmod(0o777)
    assert store.load(KEY, 4) == {} and store.load(KEY, 4) == {}
    assert len(said) == 1 and "everybody can write" in said[0] and "chmod o-w" in said[0]
    with pytest.raises(UserError, match="everybody can write"):
        store.store(KEY, 0, torch.ones(4, 3))


def test_locks_are_not_for_everybody(config, tmp_path) -> None:
    store = FeatureCache(tmp_path / "store")
    with store.locked([KEY]):
        (lock,) = store.root.rglob(".lock")
        assert not stat.S_IMODE(lock.stat().st_mode) & 0o022


# Statistics


def test_our_statistics_are_checked_before_their_tensors_are_read(tmp_path: Path) -> None:
    texts = {"schema": "1", "n": "5", "correction": "1", "sha256": "0", "detector": "{}", "dataset": "[]"}
    for changes, message in (
        ({"n": "x"}, "invalid literal"),
        ({"n": "1"}, "1 images"),
        ({"correction": "7"}, "damaged"),
        ({"detector": files.brackets()}, "nested too deeply"),
        ({}, "missing required field"),
    ):
        from safetensors.torch import save_file

        metadata = {"format": "fact-stylegan reference statistics", **texts, **changes}
        save_file({"mean": torch.zeros(3), "cov": torch.eye(3)}, tmp_path / "x.safetensors", metadata)
        with pytest.raises(UserError, match=message) as error:
            read_statistics(tmp_path / "x.safetensors")
        assert "\n" not in str(error.value)
