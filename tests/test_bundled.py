"""What ships in the package: sizes, statistics of the latents, and figures that a refactor must not change."""

from typing import Any

import pytest
import torch

from iptv2_diffusion import IPTV2Pipeline, LatentCodec
from iptv2_diffusion.cli.sources import EMOJI, EMOJI_CLASSIFIER, EMOJI_LATENTS
from iptv2_diffusion.data.emoji import CATEGORIES, held_out_mask, load_emoji
from iptv2_diffusion.data.sources import load_moments
from iptv2_diffusion.diffusion.schedule import make_scheduler
from iptv2_diffusion.diffusion.task import GenerationTask
from iptv2_diffusion.metrics.classifier import load_classifier

MB = 10**6
DEVIATIONS = [58.21, 64.04, 99.57, 63.06, 58.71, 76.36, 78.36, 67.35, 53.23]  # of drawn emoji, in levels


@pytest.fixture(scope="module")
def codec() -> LatentCodec:
    return LatentCodec.from_pretrained(str(EMOJI / "vae"))


def psnr(codec: LatentCodec, images: torch.Tensor) -> float:
    """Mean over pictures (N, 3, H, W) uint8 of the decoded posterior mean, in dB."""
    decoded = codec.decode_uint8(codec.moments(images.float() / 127.5 - 1)[0])
    errors = (decoded.float() - images.float()).square().flatten(1).mean(1)
    return (10 * torch.log10(255**2 / errors)).mean().item()


def test_the_autoencoder_is_small_and_keeps_real_pictures(codec, real_images):
    assert sum(p.numel() for p in codec.vae.parameters()) == 1_386_799
    assert sum(path.stat().st_size for path in (EMOJI / "vae").iterdir()) <= 4 * MB
    emoji = torch.stack([image for image in real_images.values() if image.shape[-1] == 128])
    assert len(emoji) == 12
    assert psnr(codec, emoji) == pytest.approx(31.88, abs=0.05)


def test_held_out_latents_are_normalised():
    assert EMOJI_LATENTS.stat().st_size <= 9 * MB
    moments = load_moments(EMOJI_LATENTS)
    assert tuple(moments.mean.shape) == tuple(moments.std.shape) == (1852, 4, 16, 16)
    assert moments.labels[:, 0].bincount().tolist() == [85, 157, 253, 128, 261, 361, 166, 223, 218]
    assert moments.labels[:, 1].unique().tolist() == list(range(len(CATEGORIES), len(moments.class_names or ())))
    held_out = moments.part(held_out_mask(len(moments)))
    assert len(held_out) == 185
    mean = held_out.mean.float().mean((0, 2, 3))
    variance = held_out.mean.float().var((0, 2, 3)) + held_out.std.float().square().mean((0, 2, 3))
    assert mean.abs().max() < 0.1
    assert variance.sqrt().min() > 0.9
    assert variance.sqrt().max() < 1.1


@pytest.mark.slow
def test_held_out_pictures_are_kept_and_match_the_latents(codec, shared_data):
    data = load_emoji(shared_data("fluent_emoji_3d"))
    assert psnr(codec, data.images[data.held_out]) == pytest.approx(31.01, abs=0.05)
    moments = load_moments(EMOJI_LATENTS)
    assert moments.class_names == list(data.class_names)
    assert moments.labels.equal(torch.stack([data.labels, data.sublabels], dim=1))
    mean, std = codec.moments(data.images[:8].float() / 127.5 - 1)
    torch.testing.assert_close(moments.mean[:8].float(), mean, rtol=2e-3, atol=2e-3)  # stored in half precision
    torch.testing.assert_close(moments.std[:8].float(), std, rtol=2e-3, atol=2e-3)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_drawn_emoji_are_what_they_were():
    """One of every category, with guidance, decoded: mean, deviation and what the classifier names; pinned."""
    pipeline: Any = IPTV2Pipeline.from_pretrained(EMOJI)
    pipeline.set_progress_bar_config(disable=True)
    seeds = [torch.Generator().manual_seed(seed) for seed in range(len(CATEGORIES))]
    drawn = pipeline(list(CATEGORIES), guidance_scale=4.0, num_inference_steps=10, generator=seeds, output_type="pt")
    pictures = (drawn.images * 255).round()
    assert pictures.mean((0, 2, 3)).tolist() == pytest.approx([211.02, 193.63, 198.99], abs=0.2)
    assert pictures.std((1, 2, 3)).tolist() == pytest.approx(DEVIATIONS, abs=0.3)
    named = load_classifier(EMOJI_CLASSIFIER)(pictures.to(torch.uint8)).argmax(1)
    assert named.tolist() == [0, 1, 2, 3, 7, 5, 6, 7, 8]  # one object for a symbol


@torch.no_grad()
@pytest.mark.parametrize(("every", "error"), [(5, 0.3575), pytest.param(1, 0.3625, marks=pytest.mark.slow)])
def test_the_denoiser_denoises_held_out_latents(codec, every, error):
    """Mean squared error of the predicted velocity, whose variance is 1; pinned."""
    pipeline = IPTV2Pipeline.from_pretrained(EMOJI)
    moments = load_moments(EMOJI_LATENTS)
    names = list(moments.class_names or ())
    assert names[: len(CATEGORIES)] == list(CATEGORIES)
    assert pipeline.id2label == dict(enumerate(names))
    held_out = moments.part(held_out_mask(len(moments)))
    held_out = held_out.part(torch.arange(len(held_out)) % every == 0)
    scheduler = make_scheduler("ddpm", pipeline.scheduler.config, learned_sigma=False)
    task = GenerationTask(pipeline.transformer, scheduler, codec, held_out, class_names=names, held_out=held_out)
    assert task.validate(pipeline.transformer)["held_out_loss"] == pytest.approx(error, abs=2e-4)
