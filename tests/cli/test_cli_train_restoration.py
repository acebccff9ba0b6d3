"""`train.py --task ...`: a whole progressive schedule, resuming, fine-tuning, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from skimage import data as skimage_data

from iptv2_diffusion import IPTV2Restorer
from iptv2_diffusion.cli import train_restoration
from iptv2_diffusion.cli.train_restoration import STAGES, _defaults
from iptv2_diffusion.engine import read_records

ROOT = Path(__file__).resolve().parents[2]
SMALL_TRAIN = ROOT / "tests" / "small_train.py"
SMALL: dict[str, Any] = {"width": 8, "layers": (1, 1), "heads": (1, 1), "window": 8, "grid": 4}
FLAGS = ("--model", "IPTV2-Ti", "--workers", 0, "--hold-out", 2, "--validation-size", 32)
STAGE_FLAGS = ("--steps", 7, "--stages", "0:16x4", "2:24x2", "4:32x1", "5:40x1", "6:48x1")  # five, as the paper's


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch, fresh_accelerate: None) -> None:
    """A network that takes milliseconds under the name of a preset."""
    monkeypatch.setitem(import_presets(), "IPTV2-Ti", SMALL)


def import_presets() -> dict[str, Any]:
    from iptv2_diffusion.backbone.config import RESTORERS

    return RESTORERS  # pyright: ignore[reportReturnType]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Parts of scikit-image's pictures."""
    folder = tmp_path / "photos"
    folder.mkdir()
    picture = skimage_data.astronaut()
    for index in range(6):
        top = 60 * index
        Image.fromarray(picture[top : top + 48, 100:160]).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def pairs(photos: Path, tmp_path: Path) -> Path:
    """The same, darkened."""
    for part, scale in (("input", 0.5), ("target", 1.0)):
        (tmp_path / "pairs" / part).mkdir(parents=True)
        for file in photos.iterdir():
            pixels = np.asarray(Image.open(file)) * scale
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "pairs" / part / file.name)
    return tmp_path / "pairs"


def test_every_stage_runs_is_validated_and_shown(command, photos, tmp_path, capsys):
    every = ("--log-every", 1, "--validate-every", 3, "--preview-every", 3, "--checkpoint-every", 5)
    flags = ("--task", "denoise-color", "--sigma", "5-55", *FLAGS, *STAGE_FLAGS, *every, "--output", tmp_path / "run")
    command("train", *flags, "--data-path", photos)
    assert "Training denoise-color on 4 pictures, 2 held out." in capsys.readouterr().out
    losses = [record for record in read_records(tmp_path / "run") if "loss" in record]
    assert len(losses) == 7
    assert losses[0]["lr"] == pytest.approx(3e-4)
    assert losses[-1]["lr"] == pytest.approx(1e-6)
    figures = [record for record in read_records(tmp_path / "run") if "validation/psnr" in record]
    assert [record["step"] for record in figures] == [3, 6]
    for score in ("psnr", "ssim"):
        levels = [figures[1][f"validation/{score}_{level}"] for level in (15, 25, 50)]
        assert figures[1][f"validation/{score}"] == pytest.approx(sum(levels) / 3)
        assert levels == sorted(levels, reverse=True)
    best = json.loads((tmp_path / "run" / "best" / "run.json").read_text())
    assert best["figures"]["psnr"] == max(record["validation/psnr"] for record in figures)
    assert (tmp_path / "run" / "previews" / "step-00000006.png").is_file()
    model = IPTV2Restorer.from_pretrained(tmp_path / "run" / "checkpoint-00000007" / "model")
    assert model.config["task"] == "denoise-color"
    assert model.config["norm"] == "bias_free"


def test_resume_inside_a_stage_equals_the_whole_run(command, photos, tmp_path):
    flags = ("--task", "denoise-gray", "--sigma", 25, *FLAGS, *STAGE_FLAGS, "--data-path", photos)
    never = ("--validate-every", "none", "--preview-every", "none", "--checkpoint-every", 3)
    for name in ("whole", "parts"):
        command("train", *flags, *never, "--output", tmp_path / name)
    for step in (6, 7):
        (tmp_path / "parts" / f"checkpoint-{step:08d}" / "run.json").unlink()
        (tmp_path / "parts" / f"checkpoint-{step:08d}").rename(tmp_path / f"removed-{step}")
    command("train", *flags, *never, "--output", tmp_path / "parts", "--resume")
    one, other = (
        load_file(tmp_path / name / "checkpoint-00000007" / "state" / "model.safetensors")
        for name in ("whole", "parts")
    )
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


def test_pairs_and_fine_tuning_of_another_task(command, photos, pairs, tmp_path, capsys):
    never = (*FLAGS, "--validate-every", "none", "--preview-every", "none", "--steps", 1, "--stages", "0:16x2")
    gray = ("--task", "denoise-gray", "--sigma", 25, "--data-path", photos, "--output", tmp_path / "gray")
    command("train", *never, *gray)
    derain = ("--task", "derain", "--norm", "bias_free", "--data-path", pairs, "--init", tmp_path / "gray")
    command("train", *never, *derain, "--output", tmp_path / "derain")
    afresh = "2 start afresh, 2 of other shapes: stem.weight (8x3x3x3, there 8x1x3x3), head.weight (3x16x3x3, there 1x16x3x3)"
    assert afresh in capsys.readouterr().out
    again = ("--task", "paired", "--degrade", "motion:3-5,jpeg:50-90", "--data-path", photos)
    command("train", *never, *again, "--output", tmp_path / "degraded")


def test_a_network_of_squares_starts_from_one_of_pixels(command, refused, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(import_presets(), "IPTV2-Lite/2", SMALL | {"unshuffle": 2})
    never = (*FLAGS, "--task", "paired", "--degrade", "motion:3-5", "--data-path", photos, "--steps", 1)
    never = (*never, "--validate-every", "none", "--preview-every", "none")
    command("train", *never, "--stages", "0:16x2", "--output", tmp_path / "pixels")
    capsys.readouterr()
    squares = (*never, "--model", "IPTV2-Lite/2", "--init", tmp_path / "pixels", "--output", tmp_path / "squares")
    words = refused("train", *squares, "--stages", "0:16x2")
    assert "expected patches of more than 16 pixels, the window, got 16" in words
    command("train", *squares, "--stages", "0:24x2")
    assert f"Starting from {tmp_path / 'pixels'}: all " in capsys.readouterr().out
    weights = [load_file(tmp_path / name / "checkpoint-00000001" / "state" / "model.safetensors") for name in
               ("pixels", "squares")]  # fmt: skip
    assert [w["stem.weight"].shape[1] for w in weights] == [3, 12]
    assert weights[1]["stem.weight"].mul(4)[:, ::4].sub(weights[0]["stem.weight"]).abs().max() < 1e-2  # one step away


def test_resuming_needs_no_weights_to_start_from(command, refused, photos, tmp_path, capsys):
    never = (
        *FLAGS,
        "--validate-every",
        "none",
        "--preview-every",
        "none",
        "--stages",
        "0:16x2",
        "--schedule",
        "constant",
    )
    flags = (*never, "--lr-final", "none", "--task", "denoise-gray", "--sigma", 25, "--data-path", photos)
    command("train", *flags, "--steps", 1, "--output", tmp_path / "first")
    tuned = ("--output", tmp_path / "tuned")
    command("train", *flags, *tuned, "--steps", 1, "--resume", "--init", tmp_path / "first")
    assert "Starting from" in capsys.readouterr().out
    other = refused("train", *flags, *tuned, "--steps", 2, "--resume", "--init", "another")
    assert "recipe.init" in other
    shutil.rmtree(tmp_path / "first")
    capsys.readouterr()
    command("train", *flags, *tuned, "--steps", 2, "--resume")
    assert "Starting from" not in capsys.readouterr().out
    record = json.loads((tmp_path / "tuned" / "checkpoint-00000002" / "run.json").read_text())
    assert record["info"]["recipe"]["init"] == str(tmp_path / "first")


def test_without_held_out_pictures_nothing_is_measured(command, photos, tmp_path):
    flags = ("--task", "denoise-color", "--sigma", 25, *FLAGS, "--hold-out", 0, "--steps", 2, "--stages", "0:16x2")
    every = ("--log-every", 1, "--validate-every", 1, "--preview-every", 1)
    command("train", *flags, *every, "--data-path", photos, "--output", tmp_path / "run")
    text = (tmp_path / "run" / "stats.jsonl").read_text()
    assert len(text.splitlines()) == 2
    assert "NaN" not in text
    assert "validation" not in text


def test_dry_run_prints_every_stage_and_writes_nothing(command, photos, tmp_path, capsys):
    flags = ("--task", "denoise-color", "--sigma", 25, *FLAGS, *STAGE_FLAGS, "--data-path", photos)
    command("train", *flags, "--dry-run", "--micro-batch", 2, "--output", tmp_path / "run")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[:4] for row in rows[:3]] == [["0", "16", "4", "2"], ["2", "24", "2", "1"], ["4", "32", "1", "1"]]
    assert rows[5][-3:] == ["for", "7", "steps."]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_train_every_stage_as_one_does(photos, tmp_path):
    """`--multi_gpu` is how the launcher starts several processes; the environment keeps them on CPUs, over gloo."""
    stages = ("--steps", 7, "--stages", "0:40x4", "2:48x2", "4:56x2", "5:64x2", "6:72x2", "--micro-batch", 2)
    every = ("--log-every", 1, "--validate-every", 3, "--preview-every", "none")
    flags = ("--task", "denoise-color", "--sigma", "5-55", *FLAGS, *stages, *every, "--data-path", photos)
    launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", 2, "--main_process_port", 0)
    forked.run(tmp_path / "said", SMALL_TRAIN, *flags, "--output", tmp_path / "one")
    words = [sys.executable, *launcher, SMALL_TRAIN, *flags, "--output", tmp_path / "two"]
    settings = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, words)], cwd=ROOT, env=settings, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = read_records(tmp_path / "one"), read_records(tmp_path / "two")
    assert [record["step"] for record in two] == [1, 2, 3, 3, 4, 5, 6, 6, 7]
    for ours, theirs in zip(two, one, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() & {"loss", "lr", "validation/ssim"}:
            assert ours[name] == pytest.approx(theirs[name], rel=0, abs=1e-5)
        for name in (name for name in ours if "psnr" in name or name == "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4)


def test_a_shrunk_schedule_trains_through_its_stages(command, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train_restoration, "STAGES", ((0, "16x2"), (150_000, "24x1")))
    flags = ("--task", "denoise-color", "--sigma", 25, *FLAGS, "--schedule-scale", 2e-5, "--log-every", 1)
    command("train", *flags, "--data-path", photos, "--output", tmp_path / "run")
    rates = [record["lr"] for record in read_records(tmp_path / "run") if "loss" in record]
    assert len(rates) == 6  # of 300,000
    assert (rates[0], rates[-1]) == (pytest.approx(3e-4), pytest.approx(1e-6))
    recipe = json.loads((tmp_path / "run" / "checkpoint-00000006" / "run.json").read_text())
    assert "0:16x2" in json.dumps(recipe)
    assert "3:24x1" in json.dumps(recipe)


def test_fine_tuning_of_another_size_takes_what_fits(command, photos, tmp_path, capsys, monkeypatch):
    """Deeper: all of the smaller network, and new layers that change nothing yet."""
    never = (
        *FLAGS,
        "--task",
        "denoise-color",
        "--sigma",
        25,
        "--steps",
        1,
        "--stages",
        "0:16x2",
        "--data-path",
        photos,
    )
    command("train", *never, "--output", tmp_path / "small")
    small = load_file(tmp_path / "small" / "checkpoint-00000001" / "model" / "diffusion_pytorch_model.safetensors")
    monkeypatch.setitem(import_presets(), "IPTV2-S", SMALL | {"layers": (1, 2)})
    deeper = ("--model", "IPTV2-S", "--init", tmp_path / "small", "--lr", 1e-12, "--lr-final", 1e-12)
    command("train", *never, *deeper, "--output", tmp_path / "deep")
    said = capsys.readouterr().out
    deep = load_file(tmp_path / "deep" / "checkpoint-00000001" / "model" / "diffusion_pytorch_model.safetensors")
    shared = [name for name in small if name in deep and deep[name].shape == small[name].shape]
    assert len(shared) == len(small)
    for name in shared:
        torch.testing.assert_close(deep[name], small[name], rtol=0, atol=1e-9)
    assert f"{len(deep) - len(small)} start afresh" in said


def test_the_paper_s_schedule_shrinks():
    paper = _defaults("x", 300_000)
    assert paper["stages"] == tuple(f"{start}:{stage}" for start, stage in STAGES)
    assert paper["stages"][0] == "0:128x64"
    small = _defaults("x", 300)
    assert small["stages"] == ("0:128x64", "116:192x32", "176:256x16", "224:320x8", "270:384x8")
    assert small["checkpoint_every"] == 4
    assert _defaults("x", 2)["stages"] == ("0:128x64", "1:320x8")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--task", "denoise"), "expected --task to be one of denoise-color, "),
        (("--task", "denoise-color"), "--task denoise-color needs --sigma, 25 or 5-55 for instance"),
        (("--task", "derain", "--sigma", 25), "--task derain takes no --sigma"),
        (("--task", "derain", "--batch-size", 8), "--batch-size: the batch is part of --stages"),
        (("--task", "derain", "--stages", "none"), "--stages: expected START:SIZExBATCH"),
        (
            ("--task", "denoise-color", "--sigma", 25, "--stages", "0:64x2", "1:32x2", "--hold-out", 2),
            "--stages: expected patches of more than 32 pixels, the window, got 32",
        ),
        (("--task", "derain", "--schedule-scale", 0), "expected --schedule-scale above 0, got 0"),
        (("--task", "derain", "--schedule-scale", 0.1, "--steps", 9), "expected --steps or --schedule-scale, not both"),
        (
            ("--task", "derain", "--validation-size", 10),
            "expected --validation-size of at least 11, the window of SSIM, got 10",
        ),
        (
            ("--task", "defocus-deblur-dual", "--degrade", "defocus:2"),
            "takes pairs with two views of each scene, no --degrade",
        ),
        (("--task", "paired"), "expected pairs in "),
        (("--task", "paired", "--degrade", "kernels:absent.mat"), "found no file absent.mat"),
        (("--task", "denoise-color", "--sigma", 25, "--hold-out", 6), "expected fewer than the 6 pictures, got 6"),
    ],
)
def test_mistakes_are_refused_before_any_work(refused, photos, tmp_path, flags, message):
    given = ("--data-path", photos, "--output", tmp_path / "run", *flags)
    assert message in refused("train", *given)
    assert not (tmp_path / "run").exists()


def test_a_missing_package_is_named_in_one_line(refused, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    given = ("--data-path", photos, "--output", tmp_path / "run", "--task", "paired", "--degrade", "kernels:x.mat")
    assert 'pip install "iptv2-diffusion[mat]"' in refused("train", *given)
