"""The endless training stream, cut into steps, processes and micro-batches.

A step consumes the next `batch_size` positions, which every stage of the plan says anew. Each process takes a contiguous
share and walks through it in micro-batches, so the samples of a step depend on nothing but its number.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from iptv2_diffusion.engine.settings import TrainConfig
from iptv2_diffusion.engine.stages import Stage
from iptv2_diffusion.engine.task import Task

T = TypeVar("T")


def share_of(stage: Stage, processes: int) -> int:
    """Samples per process and step; ValueError unless all processes get the same number."""
    if stage.batch_size % processes:
        raise ValueError(
            f"batch_size: expected a multiple of the {processes} processes, got {stage.batch_size} from step {stage.start}"
        )
    return stage.batch_size // processes


def micro_batches_per_step(config: TrainConfig, stage: Stage, processes: int) -> int:
    return -(-share_of(stage, processes) // _most(config, stage, processes))


def micro_batches(config: TrainConfig, rank: int, processes: int, start: int) -> Iterator[list[int]]:
    """The positions of every forward of process `rank`, from step `start` to the last."""
    for step in range(start, config.steps):
        stage = config.plan.at(step)
        share, most = share_of(stage, processes), _most(config, stage, processes)
        first = config.plan.first_position(step) + rank * share
        positions = range(first, first + share)
        yield from (list(positions[i : i + most]) for i in range(0, share, most))


def _most(config: TrainConfig, stage: Stage, processes: int) -> int:
    """Samples per forward: about as many pixels in every stage."""
    share = share_of(stage, processes)
    if config.micro_batch is None:
        return share
    smallest = config.plan.at(0).size
    area = (smallest / stage.size) ** 2 if smallest and stage.size else 1.0
    return min(max(int(config.micro_batch * area), 1), share)


class ErrorsAsValues(Dataset[T | Exception]):
    """`read(position)`, but errors of the data are handed over: a worker process would wrap them in its traceback."""

    def __init__(self, read: Callable[[int], T]) -> None:
        self._read = read

    def __getitem__(self, position: int) -> T | Exception:
        try:
            return self._read(position)
        except (ValueError, OSError) as error:
            return error


def collate(samples: list[T | Exception]) -> T | Exception:
    """A batch, or the first error among its samples."""
    return next((sample for sample in samples if isinstance(sample, Exception)), None) or default_collate(samples)


def checked(batch: T | Exception) -> T:
    """The batch, or the error that one of its samples met."""
    if isinstance(batch, Exception):
        raise batch
    return batch


def worker_context(workers: int) -> str | None:
    """How data workers start: forked, where that is possible. Anything else would send them the model with the task."""
    return "fork" if workers and "fork" in multiprocessing.get_all_start_methods() else None


def make_loader(
    task: Task, config: TrainConfig, rank: int, processes: int, start: int, pin_memory: bool
) -> DataLoader[dict[str, Tensor] | Exception]:
    """Micro-batches in order, loaded ahead by `config.workers` processes; to be walked through once."""
    return DataLoader(
        ErrorsAsValues(task.sample),
        batch_sampler=cast(Sampler[list[int]], micro_batches(config, rank, processes, start)),
        num_workers=config.workers,
        multiprocessing_context=worker_context(config.workers),
        collate_fn=collate,
        worker_init_fn=_leave_signals_to_the_parent,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # otherwise the loader would draw from the global one
    )


@contextmanager
def open_stream(
    task: Task, config: TrainConfig, rank: int, processes: int, start: int, pin_memory: bool
) -> Iterator[Iterator[dict[str, Tensor] | Exception]]:
    """The batches of `make_loader`. The workers end with the context, even where a traceback keeps its frames alive:
    they ignore SIGTERM, so the interpreter would wait for them for ever."""
    batches = (batch for batch in make_loader(task, config, rank, processes, start, pin_memory))
    try:
        yield batches
    finally:
        batches.close()


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach the whole process group, but the step under way still needs its data."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
