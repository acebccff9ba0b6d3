"""Pictures cut into tiles once, so that training decodes a tile, not a picture, for a patch.

All pictures of a pair are cut along one grid. Tiles are PNGs of the pictures' own bit depth, `<folder>/<name of the
picture>_<top>_<left>.png`, in the folders `target` (clean) and `input` (degraded; `input1`, `input2` for two views).
`index.json`, written last, says that all of them are there; until then a journal says which pictures are done.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from iptv2_diffusion.data.image_io import Photo, read_pixels, write_photo
from iptv2_diffusion.data.image_writers import write_bytes
from iptv2_diffusion.data.pairs import Pair, PairedPictures, PictureList

INDEX, JOURNAL = "index.json", ".journal.jsonl"
CLEAN = "target"


@dataclass(frozen=True)
class Source:
    """A picture, or pictures of one scene, to cut."""

    name: str
    files: dict[str, Path]  # folder of the tiles -> picture


def prepare_tiles(
    pictures: PairedPictures | PictureList, output: str | Path, *, size: int = 512, overlap: int = 96, workers: int = 1
) -> int:
    """Cuts all pictures into `output`, a new or empty folder or one that was left unfinished; returns the tiles' number.

    Pictures that are done are skipped, unless tiles of them are lost. `workers` threads read, cut and write. ValueError
    for pictures of one pair that differ in size, FileExistsError where `output` holds anything else, tiles of pictures
    that have changed included.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"expected an overlap from 0 to {size - 1} of tiles of {size} pixels, got {overlap}")
    sources, output = _sources(pictures), Path(output)
    settings = {"size": size, "overlap": overlap, "folders": sorted(sources[0].files), "pictures": len(sources)}
    finished = (output / INDEX).is_file()
    done = _finished(output, settings, sources) if finished else _resume(output, settings)
    _refuse_changed(output, sources, done)
    done = {name: record for name, record in done.items() if not _lost(output, settings | {"sources": [record]})}
    left = [source for source in sources if source.name not in done]
    if finished and not left:
        return len(_tiles(_read_index(output)))
    with ThreadPoolExecutor(workers) as threads, (output / JOURNAL).open("a", encoding="utf-8") as journal:
        try:
            cut = threads.map(lambda source: _cut(source, output, size, overlap), left)
            for record in tqdm(cut, total=len(sources), initial=len(done), unit="picture", desc="cutting"):
                journal.write(json.dumps(record) + "\n")
                journal.flush()
                done[record["name"]] = record
        finally:
            threads.shutdown(cancel_futures=True)
    index = settings | {"sources": [done[source.name] for source in sources]}
    write_bytes(output / INDEX, (json.dumps(index, indent=1) + "\n").encode(), overwrite=finished)
    (output / JOURNAL).unlink()
    return len(_tiles(index))


def open_tiles(root: str | Path, *, gray: bool = False, bits: int | None = None) -> PairedPictures | PictureList:
    """The tiles as a data set of their own; ValueError where `root` is no such folder or tiles are missing."""
    root = Path(root)
    index = _read_index(root)
    files = {folder: [_path(root, folder, *tile) for tile, _ in _tiles(index)] for folder in index["folders"]}
    missing = [file for column in files.values() for file in column if not file.is_file()]
    if missing:
        raise ValueError(f"{len(missing)} tiles of {root} are missing, the first is {missing[0]}")
    clean = files.pop(CLEAN)
    if not files:
        return PictureList(clean, gray=gray, root=root / CLEAN)
    rows = zip(zip(*files.values(), strict=True), clean, strict=True)
    names = [file.relative_to(root / CLEAN).with_suffix("").as_posix() for file in clean]
    return PairedPictures(
        [Pair(name, degraded, file) for name, (degraded, file) in zip(names, rows, strict=True)], gray=gray, bits=bits
    )


def check_tiles(root: str | Path) -> int:
    """Reads every tile again and returns their number; ValueError naming the first that are missing or damaged."""
    root = Path(root)
    index = _read_index(root)
    expected = [(folder, tile, shape) for folder in index["folders"] for tile, shape in _tiles(index)]
    problems = [
        problem
        for folder, tile, shape in tqdm(expected, unit="tile", desc="reading")
        if (problem := _problem(_path(root, folder, *tile), shape))
    ]
    if problems:
        raise ValueError(f"{len(problems)} of {len(expected)} tiles are damaged or missing: {'; '.join(problems[:5])}")
    return len(expected) // len(index["folders"])


def starts(length: int, size: int, overlap: int) -> list[int]:
    """Where tiles begin along one side; the last ends at the border. Less than a tile is one, shorter, tile."""
    if length <= size:
        return [0]
    return [*range(0, length - size, size - overlap), length - size]


def _sources(pictures: PairedPictures | PictureList) -> list[Source]:
    if isinstance(pictures, PictureList):
        sources = [Source(name, {CLEAN: file}) for name, file in zip(pictures.names, pictures.files, strict=True)]
    else:
        sources = [Source(p.name, {**_views(p.degraded), CLEAN: p.clean}) for p in pictures.pairs]
    if not sources:
        raise ValueError("expected at least one picture to cut")
    name, times = Counter(source.name for source in sources).most_common(1)[0]
    if times > 1:
        raise ValueError(f"expected pictures of different names, got {name} {times} times")
    return sources


def _views(degraded: Sequence[Path]) -> dict[str, Path]:
    return {f"input{'' if len(degraded) == 1 else number}": file for number, file in enumerate(degraded, 1)}


def _cut(source: Source, output: Path, size: int, overlap: int) -> dict[str, Any]:
    """Writes the tiles of one picture; its entry in the index."""
    pictures = {folder: read_pixels(file) for folder, file in source.files.items()}
    height, width = pictures[CLEAN].shape[:2]
    for folder, pixels in pictures.items():
        if pixels.shape[:2] != (height, width):
            raise ValueError(
                f"expected pictures of one size, got {pixels.shape[1]}x{pixels.shape[0]} in {source.files[folder]} "
                f"and {width}x{height} in {source.files[CLEAN]}"
            )
    for top, left in _grid(height, width, size, overlap):
        for folder, pixels in pictures.items():
            path = _path(output, folder, source.name, top, left)
            path.parent.mkdir(parents=True, exist_ok=True)
            tile = np.ascontiguousarray(pixels[top : top + size, left : left + size])
            write_photo(path, Photo(tile), overwrite=True)  # of an earlier attempt at this picture
    return {"name": source.name, "width": width, "height": height, "content": _content(source)}


def _grid(height: int, width: int, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    for top in starts(height, size, overlap):
        for left in starts(width, size, overlap):
            yield top, left


def picture_of(tile: str) -> str:
    """The name of the picture that the tile of this name was cut from."""
    return re.sub(r"_\d+_\d+$", "", tile)


def _path(root: Path, folder: str, name: str, top: int, left: int) -> Path:
    return root / folder / f"{name}_{top}_{left}.png"


def _tiles(index: dict[str, Any]) -> list[tuple[tuple[str, int, int], tuple[int, int]]]:
    """((name, top, left), (height, width)) of every tile."""
    size, overlap = index["size"], index["overlap"]
    return [
        ((source["name"], top, left), (min(size, source["height"]), min(size, source["width"])))
        for source in index["sources"]
        for top, left in _grid(source["height"], source["width"], size, overlap)
    ]


def _problem(path: Path, shape: tuple[int, int]) -> str | None:
    if not path.is_file():
        return f"no {path}"
    try:
        found = read_pixels(path).shape[:2]
    except ValueError as error:
        return str(error)
    return None if found == shape else f"{path} is {found[1]}x{found[0]}, not {shape[1]}x{shape[0]}"


def _resume(output: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The entries of pictures that are done. Other settings would leave a mixture of tiles."""
    journal = output / JOURNAL
    if not journal.is_file():
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise FileExistsError(f"expected a new or empty folder for tiles, {output} already holds something")
        output.mkdir(parents=True, exist_ok=True)
        write_bytes(journal, (json.dumps(settings) + "\n").encode())
        return {}
    text = journal.read_text("utf-8")
    lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]  # the last may be half written
    if lines[0] != settings:
        raise FileExistsError(f"{output} holds unfinished tiles of other settings: {lines[0]}, not {settings}")
    write_bytes(journal, "".join(json.dumps(line) + "\n" for line in lines).encode(), overwrite=True)
    return {record["name"]: record for record in lines[1:]}


def _finished(output: Path, settings: dict[str, Any], sources: Sequence[Source]) -> dict[str, dict[str, Any]]:
    """As `_resume`, of an index; as long as there is one, a journal beside it is not read."""
    index = _read_index(output)
    done = {record["name"]: record for record in index["sources"]}
    if {key: index[key] for key in settings} != settings or [*done] != [source.name for source in sources]:
        raise FileExistsError(f"{output} already holds tiles of other pictures or settings")
    return done


def _lost(root: Path, index: dict[str, Any]) -> bool:
    """Whether any tile of the index is not there."""
    return not all(_path(root, folder, *tile).is_file() for tile, _ in _tiles(index) for folder in index["folders"])


def _refuse_changed(output: Path, sources: Sequence[Source], done: Mapping[str, Mapping[str, Any]]) -> None:
    """Reads the pictures again that are done; entries of older versions say nothing about their content."""
    known = [(source, done[source.name]["content"]) for source in sources if "content" in done.get(source.name, {})]
    changed = [source.name for source, content in known if content != _content(source)]
    if changed:
        raise FileExistsError(
            f"{output} holds tiles of {len(changed)} pictures as they were before they changed, the first is {changed[0]}: "
            "remove the folder or choose another"
        )


def _content(source: Source) -> dict[str, str]:
    return {folder: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for folder, file in source.files.items()}


def _read_index(root: Path) -> dict[str, Any]:
    try:
        return json.loads((root / INDEX).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"expected tiles with {INDEX} in {root}: {error}") from None
