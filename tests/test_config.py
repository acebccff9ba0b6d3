"""Dataclass <-> flags <-> JSON."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from iptv2_diffusion.config import add_flags, arg, from_flags, from_json, to_json


@dataclass(frozen=True, kw_only=True)
class Settings:
    output: Path = arg(help="folder")
    steps: int = arg(10, "number of updates")
    lr: float = 1e-4
    clip: float | None = arg(None, "largest gradient norm")
    ema: bool = arg(True, "average the weights")
    betas: tuple[float, float] = arg((0.9, 0.999), "moments")
    depths: tuple[int, ...] | None = None
    schedule: Literal["constant", "cosine"] = "constant"
    window: Literal[16, 32] | None = 16


def parse(*flags: str, base=None) -> Settings:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_flags(parser, Settings)
    return from_flags(Settings, parser.parse_args(flags), base)


def test_defaults_come_from_the_dataclass():
    assert parse("--output", "runs/a") == Settings(output=Path("runs/a"))


def test_every_kind_of_flag():
    given = parse(
        *("--output", "x", "--steps", "3", "--lr", "1e-3", "--clip", "0.5", "--no-ema", "--betas", "0.8", "0.9"),
        *("--depths", "2", "4", "6", "--schedule", "cosine", "--window", "32"),
    )
    assert given == Settings(
        output=Path("x"), steps=3, lr=1e-3, clip=0.5, ema=False, betas=(0.8, 0.9), depths=(2, 4, 6), schedule="cosine",
        window=32,
    )  # fmt: skip


def test_none_on_the_command_line():
    base = Settings(output=Path("x"), clip=1.0, depths=(1,), window=32)
    assert parse("--clip", "none", "--depths", "none", "--window", "none", base=base) == Settings(
        output=Path("x"), clip=None, depths=None, window=None
    )


def test_a_flag_overrides_the_base_only_where_given():
    base = Settings(output=Path("x"), steps=7, lr=0.5, ema=False)
    assert parse("--lr", "0.25", base=base) == Settings(output=Path("x"), steps=7, lr=0.25, ema=False)
    # A flag that repeats the dataclass default still overrides the base.
    assert parse("--steps", "10", "--ema", base=base) == Settings(output=Path("x"), steps=10, lr=0.5)


def test_a_preset_may_be_partial():
    assert parse("--output", "x", "--lr", "2", base={"steps": 5, "lr": 1.0}) == Settings(
        output=Path("x"), steps=5, lr=2.0
    )
    with pytest.raises(ValueError, match=r"no field stepz; its fields are output, steps"):
        parse("--output", "x", base={"stepz": 5})


def test_a_required_flag_is_named():
    with pytest.raises(ValueError, match="Settings needs --output"):
        parse("--steps", "3")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--schedule", "linear"], "expected one of constant, cosine, got 'linear'"),
        (["--window", "17"], "expected one of 16, 32, got '17'"),
        (["--steps", "1.5"], "expected int, got '1.5'"),
        (["--betas", "0.9"], "expected 2 arguments"),
    ],
)
def test_bad_flags(flags, message):
    with pytest.raises(argparse.ArgumentError, match=message):
        parse(*flags)


def test_help_names_choices_and_defaults():
    parser = argparse.ArgumentParser()
    add_flags(parser, Settings)
    text = " ".join(parser.format_help().split())
    assert "number of updates (default: 10)" in text
    assert "folder (required)" in text
    assert "moments (default: 0.9 0.999)" in text
    assert "{constant,cosine}" in text
    assert "{16,32,none}" in text
    assert "--ema, --no-ema" in text


def test_json_round_trip():
    config = Settings(output=Path("a/b"), depths=(1, 2), clip=2.0, window=None)
    assert from_json(Settings, to_json(config)) == config
    assert from_json(Settings, {"output": "a", "lr": 1}) == Settings(output=Path("a"), lr=1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"output": "a", "stepz": 1}, "Settings has no field stepz; its fields are output, steps, lr"),
        ({"steps": 1}, "Settings needs output"),
        ({"output": "a", "steps": "1"}, "steps: expected int, got '1'"),
        ({"output": "a", "steps": True}, "steps: expected int, got True"),
        ({"output": "a", "schedule": "x"}, "schedule: expected 'constant' or 'cosine', got 'x'"),
        ({"output": "a", "betas": [0.9]}, "betas: expected 2 values, got 1"),
        ({"output": "a", "depths": [1, 2.5]}, r"depths\[1\]: expected int, got 2.5"),
    ],
)
def test_bad_json(values, message):
    with pytest.raises(ValueError, match=message):
        from_json(Settings, values)
    with pytest.raises(ValueError, match="expected a JSON object"):
        from_json(Settings, "[1]")
