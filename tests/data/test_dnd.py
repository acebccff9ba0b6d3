from pathlib import Path

import numpy as np
import pytest
from dnd_miniature import write_dnd

from iptv2_diffusion.data.dnd import DndPatches, write_bundle

scipy_io = pytest.importorskip("scipy.io")
BOXES = np.array([[1, 1, 4, 6], [3, 2, 6, 7]], float)  # first row, first column, last row, last column; from 1


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).random((8, 9, 3), np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dnd(tmp_path / "dnd_2017", [picture(1), picture(2)], [BOXES, BOXES + 1])
    return tmp_path


def test_boxes_are_cut_where_matlab_cuts_them(folder: Path) -> None:
    boxes = DndPatches(folder, pictures=2, boxes=2)
    assert boxes.names == ("0001_01", "0001_02", "0002_01", "0002_02")
    np.testing.assert_array_equal(boxes.read(0), picture(1)[0:4, 0:6])
    np.testing.assert_array_equal(boxes.read(3), picture(2)[3:7, 2:8])
    np.testing.assert_array_equal(boxes.read(1), picture(1)[2:6, 1:7])
    assert boxes.read(0).dtype == np.float32


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected 50 x 20 boxes in .*info\.mat, got \(2, 2, 4\)"):
        DndPatches(folder)
    (folder / "dnd_2017/images_srgb/0002.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 are missing, the first is 0002\.mat; .* had at https://noise"):
        DndPatches(folder, 2, 2)
    (folder / "dnd_2017/info.mat").write_bytes(b"no matrix")
    with pytest.raises(ValueError, match=r"cannot read .*info\.mat as a MATLAB file"):
        DndPatches(folder, 2, 2)
    with pytest.raises(FileNotFoundError, match=r"expected info\.mat and images_srgb/"):
        DndPatches(tmp_path / "absent")


def test_bundles_hold_a_cell_of_floating_point_boxes(tmp_path: Path) -> None:
    restored = [picture(number) * 1.5 - 0.2 for number in range(3)]
    write_bundle(tmp_path, 4, restored)
    content = scipy_io.loadmat(tmp_path / "0005.mat", squeeze_me=True)
    assert content["Idenoised"].dtype == object
    assert content["Idenoised"].shape == (3,)
    for box, expected in zip(content["Idenoised"], restored, strict=True):
        assert box.dtype == np.float32
        np.testing.assert_array_equal(box, np.clip(expected, 0, 1))
    assert (bool(content["israw"]), str(content["eval_version"])) == (False, "1.0")
    with pytest.raises(FileExistsError, match=r"0005\.mat exists already"):
        write_bundle(tmp_path, 4, restored)
    with pytest.raises(ValueError, match=r"floating-point, got .* uint8"):
        write_bundle(tmp_path, 5, [np.zeros((4, 4, 3), np.uint8)])
