"""`train.py` on the bundled latents and on a folder of pictures."""

import json
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
import small_train
import torch
from PIL import Image
from safetensors.torch import load_file

from iptv2_diffusion.cli.common import allow_tf32
from iptv2_diffusion.cli.load import load_denoiser
from iptv2_diffusion.cli.sample_config import METADATA_KEY
from iptv2_diffusion.cli.sources import EMOJI
from iptv2_diffusion.engine import read_records

TINY = ("--model", "IPTV2-Ti-16", "--batch-size", 4, "--validate-every", "none", "--preview-every", "none")
PICTURES = ("--model", "IPTV2-Ti", "--image-size", 64, "--batch-size", 4, "--workers", 0, "--seed", 3)


def weights(output: Path, step: int) -> dict[str, dict]:
    folder = output / f"checkpoint-{step:08d}"
    return {str(p.relative_to(folder)): load_file(p) for p in sorted(folder.rglob("*.safetensors"))}


def assert_equal_weights(one: dict[str, dict], other: dict[str, dict]) -> None:
    assert one.keys() == other.keys()
    assert len(one) == 2
    for name, tensors in one.items():
        for key, tensor in tensors.items():
            assert tensor.equal(other[name][key]), (name, key)


@pytest.mark.usefixtures("small_presets")
def test_without_data_it_says_so_trains_on_the_bundled_set_and_can_be_sampled(command, tmp_path, capsys):
    looks = ("--preview-every", 2, "--validate-every", 2)
    command("train", "--model", "IPTV2-Ti-16", "--batch-size", 4, "--steps", 2, *looks, "--output", tmp_path / "run")
    assert "bundled emoji" in capsys.readouterr().out.splitlines()[0]
    records = read_records(tmp_path / "run")
    held_out = [record["validation/held_out_loss"] for record in records if "validation/held_out_loss" in record]
    # The untrained network predicts nothing, and a velocity has unit variance.
    assert held_out == [pytest.approx(1.0, abs=0.1)]
    assert (tmp_path / "run" / "previews" / "step-00000002.png").is_file()
    command("sample", "--ckpt", tmp_path / "run", "--steps", 2, "--num-samples", 1, "--output", tmp_path / "drawn")
    assert (tmp_path / "drawn" / "000000.png").is_file()


@pytest.mark.usefixtures("small_presets")
def test_resume_equals_an_uninterrupted_run_bit_for_bit(command, tmp_path):
    # The learning rate follows --steps, so the first half stops early by checkpoint, not by a shorter schedule.
    constant = ("--schedule", "constant", "--lr-final", "none")
    command("train", *TINY, *constant, "--steps", 4, "--output", tmp_path / "constant")
    command("train", *TINY, *constant, "--steps", 2, "--output", tmp_path / "halves")
    command("train", *TINY, *constant, "--steps", 4, "--output", tmp_path / "halves", "--resume")
    assert_equal_weights(weights(tmp_path / "constant", 4), weights(tmp_path / "halves", 4))


@pytest.fixture
def _switches_kept():
    """torch's."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.usefixtures("small_presets", "_switches_kept")
@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_allowed_by_the_flag_alone(command, tmp_path, allowed):
    allow_tf32(not allowed)
    command("train", *TINY, "--steps", 1, *(() if allowed else ("--no-tf32",)), "--output", tmp_path / "run")
    assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == allowed
    record = json.loads((tmp_path / "run" / "checkpoint-00000001" / "run.json").read_text())
    assert record["config"]["tf32"] == allowed


@pytest.mark.usefixtures("small_presets")
def test_compile_reaches_the_model(command, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr("iptv2_diffusion.backbone.compiling.compile_layers", compiled.append)
    command("train", *TINY, "--steps", 1, "--compile", "--output", tmp_path / "run")
    assert [type(model).__name__ for model in compiled] == ["IPTV2Transformer2DModel"]


@pytest.mark.usefixtures("small_presets")
def test_trains_on_a_folder_of_pictures(command, tmp_path, small_vae, picture_folder):
    flags = (*PICTURES, "--vae", small_vae, "--data-path", picture_folder, "--steps", 2, "--log-every", 1)
    command("train", *flags, "--output", tmp_path / "run")
    records = read_records(tmp_path / "run")
    assert records[0]["simple"] == pytest.approx(1.0, abs=0.3)  # predicts 0 for unit noise
    run = json.loads((tmp_path / "run" / "checkpoint-00000002" / "run.json").read_text())
    assert run["info"]["generation"]["prediction"] == "epsilon"
    assert run["config"]["ema"] == ["0.9999"]
    names = json.loads((tmp_path / "run" / "checkpoint-00000002" / "class_names.json").read_text())
    assert names == ["even", "odd"]
    scheduler = json.loads((tmp_path / "run/checkpoint-00000002/scheduler/scheduler_config.json").read_text())
    assert scheduler["variance_type"] == "learned_range"
    command("sample", "--ckpt", tmp_path / "run", "--steps", 2, "--classes", "odd", "--output", tmp_path / "drawn")
    with Image.open(tmp_path / "drawn" / "000000.png") as picture:
        record = json.loads(picture.info[METADATA_KEY])
    assert (record["checkpoint"], record["training_steps"]) == ("checkpoint-00000002", 2)


def test_refuses_bad_input_in_one_line(refused: Callable[..., str], tmp_path, small_vae, picture_folder):
    common = ("--output", tmp_path / "run", "--vae", small_vae, "--workers", 0)
    assert "IPTV2-Ti-16, DiT-Ti/2" in refused("train", "--model", "DiT-S/4")
    assert "no folder" in refused("train", *common, "--data-path", tmp_path / "missing")
    assert "multiples of 8" in refused("train", *common, "--data-path", picture_folder, "--image-size", 36)
    assert "--data-path" in refused("train", "--image-size", 64, "--output", tmp_path / "run")
    assert "hf download" in refused("train", "--data-path", picture_folder, "--vae", "no-such-owner/no-such-vae")
    assert "--label-dropout" in refused("train", *common, "--label-dropout", 2)
    assert "--flip" in refused("train", "--flip", "--output", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--prediction", "flow", "--learned-sigma"), "--prediction flow takes neither --learned-sigma nor --min-snr"),
        (("--prediction", "flow", "--min-snr", 5), "--prediction flow takes neither"),
        (("--min-snr", 0), "expected --min-snr above 0, got 0.0"),
        (("--flow-std", 2), "--flow-mean and --flow-std need --prediction flow"),
        (("--prediction", "flow", "--flow-std", 0), "--flow-std above 0, got 0.0 0.0"),
        (
            ("--init", "no-such-place"),
            "expected a training run, a checkpoint, a saved pipeline or a hub id, got no-such",
        ),
    ],
)
def test_refuses_objectives_and_beginnings_that_cannot_be(refused, tmp_path, flags, message):
    assert message in refused("train", *TINY, *flags, "--output", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_baseline_and_a_rectified_flow(command, refused, tmp_path):
    flow = (*TINY, "--model", "DiT-Ti/2", "--prediction", "flow", "--flow-mean", 0.5, "--log-every", 1)
    flow = (*flow, "--batch-size", 64, "--micro-batch", 64)
    command("train", *flow, "--steps", 2, "--output", tmp_path / "run")
    records = read_records(tmp_path / "run")
    # The untrained network predicts nothing; the latents have unit variance, and so has the noise.
    assert records[0]["simple"] == records[0]["loss"] == pytest.approx(2.0, abs=0.3)
    assert sum(name.startswith("simple/t") for name in records[0]) == 7  # of 8 bins; 64 samples
    checkpoint = tmp_path / "run" / "checkpoint-00000002"
    recorded = {name: json.loads((checkpoint / name).read_text()) for name in ("run.json", "model/config.json")}
    assert recorded["model/config.json"]["_class_name"] == "DiTDenoiser"
    assert recorded["run.json"]["info"]["generation"]["learned_sigma"] is False
    command("sample", "--ckpt", tmp_path / "run", "--steps", 2, "--num-samples", 1, "--output", tmp_path / "drawn")
    assert (tmp_path / "drawn" / "000000.png").is_file()
    assert "rectified flow" in refused("sample", "--ckpt", tmp_path / "run", "--scheduler", "ddim")
    again = ("--resume", "--output", tmp_path / "run")
    assert "recipe.flow_mean (0.5 then, 0.0 now)" in refused("train", *flow, "--flow-mean", 0, "--steps", 2, *again)


def test_fine_tuning_names_what_starts_afresh(command, refused, tmp_path, small_vae, picture_folder, capsys):
    """From the bundled pipeline, in its fused form: 106 classes and no learned variance there."""
    new = ("--vae", small_vae, "--data-path", picture_folder, "--image-size", 128, "--workers", 0, "--steps", 1)
    flags = (*TINY, *new, "--lr", 1e-9, "--output", tmp_path / "run")
    command("train", *flags, "--init", EMOJI, "--resume")  # there is nothing to resume yet
    shapes = "label_embedding.weight (3x256, there 107x256), head.weight (8x96x3x3, there 4x96x3x3)"
    assert f"2 start afresh, 2 of other shapes: {shapes}" in capsys.readouterr().out
    before, after = load_denoiser(str(EMOJI)), load_denoiser(str(tmp_path / "run"))
    command("train", *flags, "--steps", 2, "--resume")  # without --init
    assert "Starting from" not in capsys.readouterr().out
    assert before.unfuse().config["num_classes"] == 106
    for name, tensor in before.state_dict().items():
        if name not in ("label_embedding.weight", "head.weight"):
            torch.testing.assert_close(after.state_dict()[name], tensor, rtol=0, atol=1e-6)
    other = ("--model", "DiT-Ti/2", *new, "--batch-size", 4, "--output", tmp_path / "other")
    message = "expected weights of class DiTDenoiser, got IPTV2Transformer2DModel"
    assert message in refused("train", *other, "--init", tmp_path / "run")
    (tmp_path / "run" / "checkpoint-00000002" / "model" / "config.json").write_text('{"_class_name": "IPTV2Restorer"}')
    assert "class IPTV2Restorer, expected" in refused("train", *other, "--init", tmp_path / "run")


@pytest.mark.usefixtures("small_presets")
@pytest.mark.parametrize("workers", [0, 1])
def test_refuses_an_unreadable_picture_by_name(refused, tmp_path, small_vae, picture_folder, workers):
    damaged = picture_folder / "even" / "zz.png"
    damaged.write_bytes(b"not a picture")
    flags = (*PICTURES, "--vae", small_vae, "--data-path", picture_folder, "--batch-size", 13, "--steps", 2)
    message = refused("train", *flags, "--workers", workers, "--output", tmp_path / "run")
    assert message.startswith(f"error: cannot read {damaged}")
    assert "Traceback" not in message


@pytest.mark.usefixtures("small_presets")
def test_imagenet_folders_get_their_names(command, tmp_path, small_vae, picture_folder):
    for old, new in (("even", "n02099601"), ("odd", "n01440764")):
        (picture_folder / old).rename(picture_folder / new)
    flags = (*PICTURES, "--vae", small_vae, "--data-path", picture_folder, "--steps", 1, "--output", tmp_path / "run")
    command("train", *flags)
    names = json.loads((tmp_path / "run" / "checkpoint-00000001" / "class_names.json").read_text())
    assert names == ["tench, Tinca tinca", "golden retriever"]


@pytest.mark.usefixtures("small_presets")
def test_refuses_a_folder_that_holds_a_run(command, refused: Callable[..., str], tmp_path):
    command("train", *TINY, "--steps", 1, "--output", tmp_path / "run")
    assert "already holds a run" in refused("train", *TINY, "--steps", 2, "--output", tmp_path / "run")
    for flag, value, name in (
        ("--lr", 1, "lr"),
        ("--steps", 2, "steps"),  # the recipe's cosine would take another course
        ("--prediction", "epsilon", "recipe.prediction"),
        ("--label-dropout", 0.5, "recipe.label_dropout"),
    ):
        message = refused("train", *TINY, "--steps", 1, "--resume", "--output", tmp_path / "run", flag, value)
        assert f"another configuration: {name}" in message


@pytest.mark.slow
@pytest.mark.usefixtures("small_presets")
def test_two_processes_resume_bit_for_bit_and_see_the_data_of_one(tmp_path, command):
    constant = (*TINY, "--schedule", "constant", "--lr-final", "none", "--log-every", 1)
    runs = {"whole": ("whole", 4), "first": ("halves", 2), "second": ("halves", 4, "--resume")}
    for said, (output, steps, *more) in runs.items():
        flags = (*constant, "--steps", steps, "--output", tmp_path / output, *more)
        forked.run(tmp_path / f"{said} said", Path(small_train.__file__), *flags, ranks=2)
    assert_equal_weights(weights(tmp_path / "whole", 4), weights(tmp_path / "halves", 4))
    command("train", *constant, "--steps", 4, "--output", tmp_path / "one")
    losses = [[record["loss"] for record in read_records(tmp_path / name)] for name in ("whole", "one")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
