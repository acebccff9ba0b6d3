import math
from typing import Any

import pytest
import torch
from torch import Tensor

from iptv2_diffusion.diffusion.objective import DiffusionObjective, discretised_nll, drop_labels
from iptv2_diffusion.diffusion.schedule import paper_scheduler

BETAS = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]
CUMPROD = [math.prod(1 - b for b in BETAS[: i + 1]) for i in range(1000)]
TIMESTEPS = [0, 0, 1, 2, 250, 500, 999]


def config_for(prediction_type: str) -> dict[str, Any]:
    return dict(paper_scheduler().config) | {"prediction_type": prediction_type}


def batch(channels: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(output, z, noise, t): a prediction a little off the truth, latents also beyond [-1, 1]."""
    g = torch.Generator().manual_seed(0)
    t = torch.tensor(TIMESTEPS)
    z, noise = torch.randn(2, len(t), 4, 4, 4, generator=g)
    output = torch.randn(len(t), channels, 4, 4, generator=g) * 0.5
    return output, z, noise, t


def normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def bound_reference(x0: float, x_t: float, eps: float, v: float, t: int) -> float:
    """Improved DDPM's L_vlb term of one element in nats, written with the means themselves."""
    a, previous, beta = CUMPROD[t], CUMPROD[t - 1] if t else 1.0, BETAS[t]
    c0 = math.sqrt(previous) * beta / (1 - a)
    c1 = math.sqrt(1 - beta) * (1 - previous) / (1 - a)
    clamped = max(t, 1)
    lower = math.log(BETAS[clamped] * (1 - CUMPROD[clamped - 1]) / (1 - CUMPROD[clamped]))
    start = (x_t - math.sqrt(1 - a) * eps) / math.sqrt(a)
    true_mean, mean = c0 * x0 + c1 * x_t, c0 * start + c1 * x_t
    log_variance = (v + 1) / 2 * math.log(beta) + (1 - v) / 2 * lower
    if t > 0:
        ratio = math.exp(lower - log_variance)
        return 0.5 * (-1 + log_variance - lower + ratio + (true_mean - mean) ** 2 / math.exp(log_variance))
    std = math.exp(0.5 * log_variance)
    upper_cdf = normal_cdf((x0 - mean + 1 / 255) / std)
    lower_cdf = normal_cdf((x0 - mean - 1 / 255) / std)
    if x0 < -0.999:
        probability = upper_cdf
    elif x0 > 0.999:
        probability = normal_cdf(-(x0 - mean - 1 / 255) / std)
    else:
        probability = upper_cdf - lower_cdf
    return -math.log(max(probability, 1e-12))


def terms_reference(prediction_type: str, output: Tensor, z: Tensor, noise: Tensor, t: int) -> tuple[float, float]:
    """Both terms of one sample: loops over its elements in float64."""
    a = CUMPROD[t]
    mean_half, variance = output.double().chunk(2)
    squares, bounds = [], []
    elements = zip(*(m.flatten().tolist() for m in (mean_half, variance, z, noise)), strict=True)
    for prediction, v, x0, true_noise in elements:
        x_t = math.sqrt(a) * x0 + math.sqrt(1 - a) * true_noise
        velocity = math.sqrt(a) * true_noise - math.sqrt(1 - a) * x0
        is_noise = prediction_type == "epsilon"
        squares.append((prediction - (true_noise if is_noise else velocity)) ** 2)
        eps = prediction if is_noise else math.sqrt(a) * prediction + math.sqrt(1 - a) * x_t
        bounds.append(bound_reference(x0, x_t, eps, v, t))
    return sum(squares) / len(squares), sum(bounds) / len(bounds) / math.log(2)


@pytest.mark.parametrize("scale", [0.0, 1.0])  # of the prediction's error: 0 keeps likelihoods off their floor
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_terms_equal_the_written_out_reference(prediction_type: str, scale: float) -> None:
    objective = DiffusionObjective(config_for(prediction_type))
    output, z, noise, t = batch()
    if scale == 0:
        output[:, :4] = objective.target(z, noise, t) + 0.1 * output[:, :4]
    terms = objective.terms(output, z, noise, t)
    rows = zip(output, z, noise, TIMESTEPS, strict=True)
    expected = [terms_reference(prediction_type, o, x, n, step) for o, x, n, step in rows]
    simple, bound = torch.tensor(expected, dtype=torch.float64).unbind(1)
    assert terms.simple.dtype == terms.bound.dtype == torch.float32
    torch.testing.assert_close(terms.simple.double(), simple, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(terms.bound.double(), bound, rtol=2e-4, atol=2e-5)
    torch.testing.assert_close(objective.loss(output, z, noise, t).double(), simple + bound, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_bound_sends_no_gradient_into_the_mean(prediction_type: str) -> None:
    objective = DiffusionObjective(config_for(prediction_type))
    output, z, noise, t = batch()
    output.requires_grad_()
    terms = objective.terms(output, z, noise, t)
    (from_bound,) = torch.autograd.grad(terms.bound.sum(), output, retain_graph=True)
    (from_simple,) = torch.autograd.grad(terms.simple.sum(), output)
    assert from_bound[:, :4].abs().max() == 0
    assert (from_bound[t > 0, 4:] != 0).all()
    assert from_simple[:, 4:].abs().max() == 0
    torch.testing.assert_close(from_simple[:, :4], 2 * (output[:, :4] - objective.target(z, noise, t)).detach() / 64)


def test_the_bound_is_smallest_at_the_true_variance() -> None:
    """With a perfect mean, KL is zero where the variance is the posterior's, logit -1."""
    objective = DiffusionObjective(paper_scheduler().config)
    _, z, noise, t = batch()
    output = torch.cat([noise, -torch.ones_like(noise)], dim=1)
    bound = objective.terms(output, z, noise, t).bound
    torch.testing.assert_close(bound[t > 0], torch.zeros(5), rtol=0, atol=1e-6)


def test_without_variance_channels_the_loss_is_the_squared_error() -> None:
    objective = DiffusionObjective(paper_scheduler().config)
    output, z, noise, t = batch(channels=4)
    expected = torch.stack([(o - n).square().mean() for o, n in zip(output, noise, strict=True)])
    torch.testing.assert_close(objective.loss(output, z, noise, t), expected)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_noise_and_target_are_the_schedulers(prediction_type: str) -> None:
    scheduler, objective = paper_scheduler(), DiffusionObjective(config_for(prediction_type))
    _, z, noise, t = batch()
    timesteps: Any = t
    torch.testing.assert_close(objective.add_noise(z, noise, t), scheduler.add_noise(z, noise, timesteps))
    velocity = scheduler.get_velocity(z, noise, timesteps)
    torch.testing.assert_close(objective.target(z, noise, t), noise if prediction_type == "epsilon" else velocity)


def test_half_precision_outputs_give_a_float32_loss() -> None:
    output, z, noise, t = batch()
    loss = DiffusionObjective(paper_scheduler().config).loss(output.bfloat16(), z, noise, t)
    assert loss.dtype == torch.float32
    assert loss.shape == (len(t),)


def test_levels_share_out_all_probability() -> None:
    levels = torch.arange(256).double() / 127.5 - 1
    for mean in (-1.2, 0.0, 0.37, 0.99):
        nll = discretised_nll(levels, levels - mean, torch.full_like(levels, math.log(0.05**2)))
        torch.testing.assert_close((-nll).exp().sum(), torch.ones((), dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_wrong_channels_and_prediction_types_are_refused() -> None:
    output, z, noise, t = batch(channels=6)
    with pytest.raises(ValueError, match="expected 4 or 8 output channels, got 6"):
        DiffusionObjective(paper_scheduler().config).loss(output, z, noise, t)
    with pytest.raises(ValueError, match="'sample'"):
        DiffusionObjective(config_for("sample"))


def test_labels_are_dropped_where_the_draw_says() -> None:
    labels = torch.arange(6)
    draws = torch.tensor([0.0, 0.09, 0.1, 0.5, 0.05, 0.999])
    assert drop_labels(labels, 10, 0.1, draws).tolist() == [10, 10, 2, 3, 10, 5]
    assert drop_labels(labels, 10, 0.0, draws).tolist() == labels.tolist()
    assert drop_labels(labels, 10, 1.0, draws).tolist() == [10] * 6


def test_the_drop_rate_is_the_probability() -> None:
    draws = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    dropped = drop_labels(torch.zeros(100_000, dtype=torch.long), 1, 0.1, draws)
    assert dropped.double().mean().item() == pytest.approx(0.1, abs=0.004)


def test_bad_drop_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 1.5"):
        drop_labels(torch.zeros(2), 1, 1.5, torch.zeros(2))
    with pytest.raises(ValueError, match="one draw per label"):
        drop_labels(torch.zeros(2), 1, 0.5, torch.zeros(1))
