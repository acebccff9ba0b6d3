"""What turns images into the features that distances are measured in, by name.

`EXTRACTORS` maps names to functions device -> Extractor. A distance in any of them is a Fréchet distance in that
feature space; only the published Inception network (`metrics.inception`) gives an FID.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

FEATURES = "features"  # what distances, precision and recall are measured in
SPATIAL = "spatial"  # of Inception: what sFID is measured in
LOGITS = "logits"  # of Inception: what its score is computed of


@dataclass(frozen=True, kw_only=True)
class Extractor:
    name: str
    weights_sha256: str  # of the network's file
    dimensions: Mapping[str, int]  # of each kind of features; FEATURES is always there
    device: torch.device  # where features come out
    extract: Callable[[Tensor], Mapping[str, Tensor]]  # uint8 (B, 3, H, W) -> kind -> (B, d)

    @property
    def identity(self) -> str:
        """What tells one feature space from another."""
        return f"{self.name}-{self.weights_sha256[:16]}"


MakeExtractor = Callable[[torch.device], Extractor]
EXTRACTORS: dict[str, MakeExtractor] = {}


def register_extractor(name: str, make: MakeExtractor) -> None:
    """ValueError where the name is taken."""
    if name in EXTRACTORS:
        raise ValueError(f"a feature extractor {name!r} is registered already")
    EXTRACTORS[name] = make
