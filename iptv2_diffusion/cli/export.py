"""Export a trained model: weights for inference, or weights to train on with.

By default one .safetensors file in fused form, with the model's configuration in its header.
"""

import argparse
from pathlib import Path
from typing import Any

from iptv2_diffusion.cli.common import run, say

FORMATS = ("safetensors", "diffusers")


def main() -> None:
    run(_export)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", type=Path, required=True, help="training run, checkpoint, model folder or file")
    parser.add_argument("--output", type=Path, required=True, help="new file, or folder for diffusers")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="(default: %(default)s)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--fuse", action="store_true", help="the inference form of Rep-LeFFN (the default)")
    form.add_argument("--unfuse", action="store_true", help="a training form of the same function")
    return parser


def _export() -> None:
    flags = make_parser().parse_args()
    from iptv2_diffusion.restoration.export import export

    model = load_any(flags.ckpt)
    export(model.unfuse() if flags.unfuse else model.fuse(), flags.output, flags.format)
    say(f"{flags.output}: {type(model).__name__}, {'training' if flags.unfuse else 'fused'} form")


def load_any(ckpt: Path) -> Any:
    """The restorer or denoiser that --ckpt names, on the CPU, in eval mode, in the form it was saved in."""
    from iptv2_diffusion.diffusion.denoiser import IPTV2Transformer2DModel
    from iptv2_diffusion.restoration.model_files import load_model
    from iptv2_diffusion.restoration.restorer import IPTV2Restorer

    return load_model(find_model(ckpt), {cls.__name__: cls for cls in (IPTV2Restorer, IPTV2Transformer2DModel)})


def find_model(ckpt: Path) -> Path:
    """The file or folder with the weights: of a run (its newest checkpoint), a checkpoint, a pipeline, or itself."""
    from iptv2_diffusion.engine import newest

    ckpt = ckpt.expanduser()
    for part, index in (("model", "run.json"), ("transformer", "model_index.json")):
        if (ckpt / index).is_file():
            return ckpt / part
    checkpoint = newest(ckpt)
    return ckpt if checkpoint is None else checkpoint / "model"


if __name__ == "__main__":
    main()
