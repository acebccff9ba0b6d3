"""Folders of real emoji, 128 pixels a side, that samples are compared with.

python scripts/emoji_sets.py --data-path fluent_emoji_3d --output emoji

pictures/CATEGORY/NAME.png  all of them, as training by --data-path reads them
reconstructions/            what the bundled autoencoder makes of those that are trained on
drawn/                      1,000 of these, of categories drawn as sample.py does: what a perfect generator would draw
half-a/, half-b/            every other picture: how far apart two sets of real ones are
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from iptv2_diffusion.cli.sources import BUNDLED_VAE, vae_source
from iptv2_diffusion.data.emoji import CATEGORIES, EmojiSet, load_emoji
from iptv2_diffusion.diffusion.latents import LatentCodec

BATCH = 32
DRAWN = 1000


def save(pixels: torch.Tensor, path: Path) -> None:
    """uint8 (3, H, W) as a new file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)


@torch.no_grad()
def reconstructed(images: torch.Tensor) -> torch.Tensor:
    codec = LatentCodec.from_pretrained(vae_source(BUNDLED_VAE))
    chunks = [chunk.float() / 127.5 - 1 for chunk in images.split(BATCH)]
    return torch.cat([codec.decode_uint8(codec.moments(chunk)[0]) for chunk in tqdm(chunks, desc="reconstructions")])


def drawn(labels: torch.Tensor) -> torch.Tensor:
    """(DRAWN,) indices: a uniformly random category first, then one of its pictures."""
    generator = torch.Generator().manual_seed(0)
    of = [(labels == label).nonzero().flatten() for label in range(len(CATEGORIES))]
    categories = torch.randint(len(CATEGORIES), (DRAWN,), generator=generator).tolist()
    return torch.stack([of[c][torch.randint(len(of[c]), (), generator=generator)] for c in categories])


def write(data: EmojiSet, output: Path) -> None:
    for index, pixels in enumerate(data.images):
        name = f"{index:04d}.png"
        save(pixels, output / "pictures" / CATEGORIES[int(data.labels[index])] / name)
        save(pixels, output / ("half-b" if index % 2 else "half-a") / name)
    trained = ~data.held_out
    pictures = reconstructed(data.images[trained])
    for index, pixels in enumerate(pictures):
        save(pixels, output / "reconstructions" / f"{index:04d}.png")
    for place, index in enumerate(drawn(data.labels[trained]).tolist()):
        save(pictures[index], output / "drawn" / f"{place:04d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-path", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="new folder")
    args = parser.parse_args()
    if args.output.exists():
        raise SystemExit(f"{args.output} exists")
    write(load_emoji(args.data_path), args.output)


if __name__ == "__main__":
    main()
