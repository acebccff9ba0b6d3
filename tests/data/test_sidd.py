import base64
import csv
from pathlib import Path

import numpy as np
import pytest

from iptv2_diffusion.data.sidd import CLEAN, NOISY, SiddBlocks, read_blocks, write_blocks, write_submission

scipy_io = pytest.importorskip("scipy.io")
SHAPE = (3, 2, 4, 5, 3)


def blocks(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8)


@pytest.mark.parametrize("below", ["", "test/SIDD"])
def test_validation_blocks_are_read_in_order(tmp_path: Path, below: str) -> None:
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate((NOISY, CLEAN)):
        scipy_io.savemat(tmp_path / below / f"{name}.mat", {name: blocks(seed)})
    pictures = SiddBlocks(tmp_path, SHAPE)
    assert (len(pictures), pictures.names[3]) == (6, "01_01")
    noisy, clean = pictures.read(3)
    np.testing.assert_array_equal(noisy, blocks(0)[1, 1])
    np.testing.assert_array_equal(clean, blocks(1)[1, 1])


def test_another_content_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected ValidationNoisyBlocksSrgb\.mat .* had at https"):
        SiddBlocks(tmp_path)
    path = tmp_path / f"{NOISY}.mat"
    scipy_io.savemat(path, {NOISY: blocks(0)})
    with pytest.raises(ValueError, match=r"\(40, 32, 256, 256, 3\) uint8 in .*, got \(3, 2, 4, 5, 3\) uint8"):
        SiddBlocks(tmp_path)
    scipy_io.savemat(path, {"x": blocks(0)})
    with pytest.raises(ValueError, match=f"expected the variable {NOISY}"):
        SiddBlocks(tmp_path, SHAPE)
    path.write_bytes(b"no matrix")
    with pytest.raises(ValueError, match=r"cannot read .*\.mat as a MATLAB file"):
        SiddBlocks(tmp_path, SHAPE)


def test_written_blocks_come_back(tmp_path: Path) -> None:
    write_blocks(tmp_path / "Denoised.mat", blocks(2))
    np.testing.assert_array_equal(scipy_io.loadmat(tmp_path / "Denoised.mat")["DenoisedBlocksSrgb"], blocks(2))
    write_blocks(tmp_path / f"{NOISY}.mat", blocks(3), NOISY)
    np.testing.assert_array_equal(read_blocks(tmp_path, NOISY, SHAPE), blocks(3))
    with pytest.raises(FileExistsError, match="exists already"):
        write_blocks(tmp_path / "Denoised.mat", blocks(2))
    with pytest.raises(ValueError, match=r"columns, 3\) uint8, got .* float64"):
        write_blocks(tmp_path / "x.mat", blocks(2).astype(float))


def test_submissions_hold_the_bytes_of_every_block(tmp_path: Path) -> None:
    write_submission(tmp_path / "SubmitSrgb.csv", blocks(4))
    with (tmp_path / "SubmitSrgb.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["ID"] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    content = np.frombuffer(b"".join(base64.b64decode(row["BLOCK"]) for row in rows), np.uint8)
    np.testing.assert_array_equal(content.reshape(SHAPE), blocks(4))
