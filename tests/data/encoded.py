"""Shards of made-up moments, for tests that need no VAE."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from iptv2_diffusion.data.latent_format import (
    DTYPES,
    LatentHeader,
    begin,
    content_hash,
    finish,
    pack_names,
    write_shard,
)

LABELS = (2, 0, 1, 1, 0, 2, 0)
NAMES = tuple(f"class {label}/é{index}.png" for index, label in enumerate(LABELS))
HEADER = LatentHeader(
    vae="bundled",
    vae_sha256="0" * 64,
    scale=0.18215,
    shift=0.5,
    crop="adm-center",
    image_size=40,
    shape=(2, 3, 5),
    flip=True,
    dtype="float32",
    classes=("a", "b", "c"),
    count=len(LABELS),
    content=content_hash(zip(LABELS, NAMES, strict=True)),
    shard_size=3,
    hold_out=None,
)
# (N, views, 2, C, h, w): every value differs from every other; deviations lie between 0.1 and 2
MOMENTS = torch.stack(
    [torch.linspace(-4, 4, 7 * 2 * 30).view(7, 2, 2, 3, 5), torch.linspace(0.1, 2, 7 * 2 * 30).view(7, 2, 2, 3, 5)], 2
)


def tensors_of(header: LatentHeader, shard: int) -> dict[str, torch.Tensor]:
    rows = header.rows(shard)
    return {
        "moments": MOMENTS[rows.start : rows.stop, : header.views].to(DTYPES[header.dtype]).contiguous(),
        "labels": torch.tensor(LABELS[rows.start : rows.stop]),
        "names": pack_names(NAMES[rows.start : rows.stop]),
    }


def write_shards(root: Path, **changes: Any) -> LatentHeader:
    """A finished folder; `changes` are of the header."""
    header = replace(HEADER, **changes)
    begin(root, header)
    for shard in range(header.shards):
        write_shard(root, header, shard, tensors_of(header, shard))
    finish(root, header)
    return header
