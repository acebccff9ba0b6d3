"""Min-SNR weights (Hang et al. 2023), against diffusers' compute_snr and their definition by the error of z_0."""

from typing import Any

import pytest
import torch
from diffusers.training_utils import compute_snr
from torch import Tensor

from iptv2_diffusion.diffusion.objective import DiffusionObjective
from iptv2_diffusion.diffusion.schedule import paper_scheduler

PREDICTIONS = ("epsilon", "v_prediction")
T = torch.tensor([0, 10, 100, 213, 300, 500, 999])


def config_for(prediction: str) -> dict[str, Any]:
    return dict(paper_scheduler().config) | {"prediction_type": prediction}


def snr() -> Tensor:
    return compute_snr(paper_scheduler(), T).double()


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_weights_follow_from_diffusers_snr(gamma: float) -> None:
    """That is in float32: at t = 0 its 1 - alpha_cumprod has four digits."""
    capped = snr().clamp(max=gamma)
    for prediction, expected in (("epsilon", capped / snr()), ("v_prediction", capped / (snr() + 1))):
        weight = DiffusionObjective(config_for(prediction), min_snr=gamma).weight[T].double()
        torch.testing.assert_close(weight, expected, rtol=1e-3, atol=0)


def test_both_predictions_weigh_an_error_of_the_data_by_the_capped_snr() -> None:
    z, noise, off = torch.randn(3, len(T), 4, 4, 4, generator=torch.Generator().manual_seed(0))
    guess = z + 0.1 * off  # of z_0; what a network says of the noise and of v follows from it and z_t
    expected = snr().clamp(max=5) * (guess - z).double().square().mean((1, 2, 3))
    for prediction in PREDICTIONS:
        objective = DiffusionObjective(config_for(prediction), min_snr=5.0)
        z_t = objective.add_noise(z.double(), noise.double(), T)
        a = objective.sqrt_alphas_cumprod[T].double()[:, None, None, None]
        b = objective.sqrt_one_minus_alphas_cumprod[T].double()[:, None, None, None]
        eps = (z_t - a * guess) / b
        output = eps if prediction == "epsilon" else a * eps - b * guess
        loss = objective.loss(output, z, noise, T).double()
        torch.testing.assert_close(loss[1:], expected[1:], rtol=2e-3, atol=0)  # at t = 0 float32 has no digits left


def test_only_the_squared_error_is_weighted_and_only_if_asked() -> None:
    g = torch.Generator().manual_seed(0)
    z, noise = torch.randn(2, len(T), 4, 4, 4, generator=g)
    output = torch.randn(len(T), 8, 4, 4, generator=g)
    plain = DiffusionObjective(config_for("epsilon")).terms(output, z, noise, T)
    weighted = DiffusionObjective(config_for("epsilon"), min_snr=5.0).terms(output, z, noise, T)
    assert plain.weight.equal(torch.ones(len(T)))
    assert plain.total.equal(plain.simple + plain.bound)
    assert weighted.simple.equal(plain.simple)
    assert weighted.bound.equal(plain.bound)
    torch.testing.assert_close(weighted.total, weighted.weight * plain.simple + plain.bound)
    assert weighted.weight[0] < 1e-3 < 1 == weighted.weight[-1]


def test_without_any_signal_weights_are_finite() -> None:
    """A schedule that ends in pure noise: the noise counts fully there, and v, which is -z_0, not at all."""
    betas = torch.linspace(1e-4, 0.02, 1000)
    betas[-1] = 1.0
    for prediction, expected in (("epsilon", 1.0), ("v_prediction", 0.0)):
        config = config_for(prediction) | {"trained_betas": betas.tolist()}
        assert DiffusionObjective(config, min_snr=5.0).weight[-1].item() == expected
