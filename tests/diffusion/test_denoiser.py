"""The latent denoiser: forward contract, other sizes, saving, fusing, checkpointing, compiling, exporting."""

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import nn

import iptv2_diffusion
from iptv2_diffusion import IPTV2Transformer2DModel, create_denoiser
from iptv2_diffusion.layers.reparam import Reparameterised

TINY: dict[str, Any] = {
    "sample_size": 16,
    "num_classes": 5,
    "cond_dim": 12,
    "width": 4,
    "layers": (2, 2),
    "heads": (1, 2),
    "grid": 4,
}
EXACT = {"rtol": 1e-10, "atol": 1e-10}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums in another order


def make(**fields: Any) -> IPTV2Transformer2DModel:
    """A tiny model that does something: its zeros moved."""
    model = IPTV2Transformer2DModel(**(TINY | fields)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def inputs(height: int = 16, width: int = 16, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 4, height, width, generator=generator)
    return x, torch.randint(0, 1000, (batch,), generator=generator), torch.randint(0, 6, (batch,), generator=generator)


def run(model: nn.Module, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return model(x, t, labels).sample


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 16), (32, 32), (10, 24), (2, 2)], ids=str)
def test_predicts_zero_at_initialisation(size: tuple[int, int]) -> None:
    out = run(IPTV2Transformer2DModel(**TINY), *inputs(*size))
    assert torch.equal(out, torch.zeros(2, 8, *size))


def test_zeros_at_initialisation_are_adaln_and_the_last_layer_only() -> None:
    zeros = {name.rpartition(".")[0] for name, p in IPTV2Transformer2DModel(**TINY).named_parameters() if not p.any()}
    zeros = {name for name in zeros if not name.startswith("time_embedding")}  # its biases
    modulations = {name for name in zeros if name.endswith("modulation")}
    assert zeros == modulations | {"head"}
    assert "head_modulation" in modulations
    assert len(modulations) == 1 + 2 * 6  # two a layer


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("IPTV2-Ti-16", [(16, 16), (32, 32), (20, 12)]),
        ("IPTV2-Ti", [(32, 32), (64, 64), (16, 16), (40, 24)]),
    ],
)
def test_presets_take_other_latent_sizes(name: str, sizes: list[tuple[int, int]]) -> None:
    model = create_denoiser(name)
    model.head.weight.normal_(std=0.1)
    for size in sizes:
        out = run(model, *inputs(*size, batch=1))
        assert out.shape == (1, 8, *size)
        assert out.isfinite().all()
        assert out.std() > 0


@pytest.mark.parametrize(("name", "multiple"), [("IPTV2-Ti", 8), ("IPTV2-Ti-16", 4)])
def test_sizes_that_do_not_halve_are_refused_with_the_multiple(name: str, multiple: int) -> None:
    model = create_denoiser(name)
    assert model.size_multiple == multiple
    for size in [(30, 32), (32, 31), (1, 1)]:
        with pytest.raises(ValueError, match=f"multiples of {multiple}.*{size[0]}, {size[1]}"):
            model(*inputs(*size))


@torch.no_grad()
def test_timestep_as_number_scalar_or_one_per_latent() -> None:
    model, (x, _, labels) = make(), inputs()
    expected = model(x, torch.tensor([7, 7]), labels).sample
    for timestep in (7, 7.0, torch.tensor(7), torch.tensor(7.0), torch.tensor([7])):
        torch.testing.assert_close(model(x, timestep, labels).sample, expected, **CLOSE)
    mixed = model(x, torch.tensor([7, 900]), labels).sample
    torch.testing.assert_close(mixed[0], expected[0], **CLOSE)
    assert not torch.allclose(mixed[1], expected[1])


@torch.no_grad()
def test_every_label_has_its_own_output() -> None:
    model, (x, t, _) = make(), inputs(batch=1)
    assert model.null_label == 5
    outputs = [run(model, x, t, torch.tensor([label])) for label in range(6)]
    for i in range(6):
        for j in range(i):
            assert not torch.allclose(outputs[i], outputs[j])


@torch.no_grad()
def test_images_of_a_batch_do_not_mix() -> None:
    model = make().double()
    x, t, labels = inputs(10, 14, batch=3)
    expected = torch.cat([run(model, x[i : i + 1].double(), t[i : i + 1], labels[i : i + 1]) for i in range(3)])
    # Sinusoids are float32.
    torch.testing.assert_close(run(model, x.double(), t, labels), expected, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_returns_what_diffusers_expects() -> None:
    model, args = make(), inputs()
    out = model(*args)
    assert isinstance(out, Transformer2DModelOutput)
    (plain,) = model(*args, return_dict=False)
    assert torch.equal(plain, out.sample)
    assert out.sample.is_contiguous()
    assert make(out_channels=4)(*args).sample.shape == (2, 4, 16, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3, 16, 16)}, r"expected latents \(B, 4, H, W\), got \(2, 3, 16, 16\)"),
        ({"x": torch.zeros(4, 16, 16)}, r"expected latents.*\(4, 16, 16\)"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, r"one class label for each of 2.*\(3,\)"),
        ({"labels": torch.tensor(1)}, r"one class label for each of 2.*\(\)"),
        ({"t": torch.zeros(3)}, r"timestep.*\(3,\)"),
    ],
    ids=["channels", "dimensions", "labels", "no batch of labels", "timesteps"],
)
def test_wrong_shapes_are_refused(change: dict[str, torch.Tensor], message: str) -> None:
    good = dict(zip(("x", "t", "labels"), inputs(), strict=True))
    with pytest.raises(ValueError, match=message):
        make()(*(good | change).values())


def test_unknown_names_and_wrong_configurations_are_refused() -> None:
    with pytest.raises(ValueError, match="IPTV2-S, IPTV2-B"):
        create_denoiser("DiT-S/2")
    with pytest.raises(ValueError, match="num_classes=0"):
        create_denoiser("IPTV2-Ti", num_classes=0)
    with pytest.raises(ValueError, match="multiple of 8.*36"):
        create_denoiser("IPTV2-Ti", sample_size=36, window=16)
    with pytest.raises(TypeError, match="depth"):
        create_denoiser("IPTV2-Ti", depth=3)


def test_overrides_reach_the_network_and_the_configuration() -> None:
    model = create_denoiser("IPTV2-Ti", **TINY, window=4, attention=("ggsa",))
    assert (model.config["window"], model.config["attention"]) == (4, ("ggsa",))
    assert model.backbone.config.window_at(0) == 4
    assert create_denoiser("IPTV2-Ti", num_classes=9).backbone.config.window_at(0) == 16  # half of 32


@torch.no_grad()
def test_half_precision_weights() -> None:
    model, (x, t, labels) = make(), inputs()
    expected = run(model, x, t, labels)
    out = run(model.to(torch.bfloat16), x.bfloat16(), t, labels)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=0, atol=0.05 * expected.abs().max().item())


@torch.no_grad()
def test_autocast_is_close_to_float32() -> None:
    model, args = make(), inputs(20, 12)
    expected = run(model, *args)
    with torch.autocast("cpu", torch.bfloat16):
        out = run(model, *args)
    torch.testing.assert_close(out.float(), expected, rtol=0, atol=0.05 * expected.abs().max().item())


# --- saving ---


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
    code = (
        "import sys, torch, iptv2_diffusion\n"
        "model = iptv2_diffusion.IPTV2Transformer2DModel.from_pretrained(sys.argv[1] + '/model')\n"
        "out = model(*torch.load(sys.argv[1] + '/inputs.pt', weights_only=True)).sample\n"
        "torch.save(out.detach(), sys.argv[1] + '/out.pt')"
    )
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "arning" not in done.stderr
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


# --- fusing ---


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


# --- gradient checkpointing, compile, export ---


def test_gradient_checkpointing_changes_nothing() -> None:
    model, args = make().train(), inputs(10, 12)
    results = []
    for switch in (model.disable_gradient_checkpointing, model.enable_gradient_checkpointing):
        switch()
        model.zero_grad()
        out = run(model, *args)
        out.square().sum().backward()
        results.append({"out": out.detach()} | {name: p.grad for name, p in model.named_parameters()})
    assert model.is_gradient_checkpointing
    assert all(value is not None for value in results[0].values())
    torch.testing.assert_close(results[1], results[0], **CLOSE)


def test_gradient_checkpointing_recomputes_every_layer() -> None:
    model = make(refinement=1).train()
    calls = []
    layers = [*model.backbone.encoder[0], *model.backbone.bottom, *model.backbone.decoder[0], *model.backbone.refinement]  # pyright: ignore[reportGeneralTypeIssues]
    for index, layer in enumerate(layers):
        layer.register_forward_pre_hook(lambda *_, index=index: calls.append(index))
    model.enable_gradient_checkpointing()
    run(model, *inputs()).sum().backward()
    assert sorted(calls) == sorted(2 * list(range(7)))


SHALLOW: dict[str, Any] = {"layers": (1, 2)}  # still both attentions, and two levels: tracing takes seconds a layer


def compiled_equals_eager(backend: str, size: tuple[int, int], **fields: Any) -> None:
    torch.compiler.reset()
    model, args = make(**(SHALLOW | fields)), inputs(*size)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    results = []
    for form in (model, compiled):
        model.zero_grad()
        out = run(form, *args)
        out.square().sum().backward()
        results.append({"out": out.detach()} | {name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(results[1], results[0], **CLOSE)


def test_compiles_as_one_graph() -> None:
    compiled_equals_eager("aot_eager", (10, 12))


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields", [{}, {"fused": True}, {"parallel": True, "layers": (2, 2), "shift": "cyclic"}], ids=str
)
def test_compiles_with_inductor(fields: dict[str, Any]) -> None:
    compiled_equals_eager("inductor", (16, 16), **fields)


@pytest.mark.slow
@torch.no_grad()
def test_layers_compile_one_by_one() -> None:
    """diffusers' compile_repeated_blocks."""
    torch.compiler.reset()
    model, args = make(), inputs()
    expected = run(model, *args)
    model.compile_repeated_blocks(fullgraph=True, backend="eager")
    torch.testing.assert_close(run(model, *args), expected, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("fused", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_exports(fused: bool) -> None:
    model, (x, t, labels) = make(**(SHALLOW | {"fused": fused})), inputs(10, 12)
    program = torch.export.export(model, (x, t, labels), {"return_dict": False})
    (out,) = program.module()(x, t, labels, return_dict=False)
    torch.testing.assert_close(out, run(model, x, t, labels), **CLOSE)
