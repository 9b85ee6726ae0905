"""Images of a seed are the same whatever the batch; streams are independent; sources know their limits."""

import pytest
import torch
from eval_toys import SIDE, TRAIN, make_data, make_run

from fact_eval.images.sampling import MAX_SEED, SEED_STRIDE, image_seed, parse_seeds
from fact_eval.images.sources import GeneratorSource, NoiseSource, PicturesSource
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.pixels import to_uint8
from fact_train.data import open_dataset
from fact_train.snapshot import load_snapshot


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), labelled=True)


def generator_source(folder, data, *, seed=0, **changes):
    run = make_run(folder, data, **changes)
    labels_of = open_dataset(data) if changes.get("cond") else None
    return GeneratorSource(
        load_snapshot(run / "network-snapshot-000004.safetensors"), seed=seed, labels_of=labels_of
    )


def test_an_image_seed_is_the_documented_number():
    assert image_seed(0, 7) == 7
    assert image_seed(3, 7) == 30_000_007
    assert image_seed(MAX_SEED, SEED_STRIDE - 1) < 2**32


@pytest.mark.parametrize(("seed", "index"), [(MAX_SEED + 1, 0), (-1, 0), (0, SEED_STRIDE), (0, -1)])
def test_a_seed_that_torch_would_cut_to_32_bits_is_refused(seed, index):
    with pytest.raises(UsageError):
        image_seed(seed, index)


def test_streams_never_share_a_seed_with_the_images_of_any_small_evaluation():
    # The streams that metrics and sources use, 50,000 images, evaluation seeds 0 to 9.
    images = {image_seed(s, i) for s in range(10) for i in range(50_000)}
    for stream in ("noise image", "labels", "latents pair", "noise pair", "latents endpoints"):
        others = {image_seed(s, i, stream) for s in range(10) for i in range(50_000)}
        assert len(others) == 500_000
        assert not images & others


@pytest.mark.parametrize(
    ("text", "seeds"), [("0", (0,)), ("0,1,2", (0, 1, 2)), ("0-3", (0, 1, 2, 3)), ("2,0-2", (2, 0, 1))]
)
def test_seeds_are_read_as_numbers_and_ranges(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "x", "0,", "1-", "-1", "0-999", "999"])
def test_seeds_that_make_no_sense_are_refused(text):
    with pytest.raises(UsageError, match="--seeds"):
        parse_seeds(text)


@pytest.mark.parametrize("cond", [False, True])
def test_images_do_not_depend_on_the_batch_or_its_order(tmp_path, data, cond):
    source = generator_source(tmp_path, data, cond=cond)
    together = source.images(range(8))
    assert together.dtype == torch.uint8 and together.shape == (8, 1, SIDE, SIDE)
    apart = torch.cat([source.images([i]) for i in range(8)])
    # Batched products may round differently: at most one grey level apart.
    assert (together.int() - apart.int()).abs().max() <= 1
    for name in ("latents", "noise"):
        draw = getattr(source, name)
        batch, single = draw([0, 1, 5]), draw([5])
        batch, single = (batch, single) if name == "noise" else ([batch], [single])
        assert all(torch.equal(b[2:], s) for b, s in zip(batch, single, strict=True))


def test_another_evaluation_seed_makes_other_images(tmp_path, data):
    one = generator_source(tmp_path / "a", data)
    two = generator_source(tmp_path / "b", data, seed=1)
    assert not torch.equal(one.latents([0]), two.latents([0]))
    assert torch.equal(one.latents([0]), torch.randn(8, generator=torch.Generator().manual_seed(0))[None])


def test_streams_are_independent_of_each_other_and_of_the_noise(tmp_path, data):
    source = generator_source(tmp_path, data)
    z = source.latents(range(500))
    other = source.latents(range(500), stream="pair")
    noise = torch.cat([n.flatten(1) for n in source.noise(range(500))], dim=1)[:, : z.shape[1]]
    for x in (other, noise):
        correlation = torch.corrcoef(torch.stack([z.flatten(), x.flatten()]))[0, 1]
        assert correlation.abs() < 0.1  # 4000 pairs: six standard deviations of independent ones


def test_noise_reaches_the_image_and_has_the_shapes_of_the_network(tmp_path, data):
    source = generator_source(tmp_path, data)
    assert [tuple(n.shape) for n in source.noise([0, 1])] == [(2, 1, 4, 4), (2, 1, 8, 8), (2, 1, 8, 8)]
    ws = source.mapping(source.latents([0]), None)
    a, b = source.synthesis(ws, source.noise([0])), source.synthesis(ws, source.noise([1]))
    assert not torch.equal(a, b)
    assert torch.equal(a, source.synthesis(ws, source.noise([0])))


@pytest.mark.parametrize("noise", ["const", "off"])
def test_a_network_without_random_noise_is_scored_without(tmp_path, data, noise):
    source = generator_source(tmp_path, data, noise=noise)
    assert source.noise([0]) == []
    assert torch.equal(source.images([3]), source.images([3]))


def test_labels_are_those_of_training_images_one_hot(tmp_path, data):
    source = generator_source(tmp_path, data, cond=True)
    labels = source.labels(range(600))
    assert labels.shape == (600, 3) and torch.equal(labels.sum(dim=1), torch.ones(600))
    assert torch.equal(labels[17:18], source.labels([17]))
    shares = open_dataset(data).labels(range(TRAIN)).bincount() / TRAIN
    assert (labels.mean(dim=0) - shares).abs().max() < 0.08  # four standard deviations of 600 draws
    assert generator_source(tmp_path / "b", data).labels([0]) is None


def test_a_conditional_generator_needs_a_dataset_for_its_labels(tmp_path, data):
    run = make_run(tmp_path, data, cond=True)
    with pytest.raises(ValueError, match="labels"):
        GeneratorSource(load_snapshot(run / "network-snapshot-000004.safetensors"), seed=0)


def test_uint8_is_stylegans_rounding():
    values = torch.tensor([-2.0, -1.0, -1.0 + 1 / 255, 0.0, 1.0, 2.0])
    assert to_uint8(values).tolist() == [0, 0, 1, 128, 255, 255]


def test_pictures_come_in_the_order_of_a_seeded_permutation(data):
    dataset = open_dataset(data)
    source = PicturesSource(dataset, seed=0)
    whole = source.images(range(TRAIN))
    assert torch.equal(
        whole.flatten(1).sort(dim=0).values, dataset.images(range(TRAIN)).flatten(1).sort(dim=0).values
    )
    assert torch.equal(whole[:5], source.images(range(5)))
    assert not torch.equal(whole, PicturesSource(dataset, seed=1).images(range(TRAIN)))
    with pytest.raises(UserError, match=f"has {TRAIN} images, not {TRAIN + 1}"):
        source.images(range(TRAIN + 1))


def test_noise_is_uniform_over_all_grey_levels():
    source = NoiseSource((3, 8, 8), seed=0)
    images = source.images(range(400))
    assert images.shape == (400, 3, 8, 8) and images.dtype == torch.uint8
    assert torch.equal(images[7:8], source.images([7]))
    counts = images.flatten().long().bincount(minlength=256).double()
    expected = images.numel() / 256
    # Chi-square with 255 degrees of freedom: mean 255, standard deviation 22.6; five of them away.
    assert ((counts - expected) ** 2 / expected).sum() < 255 + 5 * 22.6
