import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from dummy import alpha_cumprod

from iptv2_diffusion.diffusion.schedule import (
    SCHEDULERS,
    check_steps,
    default_steps,
    flow_scheduler,
    is_flow,
    keeps_learned_variance,
    load_scheduler,
    make_scheduler,
    paper_scheduler,
    without_channel_cut,
)

DIFFUSION = [name for name in SCHEDULERS if name != "flow"]  # what a noise schedule with betas can be sampled with

# numpy 2 complains about the way diffusers turns tensors into arrays.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def respaced_timesteps(steps: int, trained: int = 1000) -> list[int]:
    """ADM's respacing of one section."""
    stride, position, taken = (trained - 1) / (steps - 1), 0.0, []
    for _ in range(steps):
        taken.append(round(position))
        position += stride
    return taken


def adm_step(index: int, x: list[float], noise: list[float], variance: list[float], draw: list[float]) -> list[float]:
    """ADM's p_sample with 250 respaced steps, learned range and no clipping, in Python's float64."""
    betas = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]
    cumprod = [math.prod(1 - b for b in betas[: i + 1]) for i in range(1000)]
    used = [cumprod[t] for t in respaced_timesteps(250)]
    a, previous = used[index], used[index - 1] if index else 1.0
    beta = 1 - a / previous
    posterior = beta * (1 - previous) / (1 - a)
    if index == 0:
        posterior = (1 - used[1] / used[0]) * (1 - used[0]) / (1 - used[1])
    stepped = []
    for x_t, eps, v, z in zip(x, noise, variance, draw, strict=True):
        start = math.sqrt(1 / a) * x_t - math.sqrt(1 / a - 1) * eps
        mean = beta * math.sqrt(previous) / (1 - a) * start
        mean += (1 - previous) * math.sqrt(1 - beta) / (1 - a) * x_t
        fraction = (v + 1) / 2
        log_variance = fraction * math.log(beta) + (1 - fraction) * math.log(posterior)
        stepped.append(mean + (math.exp(0.5 * log_variance) * z if index else 0.0))
    return stepped


def step_error(scheduler: DDPMScheduler, index: int) -> float:
    """Largest difference between a scheduler's step and ADM's, on random inputs and the same noise."""
    scheduler.set_timesteps(250)
    assert scheduler.timesteps.flip(0).tolist() == respaced_timesteps(250)
    x, noise, variance = torch.randn(3, 64, generator=torch.Generator().manual_seed(index)).unbind()
    draw = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(7)).flatten()
    output = torch.cat([noise.view(1, 4, 4, 4), variance.view(1, 4, 4, 4)], dim=1)
    t = int(scheduler.timesteps[249 - index])
    step: Any = scheduler.step(output, t, x.view(1, 4, 4, 4), generator=torch.Generator().manual_seed(7))
    expected = adm_step(index, x.tolist(), noise.tolist(), variance.tolist(), draw.tolist())
    return (step.prev_sample.flatten().double() - torch.tensor(expected).double()).abs().max().item()


@pytest.mark.parametrize("index", [60, 125, 200, 248, 249])
def test_a_ddpm_step_is_adms_with_learned_range(index: int) -> None:
    assert step_error(paper_scheduler(), index) <= 3e-6


@pytest.mark.parametrize("index", [0, 1, 2, 7, 30, 60, 125, 200, 248, 249])
def test_so_are_the_last_steps_but_for_rounding(index: int) -> None:
    """Near t = 0 the scheduler's 1 - alpha_cumprod loses digits in float32; in float64 the formulas agree everywhere."""
    assert step_error(paper_scheduler(), index) <= 5e-5
    exact = paper_scheduler()
    exact.alphas_cumprod = (1 - exact.betas.double()).cumprod(0)
    assert step_error(exact, index) <= 3e-6


@pytest.mark.parametrize("steps", [2, 10, 25, 50, 100, 250, 500, 1000])
def test_ddpm_visits_adms_timesteps(steps: int) -> None:
    scheduler = make_scheduler("ddpm", paper_scheduler().config, learned_sigma=True)
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.flip(0).tolist() == respaced_timesteps(steps)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", DIFFUSION)
def test_noise_schedule_is_kept_and_traps_are_not(name: str, prediction_type: str) -> None:
    stored = dict(paper_scheduler().config) | {
        "beta_end": 0.03,
        "prediction_type": prediction_type,
        "clip_sample": True,
        "thresholding": True,
        "timestep_spacing": "leading",
        "use_karras_sigmas": True,
    }
    config = make_scheduler(name, stored, learned_sigma=True).config
    assert (config["num_train_timesteps"], config["beta_start"], config["beta_end"]) == (1000, 1e-4, 0.03)
    assert (config["prediction_type"], config["timestep_spacing"]) == (prediction_type, "linspace")
    assert not config.get("clip_sample")
    assert not config.get("thresholding")
    assert not config.get("use_karras_sigmas")
    assert config.get("variance_type") == ("learned_range" if name == "ddpm" else None)


def test_a_scheduler_can_be_made_from_any_others_config() -> None:
    euler = make_scheduler("euler", paper_scheduler().config, learned_sigma=True)
    back = make_scheduler("ddpm", euler.config, learned_sigma=True)
    expected = paper_scheduler().config
    assert {key: back.config[key] for key in expected if key[0] != "_"} == {
        key: value for key, value in expected.items() if key[0] != "_"
    }


def test_fixed_variance_without_learned_sigma() -> None:
    scheduler = make_scheduler("ddpm", paper_scheduler().config, learned_sigma=False)
    assert scheduler.config["variance_type"] == "fixed_small"
    assert not keeps_learned_variance(scheduler)


@pytest.mark.parametrize("steps", [4, 20, 50])
def test_ddim_is_diffusers_ddim_where_that_hits_its_timesteps(steps: int) -> None:
    """Both run from the same noise over the timesteps of "trailing", which fit the step 1000 // steps exactly."""
    reference: Any = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    ours = make_scheduler("ddim", paper_scheduler().config, learned_sigma=False)
    reference.set_timesteps(steps)
    ours.set_timesteps(timesteps=reference.timesteps.tolist())
    z = expected = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for t in reference.timesteps:
        z = ours.step((z * 0.9).tanh(), t, z).prev_sample
        expected = reference.step((expected * 0.9).tanh(), int(t), expected).prev_sample
    torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", DIFFUSION)
@pytest.mark.parametrize("steps", [3, 30, 61, 300])
def test_every_step_count_denoises_to_the_end(name: str, steps: int) -> None:
    """A point mass at 0.7: whatever the steps, nothing but the last level's noise may remain."""
    scheduler = make_scheduler(name, paper_scheduler().config, learned_sigma=False)
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == steps
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.scale_model_input(z, t)
        a = alpha_cumprod(t[None]).item()
        z = scheduler.step((x - a**0.5 * 0.7) / (1 - a) ** 0.5, t, z).prev_sample
    torch.testing.assert_close(z, torch.full_like(z, 0.7), rtol=0, atol=2e-3)


def test_unknown_names_and_prediction_types_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'plms'.*ddpm, ddim, dpm\+\+, unipc, euler, flow"):
        make_scheduler("plms", paper_scheduler().config, learned_sigma=True)
    with pytest.raises(ValueError, match="epsilon, v_prediction, got 'sample'"):
        make_scheduler("ddpm", {"prediction_type": "sample"}, learned_sigma=True)


@pytest.mark.parametrize("steps", [0, -3, 1001, 2.5])
@pytest.mark.parametrize("name", DIFFUSION)
def test_wrong_step_counts_are_refused(name: str, steps: int) -> None:
    with pytest.raises(ValueError, match="whole number from 1 to"):
        check_steps(steps, make_scheduler(name, paper_scheduler().config, learned_sigma=True))


def test_second_order_solvers_cannot_take_every_timestep() -> None:
    scheduler = make_scheduler("dpm++", paper_scheduler().config, learned_sigma=True)
    check_steps(999, scheduler)
    with pytest.raises(ValueError, match="from 1 to 999, got 1000"):
        check_steps(1000, scheduler)
    check_steps(1000, make_scheduler("ddim", paper_scheduler().config, learned_sigma=True))


def test_default_steps() -> None:
    config = paper_scheduler().config
    steps = {name: default_steps(make_scheduler(name, config, learned_sigma=True)) for name in DIFFUSION}
    assert steps == {"ddpm": 250, "ddim": 50, "dpm++": 25, "unipc": 25, "euler": 50}
    assert default_steps(DDIMScheduler()) == 50
    assert default_steps(flow_scheduler()) == 50


def test_only_ddpm_keeps_the_variance_whatever_the_config_says() -> None:
    config = paper_scheduler().config
    unipc: Any = UniPCMultistepScheduler.from_config(config)
    assert unipc.config["variance_type"] == "learned_range"  # left over from the DDPM
    assert [keeps_learned_variance(s) for s in (paper_scheduler(), unipc)] == [True, False]


def test_a_solver_that_would_cut_channels_is_replaced() -> None:
    cutting: Any = DPMSolverMultistepScheduler.from_config(paper_scheduler().config)
    mended = without_channel_cut(cutting)
    assert (cutting.config["variance_type"], mended.config["variance_type"]) == ("learned_range", None)
    assert without_channel_cut(mended) is mended
    ddpm = paper_scheduler()
    assert without_channel_cut(ddpm) is ddpm


def test_only_flows_are_flows() -> None:
    """By their configs, fresh or from a file, whatever else diffusers has written into them."""
    config = paper_scheduler().config
    assert [is_flow(make_scheduler(name, config, learned_sigma=True).config) for name in DIFFUSION] == [False] * 5
    assert is_flow(flow_scheduler().config)
    assert not is_flow(DDIMScheduler().config)
    assert not is_flow(UniPCMultistepScheduler(use_flow_sigmas=True, flow_shift=3.0).config)
    with pytest.raises(ValueError, match="rectified flow: expected the scheduler flow, got ddim"):
        make_scheduler("ddim", flow_scheduler().config, learned_sigma=False)
    with pytest.raises(ValueError, match="no rectified flow"):
        make_scheduler("flow", config, learned_sigma=False)


@pytest.mark.parametrize("scheduler", [paper_scheduler(), flow_scheduler()], ids=["paper", "flow"])
def test_saved_schedulers_load_as_what_they_were(scheduler: Any, tmp_path: Path) -> None:
    scheduler.save_pretrained(tmp_path)
    loaded = load_scheduler(tmp_path)
    assert type(loaded) is type(scheduler)
    own = {key: value for key, value in scheduler.config.items() if key[0] != "_"}
    assert {key: loaded.config[key] for key in own} == own


def test_other_schedulers_and_folders_without_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot load the scheduler in"):
        load_scheduler(tmp_path)
    DDIMScheduler().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="DDIMScheduler"):
        load_scheduler(tmp_path)
