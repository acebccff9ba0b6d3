"""Named ways to draw samples, so that figures can be compared: what Table 6 and its DiT framework do, as data.

The sampler writes the fields of a protocol, under their names here, into the `settings.json` beside its samples; the
evaluation compares. The number of samples belongs to the names of the figures: FID@50k.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any


@dataclass(frozen=True, kw_only=True)
class GenerationProtocol:
    sampler: str  # of `schedule.SCHEDULERS`
    steps: int
    cfg_scale: float  # 1: no guidance, and the two fields below mean nothing
    guidance_channels: int | None = None  # guided latent channels, the first ones; None: all
    guidance_interval: tuple[float, float] | None = None
    quantise: str  # of `latents.QUANTISE`
    class_draw: str  # "random": uniform and independent; "balanced": every class as often
    vae: str  # hub id of the decoder, or its folder
    precision: str = "fp32"  # of the denoiser
    size: int | None = None  # pixels a side; None: any
    model: Mapping[str, Any] = field(default_factory=dict)  # what its configuration has to say
    scheduler_config: Mapping[str, Any] = field(default_factory=dict)  # the same of the noise schedule


PAPER_SCHEDULE: dict[str, Any] = {  # part of `schedule.paper_scheduler`
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
    "prediction_type": "epsilon",
    "variance_type": "learned_range",
    "timestep_spacing": "linspace",
    "clip_sample": False,
}


def _dit_paper(cfg_scale: float) -> GenerationProtocol:
    """generation-protocols, section 3.1: what `sample_ddp` of DiT does."""
    return GenerationProtocol(
        sampler="ddpm",
        steps=250,
        cfg_scale=cfg_scale,
        guidance_channels=3,
        quantise="truncate",
        class_draw="random",
        vae="stabilityai/sd-vae-ft-ema",
        size=256,
        model={"num_classes": 1000},
        scheduler_config=PAPER_SCHEDULE,
    )


# What no protocol does; settings that do not mention it did not do it either.
PLAIN: dict[str, Any] = {"guide": None, "guide_ema": None, "cache_interval": 1, "classes": ()}
GUIDANCE = {"guidance_channels", "guidance_interval", "guide", "guide_ema"}  # of no effect at scale 1

PROTOCOLS: dict[str, GenerationProtocol] = {f"dit-paper-cfg{scale}": _dit_paper(scale) for scale in (1.0, 1.5)}


def find_protocol(name: str) -> GenerationProtocol:
    """ValueError for an unknown name."""
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}: expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def differences(protocol: GenerationProtocol, settings: Mapping[str, Any]) -> list[str]:
    """In what samples drawn with `settings` (of JSON) depart from the protocol, such as "steps 50 instead of 250".

    A setting that is missing departs, unless it is one of PLAIN. The VAE's folder may be anywhere, but has to bear the
    name of the hub's repository: sd-vae-ft-ema, or models--stabilityai--sd-vae-ft-ema.
    """
    wanted, given = _flat(asdict(protocol)) | PLAIN, _flat(settings)
    if protocol.size is None:
        del wanted["size"]
    found = {name: _comparable(given.get(name, PLAIN.get(name, "unknown"))) for name in wanted}
    return [
        f"{name} {found[name]} instead of {value}"
        for name, value in wanted.items()
        if not (_same_vae(value, found[name]) if name == "vae" else found[name] == value)
        and not (protocol.cfg_scale == 1 and name in GUIDANCE)
    ]


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of mappings under names such as model.num_classes."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping)
        flat |= {f"{name}.{part}": entry for part, entry in value.items()} if nested else {name: value}
    return flat


def _comparable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _same_vae(wanted: str, got: Any) -> bool:
    return got == wanted or not {wanted.split("/")[-1], f"models--{wanted.replace('/', '--')}"}.isdisjoint(
        PurePath(str(got)).parts
    )
