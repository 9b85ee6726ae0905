"""The order in which training sees a dataset: an endless, stateless stream of random permutations."""

import functools
import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def batch_indices(*, size: int, seed: int | str, position: int, count: int) -> torch.LongTensor:
    """Image indices at stream positions [position, position + count): int64 [count], values in [0, size).

    Epoch e, the positions [e * size, (e + 1) * size), is one random permutation of all `size` images. The
    answer depends on the arguments alone: a run resumes from its image counter, and any split into batches,
    processes or accumulation rounds reads the same stream. Raises ValueError where size < 1 or position or
    count is negative.

    >>> torch.equal(batch_indices(size=5, seed=0, position=0, count=5).sort().values, torch.arange(5))
    True
    """
    if size < 1 or position < 0 or count < 0:
        raise ValueError(
            f"need size >= 1, position >= 0, count >= 0; got size={size}, position={position}, count={count}"
        )
    parts = [torch.empty(0, dtype=torch.int64)]
    while count > 0:
        epoch, start = divmod(position, size)
        parts.append(_permutation(size, seed, epoch)[start : start + count])
        position += len(parts[-1])
        count -= len(parts[-1])
    return torch.cat(parts)  # a copy: the cached permutation stays out of the caller's reach


def balanced_indices(pools: Sequence[Tensor], *, seed: int, position: int, count: int) -> torch.LongTensor:
    """Image indices at these positions of a stream that has as many images of each class.

    `pools` holds the indices of each class, none empty. Every K positions, one block, have one image of each
    of K classes in random order; the images of a class follow its own stream of permutations.
    """
    first, last = position // len(pools), (position + max(count, 1) - 1) // len(pools)
    blocks = last - first + 1
    of_class = [
        pool[batch_indices(size=len(pool), seed=f"{seed} class {k}", position=first, count=blocks)]
        for k, pool in enumerate(pools)
    ]
    orders = [_permutation(len(pools), f"{seed} classes", first + b) for b in range(blocks)]
    stream = torch.stack(of_class, dim=1).gather(1, torch.stack(orders)).flatten()
    return stream[position - first * len(pools) :][:count].clone()


def class_pools(classes: Tensor) -> list[Tensor]:
    """Indices of the images of each class that occurs among `classes` [N], in the order of the classes."""
    return [(classes == k).nonzero().flatten() for k in classes.unique().tolist()]


@functools.lru_cache(maxsize=2)  # a batch touches at most two neighbouring epochs unless the dataset is tiny
def _permutation(size: int, seed: int | str, epoch: int) -> torch.LongTensor:
    # torch's CPU generator keeps 32 bits of its seed: both numbers are hashed into them
    digest = hashlib.sha256(f"epoch permutation {seed} {epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))
    return torch.randperm(size, generator=generator)
