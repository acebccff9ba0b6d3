"""Clean photographs of a folder to train on: without test sets, low resolutions and the degraded halves of pairs."""

import re
from collections import Counter
from pathlib import Path

from iptv2_diffusion.data.pairs import list_pictures
from iptv2_diffusion.data.tiles import CLEAN, INDEX

# Searched in the path of a picture, in lower case.
UNFIT = {
    "of a test set": r"/(c?bsd68|kodak(24)?|mcm(aster)?|urban100|set12|rain100[hl]|test(100|1200|2800)"
    r"|gopro_large/test|test/(gopro|hide|dpdd))/",
    "of BSDS500's val part, from which CBSD68 and BSD68 are taken": r"/(bsr|[^/]*bsds[^/]*)/(.*/)?val/",
    "in low resolution": r"/(div2k|flickr2k)_[^/]*lr[^/]*/",
    "noisy": r"_noisy_srgb_\d+\.\w+$",
}
HALF = "degraded, beside clean ones"
CLEAN_SIDES = {  # folder of degraded pictures -> of their clean counterparts, beside it
    **{f"input{view}": "target" for view in ("", "c", "l", "r", "1", "2")},
    **{f"input{view}_crops": "target_crops" for view in ("", "c", "l", "r")},
    **{"blur": "sharp", "blur_gamma": "sharp", "rain": "norain", "rainy_image": "ground_truth", "source": "target"},
}


def photographs_below(folder: Path) -> tuple[list[Path], dict[str, int]]:
    """The pictures to train on, sorted, and how many were left out for which reason; of tiles the clean ones.

    Errors as `list_pictures`; ValueError where nothing is left.
    """
    root = folder / CLEAN if (folder / INDEX).is_file() else folder
    files = list_pictures(root)
    halves = {parent for parent in {file.parent for file in files} if _is_degraded_half(root, parent)}
    reasons = [HALF if file.parent in halves else _unfit(file) for file in files]
    left_out = Counter(reason for reason in reasons if reason is not None)
    if sum(left_out.values()) == len(files):
        raise ValueError(f"expected clean photographs to train on in {root}, found {in_words(left_out)} only")
    return [file for file, reason in zip(files, reasons, strict=True) if reason is None], dict(left_out)


def in_words(left_out: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items())


def _unfit(file: Path) -> str | None:
    path = file.absolute().as_posix().lower()
    return next((reason for reason, pattern in UNFIT.items() if re.search(pattern, path)), None)


def _is_degraded_half(root: Path, folder: Path) -> bool:
    """One of the folders from `root` down to `folder` holds degraded pictures."""
    below = folder.relative_to(root).parts
    path = [root.joinpath(*below[:depth]) for depth in range(len(below) + 1)]
    sides = ((part.absolute().parent, CLEAN_SIDES.get(part.absolute().name.lower())) for part in path)
    return any(side is not None and (parent / side).is_dir() for parent, side in sides)
