"""How many samples are near-copies of training pictures?

    python scripts/near_copies.py --data-path fluent_emoji_3d --emoji emoji --samples samples/emoji --picture copies.png

The distance of two pictures is the root mean square of their difference at 32x32 pixels, in levels of 255, that of a sample
the one to its nearest training picture. Two bounds: nearer than all but one in a hundred of the held-out pictures, and, as
true copies would be drawn by the autoencoder, as near as 95 in a hundred of the training pictures' reconstructions, which
emoji_sets.py writes. The picture shows the nearest samples, each beside its training picture.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from classify_emoji import BATCH, read_samples
from PIL import Image

from iptv2_diffusion.cli.image_sets import open_images
from iptv2_diffusion.data.emoji import load_emoji
from iptv2_diffusion.pictures import grid

SIDE = 32  # pixels
PERCENTILE = 1  # of the held-out pictures
COPIES_FOUND = 95  # percent, by the bound that comes from reconstructions
SHOWN = 18


def small(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, 3, H, W) -> (N, 3 * 32 * 32), scaled so that a Euclidean distance is a root mean square."""
    reduced = F.adaptive_avg_pool2d(images.float(), SIDE).flatten(1)
    return reduced / reduced.shape[1] ** 0.5


def nearest(images: torch.Tensor, training: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance and index of the nearest training picture of each."""
    distances, indices = torch.cdist(small(images), small(training)).min(dim=1)
    return distances, indices


class Bounds(NamedTuple):
    """Levels, below which a picture is a near-copy of one that was trained on, or as near as a copy."""

    near: float
    copy: float


def copy_bounds(held_out: torch.Tensor, copied: torch.Tensor) -> Bounds:
    """From the distances, to the training pictures nearest to them, of held-out pictures and of reconstructions."""
    return Bounds(held_out.quantile(PERCENTILE / 100).item(), copied.quantile(COPIES_FOUND / 100).item())


def shares(distances: torch.Tensor, bounds: Bounds) -> tuple[str, ...]:
    """How many of the distances are below each bound, of one."""
    return tuple(f"{(distances < bound).float().mean():.3f}" for bound in bounds)


def pictures_in(folder: Path) -> torch.Tensor:
    """uint8 (N, 3, H, W)"""
    images = open_images(folder)
    return torch.cat([torch.from_numpy(batch).permute(0, 3, 1, 2) for batch in images.batches(0, images.count, BATCH)])


def draw(samples: torch.Tensor, training: torch.Tensor, distances: torch.Tensor, indices: torch.Tensor) -> Image.Image:
    pictures, captions = [], []
    for index in distances.argsort()[:SHOWN].tolist():
        for pixels in (samples[index], training[indices[index]]):
            pictures.append(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
        captions += [f"{distances[index]:.1f}", "nearest"]
    return grid(pictures, captions, columns=6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-path", type=Path, required=True)
    parser.add_argument("--emoji", type=Path, required=True, help="output folder of emoji_sets.py")
    parser.add_argument("--samples", type=Path, required=True, help="output folder of sample.py")
    parser.add_argument("--picture", type=Path, required=True, help="new PNG")
    args = parser.parse_args()
    if args.picture.exists():
        raise SystemExit(f"{args.picture} exists")
    data, (samples, _) = load_emoji(args.data_path), read_samples(args.samples)
    training, held_out = data.images[~data.held_out], data.images[data.held_out]
    distances, indices = nearest(samples, training)
    others, _ = nearest(held_out, training)
    copied, _ = nearest(pictures_in(args.emoji / "reconstructions"), training)
    bounds = copy_bounds(others, copied)
    for name, found in (("samples", distances), ("held-out", others), ("copies", copied)):
        below = ", ".join(
            f"{share} below {bound:.2f}" for share, bound in zip(shares(found, bounds), bounds, strict=True)
        )
        print(f"{len(found)} {name}: median {found.median():.2f} levels, {below}")
    draw(samples, training, distances, indices).save(args.picture)


if __name__ == "__main__":
    main()
