"""What every stage of a run will cost on this machine, measured on real samples before the run."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import default_collate

from iptv2_diffusion.engine.ema import EMA
from iptv2_diffusion.engine.optim import make_optimizer
from iptv2_diffusion.engine.parallel import place
from iptv2_diffusion.engine.settings import TrainConfig
from iptv2_diffusion.engine.stages import Stage
from iptv2_diffusion.engine.stream import micro_batches, micro_batches_per_step
from iptv2_diffusion.engine.task import Task

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Cost:
    stage: Stage
    micro_batch: int
    seconds: float  # of an update: its micro-batches, loading, and the optimizer
    peak_bytes: int | None  # allocated on a GPU, resident on a CPU; None where the system does not tell


def rehearse(task: Task, config: TrainConfig, device: torch.device) -> Iterator[Cost]:
    """One process; the second of two micro-batches of every stage counts. The model's weights are changed.

    Workers load while the model computes, so that the slower of the two counts.
    """
    emas = place(task, config, device)
    for ema in emas:
        ema.follow(task.model, device, keeper=True)
    optimizer = make_optimizer(task.model, config)
    for stage in config.plan:
        positions = next(micro_batches(config, rank=0, processes=1, start=stage.start))
        _micro_batch(task, positions, device, optimizer, emas)
        _forget_peak(device)
        loading, computing, updating = _micro_batch(task, positions, device, optimizer, emas)
        one = max(loading / config.workers, computing) if config.workers else loading + computing
        seconds = one * micro_batches_per_step(config, stage, processes=1) + updating
        yield Cost(stage, len(positions), seconds, _peak(device))


def _micro_batch(
    task: Task, positions: list[int], device: torch.device, optimizer: torch.optim.Optimizer, emas: list[EMA]
) -> tuple[float, float, float]:
    """Seconds of loading, of forward and backward, and of the optimizer and the averages."""
    times = [time.perf_counter()]
    batch = {name: value.to(device) for name, value in default_collate([task.sample(p) for p in positions]).items()}
    times.append(_now(device))
    task.loss(task.model, batch)[0].mean().backward()
    times.append(_now(device))
    optimizer.step()
    optimizer.zero_grad()
    for ema in emas:
        ema.update(task.model)
    times.append(_now(device))
    return times[1] - times[0], times[2] - times[1], times[3] - times[2]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        CLEAR.write_text("5")


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration):
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return None
