"""Finding and loading the VAE's files, with errors that say what to do."""

import json
import re
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from huggingface_hub import model_info, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from iptv2_diffusion.diffusion.model_files import load_fitting
from iptv2_diffusion.errors import first_line

SD_VAE = "stabilityai/sd-vae-ft-ema"
VAE_CLASSES: dict[str, Any] = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def load_vae(id_or_folder: str | Path) -> Any:
    """The VAE in eval mode and without gradients, of the class its config.json names; safetensors only."""
    folder = _folder(id_or_folder)
    vae_class = _vae_class(folder)
    vae = load_fitting(vae_class, folder, "VAE")
    return vae.eval().requires_grad_(False)


def _folder(id_or_folder: str | Path) -> Path:
    """Where the files are: the folder itself, the hub's local cache, or a fresh download."""
    folder = Path(id_or_folder).expanduser()
    if folder.is_dir():
        _check_files(folder)
        return folder
    if folder.exists() or not HUB_ID.fullmatch(str(id_or_folder)):
        raise FileNotFoundError(f"expected a VAE's folder ({CONFIG}, {WEIGHTS}) or a hub id, got {id_or_folder}")
    return _from_hub(str(id_or_folder))


def _from_hub(hub_id: str) -> Path:
    files = [CONFIG, WEIGHTS]
    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=files, local_files_only=True))
        _check_files(folder)
        return folder
    except (LocalEntryNotFoundError, FileNotFoundError):
        pass  # not in the cache, or not all of it
    try:
        model_info(hub_id, timeout=10)  # fails at once where a download would retry for half a minute
        return Path(snapshot_download(hub_id, allow_patterns=files))
    except Exception as error:
        raise FileNotFoundError(
            f"the VAE {hub_id} is neither a folder here nor in the hub's cache, and it cannot be downloaded "
            f"({first_line(error)}); where the hub can be reached run `hf download {hub_id} {' '.join(files)} "
            "--local-dir FOLDER`, bring FOLDER here and pass `--vae FOLDER`"
        ) from error


def _check_files(folder: Path) -> None:
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"expected {CONFIG} and {WEIGHTS} in the VAE's folder {folder}, missing: {missing}")


def _vae_class(folder: Path) -> Any:
    try:
        name = json.loads((folder / CONFIG).read_text())["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{CONFIG} in {folder} is not a diffusers model's: {first_line(error)}") from error
    if name not in VAE_CLASSES:
        raise ValueError(f"{CONFIG} in {folder} must name {' or '.join(VAE_CLASSES)} as its class, got {name!r}")
    return VAE_CLASSES[name]
