"""Models for use elsewhere: weights for inference or for training on, and graphs in ONNX and `torch.export`'s format.

A graph is a restorer in fused form for one image in [0, 1] -> (1, out_channels, H, W), not clamped, for any H and W that are
multiples of `graph_multiple(model)`: then no attention pads anything inside. Padding and cropping belong to whoever runs
the graph (the restorer itself pads by `reflect_to_multiple`, to smaller multiples). The ONNX graph takes the image (1,
in_channels, H, W), the program of `torch.export` takes its `blocks`: tracing with the sides themselves as symbols takes
many times as long. What a graph needs to be used is in its metadata: `config`, `form`, `size_multiple`.
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
from torch import nn
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


class OnBlocks(nn.Module):
    """The model behind `blocks`: its sides are then multiples by construction, which spares the tracer its proofs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.model(image.flatten(4, 5).flatten(2, 3))


def blocks(image: torch.Tensor, multiple: int) -> torch.Tensor:
    """(B, C, H, W) -> a view of it, (B, C, H / multiple, multiple, W / multiple, multiple)."""
    return image.unflatten(3, (-1, multiple)).unflatten(2, (-1, multiple))


def smallest_sides(model: IPTV2Restorer) -> int:
    """In multiples: with fewer, FCSA has less than two displaced windows, and tracing would take that for a constant."""
    return max(2, -(-3 * model.backbone.config.window_at(0) // graph_multiple(model)))


def trace(model: IPTV2Restorer) -> ExportedProgram:
    """The graph, on `blocks`, of a fused copy; the model stays as it is."""
    model = copy.deepcopy(model).fuse().eval()
    multiple, least = graph_multiple(model), smallest_sides(model)
    image = torch.zeros(1, model.config["in_channels"], least * multiple, (least + 1) * multiple, device=model.device)
    sizes = {2: Dim("rows", min=least), 4: Dim("columns", min=least)}
    with torch.no_grad():
        return torch.export.export(OnBlocks(model), (blocks(image, multiple),), dynamic_shapes=(sizes,))


def save_onnx(model: IPTV2Restorer, path: Path) -> None:
    """ONNX with names `image` and `restored`; OSError where a package of the extra `onnx` is absent."""
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if missing:
        raise OSError(f'ONNX needs {" and ".join(missing)}: pip install "iptv2-diffusion[onnx]"')
    program = torch.onnx.export(trace(model), input_names=["blocks"], output_names=[OUTPUT], verbose=False)
    assert program is not None
    proto = program.model_proto
    _take_images(proto.graph, model.config["in_channels"], graph_multiple(model))
    _write(proto, _metadata(model), path)


def _take_images(graph: Any, channels: int, multiple: int) -> None:
    """`blocks` in ONNX, before the graph: in a shape 0 keeps a side and -1 is what is left, once in each."""
    from onnx import TensorProto, helper

    steps = [
        ("Reshape", (0, 0, 0, -1, multiple)),  # (B, C, H, columns, multiple)
        ("Transpose", (0, 1, 3, 4, 2)),
        ("Reshape", (0, 0, 0, 0, -1, multiple)),  # (B, C, columns, multiple, rows, multiple)
        ("Transpose", (0, 1, 4, 5, 2, 3)),
    ]
    nodes, source = list(graph.node), INPUT
    for number, (kind, numbers) in enumerate(steps):
        target = "blocks" if number == len(steps) - 1 else f"blocks_{number}"
        if kind == "Reshape":
            shape = f"blocks_shape_{number}"
            graph.initializer.append(helper.make_tensor(shape, TensorProto.INT64, [len(numbers)], numbers))
            nodes.insert(number, helper.make_node(kind, [source, shape], [target]))
        else:
            nodes.insert(number, helper.make_node(kind, [source], [target], perm=numbers))
        source = target
    del graph.node[:]
    graph.node.extend(nodes)
    sides = [1, channels, "height", "width"]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, sides))


def _write(proto: Any, metadata: dict[str, str], path: Path) -> None:
    from onnx import helper

    for node in proto.graph.node:
        del node.metadata_props[:]  # where in this machine's files the node comes from
    helper.set_model_props(proto, metadata)
    path.write_bytes(proto.SerializeToString())


def save_program(model: IPTV2Restorer, path: Path) -> None:
    """For `torch.export.load`, whose `extra_files` holds the metadata; it takes `blocks`."""
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
