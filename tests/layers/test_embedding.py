import math

import pytest
import torch

from iptv2_diffusion.layers.embedding import LabelEmbedding, TimestepEmbedding, sinusoids


@pytest.mark.parametrize("timestep", [0.0, 1.0, 17.5, 999.0])
def test_sinusoids(timestep: float) -> None:
    """256 numbers: cosines, then sines, of t / 10000^(i / 128), as DiT."""
    angles = [timestep * 10_000 ** (-i / 128) for i in range(128)]
    expected = [math.cos(angle) for angle in angles] + [math.sin(angle) for angle in angles]
    out = sinusoids(torch.tensor([timestep]))
    # float32 angles near 1000 are 6e-5 apart.
    torch.testing.assert_close(out, torch.tensor([expected]), rtol=0, atol=2e-4)


def test_integer_timesteps_are_the_same_as_float() -> None:
    assert torch.equal(sinusoids(torch.tensor([3, 999])), sinusoids(torch.tensor([3.0, 999.0])))


@torch.no_grad()
def test_timestep_embedding_is_an_mlp_on_the_sinusoids() -> None:
    embedding = TimestepEmbedding(12)
    first, _, second = embedding.mlp
    assert isinstance(first, torch.nn.Linear)
    assert isinstance(second, torch.nn.Linear)
    t = torch.tensor([0, 500])
    hidden = sinusoids(t) @ first.weight.T + first.bias
    expected = (hidden * torch.sigmoid(hidden)) @ second.weight.T + second.bias
    torch.testing.assert_close(embedding(t), expected)
    assert first.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert sum(p.numel() for p in embedding.parameters()) == 257 * 12 + 13 * 12


def test_label_embedding_has_a_row_for_no_class() -> None:
    embedding = LabelEmbedding(10, 64)
    assert embedding.null_label == 10
    assert embedding.weight.shape == (11, 64)
    assert embedding.weight.std().item() == pytest.approx(0.02, rel=0.15)
    labels = torch.tensor([10, 0, 10])
    torch.testing.assert_close(embedding(labels), embedding.weight[labels])
