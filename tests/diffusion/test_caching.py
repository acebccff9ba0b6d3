"""A cached step against the same step written out by hand, and what it saves."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from dummy import GaussianDenoiser, real_pipeline, seeded
from tiny_denoiser import make
from torch import Tensor

from iptv2_diffusion import create_denoiser
from iptv2_diffusion.diffusion.caching import cached_features
from iptv2_diffusion.layers.residual import modulate
from iptv2_diffusion.metrics.complexity import macs

THREE_LEVELS: dict[str, Any] = {"layers": (2, 1, 1), "heads": (1, 2, 2), "refinement": 1}


def steps(batches: tuple[int, ...] = (2, 2, 2, 2, 2)) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Inputs like those of a sampler, a batch size for each step."""
    generator = torch.Generator().manual_seed(1)
    for index, batch in enumerate(batches):
        yield torch.randn(batch, 4, 16, 16, generator=generator), torch.tensor(900 - 200 * index), torch.arange(batch)


def outputs(model: Any, interval: int, *batches: int) -> list[Tensor]:
    with torch.no_grad(), cached_features([model], interval):
        return [model(*inputs).sample for inputs in (steps(batches) if batches else steps())]


def by_hand(model: Any, x: Tensor, t: Tensor, labels: Tensor, inner: Any) -> tuple[Tensor, Tensor]:
    """The prediction and the inner feature, which is computed unless it is given."""
    net = model.backbone
    cond = F.silu(model.time_embedding(t.expand(len(x))) + model.label_embedding(labels))

    def run(layers: Any, x: Tensor) -> Tensor:
        for layer in layers:
            x = layer(x, cond)
        return x

    top = run(net.encoder[0], model.stem(x).contiguous(memory_format=torch.channels_last))
    if inner is None:
        middle = run(net.encoder[1], net.downs[0](top))
        bottom = run(net.bottom, net.downs[1](middle))
        inner = net.ups[0](run(net.decoder[1], net.reduces[1](torch.cat([net.ups[1](bottom), middle], 1))))
    x = run(net.refinement, run(net.decoder[0], torch.cat([inner, top], 1)))
    shift, scale = model.head_modulation(cond)[:, :, None, None].chunk(2, 1)
    return model.head(modulate(model.head_norm(x), shift, scale)), inner


@pytest.mark.parametrize(("interval", "full"), [(1, {0, 1, 2, 3, 4}), (2, {0, 2, 4}), (3, {0, 3}), (9, {0})])
@torch.no_grad()
def test_equals_a_loop_that_keeps_the_inner_feature(interval: int, full: set[int]) -> None:
    model, inner, expected = make(**THREE_LEVELS), None, []
    for index, inputs in enumerate(steps()):
        prediction, inner = by_hand(model, *inputs, None if index in full else inner)
        expected.append(prediction)
    assert all(map(torch.equal, outputs(model, interval), expected))


@torch.no_grad()
def test_an_interval_of_one_changes_no_bit_and_others_do() -> None:
    model = make()
    plain = [model(*inputs).sample for inputs in steps()]
    assert all(map(torch.equal, outputs(model, 1), plain))
    equal = list(map(torch.equal, outputs(model, 2), plain))
    assert equal == [True, False, True, False, True]
    assert torch.equal(model(*next(steps())).sample, plain[0])  # and nothing stays behind


def test_another_batch_size_is_a_full_step_from_which_the_interval_counts_anew() -> None:
    model, calls = make(), []
    model.backbone.bottom[0].register_forward_hook(lambda *_: calls.append(index))
    with torch.no_grad(), cached_features([model], 3):
        for index, inputs in enumerate(steps((2, 2, 4, 4, 4, 4, 2))):  # noqa: B007 - the hook sees it
            model(*inputs)
    assert calls == [0, 2, 5, 6]


def test_the_pipeline_runs_the_inner_levels_on_one_step_of_n() -> None:
    pipe, calls = real_pipeline("ddim"), []
    pipe.transformer.backbone.bottom[0].register_forward_hook(lambda *_: calls.append(1))

    def latents(interval: int) -> Tensor:
        calls.clear()
        options = {"generator": seeded(1, 2), "num_inference_steps": 5, "output_type": "latent"}
        return pipe([0, 3], cache_interval=interval, **options).images

    plain = pipe([0, 3], generator=seeded(1, 2), num_inference_steps=5, output_type="latent").images
    assert torch.equal(latents(1), plain)
    assert len(calls) == 5
    cached = latents(2)
    assert len(calls) == 3
    assert 0 < (cached - plain).abs().max() < plain.std()
    latents(2)
    assert len(calls) == 3  # nothing is kept from one batch to the next


@pytest.mark.parametrize(
    ("preset", "full", "cached"),  # billions
    [
        ("IPTV2-Ti-16", 0.1884, 0.0941),
        pytest.param("IPTV2-Ti", 0.4051, 0.1801, marks=pytest.mark.slow),
        pytest.param("IPTV2-S", 6.2221, 2.3139, marks=pytest.mark.slow),
        pytest.param("IPTV2-B", 23.4140, 11.9463, marks=pytest.mark.slow),
        pytest.param("IPTV2-XL", 116.6556, 63.1306, marks=pytest.mark.slow),
    ],
)
def test_products_of_a_full_and_of_a_cached_step(preset: str, full: float, cached: float) -> None:
    with torch.device("meta"):
        model = create_denoiser(preset, fused=True)
        side = model.config.sample_size
        inputs = torch.randn(1, 4, side, side), torch.tensor(0), torch.zeros(1, dtype=torch.long)
    with cached_features([model], 2):
        first, second = (macs(model, *inputs) / 1e9 for _ in range(2))
    assert first == pytest.approx(full, abs=1e-4)
    assert second == pytest.approx(cached, abs=1e-4)


def test_what_cannot_be_cached_is_refused() -> None:
    for interval in (0, 1.5):
        with pytest.raises(ValueError, match="whole number of steps"), cached_features([make()], interval):  # type: ignore[list-item]
            pass
    for model in (GaussianDenoiser(), make(layers=(2,), heads=(1,))):
        with pytest.raises(ValueError, match="U-shaped denoiser of several levels"), cached_features([model], 2):
            pass
    pipe = real_pipeline("ddim")
    with pytest.raises(ValueError, match="a model of its own"):
        pipe([0], guide_transformer=pipe.transformer, cache_interval=2)
