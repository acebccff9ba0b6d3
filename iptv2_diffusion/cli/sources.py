"""The data behind the flags of training: the bundled emoji latents, or a folder of pictures."""

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from iptv2_diffusion.data.emoji import CATEGORIES, held_out_mask
from iptv2_diffusion.data.image_folder import ImageFolder
from iptv2_diffusion.data.sources import LatentMoments, Pictures, load_moments
from iptv2_diffusion.diffusion.class_names import class_names
from iptv2_diffusion.diffusion.latents import LatentCodec, center_crop
from iptv2_diffusion.diffusion.vae_files import SD_VAE

EMOJI = Path(__file__).parents[1] / "assets" / "emoji"  # a saved pipeline and the latents it was trained on
EMOJI_LATENTS = EMOJI / "latents.safetensors"
EMOJI_PIXELS = 128  # pixels a side
BUNDLED_VAE = "bundled"  # how a run records it, wherever the package is installed


def vae_source(recorded: str) -> str:
    """The hub id or folder of the VAE that a run recorded."""
    return str(EMOJI / "vae") if recorded == BUNDLED_VAE else recorded


@dataclass(frozen=True, kw_only=True)
class GenerationData:
    training: LatentMoments | Pictures
    held_out: LatentMoments | None
    class_names: list[str]
    codec: LatentCodec
    vae: str  # hub id, folder or BUNDLED_VAE
    content: str  # what the data are, for telling one set from another


def bundled_emoji(generation: Any) -> GenerationData:
    if generation.image_size != EMOJI_PIXELS or generation.vae is not None:
        raise ValueError(
            f"the bundled latents are {EMOJI_PIXELS} pixels of the bundled VAE: --image-size and --vae need --data-path"
        )
    if generation.flip:
        raise ValueError("the bundled latents cannot be mirrored: --flip needs --data-path")
    moments = load_moments(EMOJI_LATENTS)
    held_out = held_out_mask(len(moments))
    return GenerationData(
        training=moments.part(~held_out),
        held_out=moments.part(held_out),
        class_names=list(CATEGORIES),
        codec=LatentCodec.from_pretrained(vae_source(BUNDLED_VAE)),
        vae=BUNDLED_VAE,
        content=_digest(moments.labels.tolist()),
    )


def pictures(root: Path, generation: Any) -> GenerationData:
    folder = ImageFolder(root, partial(center_crop, size=generation.image_size))
    vae = generation.vae or SD_VAE
    codec = LatentCodec.from_pretrained(vae)
    return GenerationData(
        training=Pictures(folder, generation.flip),
        held_out=None,
        class_names=class_names(folder.classes),
        codec=codec,
        vae=str(Path(vae).resolve()) if Path(vae).is_dir() else vae,
        content=_digest([str(Path(file).relative_to(root)) for file in folder.files]),
    )


def _digest(content: list) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
