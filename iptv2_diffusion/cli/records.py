"""Results as JSON files."""

import json
from itertools import chain, count
from math import isfinite
from pathlib import Path
from typing import Any

from iptv2_diffusion.data.image_writers import write_bytes


def write_record(output: Path | None, content: Any, *, overwrite: bool = False) -> None:
    """Whole or not at all; None: nowhere. Infinity, which JSON lacks, is "inf"; FileExistsError unless `overwrite`."""
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_finite(content), indent=2, allow_nan=False)
        write_bytes(output, f"{text}\n".encode(), overwrite=overwrite)


def free_name(path: Path) -> Path:
    """The path, or with the first number, from 2 on, under which there is nothing yet."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
    return next(place for place in chain([path], numbered) if not place.exists())


def _finite(content: Any) -> Any:
    """Numbers that are none become strings, which Python's `float` reads: "inf" is the PSNR of equal pictures."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return str(content) if isinstance(content, float) and not isfinite(content) else content
