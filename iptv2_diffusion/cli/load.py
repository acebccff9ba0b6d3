"""Pipelines and restorers from whatever --ckpt names: what training wrote, what was saved, or a hub id."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.pipelines.dit.pipeline_dit import DiTPipeline

from iptv2_diffusion.cli.sources import EMOJI, vae_source
from iptv2_diffusion.diffusion.denoiser import IPTV2Transformer2DModel
from iptv2_diffusion.diffusion.dit import DiTDenoiser
from iptv2_diffusion.diffusion.dit_weights import CLASSES as FOREIGN
from iptv2_diffusion.diffusion.dit_weights import from_diffusers
from iptv2_diffusion.diffusion.model_files import load_fitting
from iptv2_diffusion.diffusion.pipeline import IPTV2Pipeline
from iptv2_diffusion.diffusion.schedule import load_scheduler
from iptv2_diffusion.diffusion.task import CLASS_NAMES
from iptv2_diffusion.diffusion.vae_files import HUB_ID, load_vae
from iptv2_diffusion.engine import averages, newest, read_run
from iptv2_diffusion.errors import first_line
from iptv2_diffusion.restoration import model_files
from iptv2_diffusion.restoration.bundled import bundled_weights
from iptv2_diffusion.restoration.restorer import IPTV2Restorer

PIPELINE_INDEX = "model_index.json"
DENOISER_CLASSES: dict[str, Any] = {"IPTV2Transformer2DModel": IPTV2Transformer2DModel, "DiTDenoiser": DiTDenoiser}
DEVICES = ("cpu", "cuda", "mps", "xpu")


def find_model(ckpt: Path) -> Path:
    """The file or folder with the weights: of a run (its newest checkpoint), a checkpoint, a pipeline, or itself."""
    ckpt = ckpt.expanduser()
    for part, index in (("model", "run.json"), ("transformer", PIPELINE_INDEX)):
        if (ckpt / index).is_file():
            return ckpt / part
    checkpoint = newest(ckpt)
    return ckpt if checkpoint is None else checkpoint / "model"


def load_restorer(ckpt: str | Path) -> Any:
    """The restorer of a training run (its newest checkpoint), checkpoint, model folder, .safetensors file or hub id.

    Or of this package, by the name of its task: "denoise-color". An IPTV2Restorer on the CPU, in eval mode, in the form
    that was saved. A run's best weights are in its folder `best`. FileNotFoundError or ValueError, of one line, where
    there is nothing usable.
    """
    path = find_model(Path(ckpt))
    if not path.exists() and (bundled := bundled_weights(str(ckpt))):
        return model_files.load_restorer(bundled)
    if not path.exists() and HUB_ID.fullmatch(str(ckpt)):
        return load_fitting(IPTV2Restorer, str(ckpt), "restorer", low_cpu_mem_usage=False).eval()
    return model_files.load_restorer(path)


def load_denoiser(ckpt: str) -> Any:
    """The denoiser alone of a training run, checkpoint, saved pipeline, model folder or hub id, on the CPU.

    FileNotFoundError or ValueError, of one line, where there is nothing usable.
    """
    path = find_model(Path(ckpt))
    if path.is_dir():
        return _transformer(path)
    if not path.exists() and HUB_ID.fullmatch(ckpt):
        return _transformer(ckpt, subfolder="transformer")
    raise FileNotFoundError(f"expected a training run, a checkpoint, a saved pipeline or a hub id, got {ckpt}")


def load_pipeline(ckpt: str | None, vae: str | None = None, ema: str | None = None) -> IPTV2Pipeline:
    """In fp32, on the CPU, in the form that was saved. `vae` (hub id or folder) replaces the one that the checkpoint names.

    `ema` names one of the averages in a training checkpoint; None: the first of them.

    FileNotFoundError or ValueError, of one line, where there is nothing usable.
    """
    source = EMOJI if ckpt is None else Path(ckpt).expanduser()
    trained = source.is_dir() and not (source / PIPELINE_INDEX).is_file()
    if ema is not None and not trained:
        raise ValueError(f"{source} is no training checkpoint: it holds one set of weights and no average {ema!r}")
    if (source / PIPELINE_INDEX).is_file():
        pipeline = _saved(str(source), vae)
    elif trained:
        pipeline = _trained(_checkpoint(source), vae, ema)
    elif ckpt is not None and HUB_ID.fullmatch(ckpt) and not source.exists():
        pipeline = _saved(ckpt, vae)
    else:
        raise FileNotFoundError(f"expected a training run, a checkpoint, a saved pipeline or a hub id, got {source}")
    return pipeline


def _checkpoint(folder: Path) -> Path:
    if (folder / "run.json").is_file():
        return folder
    checkpoint = newest(folder)
    if checkpoint is None:
        raise FileNotFoundError(f"{folder} holds neither {PIPELINE_INDEX} nor run.json nor a checkpoint-* folder")
    return checkpoint


def _saved(source: str, vae: str | None) -> IPTV2Pipeline:
    parts = {"transformer": _transformer(source, subfolder="transformer")}
    if vae is not None:
        parts["vae"] = load_vae(vae)
    try:
        index: Any = IPTV2Pipeline.load_config(source)
        if index["_class_name"] == DiTPipeline.__name__:
            return _published(source, index, parts)
        return IPTV2Pipeline.from_pretrained(source, use_safetensors=True, **parts)
    except Exception as error:  # diffusers raises many kinds for a missing, truncated or foreign file
        raise ValueError(f"cannot load a pipeline from {source}: {first_line(error)}") from error


def _published(source: str, index: Mapping[str, Any], parts: Mapping[str, Any]) -> IPTV2Pipeline:
    """Our pipeline around the VAE, the scheduler and the class names of diffusers' pipeline for DiT."""
    theirs: Any = DiTPipeline.from_pretrained(source, **dict.fromkeys(parts))
    found = {"vae": theirs.vae, "scheduler": theirs.scheduler, "id2label": index.get("id2label"), **parts}
    return IPTV2Pipeline(**found)


def _transformer(source: str | Path, **where: Any) -> Any:
    """Of the class that its config.json names; diffusers' DiT becomes ours."""
    try:
        config: Any = IPTV2Transformer2DModel.load_config(source, **where)
        name = config["_class_name"]
    except Exception as error:  # diffusers raises many kinds
        raise ValueError(f"cannot load the denoiser in {source}: {first_line(error)}") from error
    where["low_cpu_mem_usage"] = False  # which fails without a word of explanation where weights are missing
    if name in FOREIGN:
        # Older files are pickles, of which torch reads nothing but tensors.
        return from_diffusers(load_fitting(DiTTransformer2DModel, source, "denoiser", use_safetensors=None, **where))
    if name not in DENOISER_CLASSES:
        known = " or ".join([*DENOISER_CLASSES, FOREIGN[0]])
        raise ValueError(f"{source} holds a model of class {name}, expected {known}")
    return load_fitting(DENOISER_CLASSES[name], source, "denoiser", **where)


def _trained(checkpoint: Path, vae: str | None, ema: str | None) -> IPTV2Pipeline:
    """Averaged weights of a training checkpoint, with its scheduler and class names."""
    weights = _average(checkpoint, ema)
    recorded = read_run(checkpoint)["info"].get("vae")
    if vae is None and recorded is None:
        raise ValueError(f"{checkpoint} does not say which VAE it was trained with: pass --vae")
    try:
        names = json.loads((checkpoint / CLASS_NAMES).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot load {checkpoint}: {first_line(error)}") from error
    return IPTV2Pipeline(
        transformer=_transformer(weights),
        vae=load_vae(vae or vae_source(recorded)),
        scheduler=load_scheduler(checkpoint / "scheduler"),
        id2label=dict(enumerate(names)),
    )


def _average(checkpoint: Path, name: str | None) -> Path:
    """The folder of its weights."""
    if name is None:
        return checkpoint / "model"
    places = averages(checkpoint)
    if name not in places:
        raise ValueError(f"{checkpoint} holds no average {name!r}; it has {', '.join(places)}")
    return places[name]


def choose_device(name: str | None) -> torch.device:
    """The device of that name, or the best there is; ValueError for one that is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in DEVICES:
            raise RuntimeError(f"expected one of {', '.join(DEVICES)}")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} is not available here: {first_line(error)}") from None
    return device
