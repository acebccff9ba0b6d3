"""The bundled classifier of emoji, its features, and what its file may hold."""

import pytest
import torch
import torch.nn.functional as F

from iptv2_diffusion.cli.feature_extractors import CLASSIFIER
from iptv2_diffusion.cli.features import make_extractor
from iptv2_diffusion.cli.sources import EMOJI_CLASSIFIER
from iptv2_diffusion.data.emoji import load_emoji
from iptv2_diffusion.metrics.classifier import PictureClassifier, load_classifier
from iptv2_diffusion.metrics.extractors import FEATURES


@torch.no_grad()
def test_features_are_the_averaged_last_map_of_the_reduced_picture():
    torch.manual_seed(0)
    model = PictureClassifier(3).eval()
    weights = [weight for weight in model.parameters() if weight.ndim == 4]
    images = torch.randint(256, (2, 3, 128, 128), dtype=torch.uint8)
    x = images.float().view(2, 3, 64, 2, 64, 2).mean((3, 5)) / 127.5 - 1
    for weight in weights:
        x = F.conv2d(x, weight, padding=1) / (1 + 1e-5) ** 0.5  # of a fresh batch norm
        x = F.max_pool2d(x.relu(), 2)
    expected = x.mean((2, 3))
    torch.testing.assert_close(model.features(images), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model(images), expected @ model.head.weight.T + model.head.bias, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"64 pixels a side or more, got \(1, 3, 128, 63\)"):
        model.features(torch.zeros(1, 3, 128, 63))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"found no .*absent"):
        load_classifier(tmp_path / "absent")


@torch.no_grad()
def test_bundled_weights_name_nine_of_the_packaged_emoji(emoji_folder):
    data = load_emoji(emoji_folder, 128)
    model = load_classifier(EMOJI_CLASSIFIER)
    named = model(data.images).argmax(1)
    wrong = {data.names[index] for index in (named != data.labels).nonzero().flatten().tolist()}
    assert wrong == {"jack-o-lantern", "soccer ball", "chequered flag"}
    extractor = make_extractor(CLASSIFIER, torch.device("cpu"))
    features = extractor.extract(data.images)[FEATURES]
    assert features.shape == (len(data.images), extractor.dimensions[FEATURES]) == (12, 192)
    torch.testing.assert_close(features, model.features(data.images))
