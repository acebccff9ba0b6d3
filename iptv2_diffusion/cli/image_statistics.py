"""What is measured of a set of images: sharded over processes, and kept under a hash of pixels and network."""

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather, pad_across_processes, reduce
from torch import Tensor
from tqdm import tqdm

from iptv2_diffusion.cli.image_sets import ImageSet, digests
from iptv2_diffusion.metrics.extractors import FEATURES, LOGITS, Extractor
from iptv2_diffusion.metrics.frechet import Gaussian, Moments
from iptv2_diffusion.metrics.inception_score import ScoreSums

PARTS = ("mean", "covariance")


@dataclass(frozen=True, eq=False, kw_only=True)
class Statistics:
    gaussians: dict[str, Gaussian]  # kind of features -> fit to all images
    features: np.ndarray  # (K, d) float32 of the chosen images, for precision, recall and kernel distance
    score: tuple[float, float] | None  # Inception Score and its deviation over the splits


def spaced(count: int, most: int | None) -> list[int]:
    """Positions of at most so many images, evenly spread over `count`; None: all."""
    kept = count if most is None else min(count, most)
    return [index * count // kept for index in range(kept)]


def pixels_sha256(images: ImageSet, batch_size: int) -> str:
    """Of the SHA-256 of every image, in order: the same for a folder and an .npz file, for any number of processes."""
    start, stop = _shard(images.count)
    rows = [torch.from_numpy(digests(batch)) for batch in images.batches(start, stop, batch_size)]
    whole = _gathered(rows, torch.zeros(0, 32, dtype=torch.uint8))
    return hashlib.sha256(whole.numpy().tobytes()).hexdigest()


def measure(
    images: ImageSet, extractor: Extractor, *, sha256: str, keep: int | None, batch_size: int, cache: Path | None
) -> Statistics:
    """Of all the images; features of `keep` of them, evenly spread (None: all). `sha256` is `pixels_sha256` of them.

    With several processes every one calls it, measures its share and gets the whole.
    """
    file = None if cache is None else cache / f"{sha256[:32]}-{extractor.identity}-{keep or 'all'}.npz"
    if file is not None and _everywhere(file.is_file()):
        return _load(file)
    found = _extract(images, extractor, set(spaced(images.count, keep)), batch_size)
    if file is not None and PartialState().is_main_process:
        try:
            _save(found, file)
        except OSError as error:  # the cache spares time, no more
            warnings.warn(f"the statistics are not kept: {error}", stacklevel=2)
    PartialState().wait_for_everyone()
    return found


def _extract(images: ImageSet, extractor: Extractor, chosen: set[int], batch_size: int) -> Statistics:
    device = torch.device("cpu") if extractor.device.type == "mps" else extractor.device  # mps has no float64
    kinds = [kind for kind in extractor.dimensions if kind != LOGITS]
    moments = {kind: Moments(extractor.dimensions[kind], device) for kind in kinds}
    score = ScoreSums(images.count, extractor.dimensions[LOGITS], device) if LOGITS in extractor.dimensions else None
    rows = []
    for first, batch in _share(images, batch_size):
        found = extractor.extract(torch.from_numpy(batch).permute(0, 3, 1, 2))
        for kind in kinds:
            moments[kind].add(found[kind].to(device))
        if score is not None:
            score.add(found[LOGITS].to(device), first)
        picks = [position for position in range(len(batch)) if first + position in chosen]
        rows.append(found[FEATURES][picks].float().cpu())
    for sums in (*moments.values(), *([] if score is None else [score])):
        for tensor in sums.tensors:
            tensor.copy_(_added_up(tensor))
    return Statistics(
        gaussians={kind: moments[kind].gaussian() for kind in kinds},
        features=_gathered(rows, torch.zeros(0, extractor.dimensions[FEATURES])).numpy(),
        score=None if score is None else score.score(),
    )


def _device() -> torch.device:
    """Where processes exchange tensors."""
    state: Any = PartialState()
    return state.device if state.num_processes > 1 else torch.device("cpu")


def _shard(count: int) -> tuple[int, int]:
    state = PartialState()
    start, stop = (count * rank // state.num_processes for rank in (state.process_index, state.process_index + 1))
    return start, stop


def _share(images: ImageSet, batch_size: int) -> Iterator[tuple[int, np.ndarray]]:
    """The batches of this process, each with the position of its first image."""
    first, stop = _shard(images.count)
    quiet = not PartialState().is_main_process
    with tqdm(total=stop - first, desc=str(images.path), unit=" images", disable=quiet) as bar:
        for batch in images.batches(first, stop, batch_size):
            yield first, batch
            first += len(batch)
            bar.update(len(batch))


def _gathered(rows: Sequence[Tensor], empty: Tensor) -> Tensor:
    """The rows of all processes, in their order, on the CPU; `empty` has their width and type."""
    own = torch.cat([empty, *rows]).to(_device())
    if PartialState().num_processes == 1:
        return own
    lengths: Any = gather(torch.tensor([len(own)], device=own.device))
    padded: Any = gather(pad_across_processes(own))
    counts = lengths.tolist()
    blocks = padded.split(max(counts))
    return torch.cat([block[:count] for block, count in zip(blocks, counts, strict=True)]).cpu()


def _everywhere(true: bool) -> bool:
    """Whether every process says so: each may see another disk."""
    return _added_up(torch.tensor(float(true), device=_device())).item() == PartialState().num_processes


def _added_up(tensor: Tensor) -> Tensor:
    """Over the processes."""
    total: Any = reduce(tensor, "sum")
    return total


def _save(found: Statistics, file: Path) -> None:
    """Atomically: other evaluations may use the same folder."""
    arrays = {f"{kind}.{part}": getattr(fit, part) for kind, fit in found.gaussians.items() for part in PARTS}
    if found.score is not None:
        arrays["score"] = np.array(found.score)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as stream:
            np.savez(stream, rows=found.features, **arrays)
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def _load(file: Path) -> Statistics:
    with np.load(file) as arrays:
        kinds = dict.fromkeys(name.split(".")[0] for name in arrays.files if "." in name)
        return Statistics(
            gaussians={kind: Gaussian(*(arrays[f"{kind}.{part}"] for part in PARTS)) for kind in kinds},
            features=arrays["rows"],
            score=tuple(arrays["score"].tolist()) if "score" in arrays else None,
        )
