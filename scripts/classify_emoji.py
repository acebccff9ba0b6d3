"""How well does a classifier of real emoji name the category of drawn ones?

    python scripts/classify_emoji.py --data-path fluent_emoji_3d --samples samples/000 samples/001

Trains a small convolutional network on the pictures that the generator was trained on (64x64, shifted), prints its
accuracy on the held-out ones and on every folder of samples, whose PNGs carry their labels in their metadata.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from tqdm import tqdm

from iptv2_diffusion.cli.sample_config import METADATA_KEY
from iptv2_diffusion.data.emoji import CATEGORIES, load_emoji

SIZE = 64  # pixels
SHIFT = 6  # pixels, the most a training picture moves
BATCH = 64


def network() -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 128), (128, 192)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(192, len(CATEGORIES))]
    return nn.Sequential(*layers, *head).to(memory_format=torch.channels_last)


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Every picture moved by its own few pixels, white moving in."""
    padded = F.pad(images, (SHIFT,) * 4, value=255)
    corners = torch.randint(2 * SHIFT + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([p[:, y : y + SIZE, x : x + SIZE] for p, (y, x) in zip(padded, corners, strict=True)])


def logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return model((images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last))


def train(images: torch.Tensor, labels: torch.Tensor, epochs: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = network().train()
    steps = epochs * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in tqdm(range(epochs), desc="epochs"):
        for picks in torch.randperm(len(images), generator=generator).split(BATCH)[: len(images) // BATCH]:
            moved = shifted(images[picks], generator)
            loss = F.cross_entropy(logits(model, moved), labels[picks], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    named = torch.cat([logits(model, chunk).argmax(1) for chunk in images.split(BATCH)])
    return (named == labels).float().mean().item()


def read_samples(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels = [], []
    for path in sorted(folder.glob("[0-9]*.png")):
        with Image.open(path) as picture:
            labels.append(json.loads(picture.info[METADATA_KEY])["label"])
            small = picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX)
            pixels.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
    return torch.stack(pixels), torch.tensor(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-path", type=Path, required=True)
    parser.add_argument("--samples", type=Path, nargs="+", required=True, help="output folders of sample.py")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    data = load_emoji(args.data_path, SIZE)
    held_out = data.held_out
    model = train(data.images[~held_out], data.labels[~held_out], args.epochs, args.seed)
    most = data.labels[held_out].bincount().max().item() / int(held_out.sum())
    print(f"held-out real pictures: {accuracy(model, data.images[held_out], data.labels[held_out]):.3f}")
    print(f"chance: {1 / len(CATEGORIES):.3f} on balanced labels, {most:.3f} for always naming the largest category")
    for folder in args.samples:
        images, labels = read_samples(folder)
        print(f"{folder} ({len(images)} pictures): {accuracy(model, images, labels):.3f}")


if __name__ == "__main__":
    main()
