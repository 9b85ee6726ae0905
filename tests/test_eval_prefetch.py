"""The next batch is computed while the detectors run: proved by waiting for it; none is computed twice."""

import threading

import pytest
import torch
from eval_toys import make_pictures

from fact_eval.features import chunks as module
from fact_eval.features.chunks import FeatureRequest
from fact_eval.features.extract import FeatureExtractor
from fact_eval.features.prefetch import prefetch
from fact_eval.features.store import FeatureCache
from fact_eval.images.sources import NoiseSource, PicturesSource
from fact_train.data import folder, index, open_dataset

SECONDS = 30.0  # a deadline, not a duration: what is waited for comes at once


def test_the_next_item_is_computed_meanwhile_and_not_the_one_after_it():
    begun = [threading.Event() for _ in range(6)]

    def make(i):
        begun[i].set()
        return 10 * i

    for i, made in enumerate(prefetch(make, range(6))):
        assert made == 10 * i
        if i + 1 < 6:
            assert begun[i + 1].wait(SECONDS)  # i is in hand, and the next one has begun
        assert not any(event.is_set() for event in begun[i + 2 :])


def test_with_depth_0_the_caller_s_thread_computes_each_item_on_demand():
    made, makers = [], set()

    def make(i):
        made.append(i)
        makers.add(threading.current_thread())
        return i

    for i in prefetch(make, range(4), depth=0):
        assert made == list(range(i + 1))
    assert makers == {threading.current_thread()}


def test_an_exception_is_raised_where_its_result_is_due():
    seen = []
    with pytest.raises(ZeroDivisionError):
        for value in prefetch(lambda i: 6 // (3 - i), range(6)):
            seen.append(value)
    assert seen == [2, 3, 6]


def test_a_caller_that_stops_early_starts_no_further_item_and_leaves_no_thread_running():
    computed, begun, release = [], threading.Event(), threading.Event()
    before = set(threading.enumerate())

    def compute(i):
        if i > 0:
            begun.set()
            assert release.wait(SECONDS)
        computed.append(i)

    values = prefetch(compute, range(100), depth=3)
    next(values)
    assert begun.wait(SECONDS)  # 1 is being computed, 2 and 3 are pending
    timer = threading.Timer(0.2, release.set)
    timer.start()
    values.close()  # waits for 1
    timer.join()
    assert computed == [0, 1] and set(threading.enumerate()) == before


class Watched(NoiseSource):
    """Says which images have been begun."""

    def __init__(self):
        super().__init__((1, 8, 8), seed=0)
        self.begun, self.made, self.makers = {}, [], set()

    def event(self, start):
        return self.begun.setdefault(start, threading.Event())

    def images(self, indices):
        self.event(indices[0]).set()
        self.made += indices
        self.makers.add(threading.current_thread())
        return super().images(indices)


class Waiting:
    """The pixels, given only once the source has begun the next batch."""

    width = 64

    def __init__(self, source, total):
        self.source, self.total, self.seen = source, total, 0

    def describe(self):
        return {"detector": "waiting", "width": 64}

    def __call__(self, images):
        self.seen += len(images)
        if self.source is not None and self.seen < self.total:
            assert self.source.event(self.seen).wait(SECONDS), f"nobody makes image {self.seen} meanwhile"
        return images.flatten(1).float()


def extract(source, detector, monkeypatch, cache):
    monkeypatch.setattr(module, "get_detector", lambda name, device: detector)
    request = FeatureRequest(source, {"waiting": 22}, "noise")
    return FeatureExtractor(batch=3, cache=cache).extract(request).get("waiting", 22)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    depth = module.prefetch_depth("cuda")
    assert depth == 1 and module.prefetch_depth("cpu") == 0
    monkeypatch.setattr(module, "prefetch_depth", lambda device: depth)


def test_images_are_generated_while_detectors_run_with_the_same_rows(tmp_path, monkeypatch, as_on_a_gpu):
    monkeypatch.setattr(FeatureCache, "chunk", 8)  # batches of 3, 3, 2
    source = Watched()
    rows = extract(source, Waiting(source, 22), monkeypatch, FeatureCache(tmp_path / "two"))
    assert source.made == list(range(22)) and threading.current_thread() not in source.makers
    monkeypatch.setattr(module, "prefetch_depth", lambda device: 0)
    alone = Watched()
    assert torch.equal(extract(alone, Waiting(None, 22), monkeypatch, FeatureCache(tmp_path / "one")), rows)
    assert alone.made == list(range(22)) and alone.makers == {threading.current_thread()}
    again = Watched()
    stored = extract(again, Waiting(again, 0), monkeypatch, FeatureCache(tmp_path / "two"))
    assert torch.equal(stored, rows) and not again.made


def test_a_source_that_fails_while_prefetching_keeps_the_chunks_before_it(tmp_path, monkeypatch, as_on_a_gpu):
    monkeypatch.setattr(FeatureCache, "chunk", 8)

    class Fails(Watched):
        def images(self, indices):
            if indices[0] >= 19:
                raise RuntimeError("out of memory")
            return super().images(indices)

    with pytest.raises(RuntimeError, match="out of memory"):
        extract(Fails(), Waiting(None, 22), monkeypatch, FeatureCache(tmp_path))
    rest = Watched()
    extract(rest, Waiting(None, 22), monkeypatch, FeatureCache(tmp_path))
    assert rest.made == list(range(16, 22))


class WatchedPictures(PicturesSource):
    """Says which images have been decoded."""

    def __init__(self, dataset):
        super().__init__(dataset)
        self.decoded = {}

    def event(self, start):
        return self.decoded.setdefault(start, threading.Event())

    def images(self, indices):
        made = super().images(indices)
        self.event(indices[0]).set()
        return made


def test_known_pictures_are_decoded_while_detectors_run(tmp_path, monkeypatch, as_on_a_gpu):
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(FeatureCache, "chunk", 8)
    monkeypatch.setattr(index, "SETTLED", -1.0)
    decoded, decode = [], folder.decode
    monkeypatch.setattr(
        folder, "decode", lambda *args, **options: decoded.append(args) or decode(*args, **options)
    )
    data = make_pictures(tmp_path / "known", 22)
    whole = PicturesSource(open_dataset(data, lazy=True))
    decoded.clear()
    source = WatchedPictures(open_dataset(data, lazy=True))
    assert not decoded
    rows = extract(source, Waiting(source, 22), monkeypatch, FeatureCache(tmp_path / "features"))
    assert torch.equal(rows, whole.images(range(22)).flatten(1).float()) and len(decoded) == 22
