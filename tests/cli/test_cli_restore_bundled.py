"""`iptv2-restore` and others with weights of the package, by the names of their tasks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iptv2_diffusion import IPTV2Restorer, load_restorer
from iptv2_diffusion.restoration import bundled
from iptv2_diffusion.restoration.model_files import save_weights
from iptv2_diffusion.restoration.tasks import serves

TINY = {"width": 4, "layers": (2, 2), "heads": (1, 2), "window": 8, "grid": 4}
HEADS = {"denoise-color": 0.0, "denoise-gray": 1.0, "derain": 1.0}  # weights of the last layer; 0: changes nothing


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Networks of three tasks, in half precision, of which all but the first change pixels."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for task, value in HEADS.items():
        channels = 1 if task == "denoise-gray" else 3
        model = IPTV2Restorer(channels, channels, **TINY, task=task)
        torch.nn.init.constant_(model.head.weight, value)
        save_weights(model.half(), folder / f"{task}.safetensors")
    monkeypatch.setattr(bundled, "FOLDER", folder)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    root.mkdir()
    values = np.random.default_rng(0).integers(1, 256, (9, 7, 4), np.uint8)
    Image.fromarray(values[..., :3]).save(root / "colour.png")
    Image.fromarray(values).save(root / "alpha.png")
    Image.fromarray(values[..., 0]).save(root / "gray.png")
    return root


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_the_task_denoise_takes_the_weights_for_the_channels_of_each_picture(command, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command("restore", pictures, "--task", "denoise")
    for name in ("colour.png", "alpha.png"):
        np.testing.assert_array_equal(read(tmp_path / "restored" / name), read(pictures / name))
    assert (read(tmp_path / "restored" / "gray.png") != read(pictures / "gray.png")).any()


def test_gray_pictures_pass_colour_weights_where_there_are_no_others(command, pictures, weights, tmp_path):
    (weights / "denoise-gray.safetensors").unlink()
    command("restore", pictures, "--task", "denoise", "--output", tmp_path / "out")
    np.testing.assert_array_equal(read(tmp_path / "out" / "gray.png"), read(pictures / "gray.png"))


def test_one_task_takes_its_own_weights(command, pictures, tmp_path):
    command("restore", pictures / "colour.png", "--task", "derain", "--output", tmp_path / "out")
    assert (read(tmp_path / "out" / "colour.png") != read(pictures / "colour.png")).any()


def test_what_is_refused_names_the_tasks_that_are_there(refused, pictures, weights, tmp_path):
    assert "--task denoise-color, denoise-gray, derain" in refused("restore", pictures, "--output", tmp_path / "out")
    message = refused("restore", pictures, "--task", "motion-deblur", "--output", tmp_path / "out")
    assert "no weights for motion-deblur are bundled" in message


def test_a_checkpoint_may_be_the_name_of_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restorer = load_restorer("derain")
    assert restorer.config["task"] == "derain"
    assert {parameter.dtype for parameter in restorer.parameters()} == {torch.float32}
    monkeypatch.chdir(tmp_path)
    IPTV2Restorer(**TINY).save_pretrained("derain")
    assert load_restorer("derain").config["task"] is None  # what lies there comes first


def test_groups_serve_their_members() -> None:
    assert bundled.bundled_tasks("denoise") == ["denoise-color", "denoise-gray"]
    assert bundled.bundled_tasks("motion-deblur") == []
    assert bundled.bundled_weights("../weights/derain") is None
    assert [serves(trained, "denoise") for trained in ("denoise-gray", "denoise-real", "derain")] == [True, True, False]
    assert not serves("denoise-real", "denoise-color")


def test_folders_here_are_not_mistaken_for_weights(command, pictures, tmp_path: Path, monkeypatch) -> None:
    """Results of a task are often written to a folder of its name."""
    monkeypatch.chdir(tmp_path)
    for name in ("one.png", "two.png"):
        (pictures / "colour.png").rename(pictures / name)
        command("restore", pictures / name, "--task", "derain", "--output", "derain")
        (pictures / name).rename(pictures / "colour.png")
    np.testing.assert_array_equal(read(tmp_path / "derain/one.png"), read(tmp_path / "derain/two.png"))
