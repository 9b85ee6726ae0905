"""Downloads against a server on this machine: resumed, verified, and half a file never used."""

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from weight_toys import publish, save_state, sha256, use_empty_folders

from fact_eval.cli import main
from fact_eval.weights.download import download
from fact_eval.weights.files import fetch_weights
from fact_metrics.base.errors import UserError
from fact_metrics.features import weight_store
from fact_metrics.features.weight_store import MissingWeights, find_weights, read_manifest

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Site:
    """A server of one file and how it behaves; `asked` are the ranges of the requests."""

    content: bytes
    ranges: bool = True
    cut: int | None = None  # bytes after which every connection is dropped
    status: int = 200
    hold: threading.Event | None = None  # the body waits for it
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(bytes(range(256)) * 40)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            site.asked.append(asked)
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and site.ranges else 0
            if site.status != 200:
                self.send_error(site.status)
                return
            if start >= len(site.content):
                self.send_error(416)
                return
            body = site.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            if start:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}"
                )
            self.end_headers()
            if site.hold:
                site.hold.wait(20)
            self.wfile.write(body if site.cut is None else body[: site.cut])

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/toy-1.pth"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def folder(monkeypatch, tmp_path) -> Path:
    return use_empty_folders(monkeypatch, tmp_path)


@pytest.fixture
def toy(monkeypatch, folder, tmp_path, site) -> Path:
    """Weights `toy`, published on the site."""
    path = save_state(tmp_path / "published" / "toy-1.pth")
    site.content = path.read_bytes()
    publish(monkeypatch, "toy", path, url=site.url)
    return path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        main(list(arguments))
    return done.value.code


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_fetch_puts_the_file_in_place_records_it_and_does_it_once(toy, folder, site, capsys) -> None:
    assert run("weights", "fetch", "toy") == 0
    assert find_weights("toy").read_bytes() == toy.read_bytes()
    assert read_manifest(folder)["toy"]["from"] == site.url
    assert run("weights", "fetch", "toy") == 0
    assert "nothing left to do" in capsys.readouterr().err
    assert site.asked == [None]
    assert not list(folder.glob("*.partial"))


def test_a_broken_connection_is_taken_up_again(site, tmp_path) -> None:
    site.cut, seen = 3000, []
    path = tmp_path / "file"
    download(site.url, path, sha256=digest(site.content), progress=seen.append)
    assert path.read_bytes() == site.content
    assert site.asked == [None, "bytes=3000-", "bytes=6000-", "bytes=9000-"]
    assert seen[-1] == len(site.content) and seen == sorted(seen)


def test_an_interrupted_download_keeps_half_a_file_that_is_not_used_and_goes_on(toy, folder, site) -> None:
    folder.mkdir()
    half = folder / "toy-1.pth.partial"
    half.write_bytes(site.content[:1000])
    with pytest.raises(MissingWeights):
        find_weights("toy")
    assert run("weights", "check") == 1
    fetch_weights("toy")
    assert site.asked == ["bytes=1000-"] and not half.exists()
    assert find_weights("toy").read_bytes() == site.content


def test_a_server_that_goes_away_leaves_what_came_and_says_so(site, tmp_path) -> None:
    path = tmp_path / "file"
    path.with_name("file.partial").write_bytes(site.content[:4000])
    site.status = 503
    with pytest.raises(UserError, match=r"HTTP 503 .*the same command resumes after 0.0 MB"):
        download(site.url, path, sha256=digest(site.content))
    assert not path.exists() and path.with_name("file.partial").stat().st_size == 4000


def test_a_server_without_ranges_starts_again(site, tmp_path) -> None:
    site.ranges = False
    path = tmp_path / "file"
    path.with_name("file.partial").write_bytes(b"x" * 4000)
    download(site.url, path, sha256=digest(site.content))
    assert path.read_bytes() == site.content and site.asked == ["bytes=4000-"]


@pytest.mark.parametrize("length", [500, 10_240, 20_000])
def test_a_damaged_half_file_is_thrown_away_not_finished(site, tmp_path, length) -> None:
    path = tmp_path / "file"
    path.with_name("file.partial").write_bytes(b"x" * length)
    download(site.url, path, sha256=digest(site.content))
    assert path.read_bytes() == site.content and site.asked == [f"bytes={length}-", None]


def test_a_complete_half_file_is_taken_without_a_byte_of_body(site, tmp_path) -> None:
    path = tmp_path / "file"
    path.with_name("file.partial").write_bytes(site.content)
    download(site.url, path, sha256=digest(site.content))
    assert path.read_bytes() == site.content and site.asked == [f"bytes={len(site.content)}-"]


def test_another_file_is_not_kept(toy, folder, site, capsys) -> None:
    site.content = b"<html>log in first</html>"
    assert run("weights", "fetch", "toy") == 1
    error = capsys.readouterr().err
    assert "25 bytes with sha256" in error and "discarded" in error
    assert not [path for path in folder.iterdir() if not path.name.startswith(".")]
    with pytest.raises(MissingWeights):
        find_weights("toy")


def test_a_refusal_names_the_address_and_the_way_without_a_network(toy, folder, site, capsys) -> None:
    site.status = 404
    assert run("weights", "fetch", "toy") == 1
    error = capsys.readouterr().err
    assert site.url in error and "HTTP 404" in error and "fact-eval weights add FILE" in error
    assert not list(folder.glob("*.partial"))


def test_no_server_is_said_in_one_line(toy, site, monkeypatch, capsys) -> None:
    publish(monkeypatch, "toy", toy, url="http://127.0.0.1:9/toy-1.pth")
    assert run("weights", "fetch", "toy") == 1
    assert "cannot be fetched" in capsys.readouterr().err


def test_a_failure_does_not_keep_the_others_from_being_fetched(toy, site, monkeypatch, tmp_path) -> None:
    publish(monkeypatch, "broken", save_state(tmp_path / "b.pth", seed=1), url="http://127.0.0.1:9/b.pth")
    assert run("weights", "fetch", "broken", "toy") == 1
    assert find_weights("toy").exists()


def test_two_fetches_at_once_download_once(toy, folder, site) -> None:
    site.hold = threading.Event()
    results = []
    threads = [threading.Thread(target=lambda: results.append(fetch_weights("toy")[1])) for _ in range(2)]
    for thread in threads:
        thread.start()
    site.hold.set()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, True] and site.asked == [None]
    assert sha256(find_weights("toy")) == sha256(toy)


@pytest.mark.parametrize("kind", ["file in the way", "read-only"])
def test_an_unwritable_folder_is_named_with_the_way_out(kind, toy, monkeypatch, tmp_path, capsys) -> None:
    blocked = tmp_path / "blocked"
    if kind == "read-only":
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        blocked.mkdir(mode=0o555)
    else:
        blocked.write_text("")
    monkeypatch.setenv(weight_store.FOLDER, str(blocked / "weights"))
    assert run("weights", "fetch", "toy") == 1
    error = capsys.readouterr().err
    assert str(blocked / "weights") in error and "set FACT_WEIGHTS" in error


def test_a_killed_download_goes_on_where_it_stopped(toy, folder, site) -> None:
    """kill -9 between two blocks: the next command asks for the rest only."""
    site.content, site.cut = os.urandom(3_000_000), 2_000_000
    code = (
        "import sys, os, signal\n"
        "from fact_eval.weights.download import download\n"
        "from pathlib import Path\n"
        "stop = lambda done: done >= 1_000_000 and os.kill(os.getpid(), signal.SIGKILL)\n"
        f"download({site.url!r}, Path({str(folder / 'big')!r}), sha256='0', progress=stop)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert killed.returncode == -9
    held = (folder / "big.partial").stat().st_size
    assert held >= 900_000 and not (folder / "big").exists()
    site.cut = None
    download(site.url, folder / "big", sha256=digest(site.content))
    assert (folder / "big").read_bytes() == site.content and site.asked == [None, f"bytes={held}-"]
