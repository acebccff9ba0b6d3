"""IPT-V2: an efficient image transformer with hierarchical attentions, for latent diffusion and image restoration.

Public names load when they are used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from iptv2_diffusion.cli.load import load_restorer
    from iptv2_diffusion.diffusion.denoiser import IPTV2Transformer2DModel, create_denoiser
    from iptv2_diffusion.diffusion.dit import DiTDenoiser
    from iptv2_diffusion.diffusion.latents import LatentCodec
    from iptv2_diffusion.diffusion.pipeline import IPTV2Pipeline
    from iptv2_diffusion.restoration.restorer import IPTV2Restorer, create_restorer

_HOMES = {
    "create_denoiser": "iptv2_diffusion.diffusion.denoiser",
    "create_restorer": "iptv2_diffusion.restoration.restorer",
    "load_restorer": "iptv2_diffusion.cli.load",
    "DiTDenoiser": "iptv2_diffusion.diffusion.dit",
    "IPTV2Transformer2DModel": "iptv2_diffusion.diffusion.denoiser",
    "IPTV2Restorer": "iptv2_diffusion.restoration.restorer",
    "IPTV2Pipeline": "iptv2_diffusion.diffusion.pipeline",
    "LatentCodec": "iptv2_diffusion.diffusion.latents",
    # diffusers looks its base classes up in the module that a saved pipeline names: this one.
    "ConfigMixin": "diffusers",
    "DiffusionPipeline": "diffusers",
    "ModelMixin": "diffusers",
    "SchedulerMixin": "diffusers",
}

__all__ = [
    "DiTDenoiser",
    "IPTV2Pipeline",
    "IPTV2Restorer",
    "IPTV2Transformer2DModel",
    "LatentCodec",
    "__version__",
    "create_denoiser",
    "create_restorer",
    "load_restorer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
