"""The flags of sample.py as argparse gives them."""

from argparse import ArgumentParser, Namespace

from iptv2_diffusion.cli.sample_config import SampleConfig
from iptv2_diffusion.config import add_flags


def flags_of(*flags: object) -> Namespace:
    parser = ArgumentParser()
    add_flags(parser, SampleConfig)
    return parser.parse_args(list(map(str, flags)))
