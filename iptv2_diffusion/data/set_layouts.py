"""Where the files of a published data set lie, as data, and the one reader of all such descriptions."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from iptv2_diffusion.data.dpdd import match_views
from iptv2_diffusion.data.image_folder import EXTENSIONS
from iptv2_diffusion.data.pairs import Pair, keyed, match, shown


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Glob patterns below the folder of the set; the groups of `key`, joined, name the scene that a file shows."""

    clean: str
    degraded: tuple[str, ...] = ()  # a pattern for each view; none: clean photographs only
    count: int | None  # scenes; None: not published
    below: tuple[str, ...] = ("",)  # where that folder may lie below the one that the user names
    key: str = r"([^/]+)$"  # searched in the path without its extension
    spare_clean: bool = False  # the clean folder holds other scenes, too
    shared_clean: str | None = None  # its group, in a degraded picture's name, names the clean one, which others share
    joined: Literal["left", "right"] | None = None  # `clean` holds both pictures side by side, here the degraded one
    name_lists: str | None = None  # source and target have different names; these lists say which belong together


@dataclass(frozen=True, kw_only=True)
class SetSpec:
    title: str
    home: str  # where the set is to be had
    layouts: tuple[Layout, ...] = ()  # the first of which there are any files counts
    parts: tuple[str, ...] = ()  # sets that make up this one, where none of the layouts is found
    bits: int | None = None  # 8: 16-bit pictures are read as 8-bit ones
    overlap: int = 96  # pixels that 512x512 tiles share, as in Restormer's preparation
    reader: Callable[[Path], Any] | None = None  # of sets that are no picture files


@dataclass(frozen=True)
class Found:
    """The files of a set: `views[i]` and `clean` are sorted, not yet matched."""

    layout: Layout
    base: Path
    views: tuple[list[Path], ...]
    clean: list[Path]


def locate(spec: SetSpec, root: Path) -> Found | None:
    for layout in spec.layouts:
        for below in layout.below:
            base = root / below
            views = tuple(_pictures(base, pattern, layout.key) for pattern in layout.degraded)
            clean = _pictures(base, layout.clean, layout.key)
            if clean or any(views):
                return Found(layout, base, views, clean)
    return None


def find_pictures(spec: SetSpec, root: Path, count: int | None = None) -> list[Path]:
    """The clean photographs; FileNotFoundError without any, ValueError where their number is another."""
    found = _located(spec, root)
    _check_counts(spec, found, count)
    return found.clean


def find_pairs(spec: SetSpec, root: Path, count: int | None = None) -> list[Pair]:
    """FileNotFoundError without any file, ValueError where files are missing or do not match.

    `count` replaces the published number of pairs, for those who have a part of the set only.
    """
    found = _located(spec, root)
    layout, base = found.layout, found.base
    views = [keyed(files, lambda file: _key(file, layout.key)) for files in found.views]
    clean = keyed(found.clean, lambda file: _key(file, layout.key))
    if layout.name_lists is not None:
        _check_counts(spec, found, count)
        return match_views(views, clean, base / layout.name_lists)
    if layout.shared_clean is not None:
        clean = _spread(clean, views, layout.shared_clean)
    _check_counts(spec, found, count, [*views] if layout.spare_clean else [*views, clean])
    places = [str(base / pattern) for pattern in layout.degraded]
    try:
        return match(views, clean, places, str(base / layout.clean), spare_clean=layout.spare_clean)
    except ValueError as error:
        raise ValueError(f"{spec.title}: {error}; the set is to be had at {spec.home}") from None


def _spread(clean: dict[str, Path], views: Sequence[dict[str, Path]], pattern: str) -> dict[str, Path]:
    """The clean pictures by the names of the degraded ones."""
    owners = {name: found[1] for view in views for name in view if (found := re.search(pattern, name))}
    return {name: clean[owner] for name, owner in owners.items() if owner in clean}


def is_place_of(spec: SetSpec, root: Path) -> bool:
    """Whether the folder is called as the one in which pictures of the set lie."""
    return any(below and root.resolve().match(below) for layout in spec.layouts for below in layout.below)


def missing(spec: SetSpec, root: Path) -> FileNotFoundError:
    looked = [f"{below or '.'}/{layout.clean}" for layout in spec.layouts for below in layout.below]
    return FileNotFoundError(
        f"{spec.title}: found no pictures of it in {root}, looked for {', '.join(looked)}; "
        f"the set is to be had at {spec.home}"
    )


def _located(spec: SetSpec, root: Path) -> Found:
    found = locate(spec, root)
    if found is None:
        raise missing(spec, root)
    return found


def _check_counts(spec: SetSpec, found: Found, count: int | None, names: Sequence[Iterable[str]] = ()) -> None:
    """`names`: of the pictures of each kind, where they are the same if none is missing."""
    expected = found.layout.count if count is None else count
    listed: Sequence[tuple[str, list[Path]]] = list(zip(found.layout.degraded, found.views, strict=True))
    if not found.layout.spare_clean:
        listed = [*listed, (found.layout.clean, found.clean)]
    wrong = [f"{len(files)} as {pattern}" for pattern, files in listed if expected not in (None, len(files))]
    if wrong:
        alone = set().union(*names) - set().union(*names[:1]).intersection(*names)
        raise ValueError(
            f"{spec.title}: expected {expected} pictures of each kind in {found.base}, found {', '.join(wrong)}"
            f"{f', not of all kinds {shown(alone)}' if alone else ''}; the set is to be had at {spec.home}"
        )


def _pictures(base: Path, pattern: str, key: str) -> list[Path]:
    return sorted(
        file
        for file in base.glob(pattern)
        if file.suffix.lower() in EXTENSIONS and not file.name.startswith(".") and _key(file, key)
    )


def _key(file: Path, key: str) -> str:
    """Empty for files that are not of the set."""
    found = re.search(key, file.with_suffix("").as_posix())
    return "".join(found.groups()) if found else ""
