"""How many samples are near-copies of training pictures?

    python scripts/near_copies.py --data-path fluent_emoji_3d --samples samples/emoji --picture copies.png

The distance of two pictures is the root mean square of their difference at 32x32 pixels, in levels of 255. A sample is a
near-copy where its nearest training picture is nearer than that of all but one in a hundred of the held-out pictures.
The picture shows the nearest samples, each beside its training picture.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from classify_emoji import read_samples
from PIL import Image

from iptv2_diffusion.data.emoji import EmojiSet, load_emoji
from iptv2_diffusion.pictures import grid

SIDE = 32  # pixels
PERCENTILE = 1
SHOWN = 18


def small(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, 3, H, W) -> (N, 3 * 32 * 32), scaled so that a Euclidean distance is a root mean square."""
    reduced = F.adaptive_avg_pool2d(images.float(), SIDE).flatten(1)
    return reduced / reduced.shape[1] ** 0.5


def nearest(images: torch.Tensor, training: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance and index of the nearest training picture of each."""
    distances, indices = torch.cdist(small(images), small(training)).min(dim=1)
    return distances, indices


def copy_bound(data: EmojiSet) -> float:
    """Levels; nearer to a training picture than this is one in a hundred of the held-out pictures."""
    distances, _ = nearest(data.images[data.held_out], data.images[~data.held_out])
    return distances.quantile(PERCENTILE / 100).item()


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
    parser.add_argument("--samples", type=Path, required=True, help="output folder of sample.py")
    parser.add_argument("--picture", type=Path, required=True, help="new PNG")
    args = parser.parse_args()
    if args.picture.exists():
        raise SystemExit(f"{args.picture} exists")
    data, (samples, _) = load_emoji(args.data_path), read_samples(args.samples)
    training, held_out = data.images[~data.held_out], data.images[data.held_out]
    threshold = copy_bound(data)
    distances, indices = nearest(samples, training)
    print(f"threshold {threshold:.2f} levels: {PERCENTILE} % of {len(held_out)} held-out pictures are nearer")
    print(f"near-copies: {(distances < threshold).float().mean():.3f} of {len(samples)} samples")
    print(f"median distance: samples {distances.median():.2f}, held-out {nearest(held_out, training)[0].median():.2f}")
    draw(samples, training, distances, indices).save(args.picture)


if __name__ == "__main__":
    main()
