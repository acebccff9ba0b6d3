"""`python -m eval.fid --features`: functions of one's own and torch-fidelity's extractors."""

from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import Call
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
from toy_features import by_scipy, loaded, record

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

OWN = """
import torch
from iptv2_diffusion.metrics.extractors import FEATURES, Extractor

def extract(images):
    return {FEATURES: images.float().mean((2, 3))}

def make(device):
    kinds = {FEATURES: 3}
    return Extractor(name="inception-v3-adm", weights_sha256="3" * 64, dimensions=kinds, device=device, extract=extract)

def nothing(device):
    return None

def bare():
    return None
"""


def test_features_of_ones_own_function(sets: Path, fid_of: Call, fid_refused: Call) -> None:
    """Named after the function, whatever it calls itself."""
    (sets / "my_features.py").write_text(OWN)
    flags = ("--samples", "samples", "--reference", "real", "--features")
    shown = fid_of(*flags, "my_features:make", "--output", "out.json")
    a, b = (loaded(f"{name}.npz").double().mean((2, 3)).numpy() for name in ("samples", "real"))
    figures = record("out.json")["figures"]
    assert figures["frechet_distance[my_features.make]@24"] == pytest.approx(by_scipy(a, b), rel=1e-5)
    assert "FID" not in shown
    for function, message in (
        ("my_features:absent", "cannot import --features my_features:absent: module 'my_features' has no attribute"),
        ("no_such:make", "cannot import --features no_such:make: No module named 'no_such'"),
        ("my_features:nothing", "to return an Extractor of 'features', got None"),
        ("my_features:bare", "expected --features my_features:bare to take a torch.device: bare() takes 0"),
    ):
        assert message in fid_refused(*flags, function)


class MeanColour(FeatureExtractorBase):
    """In the place of those whose weights have to be fetched."""

    def __init__(self, name: str, features_list: list[str], **options: Any) -> None:
        super().__init__(name, features_list)
        if name == "broken":
            raise RuntimeError("no connection\nto the hub")
        self.scale = torch.nn.Parameter(torch.tensor(2.0))

    @staticmethod
    def get_provided_features_list() -> Any:
        return ("other", "colour")

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> Any:
        return {"fid": "colour"}[metric]

    def forward(self, input: torch.Tensor) -> tuple[torch.Tensor, ...]:
        assert input.dtype == torch.uint8
        return (input.float().mean((2, 3)) * self.scale,)


def test_features_of_torch_fidelity(
    sets: Path, fid_of: Call, fid_refused: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("clip-vit-b-32", "broken"):
        monkeypatch.setitem(FEATURE_EXTRACTORS_REGISTRY, name, MeanColour)
    flags = ("--samples", "samples", "--reference", "real", "--features")
    shown = fid_of(*flags, "clip-vit-b-32", "--output", "out.json")
    a, b = (2 * loaded(f"{name}.npz").double().mean((2, 3)).numpy() for name in ("samples", "real"))
    found = record("out.json")
    assert found["figures"]["frechet_distance[clip-vit-b-32]@24"] == pytest.approx(by_scipy(a, b), rel=1e-5)
    assert len(found["extractor"]["weights_sha256"]) == 64
    assert "FID" not in shown
    assert fid_refused(*flags, "broken").endswith("torch-fidelity cannot make broken: no connection")
    assert "dinov2-vit-l-14" in fid_refused(*flags, "unknown")
