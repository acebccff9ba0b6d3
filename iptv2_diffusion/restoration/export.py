"""Models for use elsewhere: weights for inference or for training on, and graphs in ONNX and `torch.export`'s format.

A graph is a restorer in fused form: float32 images (B, in_channels, H, W) in [0, 1] -> (B, out_channels, H, W), not
clamped, for any B and for any H and W that are multiples of `graph_multiple(model)`, so that no attention pads inside.
Padding and cropping belong to whoever runs it. Its metadata are `config`, `form` and `size_multiple`.
"""

import copy
import importlib
import operator
from collections.abc import Callable, Mapping
from math import lcm
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import Node

from iptv2_diffusion.files import written_whole
from iptv2_diffusion.restoration.model_files import FORMS, SUFFIX, save_weights
from iptv2_diffusion.restoration.restorer import IPTV2Restorer

OLDEST_TORCH = "2.13"  # of those that we have tried
AXES = {0: "batch", 2: "height", 3: "width"}
SIZE, FLATTEN = torch.ops.aten.sym_size.int, torch.ops.aten.flatten.using_ints


def graph_multiple(model: IPTV2Restorer) -> int:
    """The smallest side, in pixels, that every window and every grid of every level divides."""
    config = model.backbone.config
    units = {"fcsa": config.window_at, "ggsa": config.grid_at, "mdta": lambda level: 1}
    levels = range(config.levels)
    return lcm(*(units[kind](level) * model.pixels_at(level) for kind in config.attention for level in levels))


def trace(model: IPTV2Restorer) -> ExportedProgram:
    """The graph of a fused copy on the CPU, whose sides are dynamic from two displaced windows on.

    Sides that are known to be multiples spare the tracer nearly all of its time: it sees the image cut into blocks, and
    we take the cut out of the graph. OSError where PyTorch is too old.
    """
    if torch.__version__ < OLDEST_TORCH:
        raise OSError(f"graphs need PyTorch {OLDEST_TORCH} or newer, got {torch.__version__}")
    model = copy.deepcopy(model).cpu().float().fuse().eval().requires_grad_(False)
    multiple, config = graph_multiple(model), model.backbone.config
    widest = max(config.window_at(level) * model.pixels_at(level) for level in range(config.levels))
    least = max(2, -(-3 * widest // multiple))
    image = torch.zeros(2, model.config["in_channels"], least * multiple, (least + 1) * multiple)
    blocks = image.unflatten(3, (-1, multiple)).unflatten(2, (-1, multiple))
    sizes = {0: Dim("batch"), 2: Dim("rows", min=least), 4: Dim("columns", min=least)}
    with torch.no_grad():
        program = torch.export.export(_OnBlocks(model), (blocks,), dynamic_shapes=(sizes,))
    _take_images(program, multiple)
    program.example_inputs = ((image,), {})
    return program


class _OnBlocks(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, rows, multiple, columns, multiple) -> (B, C, H, W)."""
        return self.model(image.flatten(4, 5).flatten(2, 3))


def _take_images(program: ExportedProgram, multiple: int) -> None:
    """Replace the input, blocks, by the image that the graph makes of them first."""
    [name] = program.graph_signature.user_inputs
    [blocks] = (node for node in program.graph.nodes if node.name == name)
    [image] = (node for node in program.graph.nodes if node.target is FLATTEN and node.args[0] in blocks.users)
    for node in list(blocks.users):
        if node.target is SIZE and node.args[1] != 0:
            _divide(node, {2: 2, 4: 3}[node.args[1]], multiple, image.meta["val"])
    blocks.meta["val"] = image.meta["val"]
    image.replace_all_uses_with(blocks)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # through this machine's files
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    program._guards_code = []  # about the blocks; all follow from the sides being multiples
    program.validate()


def _divide(size: Node, axis: int, multiple: int, image: Tensor) -> None:
    """Turn a size, of the blocks in rows or columns, into that of the image divided by the multiple."""
    with size.graph.inserting_after(size):
        quotient = size.graph.call_function(operator.floordiv, (size, multiple))
    quotient.meta["val"], size.meta["val"] = size.meta["val"], image.shape[axis]
    size.replace_all_uses_with(quotient, delete_user_cb=lambda user: user is not quotient)
    size.update_arg(1, axis)


def save_onnx(model: IPTV2Restorer, path: Path) -> None:
    """ONNX from `image` to `restored`; OSError where packages of the extra `onnx` are absent."""
    optimizer = _onnx_optimizer()
    # torch's own optimisation takes time that grows with the square of the graph.
    program = torch.onnx.export(
        trace(model),
        dynamo=True,
        input_names=["image"],
        output_names=["restored"],
        dynamic_shapes=(AXES,),
        optimize=False,
        verbose=False,
    )
    assert program is not None
    optimizer.fold_constants(program.model)
    optimizer.remove_unused_nodes(program.model)
    for node in program.model.graph:
        node.metadata_props.clear()  # the names of our modules, many times as large as the nodes
    program.model.metadata_props.update(_metadata(model))
    program.save(path, external_data=False)


def _onnx_optimizer() -> Any:
    try:
        return importlib.import_module("onnxscript.optimizer")
    except ImportError as error:
        raise OSError(f'ONNX needs other packages: pip install "iptv2-diffusion[onnx]" ({error})') from error


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
