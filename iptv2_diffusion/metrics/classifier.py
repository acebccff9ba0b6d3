"""A small convolutional classifier of pictures: what samples of a class are recognised as, and features for distances."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

SIZE = 64  # pixels a side that it looks at
WIDTHS = (32, 64, 128, 192)  # channels, the map halved after each


class PictureClassifier(nn.Module):
    """uint8 (B, 3, H, W) of `SIZE` pixels a side or more -> logits (B, classes)."""

    def __init__(self, classes: int, dropout: float = 0.3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip((3, *WIDTHS), WIDTHS, strict=False):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(WIDTHS[-1], classes)

    def features(self, images: Tensor) -> Tensor:
        """(B, 192): the last map averaged, all of them 0 or more."""
        if min(images.shape[2:]) < SIZE:
            raise ValueError(f"expected images of {SIZE} pixels a side or more, got {tuple(images.shape)}")
        reduced = F.adaptive_avg_pool2d(images.float(), SIZE) / 127.5 - 1
        return self.body(reduced.contiguous(memory_format=torch.channels_last)).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.features(images)))


def load_classifier(path: Path) -> PictureClassifier:
    """From a safetensors file, ready to be used. FileNotFoundError where there is none."""
    if not path.is_file():
        raise FileNotFoundError(f"expected a classifier's weights, found no {path}")
    weights = load_file(path)
    model = PictureClassifier(len(weights["head.bias"]))
    model.load_state_dict(weights)  # into float32, whatever the file has
    return model.eval()
