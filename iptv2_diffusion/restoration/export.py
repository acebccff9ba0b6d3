"""Models for use elsewhere: weights for inference or for training on, and graphs in ONNX and `torch.export`'s format.

A graph is a restorer in fused form, (B, in_channels, H, W) in [0, 1] -> (B, out_channels, H, W), not clamped, for any B,
H and W where both sides are multiples of `graph_multiple(model)`: then no attention pads anything inside. Padding and
cropping belong to whoever runs the graph (`reflect_to_multiple` is what the restorer itself does, to smaller multiples).
What the graph needs to be used is in its metadata: `config`, `form` and `size_multiple`.
"""

import copy
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from math import lcm
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.export import Dim, ExportedProgram

from iptv2_diffusion.restoration.model_files import FORMS, SUFFIX, save_weights
from iptv2_diffusion.restoration.restorer import IPTV2Restorer

ONNX_PACKAGES = ("onnx", "onnxscript")
INPUT, OUTPUT = "image", "restored"


def graph_multiple(model: IPTV2Restorer) -> int:
    """The smallest side, in pixels, that every window and every grid of every level divides."""
    config = model.backbone.config
    units = {"fcsa": config.window_at, "ggsa": config.grid_at, "mdta": lambda level: 1}
    return lcm(*(units[kind](level) << level for kind in config.attention for level in range(config.levels)))


def trace(model: IPTV2Restorer) -> ExportedProgram:
    """The graph of a fused copy; the model stays as it is."""
    model = copy.deepcopy(model).fuse().eval()
    multiple = graph_multiple(model)
    batch, rows, columns = Dim("batch"), Dim("rows"), Dim("columns")
    # Sizes that are equal, 1 or 0 would be taken for constants.
    image = torch.zeros(2, model.config["in_channels"], 2 * multiple, 3 * multiple, device=model.device)
    sizes = {0: batch, 2: multiple * rows, 3: multiple * columns}
    with torch.no_grad():
        return torch.export.export(model, (image,), dynamic_shapes=(sizes,))


def save_onnx(model: IPTV2Restorer, path: Path) -> None:
    """ONNX with names `image` and `restored`; OSError where a package of the extra `onnx` is absent."""
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if missing:
        raise OSError(f'ONNX needs {" and ".join(missing)}: pip install "iptv2-diffusion[onnx]"')
    program = torch.onnx.export(trace(model), input_names=[INPUT], output_names=[OUTPUT], verbose=False)
    assert program is not None
    program.model.metadata_props.update(_metadata(model))
    program.save(path, external_data=False)


def save_program(model: IPTV2Restorer, path: Path) -> None:
    """For `torch.export.load`, whose `extra_files` holds the metadata."""
    torch.export.save(trace(model), path, extra_files=_metadata(model))


def _metadata(model: IPTV2Restorer) -> dict[str, str]:
    return {"config": model.to_json_string(), "form": FORMS[True], "size_multiple": str(graph_multiple(model))}


def _save_folder(model: Any, path: Path) -> None:
    model.save_pretrained(path)


class Format(NamedTuple):
    suffix: str  # of the file; empty: a folder
    save: Callable[[Any, Path], None]
    is_graph: bool  # of a fused restorer; else weights, of any model in any form


FORMATS: Mapping[str, Format] = {
    "safetensors": Format(SUFFIX, save_weights, False),
    "diffusers": Format("", _save_folder, False),
    "onnx": Format(".onnx", save_onnx, True),
    "torch-export": Format(".pt2", save_program, True),
}


def export(model: Any, path: Path, format: str) -> None:
    """Writes whole or not at all; FileExistsError where something has that name, ValueError for another suffix."""
    chosen = FORMATS[format]
    if not path.name.endswith(chosen.suffix):
        raise ValueError(f"expected a name that ends with {chosen.suffix} for {format}, got {path.name}")
    if chosen.is_graph and not isinstance(model, IPTV2Restorer):
        raise ValueError(f"{format} is for restorers, got a model of class {type(model).__name__}")
    with written_whole(path) as unfinished:
        chosen.save(model, unfinished)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A hidden path, for a file or a folder, that gets its name when the block ends and vanishes when it fails."""
    if path.exists():
        raise FileExistsError(f"{path} exists already: remove it or choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}")
    _remove(hidden)
    try:
        yield hidden
        hidden.rename(path)
    finally:
        _remove(hidden)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
