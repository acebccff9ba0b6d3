"""Sets of samples: the same from any number of processes and any batches, resumable, as ADM's evaluator reads them."""

import json
import shutil
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from PIL import Image
from sample_flags import flags_of
from torch import nn

from iptv2_diffusion.cli import sample_many
from iptv2_diffusion.cli.drawing import digest
from iptv2_diffusion.cli.sample_config import METADATA_KEY, read_config
from iptv2_diffusion.cli.sources import EMOJI
from iptv2_diffusion.diffusion.latents import QUANTISE
from iptv2_diffusion.diffusion.pipeline import IPTV2Pipeline
from iptv2_diffusion.diffusion.protocols import PROTOCOLS, GenerationProtocol, differences

ROOT = Path(__file__).resolve().parents[2]
COUNT = 7
SET = ("--num-samples", COUNT, "--size", 32, "--steps", 2, "--cfg-scale", 1.5, "--format", "both", "--device", "cpu")

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def files(folder: Path) -> dict[str, bytes]:
    """Everything but the settings, which know of batches."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    del found["settings.json"]
    return found


def pixels(folder: Path) -> np.ndarray:
    pictures = [Image.open(path) for path in sorted((folder / "images").rglob("*.png"))]
    return np.stack([np.asarray(picture) for picture in pictures])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, batches of 3, without an interruption."""
    output = tmp_path_factory.mktemp("whole") / "set"
    sample_many.draw_many(read_config(flags_of(*SET, "--batch-size", 3, "--output", output)))
    return output


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The seeds of every batch that is drawn."""
    batches, draw = [], sample_many.draw

    def record(config: Any, models: Any, labels: Any, seeds: Any) -> np.ndarray:
        batches.append(list(seeds))
        return draw(config, models, labels, seeds)

    monkeypatch.setattr(sample_many, "draw", record)
    return batches


def test_what_is_written(whole: Path) -> None:
    names = [f"images/000/{index:06d}.png" for index in range(COUNT)]
    assert sorted(files(whole)) == ["grid.png", *names, "samples.npz"]
    with Image.open(whole / names[4]) as picture:
        record = json.loads(picture.info[METADATA_KEY])
    with np.load(whole / "samples.npz") as arrays:
        assert (arrays["arr_0"].dtype, arrays["arr_1"].dtype) == (np.uint8, np.int64)
        np.testing.assert_array_equal(arrays["arr_0"], pixels(whole))
        assert arrays["arr_1"].tolist() == [39, 11, 87, 70, 56, 26, 86]
    assert record == {"seed": 4, "label": 56, "name": "hands"}
    settings = json.loads((whole / "settings.json").read_text())
    expected = {"num_samples": COUNT, "seed": 0, "class_draw": "random", "sampler": "dpm++", "steps": 2}
    expected |= {"ckpt": "bundled", "vae": "bundled", "ema": None, "quantise": "round", "size": 32, "precision": "fp32"}
    expected |= {"cfg_scale": 1.5, "guidance_channels": None, "guidance_interval": None}
    expected |= {"cache_interval": 1, "batch_size": 3, "tf32": False}
    assert {name: settings[name] for name in expected} == expected
    assert settings["versions"].keys() == {"torch", "diffusers"}
    assert "output" not in settings


def test_batches_change_neither_noise_nor_labels_and_pixels_by_one_level(whole: Path, tmp_path, command, monkeypatch):
    noises, prepare = {}, IPTV2Pipeline.prepare_latents

    def record(self: Any, shape: Any, generator: Any, latents: Any = None) -> torch.Tensor:
        seeds = [one.initial_seed() for one in generator]
        noises.setdefault(shape[0], []).extend(
            zip(seeds, prepared := prepare(self, shape, generator, latents), strict=True)
        )
        return prepared

    monkeypatch.setattr(IPTV2Pipeline, "prepare_latents", record)
    monkeypatch.setattr("iptv2_diffusion.cli.sample_folder.FOLDER", 3)
    for batch in (2, 7):
        command("sample", *SET, "--batch-size", batch, "--output", tmp_path / str(batch))
        assert np.abs(pixels(whole).astype(int) - pixels(tmp_path / str(batch))).max() <= 1
        assert sorted(path.name for path in (tmp_path / str(batch) / "images").iterdir()) == ["000", "001", "002"]
        with np.load(whole / "samples.npz") as one, np.load(tmp_path / str(batch) / "samples.npz") as other:
            np.testing.assert_array_equal(one["arr_1"], other["arr_1"])
    one, other = dict(noises[7]), dict(noises[2] + noises[1])
    assert one.keys() == other.keys()
    assert len(one) == COUNT
    assert all(torch.equal(noise, other[seed]) for seed, noise in one.items())


def test_two_processes_write_the_files_of_one(whole: Path, tmp_path: Path) -> None:
    flags = (*SET, "--batch-size", 3, "--output", tmp_path / "set")
    main, other = forked.run(tmp_path / "processes", ROOT / "sample.py", *flags, ranks=2)
    assert "7/7" in main.err  # the main process counts all
    assert other.out == ""
    assert files(tmp_path / "set") == files(whole)


def test_goes_on_where_it_was_interrupted(whole: Path, tmp_path: Path, command, drawn, monkeypatch) -> None:
    record = sample_many.draw

    def interrupted(*arguments: Any) -> np.ndarray:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return record(*arguments)

    flags = (*SET, "--batch-size", 3, "--output", tmp_path / "set")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / ".settings.json.unfinished").write_text("{")  # from a run that was killed at its very start
    with monkeypatch.context() as patch:
        patch.setattr(sample_many, "draw", interrupted)
        with pytest.raises(SystemExit) as stop:
            command("sample", *flags)
    assert stop.value.code == 130
    pictures = tmp_path / "set" / "images" / "000"
    (pictures / "000001.png").unlink()
    (pictures / ".000001.png").write_bytes(b"half a picture")
    kept = (pictures / "000000.png").stat().st_mtime_ns
    drawn.clear()
    command("sample", *flags)
    assert drawn == [[0, 1, 2], [6]]
    assert (pictures / "000000.png").stat().st_mtime_ns == kept
    assert files(tmp_path / "set") == files(whole)
    drawn.clear()
    settings = (tmp_path / "set" / "settings.json").read_bytes()
    command("sample", *flags, "--batch-size", 2)
    assert drawn == []
    assert (tmp_path / "set" / "settings.json").read_bytes() == settings


def test_settings_keep_what_differed_from_run_to_run(whole: Path, tmp_path: Path, command) -> None:
    """Also of a set that was begun before they did."""
    shutil.copytree(whole, tmp_path / "set")
    file = tmp_path / "set" / "settings.json"
    begun = json.loads(file.read_text())
    (first,) = begun.pop("sessions")
    del begun["tf32"]
    named = {"vae": "elsewhere/vae", "checkpoint": "renamed"}
    file.write_text(json.dumps(begun | named))
    (tmp_path / "set" / "images" / "000" / "000006.png").unlink()
    command("sample", *SET, "--batch-size", 1, "--output", tmp_path / "set")
    settings = json.loads(file.read_text())
    assert settings["sessions"] == [first | named, first | {"batch_size": 1}]
    assert (settings["vae"], settings["batch_size"], settings["tf32"]) == ("bundled", 1, False)


def test_a_set_of_random_classes_grows_and_never_shrinks(whole: Path, tmp_path, command, refused, drawn) -> None:
    shutil.copytree(whole, tmp_path / "set")
    before = pixels(whole)
    flags = (*SET, "--batch-size", 3, "--output", tmp_path / "set")
    command("sample", *flags, "--num-samples", 10)
    assert drawn == [[6, 7, 8], [9]]
    np.testing.assert_array_equal(pixels(tmp_path / "set")[:COUNT], before)
    with np.load(tmp_path / "set" / "samples.npz") as arrays, np.load(whole / "samples.npz") as old:
        np.testing.assert_array_equal(arrays["arr_0"], pixels(tmp_path / "set"))
        np.testing.assert_array_equal(arrays["arr_1"][:COUNT], old["arr_1"])
        assert len(arrays["arr_1"]) == 10
    with Image.open(tmp_path / "set" / "grid.png") as grid:
        assert json.loads(grid.info[METADATA_KEY])["num_samples"] == 10
    settings = json.loads((tmp_path / "set" / "settings.json").read_text())
    assert (settings["num_samples"], len(settings["sessions"])) == (10, 1)
    assert "num_samples 10 there and 7 here" in refused("sample", *flags)


def test_sets_that_cannot_grow(whole: Path, tmp_path: Path, refused) -> None:
    shutil.copytree(whole, tmp_path / "set")
    file = tmp_path / "set" / "settings.json"
    begun = json.loads(file.read_text())
    flags = (*SET, "--num-samples", 10, "--batch-size", 3, "--output", tmp_path / "set")
    file.write_text(json.dumps(begun | {"class_draw": "balanced"}))
    assert "num_samples 7 there and 10 here" in refused("sample", *flags, "--class-draw", "balanced")
    file.write_text(json.dumps(begun | {"format": "npz"}))
    assert "samples.npz stands alone: without its pictures" in refused("sample", *flags, "--format", "npz")
    assert (tmp_path / "set" / "samples.npz").is_file()


def test_refuses_a_folder_that_was_begun_otherwise(whole: Path, tmp_path, refused, capsys) -> None:
    shutil.copytree(whole, tmp_path / "set")
    before = files(tmp_path / "set")
    message = refused("sample", *SET, "--steps", 3, "--seed", 5, "--output", tmp_path / "set")
    assert "seed 0 there and 5 here" in message
    assert "steps 2 there and 3 here" in message
    assert files(tmp_path / "set") == before
    (tmp_path / "set" / "settings.json").unlink()
    assert "already holds something" in refused("sample", *SET, "--output", tmp_path / "set")


def test_an_npz_alone_is_the_same_without_the_pictures(whole: Path, tmp_path, command, drawn) -> None:
    flags = (*SET, "--format", "npz", "--batch-size", 3, "--output", tmp_path / "set")
    for _ in range(2):
        command("sample", *flags)
        assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
            "grid.png",
            "samples.npz",
            "settings.json",
        ]
        assert (tmp_path / "set" / "samples.npz").read_bytes() == (whole / "samples.npz").read_bytes()
    assert len(drawn) == 3


def test_what_could_never_be_scored_as_the_protocol_is_not_drawn(tmp_path, refused, drawn) -> None:
    message = refused("sample", "--protocol", "dit-paper-cfg1.0", "--num-samples", 3, "--output", tmp_path / "set")
    assert "--protocol dit-paper-cfg1.0: these samples would not be its own: " in message
    assert "vae bundled instead of stabilityai/sd-vae-ft-ema" in message
    assert drawn == []
    assert not (tmp_path / "set").exists()


def test_a_protocol_end_to_end(tmp_path, command, monkeypatch) -> None:
    """A short one; its pixels show that its quantisation is used."""
    options: dict[str, Any] = {"sampler": "ddpm", "steps": 2, "cfg_scale": 1.5, "guidance_channels": 3}
    short = GenerationProtocol(**options, quantise="truncate", class_draw="balanced", vae="bundled")
    monkeypatch.setitem(PROTOCOLS, "short", short)
    monkeypatch.setitem(QUANTISE, "truncate", lambda images: torch.full_like(images, 7))
    command("sample", "--protocol", "short", "--num-samples", 3, "--output", tmp_path / "set")
    settings = json.loads((tmp_path / "set" / "settings.json").read_text())
    assert differences(short, settings) == []
    assert pixels(tmp_path / "set").shape == (3, 128, 128, 3)
    assert np.unique(pixels(tmp_path / "set")).tolist() == [7]


def test_a_model_that_guides_itself_draws_what_it_draws_unguided(tmp_path, command) -> None:
    flags = ("--num-samples", 2, "--size", 32, "--steps", 2, "--format", "png", "--device", "cpu")
    command("sample", *flags, "--cfg-scale", 3, "--guide", EMOJI, "--output", tmp_path / "guided")
    command("sample", *flags, "--cfg-scale", 1, "--output", tmp_path / "plain")
    np.testing.assert_array_equal(pixels(tmp_path / "guided"), pixels(tmp_path / "plain"))
    command("sample", *flags, "--cfg-scale", 1, "--cache-interval", 2, "--output", tmp_path / "cached")
    assert np.abs(pixels(tmp_path / "cached").astype(int) - pixels(tmp_path / "plain")).max() > 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--guidance-interval", "0.9", "0.1"), "0.9"),
        (("--guidance-channels", "5"), "5"),
        (("--steps", "2000"), "2000"),
        (("--size", "136"), "multiples of 32"),
        (("--protocol", "dit-paper"), "dit-paper-cfg1.5"),
        (("--cache-interval", "0"), "--cache-interval"),
        (("--ema", "0.9999"), "0.9999"),
        (("--guide-ema", "0.9999"), "0.9999"),
        (("--classes", "199"), "0 to 105"),
        (("--num-samples", "2000000"), "at most 1000000"),
    ],
)
def test_refuses_bad_flags_in_one_line_and_writes_nothing(refused, tmp_path, flags, words) -> None:
    common = () if "--protocol" in flags else ("--cfg-scale", 1.5)
    assert words in refused("sample", "--format", "png", "--output", tmp_path / "new", *common, *flags)
    assert not (tmp_path / "new").exists()


def test_a_set_needs_a_folder_and_its_guidance_and_a_grid_one_process(refused, tmp_path, monkeypatch) -> None:
    assert "--output" in refused("sample", "--num-samples", 101)
    for flags in (("--num-samples", 101), ("--format", "png"), ("--class-draw", "balanced")):
        message = refused("sample", *flags, "--output", tmp_path / "new")
        assert message.endswith("needs --cfg-scale or --protocol: the paper's Table 6 has 1.0 and 1.5")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--format png" in refused("sample", "--num-samples", 100)


def test_overflow_is_an_error_not_a_black_picture(refused, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("iptv2_diffusion.diffusion.pipeline.model_input", lambda scheduler, z, t: z * float("nan"))
    message = refused("sample", *SET, "--precision", "bf16", "--output", tmp_path / "set")
    assert "samples of bf16 are not finite" in message
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["settings.json"]


def test_a_digest_tells_weights_apart() -> None:
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    other.load_state_dict(one.state_dict())
    assert digest(one) == digest(other)
    assert len(digest(one)) == 16
    with torch.no_grad():
        other.weight[0, 0] += 1e-6
    assert digest(one) != digest(other)
    assert digest(one) != digest(one.bfloat16())
