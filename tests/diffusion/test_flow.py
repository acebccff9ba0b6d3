"""Rectified flow: its paths and times, and sampling it, against diffusers and closed forms."""

from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from dummy import GaussianDenoiser, seeded, tiny_vae
from torch import Tensor

from iptv2_diffusion import IPTV2Pipeline
from iptv2_diffusion.diffusion.flow import FlowObjective
from iptv2_diffusion.diffusion.objective import DiffusionObjective, make_objective
from iptv2_diffusion.diffusion.schedule import flow_scheduler, make_scheduler, paper_scheduler, set_timesteps

CPU = torch.device("cpu")


def make(**options: float) -> FlowObjective:
    return FlowObjective(flow_scheduler().config, **options)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """(z, noise, t) at some of the scheduler's own timesteps."""
    g = torch.Generator().manual_seed(0)
    z, noise = torch.randn(2, 4, 4, 4, 4, generator=g)
    timesteps: Any = flow_scheduler().timesteps
    return z, noise, timesteps[[0, 1, 500, 999]]


def test_paths_are_the_schedulers_and_straight() -> None:
    objective, (z, noise, t) = make(), batch()
    z_t = objective.add_noise(z, noise, t)
    torch.testing.assert_close(z_t, flow_scheduler().scale_noise(z, t, noise))  # type: ignore[arg-type]
    later = objective.add_noise(z, noise, t + 250)
    torch.testing.assert_close((later - z_t) / 0.25, objective.target(z, noise, t), rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_mean_squared_error_of_the_velocity() -> None:
    objective, (z, noise, t) = make(), batch()
    output = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    expected = torch.stack([(o - (n - x)).square().mean() for o, n, x in zip(output, noise, z, strict=True)])
    torch.testing.assert_close(objective.loss(output, z, noise, t), expected)
    assert objective.terms(output, z, noise, t).bound.abs().max() == 0
    assert objective.loss(output.bfloat16(), z, noise, t).dtype == torch.float32
    with pytest.raises(ValueError, match=r"expected a velocity of shape \(4, 4, 4, 4\), got \(4, 8, 4, 4\)"):
        objective.loss(torch.cat([output, output], dim=1), z, noise, t)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.5, 0.6)])
def test_times_are_logit_normal(mean: float, std: float) -> None:
    """Kolmogorov and Smirnov's distance to the normal distribution, below its 0.1 % quantile, 1.95 / sqrt(n)."""
    objective, generator = make(mean=mean, std=std), torch.Generator().manual_seed(0)
    t = torch.stack([objective.draw(generator) for _ in range(4000)])
    assert t.dtype == torch.float32
    assert 0 < t.min() < t.max() < 1000
    expected = torch.special.ndtr(((t / 1000).logit().sort().values - mean) / std)
    ranks = torch.arange(1, 4001) / 4000
    assert (expected - ranks).abs().max() < 1.95 / 4000**0.5
    assert objective.draw(torch.Generator().manual_seed(0)) == t[0]


@pytest.mark.parametrize("objective", [make(mean=3.0), DiffusionObjective(paper_scheduler().config)])
def test_parts_of_the_schedule_are_uniform_whatever_training_draws(objective: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    for part in range(4):
        t = torch.stack([objective.draw_in_part(part, 4, generator) for _ in range(500)]).double()
        assert 250 * part <= t.min() < 250 * part + 5
        assert 250 * (part + 1) - 5 <= t.max() < 250 * (part + 1)
        assert t.mean().item() == pytest.approx(250 * part + 125, abs=16)  # 5 standard deviations


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_euler_steps_on_an_exact_velocity_field_recover_the_data(steps: int, shift: float) -> None:
    """Paths to a single point are straight: even one step is exact, and so is any number of them."""
    z, noise, _ = batch()
    config = FlowMatchEulerDiscreteScheduler(shift=shift).config
    scheduler = make_scheduler("flow", config, learned_sigma=False)
    set_timesteps(scheduler, steps, CPU)
    times = torch.linspace(1, 0, steps + 1)[:-1]
    torch.testing.assert_close(scheduler.timesteps, 1000 * shift * times / (1 + (shift - 1) * times))
    x = noise
    for t in scheduler.timesteps:
        x = scheduler.step((x - z) / (t / 1000), t, x).prev_sample
    torch.testing.assert_close(x, z, rtol=1e-4, atol=1e-4)


def pipeline() -> Any:
    model = GaussianDenoiser(out_channels=4, prediction_type="flow")
    pipe = IPTV2Pipeline(model, tiny_vae(), flow_scheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_pipeline_follows_the_flow_of_a_gaussian() -> None:
    """Whose map from noise to data is known: mean + std * noise; halving the steps halves Euler's error."""
    pipe, noise = pipeline(), torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"guidance_scale": 1.0, "latents": noise, "output_type": "latent"}
    expected = (torch.tensor([0, 2, 4]) / 2 - 1)[:, None, None, None] + 0.4 * noise
    errors = [(pipe([0, 2, 4], num_inference_steps=n, **options).images - expected).abs().max() for n in (50, 100)]
    assert errors[1].item() < 0.05
    assert (errors[0] / errors[1]).item() == pytest.approx(2, abs=0.15)


def test_guidance_intervals_are_times_of_the_flow() -> None:
    """Ten steps start at t = 1, 0.9, ... 0.1; the null label is asked at 0.7, 0.6, 0.5 and 0.4."""
    pipe = pipeline()
    pipe([1], guidance_scale=2.0, num_inference_steps=10, guidance_interval=(0.35, 0.75), generator=seeded(0))
    assert pipe.transformer.rows == [1] * 3 + [2] * 4 + [1] * 3


def test_the_objective_follows_from_the_scheduler() -> None:
    flow = make_objective(flow_scheduler().config, flow_mean=-1.0, flow_std=2.0)
    assert isinstance(flow, FlowObjective)
    assert (flow.mean, flow.std, flow.num_timesteps) == (-1.0, 2.0, 1000)
    assert isinstance(make_objective(paper_scheduler().config), DiffusionObjective)
    with pytest.raises(ValueError, match="not for a flow"):
        make_objective(flow_scheduler().config, min_snr=5.0)
