"""A feature space of colours that stands for others, and what records and arrays hold."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch

from iptv2_diffusion.metrics.extractors import FEATURES, LOGITS, SPATIAL, Extractor

COUNT = 24


def colours(images: torch.Tensor) -> torch.Tensor:
    """(B, 6): mean colours of the upper and of the lower half."""
    return images.float().unflatten(2, (2, -1)).mean((3, 4)).flatten(1)


def toy(name: str, device: torch.device, weights_sha256: str = "1" * 64) -> Extractor:
    def extract(images: torch.Tensor) -> dict[str, torch.Tensor]:
        found = colours(images)
        return {FEATURES: found, SPATIAL: found[:, :2], LOGITS: found / 64}

    dimensions = {FEATURES: 6, SPATIAL: 2, LOGITS: 6}
    return Extractor(name=name, weights_sha256=weights_sha256, dimensions=dimensions, device=device, extract=extract)


def record(name: str) -> dict[str, Any]:
    return json.loads(Path(name).read_text("utf-8"))


def loaded(name: str) -> torch.Tensor:
    return torch.from_numpy(np.load(name)["arr_0"]).permute(0, 3, 1, 2)


def by_scipy(a: np.ndarray, b: np.ndarray) -> float:
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s + t - 2 * np.real(scipy.linalg.sqrtm(s @ t))))
