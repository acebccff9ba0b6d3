"""The Darmstadt Noise Dataset: 50 noisy pictures of which 20 boxes, 512x512, are denoised and scored by a server.

`info.mat` (v7.3) has the boxes, `images_srgb/0001.mat` and so on (v7.3) the pictures. Clean pictures are not published.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iptv2_diffusion.data.matlab import cells, open_v73, save_v5

HOME = "https://noise.visinf.tu-darmstadt.de"
PICTURES, BOXES = 50, 20
EVAL_VERSION = "1.0"


class DndPatches:
    """`read(index)` gives a noisy box, (512, 512, 3) float32 in [0, 1]; `boxes` to a picture."""

    def __init__(self, root: str | Path, pictures: int = PICTURES, boxes: int = BOXES) -> None:
        """FileNotFoundError naming what is missing, ValueError for another content."""
        self.folder = _folder(Path(root))
        self.corners = _read_corners(self.folder / "info.mat", pictures, boxes)
        files = [self._file(picture) for picture in range(pictures)]
        if absent := [file.name for file in files if not file.is_file()]:
            raise FileNotFoundError(
                f"DND: expected {pictures} pictures in {self.folder / 'images_srgb'}, "
                f"{len(absent)} are missing, the first is {absent[0]}; the set is to be had at {HOME}"
            )
        self.boxes = boxes
        self.names = tuple(f"{p + 1:04d}_{b + 1:02d}" for p in range(pictures) for b in range(boxes))
        self._last: tuple[int, np.ndarray] | None = None  # the boxes of a picture are asked for one after the other

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> np.ndarray:
        picture, box = divmod(index, self.boxes)
        top, left, bottom, right = self.corners[picture, box]
        if self._last is None or self._last[0] != picture:
            self._last = picture, self._read_picture(picture)
        return self._last[1][top:bottom, left:right]

    def _file(self, picture: int) -> Path:
        return self.folder / "images_srgb" / f"{picture + 1:04d}.mat"

    def _read_picture(self, picture: int) -> np.ndarray:
        with open_v73(self._file(picture)) as file:
            if "InoisySRGB" not in file:
                raise ValueError(f"expected the variable InoisySRGB in {self._file(picture)}")
            return np.ascontiguousarray(np.asarray(file["InoisySRGB"], np.float32).T)  # (3, W, H) -> (H, W, 3)


def write_bundle(folder: str | Path, picture: int, restored: Sequence[np.ndarray], *, overwrite: bool = False) -> None:
    """The file of one picture (from 0) that the server takes: 20 boxes (512, 512, 3), float, clipped to [0, 1]."""
    cells = np.empty(len(restored), dtype=object)
    for index, box in enumerate(restored):
        if box.ndim != 3 or box.shape[2] != 3 or not np.issubdtype(box.dtype, np.floating):
            raise ValueError(f"expected restored boxes (H, W, 3), floating-point, got {box.shape} {box.dtype}")
        cells[index] = np.clip(box, 0, 1).astype(np.float32)
    content = {"Idenoised": cells, "israw": False, "eval_version": EVAL_VERSION}
    save_v5(Path(folder) / f"{picture + 1:04d}.mat", content, overwrite=overwrite)


def _folder(root: Path) -> Path:
    places = [root / below for below in ("", "dnd_2017", "test/DND", "DND")]
    found = next((place for place in places if (place / "info.mat").is_file()), None)
    if found is None:
        raise FileNotFoundError(f"DND: expected info.mat and images_srgb/ in {root}; the set is to be had at {HOME}")
    return found


def _read_corners(path: Path, pictures: int, boxes: int) -> np.ndarray:
    """(pictures, boxes, 4) int64: top, left, bottom, right; from 0, the last two excluded."""
    with open_v73(path) as file:
        try:
            corners = np.stack(cells(file, file["info/boundingboxes"])).astype(np.int64)  # one cell for each picture
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"expected bounding boxes (info/boundingboxes) in {path}: {error}") from None
    if corners.shape != (pictures, boxes, 4):
        raise ValueError(f"expected {pictures} x {boxes} boxes in {path}, got {corners.shape}")
    return corners - (1, 1, 0, 0)  # MATLAB counts from 1 and includes the last row and column
