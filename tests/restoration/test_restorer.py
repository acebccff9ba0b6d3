"""The restorer: any size, channels, padding, saving, fusing, compiling, exporting."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_restorer
import torch
import torch.nn.functional as F
from tiny_restorer import CLOSE

import iptv2_diffusion
from iptv2_diffusion import IPTV2Restorer, create_restorer
from iptv2_diffusion.layers.reparam import Reparameterised
from iptv2_diffusion.restoration.restorer import reflect_to_multiple, unshuffled

make = partial(tiny_restorer.make, layers=(2, 2, 2), heads=(1, 2, 4))


def images(height: int, width: int, channels: int = 3, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(height + width))


SIZES = [(16, 16), (1, 1), (5, 3), (1, 9), (17, 33), (77, 101)]


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 3), (1, 1), (6, 3)])
def test_keeps_any_size(inputs: int, outputs: int, size: tuple[int, int]) -> None:
    out = make(in_channels=inputs, out_channels=outputs)(images(*size, channels=inputs))
    assert out.shape == (1, outputs, *size)
    assert out.isfinite().all()
    assert out.is_contiguous()


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_the_whole_padded_image_cropped(size: tuple[int, int]) -> None:
    """Reflected as far as the image reaches, its last row and column repeated beyond; NumPy pads for reference."""
    model, image = make().double(), images(*size).double()
    missing = [-side % 4 for side in size]
    reflected = [min(gap, side - 1) for gap, side in zip(missing, size, strict=True)]
    padded = np.pad(image[0].numpy(), [(0, 0), (0, reflected[0]), (0, reflected[1])], mode="reflect")
    beyond = [gap - done for gap, done in zip(missing, reflected, strict=True)]
    padded = torch.from_numpy(np.pad(padded, [(0, 0), (0, beyond[0]), (0, beyond[1])], mode="edge"))[None]
    assert [side % 4 for side in padded.shape[2:]] == [0, 0]
    expected = model(padded)[..., : size[0], : size[1]]
    torch.testing.assert_close(model(image), expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("size", [(24, 48), (1, 9), (19, 35)], ids=str)
@pytest.mark.parametrize("factor", [2, 3])
def test_unshuffled_is_the_network_on_means_its_residual_repeated(size: tuple[int, int], factor: int) -> None:
    model, image = make().double(), images(*size).double()
    folded = unshuffled(model, factor).double().eval()
    padded = reflect_to_multiple(image, folded.size_multiple)
    assert (folded.size_multiple, folded.config["unshuffle"]) == (4 * factor, factor)
    means = F.avg_pool2d(padded, factor)
    expected = padded + F.interpolate(model(means) - means, scale_factor=factor, mode="nearest")
    torch.testing.assert_close(folded(image), expected[..., : size[0], : size[1]], rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match=rf"^expected a restorer without unshuffle, got one of {factor}$"):
        unshuffled(folded, 2)


@torch.no_grad()
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 3), (6, 3)])
def test_unshuffle_of_its_own_weights_keeps_any_size(inputs: int, outputs: int) -> None:
    model = make(in_channels=inputs, out_channels=outputs, unshuffle=2)
    assert model.stem.weight.shape[1] == 4 * inputs
    assert model.head.weight.shape[0] == 4 * outputs
    out = model(images(13, 22, inputs))
    assert out.shape == (1, outputs, 13, 22)
    corner = images(13, 22, inputs)
    corner[..., 0, 0] += 0.1
    assert (model(corner) - out)[..., 0, 0].abs().max() > 1e-4


def test_an_unshuffle_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^expected unshuffle of at least 1, got 0$"):
        IPTV2Restorer(unshuffle=0)


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3])
def test_adds_the_input(channels: int) -> None:
    model, image = make(in_channels=channels, out_channels=channels), images(13, 22, channels)
    model.head.weight.zero_()
    assert torch.equal(model(image), image)


@torch.no_grad()
def test_other_channels_have_no_residual_but_a_skip_from_shallow_features() -> None:
    """6 -> 3: head(U(stem(x)) + skip(stem(x)))."""
    model, image = make(in_channels=6, out_channels=3).double(), images(12, 8, 6).double()
    assert model.skip is not None
    assert model.skip.weight.shape == (8, 4, 1, 1)
    shallow = F.conv2d(image, model.stem.weight, padding=1)
    features = model.backbone(shallow) + F.conv2d(shallow, model.skip.weight)
    expected = F.conv2d(features, model.head.weight, padding=1)
    torch.testing.assert_close(model(image), expected, rtol=1e-10, atol=1e-10)
    assert make().skip is None


@pytest.mark.parametrize("channels", [3, 6])
def test_one_level_has_a_head_of_its_width(channels: int) -> None:
    """C channels, not 2C, as there is no skip to concatenate; and no size has to be padded for the U."""
    model = make(in_channels=channels, layers=(2,), heads=(1,), refinement=1)
    image = images(13, 22, channels)
    shallow = F.conv2d(image, model.stem.weight, padding=1)
    features = model.backbone(shallow) + (0 if model.skip is None else F.conv2d(shallow, model.skip.weight))
    expected = F.conv2d(features, model.head.weight, padding=1) + (image if channels == 3 else 0)
    out = model(image)
    torch.testing.assert_close(out, expected, **CLOSE)
    (out * torch.rand_like(out)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert model.restore_tiled(image.clamp(0, 1), tile=16, overlap=4).shape == out.shape


def test_convolutions_have_no_bias_and_the_flavour_of_norm_is_the_only_one() -> None:
    assert not [name for name, _ in make(norm="bias_free").named_parameters() if name.endswith("bias")]
    biases = [name for name, _ in make(norm="centred").named_parameters() if name.endswith("bias")]
    assert len(biases) == 2 * 10  # two norms a layer
    assert all(name.endswith("norm.bias") for name in biases)
    assert create_restorer("IPTV2-Ti").config["norm"] == "bias_free"


@pytest.mark.parametrize("channels", [(3, 3), (6, 3)], ids=str)
def test_a_gradient_reaches_every_parameter(channels: tuple[int, int]) -> None:
    model = make(in_channels=channels[0], out_channels=channels[1])
    out = model(images(32, 32, channels[0]))
    (out * torch.rand_like(out)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("name", "multiple"), [("IPTV2-Ti", 8), ("IPTV2-Lite", 4), ("IPTV2-S", 8), ("IPTV2-B", 8), ("IPTV2-B+", 8)]
)
def test_presets_build(name: str, multiple: int) -> None:
    with torch.device("meta"):
        model = create_restorer(name)
    assert model.size_multiple == multiple


@torch.no_grad()
def test_the_smallest_preset_runs_on_photographs(real_images: dict[str, torch.Tensor]) -> None:
    image = real_images["cat"][None, :, 100:177, 200:301].float() / 255
    out = create_restorer("IPTV2-Ti")(image)
    assert out.shape == (1, 3, 77, 101)
    assert out.isfinite().all()


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (3, 8, 8)], ids=str)
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected images \(B, 3, H, W\), got \(" + str(shape[0])):
        make()(torch.zeros(shape))


def test_an_empty_side_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, 0, 8\)"):
        make()(torch.zeros(1, 3, 0, 8))


def test_unknown_names_are_refused_with_those_that_exist() -> None:
    with pytest.raises(
        ValueError, match=r"IPTV2-Ti, IPTV2-Lite, IPTV2-Lite/2, IPTV2-Lite\+/2, IPTV2-S, IPTV2-B, IPTV2-B\+"
    ):
        create_restorer("Restormer")
    with pytest.raises(ValueError, match="feed_forward"):
        create_restorer("IPTV2-Ti", feed_forward="mlp")


@torch.no_grad()
@pytest.mark.parametrize("fields", [{}, {"in_channels": 6, "norm": "centred"}, {"fused": True}], ids=str)
def test_round_trip(tmp_path: Path, fields: dict[str, Any]) -> None:
    model = make(**fields)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").exists()
    loaded = IPTV2Restorer.from_pretrained(tmp_path)
    image = images(13, 22, model.config["in_channels"])
    assert torch.equal(loaded(image), model(image))
    assert type(loaded).__module__ == "iptv2_diffusion"
    assert iptv2_diffusion.IPTV2Restorer is type(loaded)


@torch.no_grad()
def test_fuse_save_load_unfuse(tmp_path: Path) -> None:
    model, image = make(), images(17, 33)
    expected = model(image)
    assert model.fuse() is model
    model.save_pretrained(tmp_path)
    loaded = IPTV2Restorer.from_pretrained(tmp_path)
    assert loaded.config["fused"] is True
    assert all(module.is_fused for module in loaded.modules() if isinstance(module, Reparameterised))
    torch.testing.assert_close(loaded(image), expected, **CLOSE)
    assert loaded.unfuse() is loaded
    assert loaded.config["fused"] is False
    torch.testing.assert_close(loaded(image), expected, **CLOSE)


def test_gradient_checkpointing_changes_nothing() -> None:
    model, image = make().train(), images(17, 33)
    results = []
    for switch in (model.disable_gradient_checkpointing, model.enable_gradient_checkpointing):
        switch()
        model.zero_grad()
        out = model(image)
        out.square().sum().backward()
        results.append({"out": out.detach()} | {name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(results[1], results[0], **CLOSE)


SHALLOW: dict[str, Any] = {"layers": (0, 2), "heads": (1, 2)}  # one FCSA and one GGSA: tracing takes seconds a layer


def compiled_equals_eager(backend: str, size: tuple[int, int], **fields: Any) -> None:
    torch.compiler.reset()
    model = make(**(SHALLOW | fields))
    image = images(*size)
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend=backend)(image), model(image), **CLOSE)


def test_compiles_as_one_graph() -> None:
    compiled_equals_eager("eager", (17, 24))


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["bias_free", "centred"])
def test_compiles_with_inductor(norm: str) -> None:
    compiled_equals_eager("inductor", (17, 24), norm=norm)


@torch.no_grad()
@pytest.mark.parametrize("fused", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_exports(fused: bool) -> None:
    model, image = make(**SHALLOW, fused=fused), images(17, 24)
    program = torch.export.export(model, (image,))
    torch.testing.assert_close(program.module()(image), model(image), **CLOSE)
