"""The training objective: noise (or velocity) prediction with a learned variance.

Per sample, "simple" is the mean squared error of the prediction (Ho et al. 2020, Eq. 14). A network with 2C output
channels also says where the log-variance of each reverse step lies between its two bounds (Nichol & Dhariwal 2021,
Eq. 15); that half is trained by the variational bound, through which no gradient reaches the mean (their Section 3.1).
The weight of the bound is 1, in bits per dimension and for one timestep, not multiplied by their number: that is the
recipe of ADM with plain MSE and of DiT. So is treating latents as 8-bit pixels in [-1, 1] at t = 0.

Tables are computed in float64 and kept as float32. With a_t = 1 - beta_t and A_t = a_1 ... a_t:
    z_t = sqrt(A_t) z_0 + sqrt(1 - A_t) noise
    v   = sqrt(A_t) noise - sqrt(1 - A_t) z_0
    SNR = A_t / (1 - A_t)
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from iptv2_diffusion.diffusion.flow import FlowObjective
from iptv2_diffusion.diffusion.schedule import check_prediction_type, is_flow, make_scheduler
from iptv2_diffusion.diffusion.terms import LossTerms, squared_error

HALF_LEVEL = 1 / 255  # half the distance of two 8-bit levels in [-1, 1]
EDGE = 0.999  # beyond it a value counts as level 0 or 255, whose bin is open
SMALLEST_PROBABILITY = 1e-12


class DiffusionObjective(nn.Module):
    """The loss for the noise schedule and `prediction_type` of a diffusers scheduler's `config`.

    With `min_snr`, gamma, the squared error of a sample counts for no more than an error of z_0 at SNR gamma would
    (Hang et al. 2023): min(SNR, gamma) / SNR for the noise, min(SNR, gamma) / (SNR + 1) for v. The bound is not
    weighted. None: everything counts for 1.
    """

    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor
    mean_gap: Tensor
    log_beta: Tensor
    log_posterior_variance: Tensor
    weight: Tensor

    def __init__(self, config: Mapping[str, Any], *, min_snr: float | None = None) -> None:
        super().__init__()
        check_prediction_type(config)
        self.prediction_type = config.get("prediction_type", "epsilon")
        betas = make_scheduler("ddpm", config, learned_sigma=True).betas.double()
        self.num_timesteps = len(betas)
        tables = _tables(betas, self.prediction_type) | {"weight": _weight(betas, self.prediction_type, min_snr)}
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)

    def draw(self, generator: torch.Generator) -> Tensor:
        """A timestep of training, 0-d int64."""
        return self.draw_in_part(0, 1, generator)

    def draw_in_part(self, part: int, parts: int, generator: torch.Generator) -> Tensor:
        """A timestep from one of equal parts of the schedule, uniformly."""
        low, high = (self.num_timesteps * i // parts for i in (part, part + 1))
        return low + torch.randint(high - low, (), generator=generator)

    def add_noise(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """z_t for clean latents z (B, C, H, W) and timesteps t (B,) in 0..num_timesteps - 1."""
        return _rows(self.sqrt_alphas_cumprod, t) * z + _rows(self.sqrt_one_minus_alphas_cumprod, t) * noise

    def target(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should predict: the noise, or the velocity v."""
        if self.prediction_type == "epsilon":
            return noise
        return _rows(self.sqrt_alphas_cumprod, t) * noise - _rows(self.sqrt_one_minus_alphas_cumprod, t) * z

    def loss(self, output: Tensor, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The loss of each sample, (B,) float32; arguments as for `terms`."""
        return self.terms(output, z, noise, t).total

    def terms(self, output: Tensor, z: Tensor, noise: Tensor, t: Tensor) -> LossTerms:
        """Both parts of the loss of a network's output (B, C or 2C, H, W) for add_noise(z, noise, t)."""
        channels = z.shape[1]
        if output.shape[1] not in (channels, 2 * channels):
            raise ValueError(f"expected {channels} or {2 * channels} output channels, got {output.shape[1]}")
        output, z, noise = output.float(), z.float(), noise.float()
        prediction, target = output[:, :channels], self.target(z, noise, t)
        simple, weight = squared_error(prediction, target), self.weight[t]
        if output.shape[1] == channels:
            return LossTerms(simple, torch.zeros_like(simple), weight)
        return LossTerms(simple, self._bound((prediction - target).detach(), output[:, channels:], z, t), weight)

    def _bound(self, error: Tensor, variance: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """The term of the variational bound at t: a divergence of Gaussians, or at t = 0 a likelihood."""
        gap = _rows(self.mean_gap, t) * error  # true mean - model's mean
        lower, upper = _rows(self.log_posterior_variance, t), _rows(self.log_beta, t)
        log_variance = lower + (variance + 1) / 2 * (upper - lower)
        divergence = gaussian_kl(gap, lower, log_variance)
        nats = torch.where((t == 0)[:, None, None, None], discretised_nll(z, gap, log_variance), divergence)
        return nats.flatten(1).mean(1) / math.log(2)


Objective = DiffusionObjective | FlowObjective


def make_objective(
    config: Mapping[str, Any], *, min_snr: float | None = None, flow_mean: float = 0.0, flow_std: float = 1.0
) -> Objective:
    """The objective for a scheduler's `config`; `flow_mean` and `flow_std` are those of the logit of flow's times."""
    if not is_flow(config):
        return DiffusionObjective(config, min_snr=min_snr)
    if min_snr is not None:
        raise ValueError("min-SNR weights are for epsilon and v_prediction, not for a flow")
    return FlowObjective(config, mean=flow_mean, std=flow_std)


def gaussian_kl(gap: Tensor, log_variance1: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N(m1, v1) || N(m2, v2)) in nats, element by element, for gap = m1 - m2."""
    ratio = log_variance1 - log_variance2
    return (ratio.exp() - 1 - ratio + gap.square() * (-log_variance2).exp()) / 2


def discretised_nll(x: Tensor, gap: Tensor, log_variance: Tensor) -> Tensor:
    """-log probability (nats) that N(x - gap, exp(log_variance)) gives to the 8-bit level of x in [-1, 1].

    The bins of the first and last level reach to infinity. ADM approximates the normal distribution function; this is
    the function itself.
    """
    precision = (-log_variance / 2).exp()
    phi = torch.special.ndtr
    # Both limits of an inner bin are mirrored into the lower tail, where a difference loses no digits.
    inner = phi((HALF_LEVEL - gap.abs()) * precision) - phi((-HALF_LEVEL - gap.abs()) * precision)
    last = torch.where(x > EDGE, phi((HALF_LEVEL - gap) * precision), inner)
    probability = torch.where(x < -EDGE, phi((HALF_LEVEL + gap) * precision), last)
    return -probability.clamp(min=SMALLEST_PROBABILITY).log()


def drop_labels(labels: Tensor, null_label: int, probability: float, draws: Tensor) -> Tensor:
    """`labels` (B,), with the null label in each row whose uniform draw (B,) in [0, 1) is below `probability`.

    To be called once per batch, before any embedding: a mask per embedding would train mixtures of both conditions.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"the probability of dropping a label must be in [0, 1], got {probability}")
    if draws.shape != labels.shape:
        raise ValueError(f"expected one draw per label, got {tuple(draws.shape)} for {tuple(labels.shape)}")
    return torch.where(draws < probability, torch.full_like(labels, null_label), labels)


def _tables(betas: Tensor, prediction_type: str) -> dict[str, Tensor]:
    """Everything that depends on t alone, from and in float64."""
    alphas = 1 - betas
    cumprod = alphas.cumprod(0)
    previous = torch.cat([cumprod.new_ones(1), cumprod[:-1]])
    posterior_variance = betas * (1 - previous) / (1 - cumprod)
    posterior_variance[0] = posterior_variance[1]  # zero at t = 0, where its logarithm stands in for a lower bound
    # The two means differ by this multiple of the prediction's error: Eq. 11 of Ho et al.; an error of v in the
    # velocity is one of sqrt(A) v in the noise.
    mean_gap = betas / (alphas * (1 - cumprod)).sqrt()
    return {
        "sqrt_alphas_cumprod": cumprod.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - cumprod).sqrt(),
        "mean_gap": mean_gap if prediction_type == "epsilon" else mean_gap * cumprod.sqrt(),
        "log_beta": betas.log(),
        "log_posterior_variance": posterior_variance.log(),
    }


def _weight(betas: Tensor, prediction_type: str, gamma: float | None) -> Tensor:
    """Of the squared error, for each t. That of z_0 is min(SNR, gamma); the forms for noise and v follow from it."""
    if gamma is None:
        return torch.ones_like(betas)
    cumprod = (1 - betas).cumprod(0)
    snr = cumprod / (1 - cumprod)
    return (gamma / snr).clamp(max=1) if prediction_type == "epsilon" else snr.clamp(max=gamma) / (snr + 1)


def _rows(table: Tensor, t: Tensor) -> Tensor:
    """One entry per sample, (B, 1, 1, 1)."""
    return table[t][:, None, None, None]
