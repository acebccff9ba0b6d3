"""Pixels <-> latents through a diffusers VAE (AutoencoderKL or AutoencoderTiny).

Images are (B, 3, H, W) in [-1, 1], latents (B, C, H / factor, W / factor) with about unit variance:
    latents = (posterior sample - shift) * scale, with shift and scale from the VAE's config.
What comes out is float32, whatever the VAE's precision; what goes in must be on the VAE's device.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor, nn

from iptv2_diffusion.diffusion.vae_files import SD_VAE, load_vae

Generators = torch.Generator | list[torch.Generator] | None


def _rounded(images: Tensor) -> Tensor:
    return ((images / 2 + 0.5) * 255).round()


def _truncated(images: Tensor) -> Tensor:
    return (127.5 * images + 128).clamp(0, 255)


QUANTISE: dict[str, Callable[[Tensor], Tensor]] = {
    "round": _rounded,  # diffusers: ties to even
    "truncate": _truncated,  # ADM and DiT: ties up
}


class LatentCodec:
    """Encodes and decodes with a frozen VAE; a half-precision VAE that asks for it (`force_upcast`) runs in float32."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.scale = float(vae.config.scaling_factor)
        self.shift = float(vae.config.get("shift_factor") or 0.0)
        self.channels: int = vae.config.latent_channels
        blocks = vae.config.get("encoder_block_out_channels") or vae.config.block_out_channels
        self.factor = 2 ** (len(blocks) - 1)  # pixels per latent, along each side

    @classmethod
    def from_pretrained(
        cls,
        id_or_folder: str = SD_VAE,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> "LatentCodec":
        """The AutoencoderKL or AutoencoderTiny of a local folder or hub id, in eval mode and without gradients.

        FileNotFoundError where it is neither here nor can be fetched, ValueError where it is something else or broken.
        """
        vae = load_vae(id_or_folder).to(device)
        return cls(vae if dtype == vae.dtype else vae.to(dtype))

    @torch.no_grad()
    def encode(self, images: Tensor, generator: Generators = None, noise: Tensor | None = None) -> Tensor:
        """Scaled latents, sampled from the posterior with `noise` (shaped as the latents) or `generator`.

        A list of generators holds one per image, whose latents are then the same in every batch. A VAE without a
        posterior (AutoencoderTiny) ignores both.
        """
        mean, std = self.moments(images)
        if noise is None:
            check_generators(generator, len(images))
            noise = randn_tensor(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        if noise.shape != mean.shape:
            raise ValueError(f"expected noise of shape {tuple(mean.shape)}, got {tuple(noise.shape)}")
        return mean + std * noise.to(mean)

    @torch.no_grad()
    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scaled latents; the latter is zero for a VAE without a posterior."""
        self._check_images(images)
        with self._precision() as dtype:
            encoded = self.vae.encode(images.to(dtype))
        posterior = getattr(encoded, "latent_dist", None)
        mean = (encoded.latents if posterior is None else posterior.mean).float()
        std = torch.zeros_like(mean) if posterior is None else posterior.std.float()
        return (mean - self.shift) * self.scale, std * self.scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images in [-1, 1], clamped."""
        if latents.ndim != 4 or latents.shape[1] != self.channels:
            raise ValueError(f"expected latents (B, {self.channels}, h, w), got {tuple(latents.shape)}")
        latents = latents.float() / self.scale + self.shift
        with self._precision() as dtype:
            images = self.vae.decode(latents.to(dtype)).sample
        return images.float().clamp(-1, 1)

    def decode_uint8(self, latents: Tensor, quantise: str = "round") -> Tensor:
        """(B, 3, H, W) uint8. "round" is diffusers' arithmetic, "truncate" ADM's and DiT's.

        Both give the nearest of the 256 levels, since floor(127.5 x + 128) = floor((x + 1) 255 / 2 + 1/2): they differ
        at ties only, in a few of a million values.
        """
        if quantise not in QUANTISE:
            raise ValueError(f"quantise must be one of {', '.join(QUANTISE)}, got {quantise!r}")
        return QUANTISE[quantise](self.decode(latents)).to(torch.uint8)

    def _check_images(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected images (B, 3, H, W), got {tuple(images.shape)}")
        if images.shape[2] % self.factor or images.shape[3] % self.factor:
            height, width = images.shape[2:]
            raise ValueError(f"image sides must be multiples of the VAE's factor {self.factor}, got {height}x{width}")

    @contextmanager
    def _precision(self) -> Iterator[torch.dtype]:
        """The dtype to compute in. Going up to float32 and back changes no half-precision weight."""
        dtype = self.vae.dtype
        upcast = dtype != torch.float32 and self.vae.config.get("force_upcast", False)
        if not upcast:
            yield dtype
            return
        nn.Module.to(self.vae, torch.float32)  # diffusers' own `to` warns of every change of dtype
        try:
            yield torch.float32
        finally:
            nn.Module.to(self.vae, dtype)


LatentCodec.__module__ = "iptv2_diffusion"


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """ADM's preparation of ImageNet: halve with BOX while twice too large, BICUBIC to the short side, cut the centre.

    `size` in pixels. A plain resize gives other pixels, and other FIDs. Takes RGB or grey images, not palettes.
    """
    while min(image.size) >= 2 * size:
        width, height = image.size
        image = image.resize((width // 2, height // 2), Image.Resampling.BOX)
    width, height = image.size
    scale = size / min(width, height)
    width, height = round(width * scale), round(height * scale)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def check_generators(generator: Generators, images: int) -> None:
    if isinstance(generator, list) and len(generator) != images:
        raise ValueError(f"expected one generator per image, got {len(generator)} for {images} images")
