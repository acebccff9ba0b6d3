"""Objective, model, loop and optimizer together: a tiny denoiser learns eight latents by heart."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import avg_pool2d

from iptv2_diffusion import LatentCodec, create_denoiser
from iptv2_diffusion.cli.sources import EMOJI, EMOJI_LATENTS
from iptv2_diffusion.data.sources import LatentMoments, load_moments
from iptv2_diffusion.diffusion.schedule import paper_scheduler
from iptv2_diffusion.diffusion.task import GenerationTask
from iptv2_diffusion.engine import TrainConfig, fit, read_records

STEPS = 300


def eight_latents() -> LatentMoments:
    """Of bundled emoji, halved to (4, 8, 8), with unit variance in all and without their posterior's noise."""
    mean = avg_pool2d(load_moments(EMOJI_LATENTS).mean[:8].float(), 2)
    mean = (mean - mean.mean()) / mean.std()
    return LatentMoments(mean, torch.zeros_like(mean), torch.arange(8) % 2)


def overfitting(latents: LatentMoments) -> GenerationTask:
    """Trained and measured on the same latents, but not on the same noise."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_denoiser(
            "IPTV2-Ti", sample_size=8, width=16, heads=(1, 2, 4, 8), cond_dim=32, num_classes=2, out_channels=8
        )
    codec = LatentCodec.from_pretrained(str(EMOJI / "vae"))
    return GenerationTask(model, paper_scheduler(), codec, latents, class_names=["even", "odd"], held_out=latents)


def error_without_the_pictures(latents: torch.Tensor) -> float:
    """Of the best predictor that knows mean and variance of each element of the latents (N, C, h, w) and no more."""
    a = paper_scheduler().alphas_cumprod[:, None]
    signal = a * latents.var(0, correction=0).flatten()
    return (signal / (signal + 1 - a)).mean().item()


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_accelerate")
def test_eight_latents_are_learned_by_heart(tmp_path: Path) -> None:
    """In half a minute. Measured: 0.051 in training and 0.058 after it; 0.111 without knowing the pictures."""
    latents = eight_latents()
    config = TrainConfig(
        output=tmp_path / "run",
        steps=STEPS,
        batch_size=16,
        lr=3e-3,
        schedule="cosine",
        warmup_steps=20,
        clip=1.0,
        ema=("0.9",),
        workers=0,
        checkpoint_every=STEPS,
        validate_every=STEPS,
        preview_every=None,
        log_every=1,
    )
    assert fit(overfitting(latents), config) == STEPS
    lines = read_records(config.output)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[0] > 0.8  # about the variance of the noise: an untrained head answers zero
    limit = 0.7 * error_without_the_pictures(latents.mean)
    assert sum(losses[-50:]) / 50 < limit
    assert lines[-1]["validation/held_out_loss"] < limit
