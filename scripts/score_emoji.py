"""What the emoji generator is measured by, for sets of samples side by side, as a table in Markdown.

    python scripts/score_emoji.py --data-path fluent_emoji_3d --emoji emoji --samples samples/cfg1.0 samples/cfg4.0

For every folder of sample.py: Frechet distance to all real pictures in the features of the bundled classifier, accuracy
of that classifier, share of near-copies and of those as near as copies (see near_copies.py). Above them the floors, from the
folders of emoji_sets.py: the two halves of the real pictures against each other, and what the bundled autoencoder makes of those
that are trained on, all of them and 1,000 drawn by categories as samples are: what a perfect generator would draw. Their shares
say how many copies would be found if all samples were.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from classify_emoji import BATCH, accuracy, read_samples
from near_copies import copy_bounds, nearest, pictures_in, shares

from iptv2_diffusion.cli.sample_folder import SETTINGS
from iptv2_diffusion.cli.sources import EMOJI_CLASSIFIER
from iptv2_diffusion.data.emoji import EmojiSet, load_emoji
from iptv2_diffusion.metrics.classifier import PictureClassifier, load_classifier
from iptv2_diffusion.metrics.frechet import Gaussian, Moments, frechet_distance

HEADER = ("pictures", "number", "Frechet distance", "named rightly", "near-copies", "as near as copies")


@torch.no_grad()
def gaussian(model: PictureClassifier, images: torch.Tensor) -> Gaussian:
    """Of the classifier's last features of uint8 (N, 3, H, W)."""
    features = [model.features(chunk) for chunk in images.split(BATCH)]
    moments = Moments(features[0].shape[1], torch.device("cpu"))
    for chunk in features:
        moments.add(chunk)
    return moments.gaussian()


def rows(model: PictureClassifier, data: EmojiSet, emoji: Path, samples: Iterable[Path]) -> Iterable[Sequence[str]]:
    """The floors, then the folders of samples."""
    real, training = gaussian(model, data.images), data.images[~data.held_out]
    half, other = (pictures_in(emoji / name) for name in ("half-a", "half-b"))
    distance = frechet_distance(gaussian(model, half), gaussian(model, other))
    yield "one half, against the other", f"{len(half)}", f"{distance:.2f}", "", "", ""
    held_out, labels = data.images[data.held_out], data.labels[data.held_out]
    made = {name: pictures_in(emoji / name) for name in ("reconstructions", "drawn")}
    others = nearest(held_out, training)[0]
    copied = {name: nearest(images, training)[0] for name, images in made.items()}
    bounds = copy_bounds(others, copied["reconstructions"])
    for name, images in made.items():
        distance = frechet_distance(gaussian(model, images), real)
        yield f"{name}/", f"{len(images)}", f"{distance:.2f}", "", *shares(copied[name], bounds)
    named = f"{accuracy(model, held_out, labels):.3f}"
    yield "held-out pictures", f"{len(held_out)}", "", named, *shares(others, bounds)
    for folder in samples:
        images, labels = read_samples(folder)
        distance, named = frechet_distance(gaussian(model, images), real), f"{accuracy(model, images, labels):.3f}"
        copies = shares(nearest(images, training)[0], bounds)
        yield described(folder), f"{len(images)}", f"{distance:.2f}", named, *copies


def described(folder: Path) -> str:
    settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text("utf-8"))
    return f"{settings['sampler']} {settings['steps']}, guidance {settings['cfg_scale']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-path", type=Path, required=True)
    parser.add_argument("--emoji", type=Path, required=True, help="output folder of emoji_sets.py")
    parser.add_argument("--samples", type=Path, nargs="+", required=True, help="output folders of sample.py, of many")
    args = parser.parse_args()
    if missing := [folder for folder in args.samples if not (folder / SETTINGS).is_file()]:
        parser.error(f"expected folders of sample.py --num-samples with {SETTINGS}, got {missing[0]}")
    data, model = load_emoji(args.data_path), load_classifier(EMOJI_CLASSIFIER)
    for row in chain((HEADER, ["---"] * len(HEADER)), rows(model, data, args.emoji, args.samples)):
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
