"""The order in which training sees a dataset: an endless, stateless stream of random permutations."""

import functools
import hashlib

import torch


def batch_indices(*, size: int, seed: int, position: int, count: int) -> torch.LongTensor:
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


@functools.lru_cache(maxsize=2)  # a batch touches at most two neighbouring epochs unless the dataset is tiny
def _permutation(size: int, seed: int, epoch: int) -> torch.LongTensor:
    # torch's CPU generator keeps 32 bits of its seed: both numbers are hashed into them
    digest = hashlib.sha256(f"epoch permutation {seed} {epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))
    return torch.randperm(size, generator=generator)
