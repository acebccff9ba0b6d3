"""Scores by every protocol against independent computations, and what a record says."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from held import INPUT, Held
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from iptv2_diffusion.cli.scoreboard import figures
from iptv2_diffusion.cli.scoring import Origin, evaluate, identity, scenes, score
from iptv2_diffusion.metrics.fidelity import ssim
from iptv2_diffusion.restoration.protocols import BENCHMARKS, PROTOCOLS, noisy


@pytest.fixture(scope="module")
def restored(clean: np.ndarray) -> np.ndarray:
    """(48, 56, 3) float32 in [0, 1], between the levels of 8 bits."""
    return np.clip(clean / 255 + np.random.default_rng(0).normal(0, 0.03, clean.shape), 0, 1).astype(np.float32)


def rounded(image: np.ndarray) -> np.ndarray:
    return np.floor(image.astype(np.float64) * 255 + 0.5).astype(np.uint8)


def rounded_luma(image: np.ndarray) -> np.ndarray:
    weighted = image.astype(np.float64) @ [65.481, 128.553, 24.966]
    return np.floor(weighted / 255 + 16.5).astype(np.uint8)


@pytest.mark.parametrize(("protocol", "channels"), [("awgn-color", 3), ("awgn-gray", 1), ("motion", 3)])
def test_rounded_protocols(clean: np.ndarray, restored: np.ndarray, protocol: str, channels: int) -> None:
    truth, image = clean[..., :channels], rounded(restored)[..., :channels]
    expected = {"psnr": peak_signal_noise_ratio(truth, image)}
    if protocol == "motion":
        expected["ssim"] = ssim(image, truth, peak=255, method="matlab3d")
    assert score(restored[..., :channels], truth, PROTOCOLS[protocol]) == pytest.approx(expected, abs=1e-9)


def test_deraining_is_scored_on_rounded_luma(clean: np.ndarray, restored: np.ndarray) -> None:
    a, b = rounded_luma(rounded(restored)), rounded_luma(clean)
    gaussian: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = {
        "psnr": peak_signal_noise_ratio(b, a, data_range=255),
        "ssim": structural_similarity(a, b, data_range=255, **gaussian),
    }
    assert score(restored, clean, PROTOCOLS["derain-y"]) == pytest.approx(expected, abs=1e-9)


def test_sidd_keeps_floats(clean: np.ndarray, restored: np.ndarray) -> None:
    found = score(restored, clean, PROTOCOLS["sidd-val"])
    truth = clean.astype(np.float32) / 255
    assert found["psnr"] == pytest.approx(-10 * np.log10(np.mean((truth - restored.astype(np.float64)) ** 2)), abs=1e-9)
    assert abs(found["psnr"] - peak_signal_noise_ratio(clean, rounded(restored))) > 1e-4
    assert found["ssim"] == ssim(restored, truth, peak=1, method="matlab3d")


@pytest.mark.parametrize(("protocol", "white"), [("dpdd-single", 255), ("dpdd-dual", 65535)])
def test_defocus_keeps_floats_of_either_depth(
    clean: np.ndarray, restored: np.ndarray, protocol: str, white: int
) -> None:
    truth = clean if white == 255 else clean.astype(np.uint16) * 257
    scaled = truth.astype(np.float32) / white
    expected = {
        "psnr": -10 * np.log10(np.mean((scaled.astype(np.float64) - restored) ** 2)),
        "ssim": structural_similarity(scaled.astype(float), restored.astype(float), data_range=1, channel_axis=2),
        "mae": np.abs(scaled.astype(np.float64) - restored).mean(),
    }
    assert score(restored, truth, PROTOCOLS[protocol]) == pytest.approx(expected, abs=1e-9)


def test_lpips_is_added_where_the_table_has_it(
    clean: np.ndarray, restored: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iptv2_diffusion.cli.scoring.lpips_alex", lambda a, b: float(np.abs(a - b).max()))
    found = score(restored, clean, PROTOCOLS["dpdd-single"], lpips=True)
    assert found["lpips"] == pytest.approx(np.abs(restored - clean / 255).max(), abs=1e-6)
    assert "lpips" not in score(restored, clean, PROTOCOLS["motion"], lpips=True)


def test_the_record_says_how_the_numbers_came_about(clean: np.ndarray) -> None:
    pictures = Held(("a", "b"), (clean, clean[:40, ::-1]))
    seen: list[np.ndarray] = []

    def restore(image: np.ndarray) -> np.ndarray:
        seen.append(image)
        return image * 2 - 0.5  # beyond [0, 1]

    origin = Origin(model={"name": "stretch"}, inference={"tile": None}, layout="folders", packages={"bm3d": "4"})
    record = evaluate(BENCHMARKS["cbsd68-25"], pictures, restore, origin)
    assert all(np.array_equal(image, noisy(picture, 25)) for image, picture in zip(seen, pictures.content, strict=True))
    clipped = [rounded(np.clip(image * 2 - 0.5, 0, 1)) for image in seen]
    expected = [peak_signal_noise_ratio(b, a) for a, b in zip(clipped, pictures.content, strict=True)]
    assert [image["psnr"] for image in record["images"]] == pytest.approx(expected, abs=1e-9)
    assert record["means"] == {"psnr": pytest.approx(np.mean(expected), abs=1e-9)}
    assert json.loads(json.dumps(record)) == record
    del record["images"], record["means"]
    packages = record.pop("packages")
    assert packages.items() >= {"bm3d": "4", "torch": torch.__version__, "numpy": np.__version__}.items()
    assert "iptv2_diffusion" in packages
    assert len(record.pop("data_sha256")) == 64
    assert record == {
        "benchmark": "cbsd68-25",
        "title": "CBSD68, sigma 25",
        "table": 1,
        "protocol": "awgn-color",
        "sigma": 25,
        "range": 255,
        "rounding": "uint8",
        "colour": "RGB",
        "ssim": None,
        "layout": "folders",
        "inference": {"tile": None},
        "model": {"name": "stretch"},
        "pictures": 2,
        "pictures_of_the_set": 68,
        "parts": {},
    }


def test_the_hash_is_of_names_and_pixels(clean: np.ndarray) -> None:
    changed = clean.copy()
    changed[3, 4, 1] ^= 1

    def digest(benchmark: str, name: str, picture: np.ndarray) -> str:
        return evaluate(BENCHMARKS[benchmark], Held((name,), (picture,)), identity, INPUT)["data_sha256"]

    first = digest("cbsd68-25", "a", clean)
    assert digest("cbsd68-50", "a", clean) == first
    others = [("b", clean), ("a", changed), ("a", clean[::-1]), ("a", clean.reshape(56, 48, 3))]
    assert len({first, *(digest("cbsd68-25", *other) for other in others)}) == 5


def test_limit_keeps_the_first_and_progress_is_tracked(clean: np.ndarray) -> None:
    pictures = Held(tuple("abc"), ((clean, clean[::-1]),) * 3)
    tracked: list[int] = []

    def track(indices):
        for index in indices:
            tracked.append(index)
            yield index

    record = evaluate(BENCHMARKS["gopro"], pictures, identity, INPUT, limit=2, track=track)
    assert ([image["name"] for image in record["images"]], record["pictures"], tracked) == (["a", "b"], 2, [0, 1])
    assert evaluate(BENCHMARKS["gopro"], pictures, identity, INPUT, limit=9)["pictures"] == 3


def test_images_that_are_not_finite_are_refused(clean: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a: the restored image has pixels that are not finite"):
        evaluate(BENCHMARKS["cbsd68-25"], Held(("a",), (clean,)), lambda image: image * np.nan, INPUT)


def test_a_picture_that_cannot_be_scored_is_named(clean: np.ndarray) -> None:
    deep = clean.astype(np.uint16)
    with pytest.raises(ValueError, match=r"^b: expected"):
        evaluate(BENCHMARKS["gopro"], Held(("a", "b"), ((clean, clean), (clean, deep))), identity, INPUT)


def test_indoor_and_outdoor_scenes_combine(clean: np.ndarray) -> None:
    strengths = np.random.default_rng(1).integers(1, 60, 76)
    crop = clean[:16, :16]
    pairs = tuple((np.clip(crop.astype(int) + s, 0, 255).astype(np.uint8), crop) for s in strengths.tolist())
    pictures = Held(tuple(f"{index:02d}" for index in range(76)), pairs)
    indoor = sorted(np.random.default_rng(2).permutation(76)[:37].tolist())
    outdoor = sorted({*range(76)} - {*indoor})
    parts = scenes(indoor, outdoor, 76)
    record = evaluate(BENCHMARKS["dpdd-single"], pictures, identity, INPUT, parts=parts)
    found = figures(record)
    assert set(found) == {f"{part}{name}" for part in ("indoor/", "outdoor/", "") for name in ("psnr", "ssim", "mae")}
    for name in ("psnr", "ssim", "mae"):
        mine = [image[name] for image in record["images"]]
        assert found[f"indoor/{name}"] == pytest.approx(np.mean([mine[i] for i in indoor]))
        assert found[name] == pytest.approx((37 * found[f"indoor/{name}"] + 39 * found[f"outdoor/{name}"]) / 76)


def test_the_whole_set_has_37_indoor_and_39_outdoor_scenes() -> None:
    assert scenes(range(37), range(37, 76), 76)["indoor"] == list(range(37))
    with pytest.raises(ValueError, match="expected 37 indoor and 39 outdoor pictures, got 39 indoor and 37 outdoor"):
        scenes(range(39), range(39, 76), 76)


@pytest.mark.parametrize(("indoor", "outdoor"), [([0, 1], [2]), ([0, 1], [1, 2, 3]), ([0, 1, 4], [2, 3])])
def test_scenes_have_to_be_a_partition(indoor: list[int], outdoor: list[int]) -> None:
    with pytest.raises(ValueError, match="expected each of the 4 pictures to be indoor or outdoor"):
        scenes(indoor, outdoor, 4)


def test_the_input_of_a_dual_pixel_pair_is_the_mean_of_its_views() -> None:
    views = np.random.default_rng(0).random((4, 5, 6), dtype=np.float32)
    assert np.array_equal(identity(views), (views[..., :3] + views[..., 3:]) / 2)
    assert np.array_equal(identity(views[..., :3]), views[..., :3])
