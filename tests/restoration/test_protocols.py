"""The benchmarks of the paper: their noise, number by number, their selection, and its printed figures."""

import numpy as np
import pytest

from iptv2_diffusion.data.restoration_sets import RESTORATION_SETS
from iptv2_diffusion.metrics.fidelity import SSIM_METHODS
from iptv2_diffusion.restoration.protocols import BENCHMARKS, PROTOCOLS, noisy, select
from iptv2_diffusion.restoration.published import NOTES, PRINTED, published
from iptv2_diffusion.restoration.tasks import TASKS

# The first draws of NumPy's legacy generator at seed 0, standard deviation 1, as its documentation has shown them.
FIRST = (1.764052345967664, 0.4001572083672233, 0.9787379841057392, 2.240893199201458, 1.8675579901499675)
SUMS = {
    1: (10.602308998014136, 45.99438774453133),
    3: (5.041981493920424, 111.23315346121703),
}  # channels -> sum and sum of squares of a 7x5 array's draws


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_noise_is_restormers(sigma: int, channels: int) -> None:
    clean = np.full((7, 5, channels), 128, np.uint8)
    noise = (noisy(clean, sigma).astype(np.float64) - 128 / 255) * 255 / sigma
    assert noise.ravel()[:5] == pytest.approx(FIRST, abs=1e-5)  # float32
    total, squares = SUMS[channels]
    assert noise.sum() == pytest.approx(total, abs=1e-4)
    assert np.square(noise).sum() == pytest.approx(squares, abs=1e-4)


@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_noise_is_added_in_float64_and_neither_clipped_nor_quantised(sigma: int) -> None:
    clean = np.arange(105, dtype=np.uint8).reshape(7, 5, 3) * 2
    np.random.seed(0)  # noqa: NPY002 - as the protocol's own code draws it
    expected = np.float32(clean) / 255.0
    expected += np.random.normal(0, sigma / 255.0, expected.shape)  # noqa: NPY002
    found = noisy(clean, sigma)
    assert found.dtype == expected.dtype == np.float32
    assert np.array_equal(found, expected)
    assert found.min() < 0
    assert np.array_equal(noisy(clean, sigma), found)  # the stream starts anew


def test_only_8_bit_pictures_get_noise() -> None:
    with pytest.raises(ValueError, match=r"\(H, W, C\) uint8.*\(7, 5\) uint8"):
        noisy(np.zeros((7, 5), np.uint8), 25)
    with pytest.raises(ValueError, match="uint16"):
        noisy(np.zeros((7, 5, 3), np.uint16), 25)


def test_every_protocol_names_a_task_and_an_ssim() -> None:
    for protocol in PROTOCOLS.values():
        assert protocol.task in TASKS
        assert ("ssim" in protocol.scores) == (protocol.ssim in SSIM_METHODS)
    assert {benchmark.protocol_id for benchmark in BENCHMARKS.values()} == set(PROTOCOLS)


def test_sets_have_the_published_number_of_pictures() -> None:
    pictures = {name: spec.layouts[0].count for name, spec in RESTORATION_SETS.items() if spec.layouts}
    blocks = {"sidd-val": 40 * 32, "sidd-bench": 40 * 32, "dnd": 50 * 20}
    for benchmark in BENCHMARKS.values():
        published = (pictures | blocks)[benchmark.data_set]
        assert (benchmark.count, benchmark.partial) == ((100, True) if published is None else (published, False))


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (["table2"], ["sidd-val", "dnd"]),
        (["table5", "rain100h"], ["rain100h", "rain100l", "test2800"]),
        (["cbsd68"], ["cbsd68-15", "cbsd68-25", "cbsd68-50"]),
        (["urban100"], ["urban100-15", "urban100-25", "urban100-50"]),
        (["awgn-gray-50"], ["set12-50", "bsd68-50", "urban100-gray-50"]),
        (["gopro", "dpdd-dual", "cbsd68-25"], ["cbsd68-25", "gopro", "dpdd-dual"]),
    ],
)
def test_selection(wanted: list[str], names: list[str]) -> None:
    assert [benchmark.name for benchmark in select(wanted)] == names


def test_the_tables_are_complete() -> None:
    assert [len(select([f"table{number}"])) for number in range(1, 6)] == [21, 2, 2, 2, 3]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected benchmarks out of .*cbsd68-25.*; got cbsd86, tableNone"):
        select(["cbsd68", "cbsd86", "tableNone"])


@pytest.mark.parametrize(
    ("benchmark", "method", "figure", "value"),
    [
        ("cbsd68-15", "SwinIR", "psnr", 34.42),
        ("cbsd68-25", "Base", "psnr", 31.84),
        ("mcmaster-50", "Restormer", "psnr", 30.30),
        ("urban100-50", "GRL-B", "psnr", 30.46),
        ("urban100-50", "Small", "psnr", 30.09),
        ("set12-15", "DRUNet", "psnr", 33.25),
        ("bsd68-25", "Small", "psnr", 29.53),
        ("urban100-gray-50", "Base+", "psnr", 28.90),
        ("sidd-val", "Base", "ssim", 0.961),
        ("dnd", "Small", "psnr", 40.04),
        ("gopro", "Base", "psnr", 33.92),
        ("dpdd-single", "Base", "psnr", 26.13),
        ("dpdd-dual", "Restormer", "outdoor/lpips", 0.175),
        ("rain100h", "Base", "psnr", 31.73),
        ("rain100l", "Restormer", "ssim", 0.978),
        ("test2800", "Small", "ssim", 0.943),
    ],
)
def test_printed_figures(benchmark: str, method: str, figure: str, value: float) -> None:
    assert published(benchmark)[method][figure] == value


@pytest.mark.parametrize("benchmark", ["dpdd-single", "dpdd-dual"])
@pytest.mark.parametrize(("score", "step"), [("psnr", 0.01), ("ssim", 0.001), ("mae", 0.001), ("lpips", 0.001)])
def test_the_papers_combined_figures_weigh_37_and_39_pictures(benchmark: str, score: str, step: float) -> None:
    for row in published(benchmark).values():
        combined = (37 * row[f"indoor/{score}"] + 39 * row[f"outdoor/{score}"]) / 76
        assert row[score] == pytest.approx(combined, abs=1.5 * step)


def test_what_is_not_printed_is_absent() -> None:
    assert published("cbsd68-25")["Base+"] == {}  # Table 11 has sigma 50 only
    assert published("hide") == published("test1200") == {}
    assert "lacks its body" in NOTES[3]
    assert {name for _, columns in PRINTED for name, _ in columns} <= set(BENCHMARKS)
