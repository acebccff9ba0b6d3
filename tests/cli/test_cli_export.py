"""`iptv2-export`: from everything that names a model, into every form."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from iptv2_diffusion import IPTV2Restorer, IPTV2Transformer2DModel
from iptv2_diffusion.cli import export as command_line
from iptv2_diffusion.cli.export import load_any
from iptv2_diffusion.cli.sources import EMOJI
from iptv2_diffusion.restoration.export import FORMATS
from iptv2_diffusion.restoration.model_files import load_restorer

TINY: dict[str, Any] = {"width": 4, "layers": (1, 2), "heads": (1, 2), "window": 8, "grid": 4}
SHALLOW: dict[str, Any] = TINY | {"layers": (0, 2)}  # a layer takes seconds to trace


def write_run(folder: Path, model: Any, step: int) -> Path:
    """A checkpoint as training leaves it, as far as exports read it."""
    checkpoint = folder / f"checkpoint-{step:08d}"
    model.save_pretrained(checkpoint / "model")
    (checkpoint / "run.json").write_text("{}")
    return checkpoint


def form(path: Path) -> str:
    with safe_open(path, framework="pt") as file:
        return file.metadata()["form"]


def test_formats_are_the_librarys() -> None:
    assert tuple(FORMATS) == command_line.FORMATS
    assert tuple(name for name in FORMATS if FORMATS[name].is_graph) == command_line.GRAPHS


@torch.no_grad()
def test_exports_the_newest_weights_fused_and_back(command, tmp_path, capsys):
    write_run(tmp_path / "run", IPTV2Restorer(**TINY), 2)
    model = IPTV2Restorer(**TINY).eval()
    write_run(tmp_path / "run", model, 10)
    command("export", "--ckpt", tmp_path / "run", "--fuse", "--output", tmp_path / "fused.safetensors")
    assert "IPTV2Restorer, fused form" in capsys.readouterr().out
    flags = ("--unfuse", "--output", tmp_path / "back.safetensors")
    command("export", "--ckpt", tmp_path / "fused.safetensors", *flags)
    assert "training form" in capsys.readouterr().out
    assert (form(tmp_path / "fused.safetensors"), form(tmp_path / "back.safetensors")) == ("fused", "training")
    image = torch.rand(1, 3, 18, 21, generator=torch.Generator().manual_seed(0))
    for name in ("fused.safetensors", "back.safetensors"):
        torch.testing.assert_close(load_restorer(tmp_path / name)(image), model(image), rtol=1e-4, atol=1e-5)


def test_half_precision_halves_the_file_and_is_read_as_float32(command, tmp_path):
    write_run(tmp_path / "run", IPTV2Restorer(**TINY), 1)
    for name, flags in (("whole", ()), ("half", ("--half",))):
        command("export", "--ckpt", tmp_path / "run", "--output", tmp_path / f"{name}.safetensors", *flags)
    whole, half = (load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "half"))
    assert {tensor.dtype for tensor in half.values()} == {torch.float16}
    restored = load_restorer(tmp_path / "half.safetensors").state_dict()
    assert all(torch.equal(restored[key], tensor.half().float()) for key, tensor in whole.items())


def test_takes_a_checkpoint_a_folder_and_a_file(command, tmp_path):
    model = IPTV2Restorer(**TINY)
    checkpoint = write_run(tmp_path / "run", model, 3)
    first = tmp_path / "first.safetensors"
    command("export", "--ckpt", checkpoint, "--output", first)
    for number, source in enumerate((checkpoint / "model", first)):
        copy = tmp_path / f"{number}.safetensors"
        command("export", "--ckpt", source, "--output", copy)
        assert load_file(copy).keys() == load_file(first).keys()
        assert all(torch.equal(tensor, load_file(first)[key]) for key, tensor in load_file(copy).items())
        assert load_restorer(copy).config == load_restorer(first).config


@torch.no_grad()
def test_denoisers_are_exported_as_weights(command, refused, tmp_path):
    command("export", "--ckpt", EMOJI, "--output", tmp_path / "emoji", "--format", "diffusers")
    exported = IPTV2Transformer2DModel.from_pretrained(tmp_path / "emoji")
    assert exported.config["fused"] is True
    source = load_any(EMOJI).fuse()
    assert all(torch.equal(tensor, exported.state_dict()[key]) for key, tensor in source.state_dict().items())
    flags = ("--ckpt", EMOJI, "--output", tmp_path / "emoji.onnx", "--format", "onnx")
    assert "onnx is for restorers" in refused("export", *flags)


@pytest.mark.slow
def test_a_graph_names_its_sizes(command, tmp_path, capsys):
    write_run(tmp_path / "run", IPTV2Restorer(**SHALLOW), 1)
    flags = ("--format", "torch-export", "--output", tmp_path / "model.pt2")
    command("export", "--ckpt", tmp_path / "run", *flags)
    assert "height and width in multiples of 8" in capsys.readouterr().out
    assert torch.export.load(tmp_path / "model.pt2").module()(torch.zeros(1, 3, 24, 32)).shape == (1, 3, 24, 32)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--ckpt", "no/such/place", "--output", "x.safetensors"), "no/such/place"),
        (("--ckpt", "run", "--output", "run.safetensors"), "exists already"),
        (("--ckpt", "run", "--output", "x.pt"), ".safetensors"),
        (("--ckpt", "run", "--output", "x.onnx", "--format", "onnx", "--unfuse"), "--unfuse"),
        (("--ckpt", "run", "--output", "x.onnx", "--format", "onnx", "--half"), "--half"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_end_with_one_line(refused, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", IPTV2Restorer(**TINY), 1)
    Path("run.safetensors").write_text("mine")
    assert words in refused("export", *flags)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["run", "run.safetensors"]
    assert Path("run.safetensors").read_text() == "mine"
