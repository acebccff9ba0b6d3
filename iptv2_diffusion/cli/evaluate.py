"""Measure trained models by the protocols of the literature."""

import argparse

from iptv2_diffusion.cli import evaluate_generation, evaluate_restoration
from iptv2_diffusion.cli.common import run
from iptv2_diffusion.config import add_flags

SUBCOMMANDS = {
    "generation": (evaluate_generation, evaluate_generation.GenerationConfig),
    "restoration": (evaluate_restoration, evaluate_restoration.EvaluateConfig),
}


def main() -> None:
    run(_evaluate)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    subparsers = parser.add_subparsers(dest="what", required=True)
    for name, (module, config) in SUBCOMMANDS.items():
        text = module.__doc__ or ""
        subparser = subparsers.add_parser(
            name,
            help=text.split("\n")[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_flags(subparser, config)
    return parser


def _evaluate() -> None:
    flags = make_parser().parse_args()
    SUBCOMMANDS[flags.what][0].command(flags)


if __name__ == "__main__":
    main()
