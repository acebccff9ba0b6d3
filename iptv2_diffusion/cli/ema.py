"""Choose the width of the averaged weights after training, as in EDM2.

From the power-function averages in all checkpoints of a run (train with --ema power-0.05 power-0.1, and keep the
checkpoints) the average of any relative width is reconstructed, as a checkpoint to sample from.
"""

import argparse
from pathlib import Path

from iptv2_diffusion.cli.common import run, say


def main() -> None:
    run(_reconstruct)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", type=Path, required=True, help="training run, with all its checkpoints")
    parser.add_argument("--sigma-rel", type=float, required=True, help="width of the average, 0.08 for instance")
    parser.add_argument("--step", type=int, help="of a checkpoint, whose average this is (default: the newest)")
    parser.add_argument("--output", type=Path, required=True, help="new folder, for sample.py --ckpt")
    return parser


def _reconstruct() -> None:
    flags = make_parser().parse_args()
    from iptv2_diffusion.engine.posthoc import reconstruct

    count, error = reconstruct(flags.ckpt.expanduser(), flags.sigma_rel, flags.output.expanduser(), flags.step)
    say(f"{flags.output}: from {count} averages; the profile is matched to {100 * error:.2g} %")


if __name__ == "__main__":
    main()
