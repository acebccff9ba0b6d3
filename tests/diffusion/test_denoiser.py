"""The latent denoiser: what forward promises, at any size and precision."""

import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from tiny_denoiser import CLOSE, TINY, inputs, make, run

from iptv2_diffusion import IPTV2Transformer2DModel, create_denoiser


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
        create_denoiser("DiT-S/4")
    with pytest.raises(ValueError, match="num_classes=0"):
        create_denoiser("IPTV2-Ti", num_classes=0)
    with pytest.raises(ValueError, match=r"multiple of 8.*36"):
        create_denoiser("IPTV2-Ti", sample_size=36, window=16)
    with pytest.raises(TypeError, match="depth"):
        create_denoiser("IPTV2-Ti", depth=3)


def test_overrides_reach_the_network_and_the_configuration() -> None:
    model = create_denoiser("IPTV2-Ti", **TINY, window=4, attention=("ggsa",))
    assert (model.config["window"], model.config["attention"]) == (4, ("ggsa",))
    assert model.backbone.config.window_at(0) == 4
    assert create_denoiser("IPTV2-Ti", num_classes=9).backbone.config.window_at(0) == 16  # half of 32


@torch.no_grad()
def test_one_level_predicts() -> None:
    model = make(layers=(2,), heads=(1,))
    assert run(model, *inputs(10, 15)).shape == (2, 8, 10, 15)
    assert model.head.weight.shape[1] == 4


@torch.no_grad()
def test_half_precision_weights() -> None:
    model, (x, t, labels) = make(), inputs()
    expected = run(model, x, t, labels)
    out = run(model.bfloat16(), x.bfloat16(), t, labels)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=0, atol=0.05 * expected.abs().max().item())


@torch.no_grad()
def test_autocast_is_close_to_float32() -> None:
    model, args = make(), inputs(20, 12)
    expected = run(model, *args)
    with torch.autocast("cpu", torch.bfloat16):
        out = run(model, *args)
    torch.testing.assert_close(out.float(), expected, rtol=0, atol=0.05 * expected.abs().max().item())
