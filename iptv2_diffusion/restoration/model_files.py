"""Models in files of safetensors: as one file whose header describes the network, or as a folder of diffusers.

The metadata of a single file are `config`, the text of diffusers' config.json, and `form`: "fused" (for inference) or
"training" (the factors of Rep-LeFFN). Nothing here is pickled.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from iptv2_diffusion.errors import first_line
from iptv2_diffusion.restoration.restorer import IPTV2Restorer

CONFIG = "config.json"
SUFFIX = ".safetensors"
FORMS = {True: "fused", False: "training"}


def load_restorer(path: str | Path) -> IPTV2Restorer:
    """The restorer of a single file or of a folder, on the CPU, in eval mode, in the form that was saved.

    FileNotFoundError or ValueError, of one line, for what is not there, is no restorer or does not fit its own config.
    """
    return load_model(path, {"IPTV2Restorer": IPTV2Restorer})


def load_model(path: str | Path, classes: Mapping[str, Any]) -> Any:
    """Like `load_restorer`, for any model whose constructor's arguments are its config; `classes` by their names."""
    path = Path(path)
    config = read_config(path)
    name = str(config.get("_class_name"))
    if name not in classes:
        raise ValueError(f"{path} holds a model of class {name}, expected {' or '.join(classes)}")
    model = _built(classes[name], config, path)
    weights = _read_weights(path)
    _check_fit(model.state_dict(), weights, path)
    model.load_state_dict(weights)
    return model.eval()


def save_weights(model: Any, path: Path) -> None:
    """One file of weights and config, in the form the model has; a file of that name is replaced."""
    header = {"format": "pt", "config": model.to_json_string(), "form": FORMS[model.config["fused"]]}
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path, metadata=header)


def read_config(path: Path) -> dict[str, Any]:
    """Of a single file or a folder; ValueError where there is none that can be read."""
    try:
        config = json.loads((path / CONFIG).read_text("utf-8") if path.is_dir() else _read_header(path)["config"])
    except FileNotFoundError:
        raise FileNotFoundError(f"expected a model's folder with {CONFIG} or its {SUFFIX} file, got {path}") from None
    except (KeyError, ValueError, SafetensorError) as error:
        raise ValueError(f"{path} does not hold a model and its config: {first_line(error)}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path}: expected a JSON object as config, got {config!r}")
    return config


def _read_header(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:  # raises for a truncated file, too
        return file.metadata() or {}


def _read_weights(path: Path) -> dict[str, Tensor]:
    files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    try:
        return {name: tensor for file in files for name, tensor in load_file(file).items()}
    except SafetensorError as error:
        raise ValueError(f"cannot read the weights in {path}: {first_line(error)}") from None


def _built(model_class: Any, config: Mapping[str, Any], path: Path) -> Any:
    arguments = {name: value for name, value in config.items() if not name.startswith("_")}
    try:
        return model_class(**arguments)
    except (TypeError, ValueError) as error:  # an argument from another version, or no such network
        raise ValueError(f"{path}: its config describes no {model_class.__name__}: {first_line(error)}") from None


def _check_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    differing = [key for key in sorted({*expected, *found}) if _shape(expected, key) != _shape(found, key)]
    if differing:
        key = differing[0]
        raise ValueError(
            f"{path}: its weights do not fit its config, {len(differing)} tensors differ; "
            f"first {key}: expected {_shape(expected, key)}, got {_shape(found, key)}"
        )


def _shape(tensors: Mapping[str, Tensor], key: str) -> tuple[int, ...] | str:
    return tuple(tensors[key].shape) if key in tensors else "none"
