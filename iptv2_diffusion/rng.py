"""Randomness that depends on what it is for, and on nothing else: not on batches, processes or interruptions."""

import hashlib
import struct

import torch


def derived_generator(*keys: int) -> torch.Generator:
    """A CPU generator that is a function of these integers, in this order: (seed, position), for instance."""
    digest = hashlib.blake2b(struct.pack(f"<{len(keys)}q", *keys), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def permutation(count: int, *keys: int) -> torch.Tensor:
    """(count,) int64: a shuffled order that is a function of these integers."""
    return torch.randperm(count, generator=derived_generator(*keys))
