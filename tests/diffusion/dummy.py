"""Small stand-ins for the denoiser and the VAE, with answers that can be written down."""

from functools import cache
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from iptv2_diffusion import IPTV2Pipeline, create_denoiser
from iptv2_diffusion.diffusion.schedule import flow_scheduler, make_scheduler, paper_scheduler


class GaussianDenoiser(ModelMixin, ConfigMixin):
    """The exact denoiser of data ~ N(label / 2 - 1, std^2), independent in every element.

    The variance half, if any, is `variance + label / 100`. `rows` records the batch size of every forward.
    """

    size_multiple = 1

    @register_to_config
    def __init__(
        self,
        sample_size: int = 8,
        in_channels: int = 4,
        out_channels: int = 8,
        num_classes: int = 5,
        std: float = 0.4,
        variance: float = -1.0,
        prediction_type: str = "epsilon",
    ) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.rows: list[int] = []
        self.labels: list[Tensor] = []
        self.fused = False

    def fuse(self) -> "GaussianDenoiser":
        self.fused = True
        return self

    def unfuse(self) -> "GaussianDenoiser":
        self.fused = False
        return self

    def forward(
        self, hidden_states: Tensor, timestep: Tensor | float, class_labels: Tensor, return_dict: bool = True
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        self.rows.append(len(hidden_states))
        self.labels.append(class_labels)
        config = self.config
        x, label = hidden_states.double(), class_labels.double()[:, None, None, None]
        timestep = torch.as_tensor(timestep).expand(len(x))
        signal, spread = levels(timestep, config["prediction_type"])
        mean = label / 2 - 1
        excess = (x - signal * mean) / ((signal * config["std"]) ** 2 + spread**2)
        noise, clean = spread * excess, mean + signal * config["std"] ** 2 * excess
        outputs = {"epsilon": noise, "v_prediction": signal * noise - spread * clean, "flow": noise - clean}
        sample = outputs[config["prediction_type"]]
        if config["out_channels"] == 2 * config["in_channels"]:
            sample = torch.cat([sample, torch.zeros_like(sample) + config["variance"] + label / 100], dim=1)
        sample = (sample * self.gain).to(hidden_states)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)


def levels(t: Tensor, prediction_type: str) -> tuple[Tensor, Tensor]:
    """How much of data and of noise there is at each t, (B, 1, 1, 1) float64."""
    if prediction_type == "flow":
        time = t.double()[:, None, None, None] / 1000
        return 1 - time, time
    a = alpha_cumprod(t)[:, None, None, None]
    return a.sqrt(), (1 - a).sqrt()


def alpha_cumprod(t: Tensor) -> Tensor:
    """Of the paper's schedule in float64, also between timesteps (where Euler's sigmas are interpolated linearly)."""
    table = _paper_alphas()
    sigmas = ((1 - table) / table).sqrt()
    low = t.double().floor().long()
    high = (low + 1).clamp(max=len(table) - 1)
    return 1 / (1 + torch.lerp(sigmas[low], sigmas[high], t.double() - low) ** 2)


@cache
def _paper_alphas() -> Tensor:
    return (1 - paper_scheduler().betas.double()).cumprod(0)


def tiny_vae(**overrides: object) -> AutoencoderKL:
    """Factor 2, 4 latent channels, the same random weights every time."""
    options = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "scaling_factor": 0.5,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoencoderKL(**(options | overrides)).eval().requires_grad_(False)  # type: ignore[arg-type]


def real_pipeline(name: str = "ddpm", **options: Any) -> Any:
    """The smallest real denoiser, moved off its zero initialisation."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        small: dict[str, Any] = {"width": 8, "layers": (1, 2), "heads": (1, 2), "cond_dim": 16, "grid": 4}
        model = create_denoiser("IPTV2-Ti", sample_size=16, num_classes=5, **small)
        for parameter in model.parameters():
            if parameter.abs().max() == 0:
                torch.nn.init.normal_(parameter, std=0.05)
    config = (flow_scheduler if name == "flow" else paper_scheduler)().config
    scheduler = make_scheduler(name, config, learned_sigma=True)
    pipe = IPTV2Pipeline(model.eval(), tiny_vae(), scheduler, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]
