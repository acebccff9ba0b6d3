"""Loading weights that fit their configuration exactly, with one line of what is wrong where they do not."""

from pathlib import Path
from typing import Any

from iptv2_diffusion.errors import first_line


def load_fitting(model_class: Any, source: str | Path, kind: str, **options: Any) -> Any:
    """`model_class.from_pretrained`, of safetensors unless the options say otherwise; `kind` names the model in errors.

    ValueError for what cannot be read and for weights that miss, exceed or misfit config.json: diffusers by itself
    would go on with part of the network random.
    """
    try:
        options = {"use_safetensors": True, "output_loading_info": True} | options
        model, report = model_class.from_pretrained(source, **options)
    except Exception as error:
        # diffusers raises OSError, ValueError, RuntimeError or safetensors' own error for a truncated or foreign file.
        raise ValueError(f"cannot load the {kind} in {source}: {first_line(error)}") from error
    keys = [key for which in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in report[which]]
    if keys:
        raise ValueError(
            f"cannot load the {kind} in {source}: its weights do not fit its config.json, "
            f"{len(keys)} keys differ, first {keys[0]}"
        )
    return model
