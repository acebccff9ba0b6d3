"""What every command line shares."""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iptv2_diffusion.engine.settings import TrainConfig

EXPECTED = (ValueError, OSError, FloatingPointError)  # the user's to mend: one line, no traceback


def run(command: Callable[[], None]) -> None:
    """Runs a command; errors that the user can mend end it with one line on stderr and exit status 2."""
    logging.basicConfig(format="%(message)s")
    try:
        command()
    except EXPECTED as error:
        sys.exit(_fail(f"error: {' '.join(str(error).split())}", 2))
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted", 130))


def say(text: str) -> None:
    """To people, on the main process only."""
    if os.environ.get("RANK", "0") == "0":
        print(text, flush=True)


def allow_tf32(allowed: bool) -> None:
    """Whether GPUs may round the factors of float32 products, in matrices and convolutions, to 10 bits.

    By torch's older switches: accelerate sets one of them, too, and torch refuses to read a mixture of old and new ones.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def trainable(create: Callable[[], Any], seed: int, *, gradient_checkpointing: bool, compile: bool) -> Any:
    """The model that `create` makes, its random weights a function of the seed alone."""
    import torch

    from iptv2_diffusion.backbone.compiling import compile_layers
    from iptv2_diffusion.rng import derived_generator

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_generator(seed).initial_seed())
        model = create()
    if gradient_checkpointing:
        model.enable_gradient_checkpointing()
    if compile:
        compile_layers(model)
    return model


def start_from(model: Any, source: str, load: Callable[[str], Any]) -> None:
    """Copies what fits of the model that `load` finds there, and says what does not; ValueError where nothing fits."""
    from iptv2_diffusion.backbone.initialise import describe, initialise

    afresh = initialise(model, load(source).unfuse())
    say(f"Starting from {source}: {describe(afresh, len(model.state_dict()))}")


def resumed(settings: Any, config: "TrainConfig") -> Any:
    """With the record of what the run had started from: a checkpoint brings all weights, those are not read again."""
    from iptv2_diffusion.engine import read_run

    checkpoint = to_resume(config) if settings.init is None else None
    if checkpoint is None:
        return settings
    return replace(settings, init=read_run(checkpoint)["info"].get("recipe", {}).get("init"))


def to_resume(config: "TrainConfig") -> Path | None:
    """The checkpoint that brings all weights; None for a run that begins."""
    from iptv2_diffusion.engine import newest

    return newest(config.output) if config.resume else None


def fields_of(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those values that are fields of the dataclass."""
    return {name: value for name, value in values.items() if name in cls.__dataclass_fields__}


def _fail(message: str, status: int) -> int:
    print(message, file=sys.stderr, flush=True)
    return status
