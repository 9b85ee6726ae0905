"""The same numbers from 1, 2 and 3 processes, and after kill -9; stored chunks are not made again."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from eval_toys import COUNT, TEST, TRAIN, make_data, make_pictures, make_run, register_toys
from metric_toys import toy_metric

import fact_metrics.registry
from fact_eval import cli
from fact_eval.features.store import FeatureCache
from fact_eval.images.sources import GeneratorSource
from fact_leaderboard.records import RESULTS, read_records
from fact_metrics.spec import MetricValue
from fact_train.data import folder as folder_module
from fact_train.data import index

CHUNK = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "toy", labelled=True)


@pytest.fixture
def toys(monkeypatch, tmp_path):
    monkeypatch.setattr(fact_metrics.registry, "FAMILIES", {})
    monkeypatch.setattr(FeatureCache, "chunk", CHUNK)
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))
    register_toys(broken=True)


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def one_of_many(rank: int, size: int, port: str, folder: Path, cache: Path, log: Path) -> None:
    """What torchrun would start: the command with its environment; says which images it made."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "FACT_CACHE": str(cache)}
    made, images = [], GeneratorSource.images

    def counted(self, indices):
        made.extend(indices)
        return images(self, indices)

    GeneratorSource.images = counted
    sys.stdout = sys.stderr = open(log / f"{rank}.txt", "w")
    code = cli._run(["run", str(folder), "--device", "cpu", "--threads", "1", "--metrics", "all"])
    (log / f"{rank}.json").write_text(json.dumps({"made": made, "code": code}))
    sys.stdout.flush()
    os._exit(0)  # nothing of the test runner's that was copied here may run


def score_with(size: int, folder: Path, at: Path) -> list[dict]:
    """Score a run by `size` processes with a cache of their own; what each of them says it did."""
    at.mkdir()
    port, start = free_port(), multiprocessing.get_context("fork").Process
    arguments = (size, port, folder, at / "cache", at)
    started = [start(target=one_of_many, args=(rank, *arguments)) for rank in range(size)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        assert process.exitcode == 0, [p.read_text() for p in at.glob("*.txt")]
    return [json.loads((at / f"{rank}.json").read_text()) for rank in range(size)]


def values(folder):
    return {r.metric: (r.value, r.status) for r in read_records(folder / RESULTS)}


@pytest.mark.parametrize("cond", [False, True])
def test_one_two_and_three_processes_agree_bitwise(tmp_path, data, toys, cond):
    found = {}
    for size in (1, 2, 3):
        folder = make_run(tmp_path / f"runs{size}", data, cond=cond)
        did = score_with(size, folder, tmp_path / str(size))
        found[size] = values(folder)
        assert sorted(i for each in did for i in each["made"]) == list(range(COUNT))  # each image once
        assert all(each["made"] for each in did)  # by all of them
        assert {each["code"] for each in did} <= {0, 1} and did[0]["code"] == 1  # the first knows what failed
        records = read_records(folder / RESULTS)
        assert len(records) == 6 and {r.provenance["world_size"] for r in records} == {size}
        for other in range(1, size):
            assert (tmp_path / str(size) / f"{other}.txt").read_text() == ""
    assert found[1] == found[2] == found[3]


@pytest.fixture
def dealt(toys):
    """A metric whose steps of single images are dealt in threes; rank 1 of RANK_FAILS fails."""

    @toy_metric(needs_generator=True, dealt=True, settings={"n": 10})
    def toy_dealt(inputs):
        """Mean of the latents' squares, and who measured which."""
        rank = os.environ.get("RANK", "0")

        def measure(part):
            if rank == os.environ.get("RANK_FAILS"):
                raise RuntimeError("no room here")
            return [(inputs.generator.latents([i]).square().sum().item(), rank) for i in part]

        found = inputs.deal(10, 3, measure)
        value = sum(square for square, _ in found) / len(found)
        return MetricValue(value, n_generated=10, extras={"by": "".join(rank for _, rank in found)})


def test_what_a_metric_deals_is_measured_by_all_processes_with_the_same_bits(tmp_path, data, dealt):
    found = {}
    for size in (1, 2, 3):
        folder = make_run(tmp_path / f"runs{size}", data)
        score_with(size, folder, tmp_path / str(size))
        (record,) = (r for r in read_records(folder / RESULTS) if r.metric == "toy_dealt")
        found[size] = record.value
        assert record.extras["by"] == {1: "0000000000", 2: "0001110001", 3: "0001112220"}[size]
    assert found[1] == found[2] == found[3]


def test_a_dealt_part_that_fails_elsewhere_is_recorded_once_and_none_waits(
    tmp_path, data, dealt, monkeypatch
):
    monkeypatch.setenv("RANK_FAILS", "1")
    folder = make_run(tmp_path / "runs", data)
    score_with(2, folder, tmp_path / "two")
    (record,) = (r for r in read_records(folder / RESULTS) if r.metric == "toy_dealt")
    assert (record.status, record.error) == ("failed", "process 1 of 2: RuntimeError: no room here")
    assert values(folder)["toy_distance"][1] == "ok"


def test_a_run_that_cannot_be_read_fails_in_all_processes_and_none_waits(tmp_path, data, toys):
    folder = make_run(tmp_path / "runs", data)
    snapshot = folder / "network-snapshot-000004.safetensors"
    snapshot.write_bytes(snapshot.read_bytes()[:-100])
    did = score_with(2, folder, tmp_path / "two")
    assert [each["code"] for each in did] == [1, 1] and not did[0]["made"]
    assert {r.status for r in read_records(folder / RESULTS)} == {"failed"}


def test_what_fails_in_one_process_fails_in_all_with_its_reason(tmp_path, data, toys, monkeypatch):
    images = GeneratorSource.images

    def fails_elsewhere(self, indices):
        if os.environ.get("RANK") == "1":
            raise RuntimeError("out of memory here")
        return images(self, indices)

    monkeypatch.setattr(GeneratorSource, "images", fails_elsewhere)
    folder = make_run(tmp_path / "runs", data)
    score_with(2, folder, tmp_path / "two")
    errors = {r.error for r in read_records(folder / RESULTS)}
    assert errors == {"process 1 of 2: RuntimeError: out of memory here"}


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
import fact_metrics.registry
from eval_toys import register_toys
from fact_eval.features.store import FeatureCache
from fact_eval.images.sources import GeneratorSource
fact_metrics.registry.FAMILIES.clear()
register_toys(broken=True)
FeatureCache.chunk = 4
images = GeneratorSource.images
def slow(self, indices):
    if indices[0] >= 14:
        print("in the middle", flush=True)
        time.sleep(60)
    return images(self, indices)
GeneratorSource.images = slow
from fact_eval.cli import main
main(["run", sys.argv[2], "--device", "cpu", "--threads", "1", "--batch", "2", "--metrics", "all"])
"""


def test_after_kill_9_the_same_command_makes_only_the_rest(tmp_path, data, toys, monkeypatch, capfd):
    whole = make_run(tmp_path / "whole", data)
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "other cache"))
    cli._run(["run", str(whole), "--device", "cpu", "--batch", "2", "--metrics", "all"])
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))

    folder = make_run(tmp_path / "runs", data)
    command = [sys.executable, "-c", KILLED, os.path.dirname(__file__), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout.readline() == "in the middle\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (folder / RESULTS).exists()

    made, images = [], GeneratorSource.images

    def counted(self, indices):
        made.extend(indices)
        return images(self, indices)

    monkeypatch.setattr(GeneratorSource, "images", counted)
    capfd.readouterr()
    cli._run(["run", str(folder), "--device", "cpu", "--batch", "2", "--metrics", "all"])
    assert made == list(range(12, COUNT))  # three whole chunks of four were kept
    assert f"images: 12 of {COUNT} cached" in capfd.readouterr().err
    assert values(folder) == values(whole)
    (folder / RESULTS).unlink()
    made.clear()
    cli._run(["run", str(folder), "--device", "cpu", "--batch", "2", "--metrics", "all"])
    assert not made and f"images: all {COUNT} cached" in capfd.readouterr().err


def test_two_at_once_on_one_folder_leave_every_record_once_and_share_the_features(tmp_path, data, toys):
    folder = make_run(tmp_path / "runs", data)
    log = tmp_path / "log"
    (log / "a").mkdir(parents=True), (log / "b").mkdir()
    start = multiprocessing.get_context("fork").Process
    both = [
        start(target=one_of_many, args=(0, 1, "0", folder, tmp_path / "shared", log / name)) for name in "ab"
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    records = read_records(folder / RESULTS)
    assert len(records) == len({r.key for r in records}) == 6
    did = [json.loads((log / name / "0.json").read_text()) for name in "ab"]
    assert sorted(i for each in did for i in each["made"]) == list(range(COUNT))


def test_a_raised_count_makes_only_the_chunks_that_are_not_there(tmp_path, data, toys):
    from fact_eval.features.chunks import FeatureRequest
    from fact_eval.features.extract import FeatureExtractor
    from fact_eval.images.sources import NoiseSource

    made = []

    class Counted(NoiseSource):
        def images(self, indices):
            made.extend(indices)
            return super().images(indices)

    def extract(counts):
        request = FeatureRequest(Counted((1, 8, 8), seed=0), counts, "noise")
        return FeatureExtractor(batch=3).extract(request)

    few = extract({"pixels": 10}).get("pixels", 10)
    made.clear()
    many = extract({"pixels": 18, "spectrum": 6})
    assert torch.equal(many.get("pixels", 18)[:10], few)
    # spectrum lacks its six, pixels the chunk that was cut at 10 and what follows
    assert made == [*range(0, 6), *range(8, 18)]
    made.clear()
    assert extract({"pixels": 17, "spectrum": 6}).count("pixels") == 17 and made == []


def test_every_picture_is_decoded_once_by_a_command(tmp_path, data, toys, monkeypatch):
    """Pictures that are new to it; known ones: test_data_index.py."""
    decoded, decode = [], folder_module.decode
    monkeypatch.setattr(index, "SETTLED", 3600.0)

    def counted(stream, path, **options):
        decoded.append(Path(path).relative_to(tmp_path if "mine" in path else data.parent).as_posix())
        return decode(stream, path, **options)

    monkeypatch.setattr(folder_module, "decode", counted)
    mine = make_pictures(tmp_path / "mine", COUNT)
    every = [f"toy/{split}/{i:03d}.png" for split, n in (("train", TRAIN), ("test", TEST)) for i in range(n)]
    options = ["--out", str(tmp_path / "out"), "--device", "cpu", "--metrics", "all"]
    assert cli._run(["images", str(mine), "--reference", str(data), *options]) == 1  # two toys are broken
    assert sorted(decoded) == sorted([*every, *(f"mine/{i:03d}.png" for i in range(COUNT))])
    decoded.clear()
    assert cli._run(["ref", str(data), *options]) == 1
    assert sorted(decoded) == sorted(every)
    make_run(tmp_path / "runs", data), make_run(tmp_path / "runs", data, seed=1)
    decoded.clear()
    assert cli._run(["all", str(tmp_path / "runs"), "--no-controls", *options[2:]]) == 1
    assert sorted(decoded) == sorted(every)  # for both runs
