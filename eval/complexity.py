"""The paper's FLOPs and parameters beside ours: `python -m eval.complexity`.

Every network is built and run on the meta device. The protocol is in `eval/README.md`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from timm.layers.pos_embed_rel import RelPosBias

from eval.complexity_rows import ROWS, Network, Row
from iptv2_diffusion import IPTV2Restorer, IPTV2Transformer2DModel, create_denoiser, create_restorer
from iptv2_diffusion.backbone.config import DENOISERS, RESTORERS, preset
from iptv2_diffusion.backbone.products import PRODUCTS
from iptv2_diffusion.diffusion.dit import DiTDenoiser
from iptv2_diffusion.diffusion.dit_sizes import DITS
from iptv2_diffusion.metrics.complexity import macs, parameters, products

GIGA, MEGA = 10**9, 10**6
IMAGE, LATENT = 128, 32  # pixels a side, as the paper measures
PRESETS = {"restore": RESTORERS, "generate": DENOISERS | DITS}
HEADER = (
    f"{'table':<6}{'network':<28}{'paper G':>8}{'ours G':>9}{'dev %':>7}{'MACs G':>9}"
    f"{'paper M':>9}{'ours M':>10}{'dev %':>7}{'+ bias M':>10}{'training M':>12}"
)
LEGEND = """\
G: 10^9 for one image of 128x128 pixels (restorers) or one latent of 32x32 (denoisers; 16x16 for IPTV2-Ti-16 and DiT-Ti/2).
ours G: as the paper counts, MACs and elementwise products of tensors.  MACs G: convolutions, linear layers and matrix
products alone.  ours M: parameters of the inference form without relative bias tables;  + bias M: with them.
training M: the training form, with them.  *: does not round to the printed figure."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    macs: int
    macs_paper: int | None  # None: DiT, whose products we do not count
    parameters: int  # of the inference form, without relative bias tables
    parameters_with_bias: int
    parameters_training: int  # of the training form, with relative bias tables


@cache
def measure(network: Network, size: tuple[int, int] | None = None) -> Cost:
    """`size` is (H, W) of the input in pixels or latent pixels; ValueError for a network or size that cannot be."""
    with torch.device("meta"):
        model = _build(network).eval()
        inputs = _inputs(model, size)
    training = parameters(model)
    if isinstance(model, (IPTV2Restorer, IPTV2Transformer2DModel)):
        model.fuse()
    with products(model, PRODUCTS) as found:
        plain = macs(model, *inputs)
    total = parameters(model)
    return Cost(
        macs=plain,
        macs_paper=None if isinstance(model, DiTDenoiser) else plain + sum(found),
        parameters=total - sum(parameters(layer) for layer in model.modules() if isinstance(layer, RelPosBias)),
        parameters_with_bias=total,
        parameters_training=training,
    )


def _build(network: Network) -> ModelMixin:
    create = {"restore": create_restorer, "generate": create_denoiser}[network.task]
    return create(network.name, **dict(network.overrides))


def _inputs(model: Any, size: tuple[int, int] | None) -> tuple[torch.Tensor, ...]:
    if isinstance(model, IPTV2Restorer):
        return (torch.empty(1, model.config["in_channels"], *(size or (IMAGE, IMAGE))),)
    side = model.config["sample_size"]
    return torch.empty(1, 4, *(size or (side, side))), torch.zeros(1), torch.zeros(1, dtype=torch.long)


def compared_flops(row: Row, cost: Cost) -> int:
    return cost.macs if cost.macs_paper is None else cost.macs_paper


def agrees(printed: str, count: int, unit: int) -> bool:
    """Whether the count rounds to the printed figure; nothing printed agrees with everything."""
    return not printed or f"{count / unit:.{len(printed.partition('.')[2])}f}" == printed


def deviation(printed: str, count: int, unit: int) -> float | None:
    """Percent of the printed figure."""
    return 100 * (count / unit / float(printed) - 1) if printed else None


def record(row: Row, cost: Cost) -> dict:
    """One row for machines: counts are whole numbers, `paper_*` G and M as printed."""
    flops = compared_flops(row, cost)
    return {
        "table": row.table,
        "network": row.name,
        "paper_gflops": float(row.flops) if row.flops else None,
        "paper_mparameters": float(row.parameters) if row.parameters else None,
        **asdict(cost),
        "flops_deviation_percent": deviation(row.flops, flops, GIGA),
        "parameters_deviation_percent": deviation(row.parameters, cost.parameters, MEGA),
        "flops_agree": agrees(row.flops, flops, GIGA) if row.flops else None,
        "parameters_agree": agrees(row.parameters, cost.parameters, MEGA) if row.parameters else None,
        "note": row.note or None,
    }


def table(rows: Sequence[Row]) -> str:
    numbers = {note: i for i, note in enumerate(dict.fromkeys(row.note for row in rows if row.note), 1)}
    lines = [_line(row, measure(row.network)) + (f"  [{numbers[row.note]}]" if row.note else "") for row in rows]
    return "\n".join([HEADER, *lines, "", LEGEND, "", *(f"[{i}] {note}." for note, i in numbers.items())])


def _line(row: Row, cost: Cost) -> str:
    flops = compared_flops(row, cost)
    return (
        f"{row.table:<6}{row.name:<28}{row.flops or '-':>8}{flops / GIGA:>9.3f}{_deviation(row.flops, flops, GIGA):>7}"
        f"{cost.macs / GIGA:>9.3f}{row.parameters or '-':>9}{cost.parameters / MEGA:>10.3f}"
        f"{_deviation(row.parameters, cost.parameters, MEGA):>7}"
        f"{cost.parameters_with_bias / MEGA:>10.3f}{cost.parameters_training / MEGA:>12.3f}"
    )


def _deviation(printed: str, count: int, unit: int) -> str:
    percent = deviation(printed, count, unit)
    return "-" if percent is None else f"{percent:.2f}" + ("" if agrees(printed, count, unit) else "*")


def parse_size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"expected HxW in pixels, as 128x192, got {text!r}")
    return int(height), int(width)


def choose_task(name: str, task: str | None) -> str:
    """The task asked for, or the one that has this name; generation where both have, as in training."""
    if task is not None:
        return task
    owners = [task for task in ("generate", "restore") if name in PRESETS[task]]
    if len(owners) == 2:
        print(f"{name} is a denoiser and a restorer: counting the denoiser; or --task restore", file=sys.stderr)
    if not owners:
        known = dict.fromkeys([*RESTORERS, *PRESETS["generate"]])
        raise ValueError(f"unknown model {name!r}, expected one of {', '.join(known)}")
    return owners[0]


def one_model(name: str, task: str | None, size: tuple[int, int] | None) -> dict:
    task = choose_task(name, task)
    default = preset(PRESETS[task], name).get("sample_size", IMAGE if task == "restore" else LATENT)
    height, width = size or (default, default)
    cost = measure(Network(task=task, name=name), (height, width))
    return {"model": name, "task": task, "size": [height, width], **asdict(cost)}


def _describe(one: dict) -> str:
    height, width = one["size"]
    paper = "-" if one["macs_paper"] is None else f"{one['macs_paper'] / GIGA:.3f} G"
    return f"""\
{one["model"]} ({one["task"]}), one input of {height}x{width} {"pixels" if one["task"] == "restore" else "latent pixels"}
MACs                  {one["macs"] / GIGA:12.3f} G   convolutions, linear layers, matrix products
paper's count         {paper:>14}   and elementwise products of tensors
parameters            {one["parameters"] / MEGA:12.3f} M   inference form, without relative bias tables
  with bias tables    {one["parameters_with_bias"] / MEGA:12.3f} M
  training form       {one["parameters_training"] / MEGA:12.3f} M   with bias tables"""


def _tables(as_json: bool) -> str:
    return json.dumps([record(row, measure(row.network)) for row in ROWS], indent=2) if as_json else table(ROWS)


def _one(options: argparse.Namespace) -> str:
    one = one_model(options.model, options.task, options.size)
    return json.dumps(one, indent=2) if options.json else _describe(one)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m eval.complexity", description=__doc__)
    parser.add_argument("--json", action="store_true", help="for machines, to stdout")
    parser.add_argument("--model", metavar="NAME", help="one preset instead of the paper's tables")
    size = "of its input (default: 128x128 pixels; for latents what the preset is made for)"
    parser.add_argument("--size", type=parse_size, metavar="HxW", help=size)
    parser.add_argument("--task", choices=PRESETS, help="which model of that name (default: generate if both exist)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.model is None and (options.size or options.task):
        parser.error("--size and --task need --model")
    if options.model is None:
        print(_tables(options.json))
        return
    try:
        print(_one(options))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
