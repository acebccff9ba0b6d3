"""`python -m eval.restoration`, which is `iptv2-eval restoration`: real pictures, every kind of benchmark, refusals."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_process import Call, printed_by, refusal_of
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from eval import restoration
from iptv2_diffusion import IPTV2Restorer
from iptv2_diffusion.cli import evaluate
from iptv2_diffusion.data.image_io import Photo, write_photo
from iptv2_diffusion.data.pairs import PictureList
from iptv2_diffusion.data.restoration_sets import open_set
from iptv2_diffusion.data.tiles import prepare_tiles
from iptv2_diffusion.restoration.inference import restore
from iptv2_diffusion.restoration.model_files import load_restorer, save_weights

TINY: dict[str, Any] = {"width": 4, "layers": (1, 2), "heads": (1, 2), "window": 8, "grid": 4}
PAIRS = ("--pairs", "input", "target")


@pytest.fixture
def folder(tmp_path: Path, real_images: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> Path:
    """With two pairs of pictures, their views, 16 bits deep, and restorers."""
    for index, name in enumerate(("1", "2")):
        crop = real_images["cat"][:, 90 : 130 + index, 130:184].permute(1, 2, 0).numpy()
        blurred = ((crop.astype(int) + np.roll(crop, 1, 1) + np.roll(crop, -1, 1)) // 3).astype(np.uint16)
        shift = np.roll(blurred, 2, 1)
        content = {"target": crop, "input": blurred.astype(np.uint8)}
        content |= {"sharp": crop.astype(np.uint16) * 257, "left": blurred * 257, "right": shift * 257}
        for place, pixels in content.items():
            (tmp_path / place).mkdir(exist_ok=True)
            write_photo(tmp_path / place / f"{name}.png", Photo(pixels))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_weights(IPTV2Restorer(**TINY), tmp_path / "colour.safetensors")
        save_weights(IPTV2Restorer(**TINY, in_channels=1, out_channels=1), tmp_path / "gray.safetensors")
        save_weights(IPTV2Restorer(**TINY, in_channels=6), tmp_path / "dual.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """What it prints."""
    return printed_by(restoration.main, ("eval.restoration",), monkeypatch, capsys)


@pytest.fixture
def refused(call: Call, capsys: pytest.CaptureFixture[str]) -> Call:
    return refusal_of(call, capsys)


def records(path: str | Path) -> list[dict[str, Any]]:
    return json.loads(Path(path).read_text("utf-8"))


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_noise_on_cbsd68(shared_data: Callable[[str], Path], call: Call, tmp_path: Path) -> None:
    root, output = shared_data("cbsd68"), tmp_path / "results.json"
    flags = ("--identity", "--data-path", root, "--limit", 3, "--output", output)
    shown = call("--benchmark", "cbsd68-25", "cbsd68-50", *flags)
    for record, sigma in zip(records(output), (25, 50), strict=True):
        for found, file in zip(record["images"], sorted(root.iterdir())[:3], strict=True):
            clean = opened(file)
            random = np.random.RandomState(0)
            noisy = clean / 255 + random.normal(0, sigma / 255, clean.shape)
            quantised = (np.clip(noisy, 0, 1) * 255 + 0.5).astype(np.uint8)
            assert found["name"] == file.stem
            assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(clean, quantised), abs=1e-4)
        assert (record["pictures"], record["pictures_of_the_set"], record["layout"]) == (3, 68, "set")
        assert re.search(rf"sigma {sigma} .* {record['means']['psnr']:.2f} +3 of 68\n", shown)


def test_rain_and_motion_on_a_part_of_the_set(shared_data: Callable[[str], Path], call: Call, tmp_path: Path) -> None:
    rain, gopro = shared_data("rain100h_first50"), shared_data("gopro_pairs")
    flags = ("--identity", "--limit", 1, "--output")
    shown = call("--benchmark", "rain100h", "--pairs", rain / "input", rain / "target", *flags, tmp_path / "rain.json")
    assert "31.73" in shown
    assert "1 of 100" in shown
    (record,) = records(tmp_path / "rain.json")
    for found in record["images"]:
        y = [
            np.floor(opened(rain / side / f"{found['name']}.png")[..., :3] @ [65.481, 128.553, 24.966] / 255 + 16.5)
            for side in ("input", "target")
        ]
        gaussian: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(y[1], y[0], data_range=255), abs=1e-6)
        assert found["ssim"] == pytest.approx(structural_similarity(*y, data_range=255, **gaussian), abs=1e-6)
    call("--benchmark", "gopro", "--pairs", gopro / "blur", gopro / "sharp", *flags, tmp_path / "gopro.json")
    (record,) = records(tmp_path / "gopro.json")
    blur, sharp = (opened(gopro / side / "00.png") for side in ("blur", "sharp"))
    assert record["means"]["psnr"] == pytest.approx(peak_signal_noise_ratio(sharp, blur), abs=1e-9)
    assert record["layout"] == "folders"


def test_real_noise_of_polyu(shared_data: Callable[[str], Path], call: Call, tmp_path: Path) -> None:
    root, output = shared_data("polyu_50"), tmp_path / "polyu.json"
    shown = call("--benchmark", "polyu", "--data-path", root, "--identity", "--limit", 2, "--output", output)
    (record,) = records(output)
    for found, name in zip(record["images"], ("chair_11", "chair_14"), strict=True):
        assert found["name"] == f"Canon5D2_5_160_3200_{name}"
        noisy, clean = (opened(root / f"{found['name']}_{kind}.JPG") for kind in ("real", "mean"))
        assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(clean, noisy), abs=1e-9)
    assert (record["protocol"], record["ssim"], record["pictures_of_the_set"]) == ("polyu", "matlab3d", 100)
    assert "2 of 100" in shown


@pytest.mark.parametrize(
    ("benchmark", "model", "folders", "scores"),
    [
        ("cbsd68-25", "colour", ("target",), {"psnr"}),
        ("set12-50", "gray", ("target",), {"psnr"}),
        ("gopro", "colour", ("input", "target"), {"psnr", "ssim"}),
        ("rain100l", "colour", ("input", "target"), {"psnr", "ssim"}),
        ("polyu", "colour", ("input", "target"), {"psnr", "ssim"}),
        ("dpdd-single", "colour", ("left", "sharp"), {"psnr", "ssim", "mae"}),
        ("dpdd-dual", "dual", ("left", "right", "sharp"), {"psnr", "ssim", "mae"}),
    ],
)
def test_a_restorer_on_every_kind(
    folder: Path, call: Call, benchmark: str, model: str, folders: tuple[str, ...], scores: set[str]
) -> None:
    flags = ("--ckpt", f"{model}.safetensors", "--output", "new/results.json", "--save-pictures", "restored")
    shown = call("--benchmark", benchmark, "--pairs", *folders, *flags)
    (record,) = records("new/results.json")
    assert record["means"].keys() == scores
    assert all(np.isfinite(value) for value in record["means"].values())
    assert "2 of " in shown
    assert record["model"]["class"] == "IPTV2Restorer"
    assert record["model"]["fused"] is record["model"]["config"]["fused"] is True
    assert record["model"]["config"]["window"] == TINY["window"]
    inference = {"mode": "whole picture", "tile": None, "overlap": 64, "local": None, "ensemble": False}
    assert record["inference"].items() >= inference.items()
    assert sorted(path.name for path in Path("restored", benchmark).iterdir()) == ["1.png", "2.png"]


def test_saved_pictures_are_what_was_scored(folder: Path, call: Call) -> None:
    flags = ("--ckpt", "colour.safetensors", "--tile", 32, "--overlap", 8, "--ensemble", "--output", "results.json")
    call("--benchmark", "gopro", *PAIRS, *flags, "--limit", 1, "--save-pictures", "restored")
    (record,) = records("results.json")
    assert (record["inference"]["mode"], record["inference"]["tile"]) == ("tiles", 32)
    model = load_restorer("colour.safetensors").fuse()
    for found in record["images"]:
        name = f"{found['name']}.png"
        degraded = opened(Path("input", name)).astype(np.float32) / 255
        image = restore(model, degraded, tile=32, overlap=8, ensemble=True)
        saved = opened(Path("restored/gopro", name))
        assert np.array_equal(saved, np.rint(image * 255))
        assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(opened(Path("target", name)), saved))


def test_the_record_has_the_tile_that_was_used(folder: Path, call: Call) -> None:
    """Rounded up to the unit of the restorer's windows and grids at its two levels."""
    flags = ("--ckpt", "colour.safetensors", "--tile", 18, "--overlap", 5, "--output", "results.json", "--limit", 1)
    call("--benchmark", "gopro", *PAIRS, *flags)
    (record,) = records("results.json")
    assert (record["inference"]["tile"], record["inference"]["overlap"]) == (24, 8)


def test_equal_pictures_leave_valid_json(folder: Path, call: Call) -> None:
    call("--benchmark", "gopro", "--pairs", "target", "target", "--identity", "--output", "results.json")
    content = json.loads(Path("results.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert content[0]["means"] == {"psnr": "inf", "ssim": 1.0}
    assert [image["psnr"] for image in content[0]["images"]] == ["inf", "inf"]


def test_scenes_indoor_and_outdoor(folder: Path, call: Call) -> None:
    Path("indoor.txt").write_text("2\n")
    np.save("outdoor.npy", np.array([[1]]))
    labels = ("--indoor-labels", "indoor.txt", "--outdoor-labels", "outdoor.npy")
    shown = call("--benchmark", "dpdd-single", *PAIRS, "--identity", *labels, "--output", "results.json")
    (record,) = records("results.json")
    one, two = record["images"]
    assert (record["parts"]["indoor"]["mae"], record["parts"]["outdoor"]["mae"]) == (two["mae"], one["mae"])
    assert "outdoor SSIM" in shown
    assert "MAE" in shown


def test_results_survive_what_goes_wrong_later(folder: Path, call: Call, refused: Call) -> None:
    for title, count in (("Set12", 12), ("BSD68", 68)):
        Path("sets", title).mkdir(parents=True)
        for index in range(count):
            shutil.copy("target/1.png", f"sets/{title}/{index:02d}.png")
    shutil.copy("sharp/1.png", "sets/BSD68/05.png")  # 16 bits, which get no noise
    flags = ("--benchmark", "set12", "bsd68", "--identity", "--data-path", "sets", "--output", "results.json")
    assert "uint16" in refused(*flags)
    assert [record["benchmark"] for record in records("results.json")] == ["set12-15", "set12-25", "set12-50"]
    assert "results.json exists already" in refused(*flags)


def test_tiles_are_no_test_set(folder: Path, refused: Call) -> None:
    Path("sets/Set12").mkdir(parents=True)
    for index in range(12):
        shutil.copy("target/1.png", f"sets/Set12/{index:02d}.png")
    pictures = open_set("set12", "sets")
    assert isinstance(pictures, PictureList)
    prepare_tiles(pictures, "tiles", size=32, overlap=0)
    flags = ("--benchmark", "set12-15", "--identity", "--data-path", "tiles")
    assert "expected 12 whole pictures in tiles, got 48" in refused(*flags)


def test_the_console_script_is_the_same(folder: Path, call: Call, monkeypatch, capsys) -> None:
    flags = ["--benchmark", "gopro", *PAIRS, "--identity"]
    shown = call(*flags)
    monkeypatch.setattr(sys, "argv", ["iptv2-eval", "restoration", *flags])
    evaluate.main()
    assert capsys.readouterr().out == shown


GOPRO = ("--benchmark", "gopro", *PAIRS)
DPDD = ("--benchmark", "dpdd-single", *PAIRS, "--identity")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((*PAIRS, "--identity"), "needs --benchmark"),
        (("--benchmark", "cbsd86", *PAIRS, "--identity"), "got cbsd86"),
        (GOPRO, "either --ckpt or --identity"),
        ((*GOPRO, "--ckpt", "colour.safetensors", "--identity"), "either --ckpt or --identity"),
        (("--benchmark", "gopro", "--identity"), "either --data-path or --pairs"),
        ((*GOPRO, "--data-path", "input", "--identity"), "either --data-path or --pairs"),
        (("--benchmark", "table3", *PAIRS, "--identity"), "--pairs: expected one benchmark, got gopro, hide"),
        ((*GOPRO, "--identity", "--limit", 0), "--limit of at least 1, got 0"),
        ((*GOPRO, "--identity", "--lpips"), "--lpips is for dpdd-single and dpdd-dual"),
        ((*GOPRO, "--identity", "--indoor-labels", "a", "--outdoor-labels", "b"), "--indoor-labels is for"),
        ((*DPDD, "--indoor-labels", "a"), "both --indoor-labels and --outdoor-labels"),
        ((*DPDD, "--indoor-labels", "one.txt", "--outdoor-labels", "one.txt"), "each of the 2 pictures"),
        ((*DPDD, "--indoor-labels", "one.txt", "--outdoor-labels", "two.txt", "--limit", 1), "from 1 to 1"),
        ((*GOPRO, "--identity", "--output", "one.txt"), "one.txt exists already"),
        ((*GOPRO, "--identity", "--save-pictures", "held"), "expected a new or empty folder"),
        (("--benchmark", "gopro", "--data-path", "input", "--identity"), "the set is to be had at"),
        (("--benchmark", "dnd", "--data-path", ".", "--identity"), "--save-pictures writes what it takes"),
        (("--benchmark", "set12-25", "--pairs", "target", "--ckpt", "colour.safetensors"), "models of (1, 1) channels"),
        ((*GOPRO, "--ckpt", "dual.safetensors"), "models of (3, 3) channels, got (6, 3)"),
        ((*GOPRO, "--ckpt", "absent"), "absent"),
    ],
    ids=str,
)
def test_mistakes_end_with_one_line(folder: Path, refused: Call, flags: tuple[object, ...], words: str) -> None:
    Path("one.txt").write_text("1")
    Path("two.txt").write_text("2")
    Path("held/gopro").mkdir(parents=True)
    Path("held/gopro/mine.png").touch()
    before = sorted(folder.rglob("*"))
    assert words in refused(*flags)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("task", ["derain", "denoise-color", "paired"])
def test_a_model_of_another_task_is_refused(folder: Path, call: Call, refused: Call, task: str) -> None:
    save_weights(IPTV2Restorer(**TINY, task=task), folder / "model.safetensors")
    flags = ("--benchmark", "cbsd68-25", "--pairs", "target", "--ckpt", "model.safetensors", "--output", "results.json")
    if task == "derain":
        assert "cbsd68-25 is for models of denoise-color, this one was trained for derain" in refused(*flags)
        return
    call(*flags)
    assert records("results.json")[0]["model"]["task"] == task


def test_a_place_that_takes_no_record_is_refused_before_the_work(folder: Path, refused: Call) -> None:
    (folder / "file").touch()
    flags = ("--benchmark", "cbsd68-25", "--pairs", "target", "--identity")
    assert "file is no folder" in refused(*flags, "--output", "file/scores.json")


def test_a_pair_of_different_sizes_is_refused_before_the_first_is_restored(folder: Path, refused: Call) -> None:
    write_photo(folder / "target/2.png", Photo(np.zeros((9, 9, 3), np.uint8)), overwrite=True)
    flags = ("--benchmark", "gopro", *PAIRS, "--identity", "--save-pictures", "out", "--output", "scores.json")
    assert "expected pictures of one size" in refused(*flags)
    assert not (folder / "out").exists()
