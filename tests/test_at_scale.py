"""The cost model of scoring at scale: its counts are those of a real evaluation, its schedules add up."""

import pytest
import torch

from benchmarks import at_scale
from benchmarks.at_scale import Costs, simulate_executor, simulate_torchrun, volume
from fact_eval.features.chunks import FeatureRequest
from fact_eval.features.extract import FeatureExtractor
from fact_eval.features.store import LONGEST_HEADER, FeatureCache
from fact_metrics.base.processes import Processes
from fact_metrics.features import get_detector

IMAGES, CHUNK, RANKS = 30, 4, 3
DETECTORS = ("pixels", "spectrum")


class Pictures:
    """Gray pictures that follow from their indices."""

    def describe(self):
        return {"source": "test"}

    def images(self, indices):
        return torch.stack([torch.full((1, 8, 8), i, dtype=torch.uint8) for i in indices])


class Rank(Processes):
    """One rank of RANKS that meets no other, and notes what would travel."""

    def __init__(self, rank: int) -> None:
        super().__init__(rank=rank, size=RANKS)
        self.sent = 0

    def broadcast(self, value):
        return value

    def gather(self, value):
        return [value]

    def send_to_rank_zero(self, rows, *, owner):
        assert rows.is_contiguous()
        self.sent += rows.nbytes * (owner == self.rank != 0)


def test_bytes_and_files_are_those_of_a_real_evaluation(tmp_path, monkeypatch):
    monkeypatch.setattr(FeatureCache, "chunk", CHUNK)
    widths = {name: get_detector(name, "cpu").width for name in DETECTORS}
    request = FeatureRequest(Pictures(), dict.fromkeys(DETECTORS, IMAGES), "test")
    ranks = [Rank(rank) for rank in range(RANKS)]
    for rank in reversed(ranks):  # rank 0 reads the store first
        cache = FeatureCache(tmp_path / str(rank.rank))
        FeatureExtractor(batch=2, cache=cache, processes=rank).extract(request)
    files = list(tmp_path.glob("**/*.safetensors"))
    expected = volume(IMAGES, widths, ranks=RANKS, chunk=CHUNK)
    stored = sum(path.stat().st_size for path in files)
    assert len(files) == expected.files == 16
    assert expected.stored < stored < expected.stored + len(files) * LONGEST_HEADER
    assert sum(rank.sent for rank in ranks) == expected.sent < expected.reduced / 2
    assert volume(IMAGES, widths, chunk=CHUNK).sent == 0


def test_one_process_alone_holds_up_a_torchrun_and_no_executor():
    cost = Costs(networks=80.0, path_length=15.0, statistics=5.0, real_side=30.0)
    together = simulate_torchrun(cost, checkpoints=10, gpus=8)
    assert together["hours"] * 3600 == pytest.approx(at_scale.START_UP + 30 + 10 * (95 / 8 + 5))
    assert together["alone"] == pytest.approx(50 / 208.75)
    apart = simulate_executor(cost, checkpoints=10, gpus=8, runs=9)  # the first run has two checkpoints
    task = at_scale.START_UP + 30
    assert apart["hours"] * 3600 == pytest.approx(
        2 * task + 200
    )  # the ninth run follows one of one checkpoint
    assert apart["busy"] == pytest.approx((9 * task + 10 * 100) / (8 * (2 * task + 200)))


def test_the_table_names_what_the_disk_must_bear():
    shown = at_scale.table(at_scale.run())
    width = 2048 + 2048 + 1008 + 4096  # of two Inceptions, the logits of one, and VGG
    assert at_scale.widths() == {
        "inception_pool3": 2048,
        "clean_inception": 2048,
        "inception_logits": 1008,
        "vgg16_fc2": 4096,
    }
    assert (
        f"| in the store | {50_000 * width * 4 / 1e9:.2f} GB | {50_000 * width * 4 / 1e9:.2f} TB |" in shown
    )
    assert f"| files in the store | {4 * 196} | {4 * 196},000 |" in shown
    assert len(at_scale.widths()) == at_scale.DETECTORS
