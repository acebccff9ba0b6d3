"""Runs of `iptv2-data latents` and what they write."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from iptv2_diffusion.cli import latents
from iptv2_diffusion.cli.data import LatentsConfig
from iptv2_diffusion.data.latent_format import unpack_names

SIZE, SHARD = 32, 5  # pixels a side, pictures per shard


def flags_of(settings: dict[str, Any]) -> list[object]:
    return [word for name, value in settings.items() for word in ("--" + name.replace("_", "-"), value)]


def encode(output: Path, settings: dict[str, Any]) -> Path:
    latents.encode_latents(LatentsConfig(output=output, **settings))
    return output


def loaded(root: Path) -> tuple[torch.Tensor, list[int], list[str]]:
    """(N, views, 2, C, h, w), labels, names of all shards."""
    shards = [load_file(path) for path in sorted(root.glob("*.safetensors"))]
    moments, labels = (torch.cat([shard[name] for shard in shards]) for name in ("moments", "labels"))
    return moments, labels.tolist(), [name for shard in shards for name in unpack_names(shard["names"])]


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}
