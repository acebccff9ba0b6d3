"""What is known of how samples were drawn, whether that is a named protocol, and how they stand beside Table 6."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iptv2_diffusion.diffusion.protocols import differences, find_protocol
from iptv2_diffusion.diffusion.published import DECIMALS, FIGURES, TABLE_6, Row

if TYPE_CHECKING:
    from iptv2_diffusion.cli.image_sets import ImageSet

SETTINGS = "settings.json"  # the sampler writes it beside its samples
UNKNOWN = "unknown"
DRAWING = (
    "ckpt",
    "weights",
    "training_steps",
    "ema",
    "sampler",
    "steps",
    "cfg_scale",
    "guidance_channels",
    "guidance_interval",
    "guide",
    "guide_weights",
    "guide_ema",
    "cache_interval",
    "vae",
    "vae_weights",
    "precision",
    "tf32",
    "size",
    "quantise",
    "class_draw",
    "classes",
    "num_samples",
    "seed",
)


def read_settings(samples: Path) -> dict[str, Any] | None:
    """Of a folder or of an .npz file's folder; None where the sampler left none. ValueError where it is no JSON object."""
    file = (samples if samples.is_dir() else samples.parent) / SETTINGS
    if not file.is_file():
        return None
    try:
        settings = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"expected a JSON object in {file}, got {type(settings).__name__}")
    return settings


def check_drawn(settings: Mapping[str, Any] | None, count: int, protocol: str | None) -> None:
    """ValueError where samples are missing, or were drawn otherwise than the named protocol says."""
    meant = (settings or {}).get("num_samples", count)
    if meant != count:
        raise ValueError(f"expected the {meant} samples that {SETTINGS} speaks of, found {count}")
    if protocol is None:
        return
    if settings is None:
        raise ValueError(f"--protocol {protocol}: no {SETTINGS} beside the samples says how they were drawn")
    if found := differences(find_protocol(protocol), settings):
        raise ValueError(f"these samples were not drawn by {protocol}: {', '.join(found)}")


def drawing(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Every setting that decides comparability, "unknown" where nobody said."""
    return {name: (settings or {}).get(name, UNKNOWN) for name in DRAWING}


def describe_samples(images: "ImageSet", sha256: str, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """`sha256` is that of the pixels."""
    return {
        "path": str(images.path),
        "images": images.count,
        "height_width": list(images.side_lengths),
        "pixels_sha256": sha256,
        "drawing": drawing(settings),
        "settings": UNKNOWN if settings is None else dict(settings),
    }


def table_6(found: Mapping[str, float], count: int, settings: Mapping[str, Any] | None, protocol: str | None) -> str:
    """The paper's rows at the guidance scale of the samples (all, where it is unknown), and these samples below."""
    scale = drawing(settings)["cfg_scale"]
    rows = [row for row in TABLE_6 if scale in (row.cfg_scale, UNKNOWN)] or TABLE_6
    ours = [_shown(name, found.get(name)) for name in FIGURES]
    lines = [
        ["Table 6", "CFG", "GFLOPs", "iterations", "samples", *FIGURES],
        *(_published(row) for row in rows),
        ["ours", str(scale), "", _iterations(settings), str(count), *ours],
    ]
    notes = [] if protocol else ["No --protocol was checked: the rows may not be comparable."]
    return "\n".join([*_aligned(lines), *notes])


def _published(row: Row) -> list[str]:
    figures = [_shown(name, value) for name, value in zip(FIGURES, row.figures, strict=True)]
    return [row.model, str(row.cfg_scale), f"{row.gflops:.2f}", row.iterations, "50000", *figures]


def _iterations(settings: Mapping[str, Any] | None) -> str:
    """As the paper prints them: 800k."""
    steps = (settings or {}).get("training_steps", "")
    return f"{steps // 1000}k" if steps and steps % 1000 == 0 else str(steps)


def _shown(name: str, value: float | None) -> str:
    """To the digits that the paper prints."""
    return "-" if value is None else f"{value:.{DECIMALS[name]}f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
