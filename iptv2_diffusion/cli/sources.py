"""The data behind the flags of training: the bundled emoji latents, shards of latents, or a folder of pictures."""

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from iptv2_diffusion.data.emoji import CATEGORIES, held_out_mask
from iptv2_diffusion.data.image_folder import ImageFolder
from iptv2_diffusion.data.latent_format import LatentHeader, is_latent_folder
from iptv2_diffusion.data.latent_shards import LatentShards, open_latents
from iptv2_diffusion.data.sources import LatentMoments, Pictures, load_moments
from iptv2_diffusion.diffusion.class_names import class_names
from iptv2_diffusion.diffusion.latents import LatentCodec, center_crop
from iptv2_diffusion.diffusion.vae_files import SD_VAE
from iptv2_diffusion.diffusion.vae_hash import encoder_sha256

EMOJI = Path(__file__).parents[1] / "assets" / "emoji"  # a saved pipeline and the latents it was trained on
EMOJI_LATENTS = EMOJI / "latents.safetensors"
EMOJI_CLASSIFIER = EMOJI / "classifier.safetensors"
EMOJI_PIXELS = 128  # pixels a side
BUNDLED_VAE = "bundled"  # how a run records it, wherever the package is installed


def vae_source(recorded: str) -> str:
    """The hub id or folder of the VAE that a run recorded."""
    return str(EMOJI / "vae") if recorded == BUNDLED_VAE else recorded


def recorded_vae(vae: str) -> str:
    """How a run or shards record the VAE that was asked for: folders by their full path."""
    return str(Path(vae).resolve()) if Path(vae).is_dir() else vae


@dataclass(frozen=True, kw_only=True)
class GenerationData:
    training: LatentMoments | LatentShards | Pictures
    held_out: LatentMoments | LatentShards | None
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
        class_names=list(moments.class_names or CATEGORIES),
        codec=LatentCodec.from_pretrained(vae_source(BUNDLED_VAE)),
        vae=BUNDLED_VAE,
        content=_digest(moments.labels.tolist()),
    )


def pictures(root: Path, generation: Any) -> GenerationData:
    """A folder of pictures for each class, or of shards that were made of them."""
    if is_latent_folder(root):
        return latents(root, generation)
    folder = ImageFolder(root, partial(center_crop, size=generation.image_size))
    vae = generation.vae or SD_VAE
    codec = LatentCodec.from_pretrained(vae)
    return GenerationData(
        training=Pictures(folder, generation.flip),
        held_out=None,
        class_names=class_names(folder.classes),
        codec=codec,
        vae=recorded_vae(vae),
        content=_digest([str(Path(file).relative_to(root)) for file in folder.files]),
    )


def latents(root: Path, generation: Any) -> GenerationData:
    """Shards of `iptv2-data latents`; ValueError where they do not fit the flags or the VAE."""
    training, held_out = open_latents(root, mirror=generation.flip)
    header = training.header
    vae = generation.vae or header.vae
    if header.image_size != generation.image_size:
        raise ValueError(f"expected --image-size {header.image_size}, of the latents, got {generation.image_size}")
    try:
        codec = LatentCodec.from_pretrained(vae_source(vae))
    except (OSError, ValueError) as error:
        if generation.vae is not None:
            raise
        raise ValueError(f"the latents in {root} name their VAE, {vae}, which --vae replaces: {error}") from error
    _check_vae(header, codec, vae)
    return GenerationData(
        training=training,
        held_out=held_out,
        class_names=class_names(header.classes),
        codec=codec,
        vae=recorded_vae(vae),
        content=_digest([header.sha256, header.hold_out]),
    )


def _check_vae(header: LatentHeader, codec: LatentCodec, vae: str) -> None:
    side = header.image_size // codec.factor
    found = {
        "scale": (header.scale, codec.scale),
        "shift": (header.shift, codec.shift),
        "shape": (header.shape, (codec.channels, side, side)),
        "hash of the encoder": (header.vae_sha256, encoder_sha256(codec.vae)),
    }
    for name, (expected, got) in found.items():
        if expected != got:
            raise ValueError(f"the latents were made by the VAE {header.vae}, not {vae}: {name} {expected}, not {got}")


def _digest(content: list) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
