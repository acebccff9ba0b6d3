"""Saving, loading, copying and fusing the latent denoiser."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from tiny_denoiser import CLOSE, inputs, make, run
from torch import nn

import iptv2_diffusion
from iptv2_diffusion import IPTV2Transformer2DModel
from iptv2_diffusion.layers.reparam import Reparameterised


@torch.no_grad()
@pytest.mark.parametrize("fields", [{}, {"window": 4, "attention": ("ggsa", "fcsa"), "shift": "cyclic"}], ids=str)
def test_round_trip(tmp_path: Path, fields: dict[str, Any]) -> None:
    model = make(**fields)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    loaded = IPTV2Transformer2DModel.from_pretrained(tmp_path)
    assert {k: v for k, v in loaded.config.items() if k[0] != "_"}.keys() == {k for k in model.config if k[0] != "_"}
    assert torch.equal(run(loaded, *inputs(18, 12)), run(model, *inputs(18, 12)))


@torch.no_grad()
def test_round_trip_in_another_process(tmp_path: Path) -> None:
    model, args = make().fuse(), inputs()
    model.save_pretrained(tmp_path / "model")
    torch.save(args, tmp_path / "inputs.pt")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, warnings\n"
        "warnings.simplefilter('error', UserWarning)\n"
        "import torch, iptv2_diffusion\n"
        "model = iptv2_diffusion.IPTV2Transformer2DModel.from_pretrained(sys.argv[1] + '/model')\n"
        "out = model(*torch.load(sys.argv[1] + '/inputs.pt', weights_only=True)).sample\n"
        "torch.save(out.detach(), sys.argv[1] + '/out.pt')"
    )
    [said] = forked.run(tmp_path / "process", script, tmp_path)
    assert "arning" not in said.err
    torch.testing.assert_close(torch.load(tmp_path / "out.pt", weights_only=True), run(model, *args), **CLOSE)


def test_recorded_home_does_not_depend_on_the_file(tmp_path: Path) -> None:
    model = make()
    assert type(model).__module__ == "iptv2_diffusion"
    assert getattr(iptv2_diffusion, type(model).__name__) is type(model)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["_class_name"] == "IPTV2Transformer2DModel"


@torch.no_grad()
def test_copies_and_pickles_are_independent_models() -> None:
    model, args = make(), inputs()
    expected = run(model, *args)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for parameter in model.parameters():
        parameter.zero_()
    for other in copies:
        torch.testing.assert_close(run(other, *args), expected, **CLOSE)


def forms(model: nn.Module) -> set[bool]:
    return {module.is_fused for module in model.modules() if isinstance(module, Reparameterised)}


@torch.no_grad()
def test_fuse_and_unfuse_in_place_return_the_model() -> None:
    model, args = make(), inputs(10, 12)
    expected = run(model, *args)
    training = sum(p.numel() for p in model.parameters())
    assert model.fuse() is model
    assert (forms(model), model.config["fused"]) == ({True}, True)
    assert sum(p.numel() for p in model.parameters()) < training
    torch.testing.assert_close(run(model, *args), expected, **CLOSE)
    assert model.unfuse() is model
    assert (forms(model), model.config["fused"]) == ({False}, False)
    assert sum(p.numel() for p in model.parameters()) == training
    torch.testing.assert_close(run(model, *args), expected, **CLOSE)


@torch.no_grad()
def test_a_saved_model_says_which_form_it_holds(tmp_path: Path) -> None:
    model, args = make(), inputs()
    expected = run(model, *args)
    model.fuse().save_pretrained(tmp_path / "fused")
    model.unfuse().save_pretrained(tmp_path / "training")
    for name, is_fused in [("fused", True), ("training", False)]:
        loaded = IPTV2Transformer2DModel.from_pretrained(tmp_path / name)
        assert (forms(loaded), loaded.config["fused"]) == ({is_fused}, is_fused)
        torch.testing.assert_close(run(loaded, *args), expected, **CLOSE)
