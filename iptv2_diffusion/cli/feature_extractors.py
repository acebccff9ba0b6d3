"""Feature spaces of our own, for work without Inception; importing this registers them. None of them gives an FID."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from iptv2_diffusion.cli.sources import BUNDLED_VAE, EMOJI_CLASSIFIER, vae_source
from iptv2_diffusion.diffusion.latents import LatentCodec
from iptv2_diffusion.diffusion.vae_files import WEIGHTS
from iptv2_diffusion.files import file_sha256
from iptv2_diffusion.metrics.classifier import WIDTHS, load_classifier
from iptv2_diffusion.metrics.extractors import FEATURES, Extractor, register_extractor

VAE_LATENTS = "vae-latents"
CLASSIFIER = "emoji-classifier"
MOST = 256  # dimensions, so that 1000 images tell a covariance


def vae_latents(device: torch.device) -> Extractor:
    """Posterior means of the bundled VAE, averaged over a grid of 8x8 cells: 4 * 8 * 8 numbers, in that order."""
    codec = LatentCodec.from_pretrained(vae_source(BUNDLED_VAE), device=device)
    cells = math.isqrt(MOST // codec.channels)
    digest = file_sha256(Path(vae_source(BUNDLED_VAE)) / WEIGHTS)

    def extract(images: Tensor) -> dict[str, Tensor]:
        if min(images.shape[2:]) < cells * codec.factor:
            raise ValueError(f"{VAE_LATENTS}: expected images of {cells * codec.factor} pixels a side or more")
        means, _ = codec.moments(images.to(device).float() / 127.5 - 1)
        return {FEATURES: F.adaptive_avg_pool2d(means, cells).flatten(1)}

    dimensions = {FEATURES: codec.channels * cells**2}
    return Extractor(name=VAE_LATENTS, weights_sha256=digest, dimensions=dimensions, device=device, extract=extract)


def emoji_classifier(device: torch.device) -> Extractor:
    """The last features, 192 numbers, of the bundled classifier of emoji into nine categories."""
    model = load_classifier(EMOJI_CLASSIFIER).to(device)

    @torch.no_grad()
    def extract(images: Tensor) -> dict[str, Tensor]:
        return {FEATURES: model.features(images.to(device))}

    digest, dimensions = file_sha256(EMOJI_CLASSIFIER), {FEATURES: WIDTHS[-1]}
    return Extractor(name=CLASSIFIER, weights_sha256=digest, dimensions=dimensions, device=device, extract=extract)


register_extractor(VAE_LATENTS, vae_latents)
register_extractor(CLASSIFIER, emoji_classifier)
