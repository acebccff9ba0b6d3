"""Blur kernels: centred, of sum 1, of the size asked for; valid convolution against SciPy's; kernels from MATLAB files."""

import sys
from collections.abc import Callable
from math import pi
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d

from iptv2_diffusion.data.kernels import (
    bent_motion,
    camera_shake,
    convolve_valid,
    disc,
    linear_motion,
    load_kernels,
)

SHAKES = [(size, seed) for size in (1, 2, 9, 20.4, 31, 101) for seed in range(3)]
MOTIONS = (camera_shake, linear_motion, bent_motion)
KERNELS = {
    f"{motion.__name__} {size} seed {seed}": motion(size, torch.Generator().manual_seed(seed))
    for motion in MOTIONS
    for size, seed in SHAKES
}
KERNELS |= {f"disc {radius}": disc(radius) for radius in (0, 0.3, 0.5, 0.8, 3, 7.25)}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
def test_kernels_are_centred_and_sum_to_one(kernel: torch.Tensor) -> None:
    side = len(kernel)
    assert side % 2 == 1
    assert kernel.shape == (side, side)
    assert kernel.dtype == torch.float32
    assert kernel.min() >= 0
    offsets = torch.arange(side) - side // 2.0
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert (kernel.sum(1) * offsets).sum() == pytest.approx(0, abs=1e-4)
    assert (kernel.sum(0) * offsets).sum() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("size", "side"), [(1, 1), (2, 3), (9, 9), (20.4, 21), (31, 31)])
@pytest.mark.parametrize("motion", MOTIONS)
def test_motions_fill_the_square_of_their_size(
    motion: Callable[..., torch.Tensor], size: float, side: int, seed: int
) -> None:
    kernel = motion(size, torch.Generator().manual_seed(seed))
    used = kernel.nonzero() - side // 2
    assert kernel.shape == (side, side)
    assert used.abs().max() == side // 2


def weights_and_places(kernel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n,) and (n, 2), rows and columns from the centre."""
    return kernel[kernel > 0], (kernel.nonzero() - len(kernel) // 2).float()


def off_its_axis(kernel: torch.Tensor) -> float:
    """Mean squared distance from the line that fits best, of that from the centre."""
    weights, places = weights_and_places(kernel)
    across, along = torch.linalg.eigvalsh((places.T * weights) @ places)
    return float(across / (across + along))


def test_linear_motion_is_straight_and_even() -> None:
    for seed in range(10):
        kernel = linear_motion(41, torch.Generator().manual_seed(seed))
        weights, places = weights_and_places(kernel)
        far = places.norm(dim=1)
        assert off_its_axis(kernel) < 2e-3
        assert (weights * far**2).sum() == pytest.approx(float(far.max()) ** 2 / 3, rel=0.08)  # of an even line


def test_bent_motion_is_straighter_than_shake() -> None:
    def mean(motion: Callable[..., torch.Tensor]) -> float:
        return sum(off_its_axis(motion(31, torch.Generator().manual_seed(seed))) for seed in range(40)) / 40

    straight, bent, shaken = (mean(motion) for motion in (linear_motion, bent_motion, camera_shake))
    assert straight < 0.2 * bent
    assert bent < 0.6 * shaken


def test_shake_lingers() -> None:
    """Of pixels of equal weight the mean would be 1; with every point of the paths lasting as long, shake has 2.4."""

    def unevenness(motion: Callable[..., torch.Tensor]) -> float:
        kernels = [motion(31, torch.Generator().manual_seed(seed)) for seed in range(40)]
        return sum(float(kernel.square().sum() * kernel.count_nonzero()) for kernel in kernels) / len(kernels)

    assert unevenness(linear_motion) < 1.8
    assert unevenness(camera_shake) > 3.3


def test_directions_of_linear_motion_are_all_alike_likely() -> None:
    kernels = torch.stack([linear_motion(31, torch.Generator().manual_seed(seed)) for seed in range(400)])
    weights, places = weights_and_places(kernels.mean(0))
    spread = (places.T * weights) @ places
    assert float(spread[0, 0] / spread[1, 1]) == pytest.approx(1, abs=0.15)
    assert abs(float(spread[0, 1] / spread[1, 1])) < 0.15


def test_shakes_are_paths() -> None:
    """They take up few pixels of their square, are connected, and differ."""
    kernels = torch.stack([camera_shake(31, torch.Generator().manual_seed(seed)) for seed in range(50)])
    used = (kernels > 0).float()
    assert 0.03 < used.mean() < 0.35
    neighbours = torch.nn.functional.conv2d(used[:, None], torch.ones(1, 1, 3, 3), padding=1)[:, 0]
    assert (neighbours[used > 0] > 1).all()
    assert (kernels.flatten(1) @ kernels.flatten(1).T).fill_diagonal_(0).max() < kernels.square().sum((1, 2)).max()
    assert kernels.mean(0)[15, 15] < 0.2


@pytest.mark.parametrize("radius", [3, 5.5, 12.3])
def test_discs_have_the_area_of_their_radius(radius: float) -> None:
    kernel = disc(radius)
    assert 1 / kernel.max() == pytest.approx(pi * radius**2, rel=0.02)
    torch.testing.assert_close(kernel, kernel.rot90(), rtol=1e-6, atol=0)
    torch.testing.assert_close(disc(0.5), torch.ones(1, 1))
    assert (disc(3.4) - disc(3.41).narrow(0, 0, 7).narrow(1, 0, 7)).abs().max() < 3e-4  # continuous in the radius


@pytest.mark.parametrize(("side", "crop"), [(1, (40, 50)), (5, (33, 64)), (31, (79, 47)), (31, (31, 31))])
def test_valid_convolution_equals_scipys(
    real_images: dict[str, torch.Tensor], side: int, crop: tuple[int, int]
) -> None:
    image = real_images["astronaut"][:, 60 : 60 + crop[0], 150 : 150 + crop[1]] / 255
    kernel = torch.rand(side, side, generator=torch.Generator().manual_seed(side))
    kernel /= kernel.sum()
    expected = np.stack([convolve2d(channel, kernel.double(), mode="valid") for channel in image.double()])
    torch.testing.assert_close(convolve_valid(image, kernel), torch.from_numpy(expected).float(), rtol=0, atol=2e-6)


def write_matlab(path: Path, cells: list[np.ndarray], names: tuple[str, ...] = ("kernels",)) -> Path:
    """As MATLAB 7.3 lays out a cell array: references into #refs#, every array transposed."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", userblock_size=512) as file:
        references = [file.create_dataset(f"#refs#/{index}", data=cell.T).ref for index, cell in enumerate(cells)]
        for name in names:
            file.create_dataset(name, data=np.array(references, h5py.ref_dtype)[:, None], dtype=h5py.ref_dtype)
    return path


def test_kernels_of_a_file_are_normalised_and_not_transposed(tmp_path: Path) -> None:
    # Central already, as turning by 180 degrees changes nothing.
    three, five = (12.0 - np.abs(np.arange(n * n).reshape(n, n) - n * n // 2) for n in (3, 5))
    first, second = load_kernels(write_matlab(tmp_path / "kernels.mat", [three, five]))
    torch.testing.assert_close(first, torch.from_numpy(three).float() / 88)
    torch.testing.assert_close(second, torch.from_numpy(five).float() / 144)


@pytest.mark.parametrize(
    ("cells", "names", "message"),
    [
        ([np.ones((3, 3))], (), "expected one cell array of kernels in .*k.mat, found 0"),
        ([np.ones((3, 3))], ("a", "b"), "expected one cell array of kernels in .*k.mat, found 2"),
        ([np.ones((4, 4))], ("a",), r"expected square kernels of odd sides.*k.mat, got one of \(4, 4\)"),
        ([np.ones((3, 5))], ("a",), r"expected square kernels of odd sides.*k.mat, got one of \(3, 5\)"),
        ([np.ones((3, 3)), np.zeros((3, 3))], ("a",), r"not all zero in .*k.mat, got one of \(3, 3\)"),
        ([np.full((3, 3), np.nan)], ("a",), r"not all zero in .*k.mat, got one of \(3, 3\)"),
        ([np.eye(3) - 0.1], ("a",), r"not negative, not all zero in .*k.mat, got one of \(3, 3\)"),
    ],
)
def test_files_of_other_things_are_refused(tmp_path: Path, cells: list, names: tuple[str, ...], message: str) -> None:
    path = write_matlab(tmp_path / "k.mat", cells, names)
    with pytest.raises(ValueError, match=message):
        load_kernels(path)


def test_text_beside_the_kernels_is_no_cell_array(tmp_path: Path) -> None:
    path = write_matlab(tmp_path / "k.mat", [np.eye(3)])
    with pytest.importorskip("h5py").File(path, "a") as file:
        file["notes"] = ["measured", "in 2009"]
    (kernel,) = load_kernels(path)
    torch.testing.assert_close(kernel, torch.eye(3) / 3)


def test_cells_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    path = write_matlab(tmp_path / "k.mat", [np.ones((3, 3))])
    with pytest.importorskip("h5py").File(path, "a") as file:
        file["kernels"][0] = file.create_group("#refs#/structure").ref
    with pytest.raises(ValueError, match=r"expected square kernels of odd sides.*k.mat, got one of \(0,\)"):
        load_kernels(path)


def test_files_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("h5py")
    with pytest.raises(FileNotFoundError, match=r"found no file .*absent\.mat"):
        load_kernels(tmp_path / "absent.mat")
    (tmp_path / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(600))
    with pytest.raises(ValueError, match=r"cannot read .*old\.mat as a MATLAB file \(v7\.3\)"):
        load_kernels(tmp_path / "old.mat")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(OSError, match=r'pip install "iptv2-diffusion\[mat\]"'):
        load_kernels(tmp_path / "old.mat")


def test_levins_kernels_are_read(shared_data: Callable[[str], Path]) -> None:
    pytest.importorskip("h5py")
    kernels = load_kernels(shared_data("levin09_kernels.mat"))
    sides = [19, 17, 13, 29, 13, 27, 25, 25]  # centred; in the file 19, 17, 15, 27, 13, 21, 23, 23
    assert [len(kernel) for kernel in kernels] == sides
    for kernel in kernels:
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        assert kernel.min() >= 0
        offsets = torch.arange(len(kernel)) - len(kernel) // 2
        assert float((kernel.sum(0) * offsets).sum()) == pytest.approx(0, abs=1e-5)
        assert float((kernel.sum(1) * offsets).sum()) == pytest.approx(0, abs=1e-5)


def test_kernels_of_a_file_are_centred(tmp_path: Path) -> None:
    kernel = np.zeros((9, 9))
    kernel[1, 6], kernel[1, 7], kernel[2, 8] = 1, 2, 1  # centroid 2.75 rows above and 3 columns right of the centre
    (centred,) = load_kernels(write_matlab(tmp_path / "k.mat", [kernel]))
    quarters = torch.tensor([[1.0, 2, 0], [3, 6, 1], [0, 0, 3]])  # a quarter of a pixel up, hence to two rows each
    torch.testing.assert_close(centred, quarters / 16)


def test_central_kernels_of_a_file_stay_as_they_are(tmp_path: Path) -> None:
    kernel = np.zeros((9, 9))
    kernel[2, 4], kernel[5, 4] = 1, 2 + 1e-7  # 2 rows above and 1 below the centre, but for what rounding left
    (centred,) = load_kernels(write_matlab(tmp_path / "k.mat", [kernel]))
    assert len(centred) == 5
    torch.testing.assert_close(centred.nonzero(), torch.tensor([[0, 2], [3, 2]]), rtol=0, atol=0)
