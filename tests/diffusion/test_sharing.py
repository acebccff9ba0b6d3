"""Modulation of shared rows: the same predictions, from as many products as there are pairs of timestep and label."""

import pytest
import torch
from dummy import GaussianDenoiser, real_pipeline, seeded
from tiny_denoiser import make

from iptv2_diffusion.diffusion.sharing import shared_modulation
from iptv2_diffusion.layers.residual import AdaLNZeroResidual


@pytest.mark.parametrize(
    ("timestep", "labels", "pairs"),
    [
        (torch.tensor(500), [3, 1, 3, 5, 5, 5], 3),
        (torch.tensor([500.0, 500, 500, 20, 20, 20.5]), [3, 3, 5, 5, 5, 5], 4),
        (torch.tensor(7), [0, 1, 2, 3, 4, 5], 6),
    ],
    ids=["guidance", "own timesteps", "nothing shared"],
)
@torch.no_grad()
def test_predictions_are_the_same_from_fewer_rows(timestep, labels, pairs):
    model = make()
    layer = next(module for module in model.modules() if isinstance(module, AdaLNZeroResidual)).modulation
    counts = []
    watch = layer.register_forward_hook(lambda _, __, output: counts.append(len(output)))
    x = torch.randn(6, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    inputs = x, timestep, torch.tensor(labels)
    plain = model(*inputs).sample
    with shared_modulation([model]):
        shared = model(*inputs).sample
    assert counts == [6, pairs]
    torch.testing.assert_close(shared, plain, rtol=1e-5, atol=1e-5)
    assert plain.std() > 0.1  # the modulations were not those of the initialisation
    watch.remove()
    torch.testing.assert_close(model(*inputs).sample, plain, rtol=0, atol=0)
    assert not layer._forward_hooks
    assert not model._forward_pre_hooks


def test_refuses_what_has_no_modulation():
    with (
        pytest.raises(ValueError, match="needs a denoiser of IPT-V2, not GaussianDenoiser"),
        shared_modulation([GaussianDenoiser()]),
    ):
        pass


def test_pipeline_draws_the_same():
    pipeline = real_pipeline()
    plain, shared = (
        pipeline(
            [0, 1, 1], num_inference_steps=2, generator=seeded(3, 4, 5), output_type="latent", share_modulation=share
        ).images
        for share in (False, True)
    )
    torch.testing.assert_close(shared, plain, rtol=1e-2, atol=1e-3)
