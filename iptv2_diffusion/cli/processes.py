"""Commands that a launcher starts in several processes, or that run as one."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState

from iptv2_diffusion.cli.load import choose_device
from iptv2_diffusion.engine.parallel import only_cpu

PATIENCE = timedelta(days=1)  # for the slowest process


@contextmanager
def processes(device: str | None) -> Iterator[Any]:
    """accelerate's state of them; ValueError for a --device where the launcher chooses devices."""
    state = PartialState(cpu=device == "cpu" or only_cpu(), timeout=PATIENCE)
    if state.num_processes > 1 and device not in (None, "cpu"):
        raise ValueError(f"with several processes their launcher chooses the devices: leave out --device {device}")
    yield state
    state.destroy_process_group()


def own_device(device: str | None) -> torch.device:
    """Where this process computes: alone, on the --device that was asked for."""
    state: Any = PartialState()
    return state.device if state.num_processes > 1 else choose_device(device)
