"""The Inception network of FID, as the ADM suite reads it: pool features, spatial features for sFID, logits.

The graph inception-2015-12-05 with TensorFlow 1's bilinear resize to 299x299, through torch-fidelity's port and
weights. The spatial features are `mixed_6/conv`: torch's `Mixed_6d.branch1x1` after BatchNorm and ReLU, first 7
channels, flattened in TensorFlow's order, rows, columns, channels: 17 * 17 * 7 = 2023 (generation-protocols, section 3).
"""

import hashlib
import logging
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torch_fidelity.registry import register_feature_extractor

from iptv2_diffusion.metrics.extractors import FEATURES, LOGITS, SPATIAL, Extractor

logger = logging.getLogger(__name__)

NAME = "inception-v3-adm"
SPATIAL_CHANNELS = 7
PUBLISHED_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"  # only these weights give an FID
DIMENSIONS = {FEATURES: 2048, SPATIAL: 17 * 17 * SPATIAL_CHANNELS, LOGITS: 1008}
LAYERS = ("2048", SPATIAL, "logits_unbiased")  # in the order of DIMENSIONS


class FeatureExtractorADM(FeatureExtractorInceptionV3):
    """torch-fidelity's network with one more layer, "spatial"; registered there as `inception-v3-adm`."""

    def __init__(self, name: str, features_list: list[str], **options: Any) -> None:
        super().__init__(name, features_list, **options)
        self.requested = list(features_list)
        # The base class computes what it knows; asked for the spatial features only, it has to run up to them.
        self.features_list = [layer for layer in features_list if layer != SPATIAL] or ["768"]
        self.Mixed_6d.branch1x1.register_forward_hook(self._keep_spatial)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        found = dict(zip(self.features_list, super().forward(x), strict=True))
        found[SPATIAL] = self._spatial
        return tuple(found[layer] for layer in self.requested)

    def get_requested_features_list(self) -> list[str]:
        return self.requested

    def convert_features_tuple_to_dict(self, features: tuple[Tensor, ...]) -> dict[str, Tensor]:
        return dict(zip(self.requested, features, strict=True))

    @staticmethod
    def get_provided_features_list() -> Any:
        return (*FeatureExtractorInceptionV3.get_provided_features_list(), SPATIAL)

    def _keep_spatial(self, module: torch.nn.Module, inputs: tuple, maps: Tensor) -> None:
        self._spatial = spatial_features(maps)


register_feature_extractor(NAME, FeatureExtractorADM)


def spatial_features(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H * W * 7) float32: the first 7 channels, which vary fastest."""
    return maps[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1).float()


def inception_extractor(weights: Path, device: torch.device) -> Extractor:
    """ValueError where the file does not hold the weights of this network."""
    try:
        network = FeatureExtractorADM(NAME, list(LAYERS), feature_extractor_weights_path=str(weights)).to(device)
    except Exception as error:  # torch raises many kinds for a broken or foreign file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{weights} does not hold torch-fidelity's Inception weights: {reason}") from error

    @torch.inference_mode()
    def extract(images: Tensor) -> dict[str, Tensor]:
        return dict(zip(DIMENSIONS, network(images.to(device)), strict=True))

    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return Extractor(name=NAME, weights_sha256=digest, dimensions=DIMENSIONS, device=device, extract=extract)


def is_published(extractor: Extractor) -> bool:
    """Whether a Fréchet distance of its features is an FID."""
    return extractor.name == NAME and extractor.weights_sha256 == PUBLISHED_SHA256


def find_weights(path: Path | None = None) -> Path:
    """The file itself, or torch-fidelity's in the cache of torch.hub, fetched where it is not there yet.

    OSError, of one line, where there is none.
    """
    if path is not None:
        if not path.is_file():
            raise FileNotFoundError(f"expected the file of Inception weights, found no {path}")
        return path
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(URL_INCEPTION_V3).name
    if not cached.is_file():
        _fetch(cached)
    return cached


def _fetch(file: Path) -> None:
    try:
        urlopen(Request(URL_INCEPTION_V3, method="HEAD"), timeout=10).close()  # fails at once where nothing is reached
        logger.warning("fetching Inception's weights, 96 MB, to %s", file)
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(file), hash_prefix=PUBLISHED_SHA256)
    except Exception as error:  # OSError of the network, RuntimeError of the checksum, HTTP's own
        raise OSError(
            f"Inception's weights are not in {file.parent} and cannot be fetched ({error}): bring {URL_INCEPTION_V3} "
            "there, or pass its place as --inception-weights"
        ) from error
