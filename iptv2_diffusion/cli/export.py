"""Export a trained model: weights for inference, weights to train on with, or a graph for other programs.

By default one .safetensors file in fused form, with the model's configuration in its header. `onnx` and `torch-export`
write graphs of restorers, for any height and width in multiples of what they record as `size_multiple`; that takes a
minute or two for IPTV2-Ti, four for IPTV2-S.
"""

import argparse
from pathlib import Path
from typing import Any

from iptv2_diffusion.cli.common import run, say

FORMATS = ("safetensors", "diffusers", "onnx", "torch-export")
GRAPHS = FORMATS[2:]


def main() -> None:
    run(_export)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", type=Path, required=True, help="training run, checkpoint, model folder or file")
    parser.add_argument("--output", type=Path, required=True, help="new file, or folder for diffusers")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="(default: %(default)s)")
    parser.add_argument("--half", action="store_true", help="weights in half precision, for half the size")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--fuse", action="store_true", help="the inference form of Rep-LeFFN (the default)")
    form.add_argument("--unfuse", action="store_true", help="a training form of the same function")
    return parser


def _export() -> None:
    flags = make_parser().parse_args()
    if flags.unfuse and flags.format in GRAPHS:
        raise ValueError(f"--unfuse: {flags.format} has the inference form only")
    if flags.half and flags.format in GRAPHS:
        raise ValueError(f"--half: {flags.format} is written in float32")
    from iptv2_diffusion.restoration.export import export, graph_multiple

    model = load_any(flags.ckpt)
    model = model.unfuse() if flags.unfuse else model.fuse()
    export(model.half() if flags.half else model, flags.output, flags.format)
    sizes = f", height and width in multiples of {graph_multiple(model)}" if flags.format in GRAPHS else ""
    say(f"{flags.output}: {type(model).__name__}, {'training' if flags.unfuse else 'fused'} form{sizes}")


def load_any(ckpt: Path) -> Any:
    """The restorer or denoiser that --ckpt names, on the CPU, in eval mode, in the form it was saved in."""
    from iptv2_diffusion.cli.load import find_model
    from iptv2_diffusion.diffusion.denoiser import IPTV2Transformer2DModel
    from iptv2_diffusion.restoration.model_files import load_model
    from iptv2_diffusion.restoration.restorer import IPTV2Restorer

    return load_model(find_model(ckpt), {cls.__name__: cls for cls in (IPTV2Restorer, IPTV2Transformer2DModel)})


if __name__ == "__main__":
    main()
