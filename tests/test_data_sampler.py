"""The training order: epoch-wise permutations, readable from any position in any chunks."""

import pytest
import torch

from fact_train.data import balanced_indices, batch_indices, class_pools


def test_each_epoch_visits_each_image_once():
    for epoch in range(4):
        indices = batch_indices(size=37, seed=3, position=37 * epoch, count=37)
        assert indices.dtype == torch.int64
        assert torch.equal(indices.sort().values, torch.arange(37))


@pytest.mark.parametrize("chunk", [1, 7, 36, 37, 38, 100])
def test_any_chunking_gives_the_same_stream(chunk):
    whole = batch_indices(size=37, seed=3, position=0, count=300)
    chunks = [
        batch_indices(size=37, seed=3, position=start, count=min(chunk, 300 - start))
        for start in range(0, 300, chunk)
    ]
    assert torch.equal(torch.cat(chunks), whole)


def test_ranks_of_any_group_share_the_stream_between_them():
    batch, whole = 12, batch_indices(size=37, seed=3, position=48, count=12)
    for world_size in (1, 2, 3, 4):
        share = batch // world_size
        shares = [
            batch_indices(size=37, seed=3, position=48 + rank * share, count=share)
            for rank in range(world_size)
        ]
        assert torch.equal(torch.cat(shares), whole)


def test_seeds_and_epochs_give_different_orders():
    orders = {
        tuple(batch_indices(size=37, seed=seed, position=37 * epoch, count=37).tolist())
        for seed in (0, 1, 2, 2**32, 2**32 + 1, -1)
        for epoch in range(10)
    }
    assert len(orders) == 60


def test_order_is_random_but_not_of_the_global_generator():
    torch.manual_seed(0)
    first = batch_indices(size=1000, seed=0, position=0, count=1000)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(batch_indices(size=1000, seed=0, position=0, count=1000), first)
    torch.manual_seed(0)
    batch_indices(size=1001, seed=0, position=0, count=1)
    assert torch.equal(torch.get_rng_state(), state)
    # uniform order: the mean displacement of an image is n/3, with standard deviation sqrt(2n/45) = 6.7 over
    # permutations (Spearman's footrule); 40 is six of them
    displacement = (first - torch.arange(1000)).abs().double().mean()
    assert abs(displacement - 1000 / 3) < 40


def test_changing_the_answer_does_not_change_the_stream():
    first = batch_indices(size=10, seed=0, position=2, count=5)
    kept = first.clone()
    first.zero_()
    assert torch.equal(batch_indices(size=10, seed=0, position=2, count=5), kept)


def test_one_image_and_an_empty_request_are_answered():
    assert batch_indices(size=1, seed=0, position=5, count=3).tolist() == [0, 0, 0]
    empty = batch_indices(size=5, seed=0, position=2, count=0)
    assert empty.shape == (0,) and empty.dtype == torch.int64


@pytest.mark.parametrize("bad", [{"size": 0}, {"position": -1}, {"count": -1}])
def test_senseless_requests_are_refused(bad):
    with pytest.raises(ValueError, match="need size"):
        batch_indices(**({"size": 5, "seed": 0, "position": 0, "count": 1} | bad))


CLASSES = torch.tensor([0] * 20 + [3] * 5 + [7] * 3)


def balanced(position: int, count: int, *, seed: int = 0) -> list[int]:
    return balanced_indices(class_pools(CLASSES), seed=seed, position=position, count=count).tolist()


def test_balanced_classes_come_equally_often_and_each_image_of_a_class_too() -> None:
    drawn = balanced(0, 180)
    classes = CLASSES[drawn].reshape(60, 3)
    assert all(block.tolist() == [0, 3, 7] for block in classes.sort(dim=1).values)
    assert len({tuple(block.tolist()) for block in classes}) == 6  # in every order
    assert torch.tensor(drawn).bincount().tolist() == [3] * 20 + [12] * 5 + [20] * 3


def test_balanced_streams_do_not_depend_on_how_they_are_split() -> None:
    whole = balanced(0, 100)
    for chunk in (1, 4, 7):
        parts = [balanced(start, min(chunk, 100 - start)) for start in range(0, 100, chunk)]
        assert [i for part in parts for i in part] == whole
    assert balanced(0, 100, seed=1) != whole and balanced(5, 0) == []
