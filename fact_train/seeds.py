"""Random seeds from names: every random stream of a run follows from the training seed alone.

Nothing random is saved in a checkpoint: step t of phase p draws from a generator seeded with (seed, t, p), so
a resumed run draws what the uninterrupted one would have drawn.
"""

import hashlib

import torch


def derive_seed(*parts: int | str) -> int:
    """A 32-bit seed from integers and strings, equal in every process and on every platform.

    32 bits because torch's CPU generator keeps no more of a seed.
    """
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def generator_for(device: torch.device | str, *parts: int | str) -> torch.Generator:
    """A torch.Generator on `device` seeded with derive_seed(*parts)."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))
