"""The Inception network with random weights in the published layout: layers, order of the spatial features, refusals."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from random_inception import random_inception
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torch_fidelity.utils import create_feature_extractor

from iptv2_diffusion.metrics import inception
from iptv2_diffusion.metrics.extractors import FEATURES, LOGITS, SPATIAL
from iptv2_diffusion.metrics.inception import find_weights, inception_extractor, is_published, spatial_features


@pytest.fixture(scope="module")
def plain() -> FeatureExtractorInceptionV3:
    return random_inception()


@pytest.fixture(scope="module")
def weights(plain: FeatureExtractorInceptionV3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """95 MB, the size of the published file."""
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(plain.state_dict(), file)
    yield file
    file.unlink()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(0, 256, (2, 3, 40, 40), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_spatial_features_are_in_the_order_of_rows_columns_channels() -> None:
    """TensorFlow's: of channels, rows and columns the channels vary fastest (sFID 299 in place of 6.14 otherwise)."""
    rows, columns, channels = torch.meshgrid(torch.arange(17), torch.arange(17), torch.arange(192), indexing="ij")
    numbered = (7 * (17 * rows + columns) + channels).permute(2, 0, 1)[None].float()
    assert torch.equal(spatial_features(numbered), torch.arange(17 * 17 * 7.0)[None])


def test_all_three_kinds_of_features(plain: FeatureExtractorInceptionV3, weights: Path, images: Tensor) -> None:
    """The pool and the logits are torch-fidelity's own, the spatial ones those of the layers before them."""
    extractor = inception_extractor(weights, torch.device("cpu"))
    found = extractor.extract(images)
    assert {kind: tuple(found[kind].shape) for kind in found} == {
        FEATURES: (2, 2048),
        SPATIAL: (2, 2023),
        LOGITS: (2, 1008),
    }
    assert extractor.dimensions == {kind: values.shape[1] for kind, values in found.items()}
    pool, logits = plain(images)
    torch.testing.assert_close(found[FEATURES], pool, rtol=0, atol=0)
    torch.testing.assert_close(found[LOGITS], logits, rtol=0, atol=0)
    assert pool.std(0).mean() > 1e-3
    expected = spatial_by_hand(plain, images)
    torch.testing.assert_close(found[SPATIAL], expected)
    assert (expected > 0).float().mean() > 0.02
    assert extractor.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert not is_published(extractor)


@torch.no_grad()
def spatial_by_hand(network: FeatureExtractorInceptionV3, images: Tensor) -> Tensor:
    x = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(299, 299), align_corners=False)
    x = (x - 128) / 128
    for name, layer in network.named_children():
        if name == "Mixed_6d":
            break
        x = layer(x)
    block = network.get_submodule("Mixed_6d.branch1x1")
    x = torch.relu(block.get_submodule("bn")(block.get_submodule("conv")(x)))
    return torch.stack([x[:, c] for c in range(7)], dim=-1).reshape(len(images), -1)


def test_it_is_an_extractor_of_torch_fidelity(weights: Path, images: Tensor) -> None:
    """Asked for the spatial features only."""
    network = create_feature_extractor(
        "inception-v3-adm", ["spatial"], cuda=False, feature_extractor_weights_path=str(weights), verbose=False
    )
    found = network.convert_features_tuple_to_dict(network(images))
    assert found.keys() == {"spatial"}
    assert tuple(found["spatial"].shape) == (2, 2023)


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("not weights")
    for name in ("other.pth", "text.pth"):
        with pytest.raises(ValueError, match=rf"{name} does not hold torch-fidelity's Inception weights: [^\n]+$"):
            inception_extractor(tmp_path / name, torch.device("cpu"))


def test_weights_are_looked_for_where_torch_fidelity_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def unreachable(*arguments: object, **options: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(inception, "urlopen", unreachable)
    with pytest.raises(OSError, match=r"no route to host.*bring https://\S+\.pth there, or .*--inception-weights"):
        find_weights()
    with pytest.raises(FileNotFoundError, match=r"found no .*absent\.pth"):
        find_weights(tmp_path / "absent.pth")
    cached = tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    cached.parent.mkdir(exist_ok=True)
    cached.touch()
    assert find_weights() == cached
    assert find_weights(cached) == cached
