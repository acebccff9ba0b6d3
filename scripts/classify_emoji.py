"""How well does a classifier of real emoji name the category of drawn ones?

    python scripts/classify_emoji.py --samples samples/000 samples/001
    python scripts/classify_emoji.py --data-path fluent_emoji_3d --train classifier.safetensors

The first prints the accuracy of the bundled classifier on folders of samples, whose PNGs carry their labels in their
metadata. The second trains one like it on the pictures that the generator was trained on (shifted by a few pixels) and
prints its accuracy on the held-out ones.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from tqdm import tqdm

from iptv2_diffusion.cli.sample_config import METADATA_KEY
from iptv2_diffusion.cli.sources import EMOJI_CLASSIFIER
from iptv2_diffusion.data.emoji import CATEGORIES, load_emoji
from iptv2_diffusion.metrics.classifier import SIZE, PictureClassifier, load_classifier

SHIFT = 6  # pixels, the most a training picture moves
BATCH = 64


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Every picture moved by its own few pixels, white moving in."""
    padded = F.pad(images, (SHIFT,) * 4, value=255)
    corners = torch.randint(2 * SHIFT + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([p[:, y : y + SIZE, x : x + SIZE] for p, (y, x) in zip(padded, corners, strict=True)])


def train(images: torch.Tensor, labels: torch.Tensor, epochs: int, seed: int) -> PictureClassifier:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = PictureClassifier(len(CATEGORIES)).train()
    steps = epochs * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in tqdm(range(epochs), desc="epochs"):
        for picks in torch.randperm(len(images), generator=generator).split(BATCH)[: len(images) // BATCH]:
            loss = F.cross_entropy(model(shifted(images[picks], generator)), labels[picks], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: PictureClassifier, images: torch.Tensor, labels: torch.Tensor) -> float:
    named = torch.cat([model(chunk).argmax(1) for chunk in images.split(BATCH)])
    return (named == labels).float().mean().item()


def read_samples(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a folder that sample.py wrote, a set of many included."""
    pixels, labels = [], []
    for path in sorted(folder.rglob("[0-9]*.png")):
        with Image.open(path) as picture:
            labels.append(json.loads(picture.info[METADATA_KEY])["label"])
            pixels.append(torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1))
    if not pixels:
        raise SystemExit(f"expected samples in {folder}, found none")
    return torch.stack(pixels), torch.tensor(labels)


def make_classifier(data_path: Path, target: Path, epochs: int, seed: int) -> None:
    if target.exists():
        raise SystemExit(f"{target} exists")
    data = load_emoji(data_path, SIZE)
    held_out = data.held_out
    trained = train(data.images[~held_out], data.labels[~held_out], epochs, seed)
    halves = {name: t.half() if t.is_floating_point() else t for name, t in trained.state_dict().items()}
    save_file({name: tensor.contiguous() for name, tensor in halves.items()}, target)
    model = load_classifier(target)
    most = data.labels[held_out].bincount().max().item() / int(held_out.sum())
    print(f"held-out real pictures: {accuracy(model, data.images[held_out], data.labels[held_out]):.3f}")
    print(f"chance: {1 / len(CATEGORIES):.3f} on balanced labels, {most:.3f} for always naming the largest category")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, nargs="+", default=[], help="output folders of sample.py")
    parser.add_argument("--weights", type=Path, default=EMOJI_CLASSIFIER)
    parser.add_argument("--train", type=Path, help="train a classifier into this file")
    parser.add_argument("--data-path", type=Path, help="of --train")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if bool(args.train) == bool(args.samples) or bool(args.train) != bool(args.data_path):
        parser.error("expected --samples, or --train with --data-path")
    if args.train:
        make_classifier(args.data_path, args.train, args.epochs, args.seed)
        return
    model = load_classifier(args.weights)
    for folder in args.samples:
        images, labels = read_samples(folder)
        print(f"{folder} ({len(images)} pictures): {accuracy(model, images, labels):.3f}")


if __name__ == "__main__":
    main()
