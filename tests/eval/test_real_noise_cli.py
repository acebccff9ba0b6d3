"""`python -m eval.restoration` on miniatures of the real-noise benchmarks, whose data are .mat files."""

import base64
import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from dnd_miniature import write_dnd
from in_process import Call, printed_by
from scipy.io import loadmat
from skimage.metrics import peak_signal_noise_ratio

from eval import restoration
from iptv2_diffusion.data.restoration_sets import open_set
from iptv2_diffusion.data.sidd import BENCHMARK, BLOCKS, CLEAN, NOISY, write_blocks

BOX = 16  # pixels a side of the miniature's boxes


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return printed_by(restoration.main, ("eval.restoration",), monkeypatch, capsys)


def test_dnd_is_written_as_its_server_takes_it(tmp_path: Path, call: Call) -> None:
    pictures = [np.random.default_rng(number).random((2 * BOX, 2 * BOX, 3), np.float32) for number in range(50)]
    boxes = np.array([(1 + i % BOX, 1 + i // 2, BOX + i % BOX, BOX + i // 2) for i in range(20)])
    write_dnd(tmp_path / "dnd", pictures, [boxes] * 50)
    assert len(open_set("dnd", tmp_path / "dnd")) == 1000
    flags = ("--identity", "--data-path", tmp_path / "dnd", "--limit", 40, "--save-pictures", tmp_path / "out")
    call("--benchmark", "dnd", *flags)
    assert sorted(path.name for path in (tmp_path / "out/dnd").iterdir()) == ["0001.mat", "0002.mat"]
    written = loadmat(tmp_path / "out/dnd/0002.mat", squeeze_me=True)["Idenoised"]
    assert len(written) == 20
    np.testing.assert_array_equal(written[7], pictures[1][7 : 7 + BOX, 3 : 3 + BOX])


@pytest.fixture(scope="module")
def sidd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """Files of the true shape, 0 but for the first blocks."""
    root, first = tmp_path_factory.mktemp("sidd"), {}
    for seed, name in enumerate((NOISY, CLEAN, BENCHMARK)):
        blocks = np.zeros(BLOCKS, np.uint8)
        first[name] = np.random.default_rng(seed).integers(0, 256, (2, *BLOCKS[2:]), np.uint8)
        blocks[0, :2] = first[name]
        write_blocks(root / f"{name}.mat", blocks, name)
    return root, first


@pytest.mark.slow
def test_sidd_validation_blocks_are_scored(
    sidd: tuple[Path, dict[str, np.ndarray]], call: Call, tmp_path: Path
) -> None:
    root, first = sidd
    flags = ("--identity", "--data-path", root, "--limit", 2, "--output", tmp_path / "scores.json")
    shown = call("--benchmark", "sidd-val", *flags)
    expected = np.mean([peak_signal_noise_ratio(c, n) for c, n in zip(first[CLEAN], first[NOISY], strict=True)])
    assert f"{expected:.2f}" in shown
    assert "2 of 1280" in shown


@pytest.mark.slow
def test_sidd_benchmark_blocks_are_written_as_their_server_takes_them(
    sidd: tuple[Path, dict[str, np.ndarray]], call: Call, tmp_path: Path
) -> None:
    root, first = sidd
    flags = ("--identity", "--data-path", root, "--limit", 2, "--save-pictures", tmp_path / "out")
    call("--benchmark", "sidd-bench", *flags)
    csv.field_size_limit(sys.maxsize)
    with (tmp_path / "out/sidd-bench/SubmitSrgb.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [base64.b64decode(row["BLOCK"]) for row in rows] == [block.tobytes() for block in first[BENCHMARK]]
