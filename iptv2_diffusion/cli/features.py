"""What --features names: an extractor registered here, a function of one's own, or one registered in torch-fidelity.

Figures are named after the flag, so none of these is ever called an FID.
"""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
from torch_fidelity.utils import create_feature_extractor

from iptv2_diffusion.cli import feature_extractors  # noqa: F401  registers ours
from iptv2_diffusion.errors import first_line
from iptv2_diffusion.metrics.extractors import EXTRACTORS, FEATURES, Extractor


def make_extractor(name: str, device: torch.device) -> Extractor:
    """ValueError for an unknown name and for a function that cannot be imported, OSError where weights are missing."""
    if name in EXTRACTORS:
        return EXTRACTORS[name](device)
    if ":" in name:
        return replace(_own(name, _imported(name), device), name=name.replace(":", "."))
    if name in FEATURE_EXTRACTORS_REGISTRY:
        return _ported(name, device)
    known = ", ".join([*sorted(EXTRACTORS), *sorted(FEATURE_EXTRACTORS_REGISTRY)])
    raise ValueError(f"unknown features {name!r}: expected one of {known}, or MODULE:FUNCTION")


def _imported(name: str) -> Callable[[torch.device], Any]:
    """Of the working directory, or an installed package."""
    module, _, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(import_module(module), function)
    except Exception as error:  # whatever the module does when it is imported
        raise ValueError(f"cannot import --features {name}: {first_line(error)}") from error
    finally:
        sys.path.pop(0)


def _own(name: str, make: Callable[[torch.device], Any], device: torch.device) -> Extractor:
    """ValueError where the function makes something else."""
    try:
        found = make(device)
    except TypeError as error:
        raise ValueError(f"expected --features {name} to take a torch.device: {first_line(error)}") from error
    if not isinstance(found, Extractor) or FEATURES not in found.dimensions:
        raise ValueError(f"expected --features {name} to return an Extractor of {FEATURES!r}, got {found!r:.80}")
    return found


def _ported(name: str, device: torch.device) -> Extractor:
    """torch-fidelity's, of the layer that it takes for its own Fréchet distance; it fetches the weights."""
    layer = FEATURE_EXTRACTORS_REGISTRY[name].get_default_feature_layer_for_metric("fid")
    try:
        network: nn.Module = create_feature_extractor(name, [layer], cuda=False).to(device)
    except Exception as error:  # of the network, of torch.hub, of a damaged file
        raise OSError(f"torch-fidelity cannot make {name}: {first_line(error)}") from error

    @torch.inference_mode()
    def extract(images: Tensor) -> dict[str, Tensor]:
        return {FEATURES: network(images.to(device))[0].float().flatten(1)}

    width = extract(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))[FEATURES].shape[1]
    digest = _sha256(network)
    return Extractor(name=name, weights_sha256=digest, dimensions={FEATURES: width}, device=device, extract=extract)


def _sha256(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
