"""`compute` and `ImageMetrics` give fact-eval's numbers for images of every kind, or refuse them."""

import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from eval_toys import COUNT, make_data, make_pictures, register_toys
from metric_toys import toy_metric
from PIL import Image
from test_eval_processes import free_port

import fact_metrics
import fact_metrics.registry
from fact_eval.jobs.pictures import open_reference, plan_pictures
from fact_eval.jobs.plan import Request
from fact_eval.scoring.evaluation import Evaluation
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.images import to_uint8
from fact_metrics.registry import list_specs
from fact_metrics.spec import FeatureNeed, MetricValue
from fact_train.data import open_dataset

NAMES = ("toy_distance", "toy_sharpness")


@pytest.fixture
def toys(monkeypatch, tmp_path):
    monkeypatch.setattr(fact_metrics.registry, "FAMILIES", {})
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))
    register_toys()


def pictures(n=COUNT, channels=1, seed=0):
    gen = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, 8, 8), dtype=torch.uint8, generator=gen)


REAL = pictures(40, seed=1)


def values(found):
    return {name: value.value for name, value in found.items()}


def test_the_numbers_are_those_of_fact_eval(tmp_path, toys):
    data, mine = make_data(tmp_path / "data"), make_pictures(tmp_path / "mine", COUNT)
    job, _ = plan_pictures(mine, open_reference(str(data)), tmp_path / "runs", Request(tuple(list_specs())))
    measured = {r.metric: r.value for r in Evaluation().run([job]).written}
    opened = open_dataset(mine)
    real = {split: open_dataset(data, split=split) for split in ("train", "test")}
    everything = {split: each.images(range(len(each))) for split, each in real.items()}
    ours = values(fact_metrics.compute(opened.images(range(COUNT)), everything, list(measured)))
    assert ours.keys() == measured.keys() == {"toy_distance", "toy_distance_test", "toy_sharpness"}
    # fact-eval permutes images: sums run in another order, and a metric of fewer than all sees others
    assert ours["toy_distance"] == pytest.approx(measured["toy_distance"], rel=1e-5)


class Images(torch.utils.data.Dataset):
    def __init__(self, images, labelled):
        self.images, self.labelled = images, labelled

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return (self.images[i], 3) if self.labelled else self.images[i]


def pil(images):
    return [Image.fromarray(image[0].numpy()) for image in images]


class Source:
    """A generator: makes its next n images."""

    def __init__(self, images):
        self.images, self.done, self.asked = images, 0, []

    def __call__(self, n):
        self.asked.append(n)
        self.done += n
        return self.images[self.done - n : self.done]


@pytest.mark.parametrize(
    "kind",
    {
        "array": lambda x: x.permute(0, 2, 3, 1).numpy(),
        "PIL": pil,
        "tensors": lambda x: list(x),
        "dataset": lambda x: Images(x, False),
        "labelled dataset": lambda x: Images(x, True),
        "dataset of PIL": lambda x: Images(pil(x), True),
        "loader": lambda x: torch.utils.data.DataLoader(Images(x, True), batch_size=7),
        "iterator of batches": lambda x: iter(x.split(9)),
        "callable": Source,
        "callable of PIL": lambda x: Source(pil(x)),
    }.items(),
    ids=lambda item: item[0],
)
def test_every_kind_of_images_gives_the_same_number(toys, kind):
    expected = values(fact_metrics.compute(pictures(), REAL, NAMES))
    assert values(fact_metrics.compute(kind[1](pictures()), REAL, NAMES, batch=8)) == pytest.approx(
        expected, rel=1e-6
    )


def test_a_callable_makes_no_more_images_than_are_needed(toys):
    source = Source(pictures(100))
    fact_metrics.compute(source, REAL, NAMES, batch=8)
    assert source.asked == [8, 8, 8, 6]


def test_floats_need_a_range_and_are_rounded_as_generated_images_are(toys):
    floats = torch.linspace(-1.2, 1.2, 64).reshape(1, 1, 8, 8)
    assert torch.equal(
        to_uint8(floats, value_range=(-1, 1)), (floats * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    )
    whole = pictures()
    assert torch.equal(to_uint8(whole.float() / 255, value_range=(0, 1)), whole)
    for images, value_range, message in [
        (floats, None, "give uint8, or floats with value_range"),
        (whole.float(), (0, 1), "far outside of value_range"),
        (floats * float("nan"), (-1, 1), "far outside"),
        (whole.int(), (0, 1), "images are torch.int32"),
        (whole[:, 0], None, r"a tensor \[30, 8, 8\]"),
        (pictures(channels=2), None, r"a tensor \[30, 2, 8, 8\]"),
    ]:
        with pytest.raises(UserError, match=message):
            to_uint8(images, value_range=value_range)


def test_colour_pictures_keep_their_channels():
    array = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    expected = torch.from_numpy(array).permute(0, 3, 1, 2)
    assert torch.equal(to_uint8([Image.fromarray(a) for a in array]), expected)
    assert torch.equal(to_uint8(array), expected)


def test_too_few_images_are_refused_unless_asked_for(toys):
    with pytest.raises(UserError, match=r"asks for 30 generated images, there are 10; .*count=10"):
        fact_metrics.compute(pictures(10), REAL, "toy_distance")
    value = fact_metrics.compute(pictures(10), REAL, "toy_distance", count=10)["toy_distance"]
    assert value.n_generated == 10
    source = Source(pictures(100))
    fact_metrics.compute(source, REAL, NAMES, count=12)
    assert source.done == 12
    with pytest.raises(UserError, match="toy_distance needs 1 real image or more, there are 0"):
        fact_metrics.compute(pictures(), None, "toy_distance")


def test_one_real_set_stands_for_either_split_and_two_are_told_apart(toys):
    name = "toy_distance_test"
    alone = values(fact_metrics.compute(pictures(), REAL, name))
    assert alone == values(fact_metrics.compute(pictures(), {"test": REAL}, name))
    both = values(fact_metrics.compute(pictures(), {"train": pictures(40, seed=9), "test": REAL}, name))
    assert both == alone


def test_what_cannot_be_scored_is_refused(toys):
    with pytest.raises(UsageError, match="toy_path' needs a generator"):
        fact_metrics.compute(pictures(), REAL, "toy_path")
    with pytest.raises(UsageError, match="did you mean toy_distance"):
        fact_metrics.compute(pictures(), REAL, "toy_distanc")
    with pytest.raises(UsageError, match="name at least one"):
        fact_metrics.compute(pictures(), REAL)
    with pytest.raises(UserError, match="of type int"):
        fact_metrics.compute(5, REAL, "toy_distance")
    with pytest.raises(UserError, match="returned no images"):
        fact_metrics.compute(lambda n: pictures(0), REAL, "toy_distance")
    with pytest.raises(UserError, match="a callable never ends; give a dataset"):
        fact_metrics.compute(pictures(), lambda n: pictures(n), "toy_distance")


def test_update_and_compute_equal_one_call_and_reset_keeps_the_reals(toys):
    scores = fact_metrics.ImageMetrics(NAMES)
    for part in REAL.split(11):
        scores.update(part, real=True)
    for seed in (0, 5):
        for part in pictures(COUNT + 20, seed=seed).split(7):  # more than is asked for: passed over
            scores.update(part)
        expected = values(fact_metrics.compute(pictures(COUNT + 20, seed=seed), REAL, NAMES))
        assert values(scores.compute()) == pytest.approx(expected, rel=1e-6)
        scores.reset()
    assert scores.lacking() == COUNT
    scores.update(pictures(COUNT))
    scores.reset(real=True)
    with pytest.raises(UserError):
        scores.compute()


def one_of_two(rank, port, folder):
    import torch.distributed as dist

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    scores = fact_metrics.ImageMetrics(NAMES)
    scores.update(REAL[rank::2], real=True)
    scores.update(pictures()[15 * rank : 15 * rank + 15])
    (folder / str(rank)).write_text(repr(values(scores.compute())))
    dist.destroy_process_group()
    os._exit(0)


def test_two_processes_with_half_of_the_images_each_agree_with_one(tmp_path, toys):
    port, start = free_port(), multiprocessing.get_context("fork").Process
    both = [start(target=one_of_two, args=(rank, port, tmp_path)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    first, second = (eval((tmp_path / str(rank)).read_text()) for rank in range(2))
    assert first == second
    assert first == pytest.approx(values(fact_metrics.compute(pictures(), REAL, NAMES)), rel=1e-6)


def test_the_package_is_imported_without_torch():
    code = (
        "import sys, fact_metrics; print('torch' in sys.modules); "
        "fact_metrics.compute; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        fact_metrics.nothing  # noqa: B018


def test_what_follows_from_the_reals_is_kept_until_a_real_image_is_added(toys):
    needs = [FeatureNeed("pixels", "generated", count=COUNT), FeatureNeed("pixels", "real", split="train")]
    made = []

    @toy_metric(needs=needs)
    def toy_kept(inputs):
        """Number of reals, counted once."""
        count = inputs.cached_real(needs[1], "count", lambda features: made.append(1) or len(features))
        return MetricValue(float(count), n_generated=COUNT)

    pictures = torch.zeros(COUNT, 1, 8, 8, dtype=torch.uint8)
    scores = fact_metrics.ImageMetrics("toy_kept")
    scores.update(pictures, real=True)
    for _ in range(2):
        scores.update(pictures)
        assert scores.compute()["toy_kept"].value == COUNT
        scores.reset()
    assert made == [1]
    scores.update(pictures, real=True)
    scores.update(pictures)
    assert scores.compute()["toy_kept"].value == 2 * COUNT and made == [1, 1]
