"""A small Darmstadt Noise Dataset, as MATLAB 7.3 writes it: axes reversed, a cell array of references."""

from pathlib import Path

import numpy as np
import pytest


def write_dnd(root: Path, pictures: list[np.ndarray], boxes: list[np.ndarray]) -> None:
    """Into root: pictures (H, W, 3) and the boxes (n, 4) of each: first row and column, last row and column, from 1."""
    h5py = pytest.importorskip("h5py")
    (root / "images_srgb").mkdir(parents=True)
    with h5py.File(root / "info.mat", "w") as info:
        cells = info.create_dataset("info/boundingboxes", (1, len(pictures)), h5py.ref_dtype)
        for number, (picture, corners) in enumerate(zip(pictures, boxes, strict=True)):
            info[f"#refs#/{number}"] = corners.T.astype(float)
            cells[0, number] = info[f"#refs#/{number}"].ref
            with h5py.File(root / f"images_srgb/{number + 1:04d}.mat", "w") as file:
                file["InoisySRGB"] = picture.T
