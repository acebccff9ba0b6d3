"""Training on shards of latent moments (see `latent_format`), and verifying them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from tqdm import tqdm

from iptv2_diffusion.data.latent_format import (
    DTYPES,
    LatentHeader,
    content_hash,
    read_index,
    shard_metadata,
    shard_path,
    tensors_hash,
    unpack_names,
)


class LatentShards:
    """Encoded pictures; every visit samples the posterior anew, of the picture or, if `mirror`, of its mirror image.

    Shards are memory-mapped when they are first visited, by each process on its own: what is read is what is visited,
    16 KiB for a picture of 256x256 in float16. `rows` are the pictures that count, by their place in the shards.
    """

    def __init__(self, root: Path, header: LatentHeader, rows: np.ndarray | range, *, mirror: bool) -> None:
        self.header, self._root, self._rows, self._mirror = header, root, rows, mirror
        self._open: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # shard -> moments, labels

    def __len__(self) -> int:
        return len(self._rows)

    def example(self, index: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """As in `sources`: "latents" (C, h, w) float32, scaled, and "label"."""
        view = int(self._mirror and torch.rand((), generator=generator).item() < 0.5)
        shard, row = divmod(int(self._rows[index]), self.header.shard_size)
        moments, labels = self._shard(shard)
        mean, std = moments[row, view].float()
        return {"latents": mean + std * torch.randn(mean.shape, generator=generator), "label": labels[row]}

    def _shard(self, shard: int) -> tuple[torch.Tensor, torch.Tensor]:
        if shard not in self._open:
            path = shard_path(self._root, shard)
            try:
                with safe_open(path, "pt") as file:  # its tensors are views of the map, which lives as long as they do
                    self._open[shard] = file.get_tensor("moments"), file.get_tensor("labels")
            except (OSError, SafetensorError) as error:
                raise ValueError(f"cannot read {path} as a shard of latents: {error}") from error
        return self._open[shard]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}  # maps are opened anew in another process


def open_latents(root: str | Path, *, mirror: bool) -> tuple[LatentShards, LatentShards | None]:
    """The pictures to train on, and those that are held out (never mirrored), if any.

    ValueError where `root` holds no finished shards, one is missing, or mirror images are asked for and not there.
    """
    root = Path(root)
    header, _ = read_index(root)
    if mirror and not header.flip:
        raise ValueError(f"the latents in {root} were made without mirror images: train with --no-flip")
    missing = [path for number in range(header.shards) if not (path := shard_path(root, number)).is_file()]
    if missing:
        raise ValueError(f"{len(missing)} of {header.shards} shards are missing, the first is {missing[0]}")
    every = header.hold_out
    if every is None:
        return LatentShards(root, header, range(header.count), mirror=mirror), None
    kept = range(every - 1, header.count, every)
    rest = np.delete(np.arange(header.count), kept)
    return LatentShards(root, header, rest, mirror=mirror), LatentShards(root, header, kept, mirror=False)


def check_latents(root: str | Path) -> LatentHeader:
    """Reads every shard again; ValueError naming the first that are missing, damaged or not what the index says."""
    root = Path(root)
    header, hashes = read_index(root)
    problems, content = [], []
    for number, sha256 in enumerate(tqdm(hashes, unit="shard", desc="reading")):
        try:
            content += _verified(root, header, number, sha256)
        except ValueError as error:
            problems.append(str(error))
    if not problems and content_hash(content) != header.content:
        problems.append("names and labels are not those that the index was made of")
    if problems:
        raise ValueError(f"{len(problems)} problems with the latents in {root}: {'; '.join(problems[:5])}")
    return header


def _verified(root: Path, header: LatentHeader, number: int, sha256: str) -> list[tuple[int, str]]:
    """Labels and names of a shard; ValueError where it is not what header and index say."""
    path = shard_path(root, number)
    metadata, tensors = shard_metadata(path), load_file(path)
    if problem := next(_problems(tensors, header, len(header.rows(number))), None):
        raise ValueError(f"{path}: {problem}")
    if metadata != {"header": header.sha256, "tensors": sha256} or tensors_hash(tensors) != sha256:
        raise ValueError(f"{path}: its hash is not that of the index")
    return list(zip(tensors["labels"].tolist(), unpack_names(tensors["names"]), strict=True))


def _problems(tensors: dict[str, torch.Tensor], header: LatentHeader, count: int) -> Iterator[str]:
    expected = (count, header.views, 2, *header.shape)
    if sorted(tensors) != ["labels", "moments", "names"]:
        yield f"expected labels, moments and names, got {', '.join(sorted(tensors))}"
        return
    moments, labels = tensors["moments"], tensors["labels"]
    if tuple(moments.shape) != expected or moments.dtype != DTYPES[header.dtype]:
        yield f"expected moments {expected} {header.dtype}, got {tuple(moments.shape)} {moments.dtype}"
    elif not moments.isfinite().all() or (moments[:, :, 1] < 0).any():
        yield "expected finite means and deviations of at least 0"
    if tuple(labels.shape) != (count,) or not ((labels >= 0) & (labels < len(header.classes))).all():
        yield f"expected {count} labels from 0 to {len(header.classes) - 1}"
    if len(unpack_names(tensors["names"])) != count:
        yield f"expected {count} names, got {len(unpack_names(tensors['names']))}"
