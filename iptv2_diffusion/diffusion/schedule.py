"""Noise schedules and samplers, all of them diffusers schedulers.

A scheduler here is a noise schedule (the betas the model was trained with, and what it predicts) plus a way to step
through it. `make_scheduler` carries over the first and sets every option of the second itself: `from_config` between
diffusers schedulers would carry over traps, too (clipping to [-1, 1], "leading" spacing, a variance type that makes
DPM-Solver++ cut its input to three channels). A rectified flow has no betas, and samplers of its own: "flow".
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_ddpm_parallel import DDPMParallelScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from iptv2_diffusion.errors import first_line

NOISE_SCHEDULE_KEYS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
    "shift",  # of a flow's times toward noise
)
LEARNED_VARIANCE = ("learned", "learned_range")
PREDICTION_TYPES = ("epsilon", "v_prediction")
FALLBACK_STEPS = 50  # for a scheduler that is not in the table below


@dataclass(frozen=True, kw_only=True)
class SchedulerChoice:
    scheduler: type
    options: Mapping[str, Any]
    steps: int  # default number of steps


_SOLVER = {
    "algorithm_type": "dpmsolver++",
    "final_sigmas_type": "zero",
    "thresholding": False,
    "timestep_spacing": "linspace",
    "variance_type": None,
}

SCHEDULERS: dict[str, SchedulerChoice] = {
    # Only linspace visits the timesteps of ADM's and DiT's respacing (but for ties in rounding at odd step counts).
    "ddpm": SchedulerChoice(
        scheduler=DDPMScheduler,
        options={"clip_sample": False, "thresholding": False, "timestep_spacing": "linspace"},
        steps=250,
    ),
    # DPM-Solver++ of order one is DDIM with eta 0. diffusers' own DDIMScheduler steps down by 1000 // steps, which
    # misses the timesteps it visits unless steps divides 1000, and "trailing" reaches t = -1 at 62 step counts.
    "ddim": SchedulerChoice(scheduler=DPMSolverMultistepScheduler, options=_SOLVER | {"solver_order": 1}, steps=50),
    "dpm++": SchedulerChoice(scheduler=DPMSolverMultistepScheduler, options=_SOLVER | {"solver_order": 2}, steps=25),
    "unipc": SchedulerChoice(
        scheduler=UniPCMultistepScheduler,
        options={
            "final_sigmas_type": "zero",
            "solver_order": 2,
            "thresholding": False,
            "timestep_spacing": "linspace",
        },
        steps=25,
    ),
    "euler": SchedulerChoice(
        scheduler=EulerDiscreteScheduler,
        options={"final_sigmas_type": "zero", "timestep_spacing": "linspace"},
        steps=50,
    ),
    "flow": SchedulerChoice(scheduler=FlowMatchEulerDiscreteScheduler, options={}, steps=50),  # Euler's method
}


def paper_scheduler() -> DDPMScheduler:
    """The DiT recipe the paper follows: 1000 linear steps, noise prediction, learned variance, no clipping."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="linear",
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type="epsilon",
        variance_type="learned_range",
        timestep_spacing="linspace",
        clip_sample=False,
    )


def make_scheduler(name: str, config: Mapping[str, Any], *, learned_sigma: bool) -> Any:
    """The sampler `name` for a model trained with the noise schedule of `config` (any diffusers scheduler's config).

    Only "ddpm" uses a learned variance; with `learned_sigma=False` it takes the posterior's ("fixed_small").
    ValueError for "flow" with a model that is none, and for everything else with one that is.
    """
    check_scheduler_name(name)
    check_prediction_type(config)
    if is_flow(config) and name != "flow":
        raise ValueError(f"the model is a rectified flow: expected the scheduler flow, got {name}")
    if name == "flow" and not is_flow(config):
        raise ValueError("the model is no rectified flow: expected a scheduler other than flow")
    options = {key: config[key] for key in NOISE_SCHEDULE_KEYS if key in config} | dict(SCHEDULERS[name].options)
    if name == "ddpm":
        options["variance_type"] = "learned_range" if learned_sigma else "fixed_small"
    return SCHEDULERS[name].scheduler(**options)


def flow_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Of a rectified flow whose times are not shifted."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether a scheduler's config is that of a rectified flow: none of the others shifts its times."""
    return "shift" in config


def load_scheduler(folder: Path) -> Any:
    """The scheduler that was saved there, one of the table's classes; ValueError for anything else."""
    classes: dict[str, Any] = {choice.scheduler.__name__: choice.scheduler for choice in SCHEDULERS.values()}
    try:
        name = json.loads((folder / "scheduler_config.json").read_text(encoding="utf-8"))["_class_name"]
        return classes[name].from_pretrained(folder)
    except Exception as error:  # diffusers raises many kinds
        raise ValueError(f"cannot load the scheduler in {folder}: {first_line(error)}") from error


def set_timesteps(scheduler: Any, steps: int, device: torch.device) -> None:
    """In place. By itself a flow scheduler would spend its last step on the way from t = 1 to 0 of 1000."""
    if is_flow(scheduler.config):
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps).tolist(), device=device)
    else:
        scheduler.set_timesteps(steps, device=device)


def initial_std(scheduler: Any) -> float:
    """Of the noise that sampling starts from."""
    return 1.0 if is_flow(scheduler.config) else float(scheduler.init_noise_sigma)


def model_input(scheduler: Any, latents: Tensor, t: Tensor) -> Tensor:
    """What the network gets; a flow scheduler has no scaling of its own."""
    return latents if is_flow(scheduler.config) else scheduler.scale_model_input(latents, t)


def keeps_learned_variance(scheduler: Any) -> bool:
    """Whether `scheduler.step` wants the 2C channels of a model with learned variance, not its C noise channels.

    The config alone does not tell: `from_config` leaves a DDPM's variance type in the configs of schedulers that have
    no such option.
    """
    learned = scheduler.config.get("variance_type") in LEARNED_VARIANCE
    return learned and isinstance(scheduler, (DDPMScheduler, DDPMParallelScheduler))


def without_channel_cut(scheduler: Any) -> Any:
    """`scheduler`, or a copy if it would cut its input to three channels (a DPM-Solver made from a DDPM's config)."""
    if keeps_learned_variance(scheduler) or scheduler.config.get("variance_type") not in LEARNED_VARIANCE:
        return scheduler
    return type(scheduler).from_config(scheduler.config, variance_type=None)


def default_steps(scheduler: Any) -> int:
    """How many steps to take when nobody says: 250 for DDPM, 25 to 50 for the others."""
    name = sampler_name(scheduler)
    return FALLBACK_STEPS if name is None else SCHEDULERS[name].steps


def sampler_name(scheduler: Any) -> str | None:
    """Its name in the table, if it is there."""
    for name, choice in SCHEDULERS.items():
        same_order = scheduler.config.get("solver_order") == choice.options.get("solver_order")
        if isinstance(scheduler, choice.scheduler) and same_order:
            return name
    return None


def check_scheduler_name(name: str) -> None:
    if name not in SCHEDULERS:
        raise ValueError(f"unknown scheduler {name!r}: expected one of {', '.join(SCHEDULERS)}")


def check_prediction_type(config: Mapping[str, Any]) -> None:
    prediction_type = config.get("prediction_type", "epsilon")
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(f"prediction_type must be one of {', '.join(PREDICTION_TYPES)}, got {prediction_type!r}")


def check_steps(steps: int, scheduler: Any) -> None:
    trained = scheduler.config["num_train_timesteps"]
    # With one more point than steps on the grid, the last possible count visits a timestep twice, and a solver of
    # second order divides by the zero distance.
    most = trained - 1 if scheduler.config.get("solver_order", 1) > 1 else trained
    if not isinstance(steps, int) or not 1 <= steps <= most:
        name = type(scheduler).__name__
        raise ValueError(f"the number of steps of a {name} must be a whole number from 1 to {most}, got {steps!r}")
