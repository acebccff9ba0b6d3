"""Any restoration function on any benchmark, by that benchmark's protocol: a record of scores and of how they came about."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from iptv2_diffusion import __version__
from iptv2_diffusion.cli.benchmark_data import Pictures, Sample, Writer, as_float, read_sample
from iptv2_diffusion.data.dpdd import SCENES
from iptv2_diffusion.metrics.fidelity import luma, mae, psnr, ssim, to_uint8
from iptv2_diffusion.metrics.lpips import lpips_alex
from iptv2_diffusion.restoration.protocols import Benchmark, Protocol

Restore = Callable[[np.ndarray], np.ndarray]  # (H, W, C) float32 -> (H, W, C') floats, white being 1
Track = Callable[[Iterable[int]], Iterable[int]]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a record says about where its pictures came from and what restored them; JSON's own types."""

    model: Mapping[str, Any]  # "name" heads the column of the printed table
    inference: Mapping[str, Any] = field(default_factory=dict)
    layout: str = "set"  # or "folders", in place of the set's own layout
    packages: Mapping[str, str] = field(default_factory=dict)


def evaluate(
    benchmark: Benchmark,
    pictures: Pictures,
    restore: Restore,
    origin: Origin,
    *,
    limit: int | None = None,
    parts: Mapping[str, Sequence[int]] | None = None,
    lpips: bool = False,
    writer: Writer | None = None,
    track: Track = iter,
) -> dict[str, Any]:
    """The record of one benchmark, for JSON. The output of `restore` is clamped before anything else.

    `limit` keeps the first pictures only. `parts` names positions that get means of their own. `lpips` adds that score
    where the table has it. `track` wraps the positions, for a progress bar.
    """
    count = len(pictures.names) if limit is None else min(limit, len(pictures.names))
    digest, images = hashlib.sha256(), []
    for index in track(range(count)):
        sample = read_sample(benchmark, pictures, index)
        restored = _clamped(restore(sample.degraded), sample)
        _add_content(digest, sample, benchmark)
        if writer is not None:
            writer.save(sample, restored)
        try:
            scores = score(restored, sample.clean, benchmark.protocol, lpips=lpips)
        except ValueError as error:
            raise ValueError(f"{sample.name}: {error}") from error
        images.append({"name": sample.name, **scores})
    if writer is not None:
        writer.close()
    return {
        **_description(benchmark, origin),
        "pictures": count,
        "pictures_of_the_set": benchmark.count,
        "data_sha256": digest.hexdigest(),
        "images": images,
        "means": means(images),
        "parts": {part: means([images[i] for i in chosen]) for part, chosen in (parts or {}).items()},
    }


def identity(degraded: np.ndarray) -> np.ndarray:
    """What scores the input itself; of a dual-pixel pair the mean of both views."""
    return degraded.reshape(*degraded.shape[:2], -1, 3).mean(2) if degraded.shape[2] == 6 else degraded


def score(
    restored: np.ndarray, clean: np.ndarray | None, protocol: Protocol, *, lpips: bool = False
) -> dict[str, float]:
    """The scores that the protocol asks for: floats in [0, 1] against uint8 or uint16 of the same shape."""
    if clean is None or not protocol.scores:
        return {}
    if protocol.rounded:
        a, b, peak = to_uint8(restored), clean, 255
    else:
        a, b, peak = restored, as_float(clean), 1.0
    if protocol.colour == "Y":
        a, b = luma(a), luma(b)
    every: dict[str, Callable[[], float]] = {
        "psnr": lambda: psnr(a, b, peak=peak),
        "ssim": lambda: ssim(a, b, peak=peak, method=str(protocol.ssim)),
        "mae": lambda: mae(a, b, peak=peak),
        "lpips": lambda: lpips_alex(a, b),
    }
    wanted = (*protocol.scores, "lpips") if lpips and protocol.lpips else protocol.scores
    return {name: every[name]() for name in wanted}


def means(images: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of the pictures' scores, each picture counting once."""
    names = [name for name in images[0] if name != "name"] if images else []
    return {name: float(np.mean([image[name] for image in images])) for name in names}


def scenes(indoor: Sequence[int], outdoor: Sequence[int], count: int) -> dict[str, list[int]]:
    """The parts of DPDD by positions from 0.

    ValueError unless each of `count` pictures is in one of them, and where the whole set is not divided 37 to 39.
    """
    parts = {"indoor": sorted(map(int, indoor)), "outdoor": sorted(map(int, outdoor))}
    if sorted([*parts["indoor"], *parts["outdoor"]]) != list(range(count)):
        raise ValueError(
            f"expected each of the {count} pictures to be indoor or outdoor, "
            f"got {len(parts['indoor'])} and {len(parts['outdoor'])}, which leave some out or overlap"
        )
    sizes = {part: len(positions) for part, positions in parts.items()}
    if count == sum(SCENES.values()) and sizes != SCENES:
        raise ValueError(f"expected {_counted(SCENES)} pictures, got {_counted(sizes)}: are the lists exchanged?")
    return parts


def _counted(sizes: Mapping[str, int]) -> str:
    return " and ".join(f"{size} {part}" for part, size in sizes.items())


def versions() -> dict[str, str]:
    """Of the packages that have a part in a score."""
    import torch

    return {"iptv2_diffusion": __version__, "torch": torch.__version__, "numpy": np.__version__}


def _description(benchmark: Benchmark, origin: Origin) -> dict[str, Any]:
    protocol = benchmark.protocol
    return {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "table": benchmark.table,
        "protocol": benchmark.protocol_id,
        "sigma": benchmark.sigma,
        "range": 255 if protocol.rounded else 1.0,
        "rounding": "uint8" if protocol.rounded else "none",
        "colour": protocol.colour,
        "ssim": protocol.ssim,
        "layout": origin.layout,
        "inference": dict(origin.inference),
        "model": dict(origin.model),
        "packages": versions() | dict(origin.packages),
    }


def _clamped(restored: np.ndarray, sample: Sample) -> np.ndarray:
    if not np.isfinite(restored).all():
        raise ValueError(f"{sample.name}: the restored image has pixels that are not finite")
    return np.clip(restored, 0, 1)


def _add_content(digest: Any, sample: Sample, benchmark: Benchmark) -> None:
    """Name and decoded pixels of the files; noise is not theirs."""
    files = {"degraded": None if benchmark.sigma is not None else sample.degraded, "clean": sample.clean}
    for role, pixels in files.items():
        if pixels is not None:
            digest.update(f"{sample.name}\0{role}\0{pixels.dtype}\0{pixels.shape}\0".encode())
            digest.update(np.ascontiguousarray(pixels).tobytes())
