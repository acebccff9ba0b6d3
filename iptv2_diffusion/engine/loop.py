"""The training loop.

An update uses the gradient of the mean loss over the global batch, whatever the number of processes and micro-batches.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from torch import Tensor, nn

from iptv2_diffusion.engine.checkpoint import (
    best_figure,
    describe,
    expected_bytes,
    load,
    save,
    save_best,
    starting_point,
)
from iptv2_diffusion.engine.ema import EMA
from iptv2_diffusion.engine.log import Log, check_trackers
from iptv2_diffusion.engine.optim import learning_rate, make_optimizer, multiplies_bfloat16
from iptv2_diffusion.engine.parallel import accumulating, gradient_norm, make_accelerator, place
from iptv2_diffusion.engine.settings import TrainConfig
from iptv2_diffusion.engine.stop import StopRequest
from iptv2_diffusion.engine.stream import checked, micro_batches_per_step, open_stream, share_of
from iptv2_diffusion.engine.task import Scalar, Task

logger = get_logger(__name__)
LARGE = 50e9  # bytes of checkpoints, worth a word
Batches = Iterator[dict[str, Tensor] | Exception]
Sums = dict[str, tuple[float, float]]  # by the name of a scalar: of its weighted values, and of the weights


@dataclass
class _Run:
    """The state of a training run; `step` counts finished updates, `seconds` the time spent on them."""

    task: Task
    config: TrainConfig
    description: Mapping[str, Any]
    accelerator: Accelerator
    model: nn.Module
    optimizer: torch.optim.Optimizer
    emas: list[EMA]  # the first is the one that is validated and shown
    step: int = 0
    seconds: float = 0.0
    good: Path | None = None  # the newest checkpoint
    sums: Sums = field(default_factory=dict)  # over the steps since the last record


def fit(task: Task, config: TrainConfig, **info: Any) -> int:
    """Trains `task.model` and returns the number of updates done, earlier runs included.

    That is `config.steps`, or fewer when SIGINT or SIGTERM asked for an end; a checkpoint is written either way.
    `info` (JSON) is kept in each checkpoint's `run.json`; its entries `model` and `recipe` (mappings: the model's
    configuration, and whatever else decides what is learned) have to be the same on resuming.
    FileExistsError and ValueError are raised before any work; FloatingPointError, by all processes together and before
    the weights change (DeepSpeed: after), when the loss or its gradient is not finite. With several processes the
    process group stays open: a program ends it with `PartialState().destroy_process_group()` before it exits.
    """
    description = describe(config, info)
    check_trackers(config.tracker or ())
    source = starting_point(config, description)
    run = _prepare(task, config, description)
    run.accelerator.wait_for_everyone()  # nobody writes into the folder before everybody has looked at it
    if source:
        _restore(run, source)
    _warn_of_size(run)
    _warn_of_precision(run)
    log = Log(run.accelerator, config, run.step, description)
    try:
        with StopRequest() as stop:
            _train(run, log, stop)
    finally:
        log.close()
    return run.step


def _prepare(task: Task, config: TrainConfig, description: Mapping[str, Any]) -> _Run:
    accelerator = make_accelerator(config)
    device, main = accelerator.device, accelerator.is_main_process
    for stage in config.plan:
        share_of(stage, accelerator.num_processes)  # refuses an unequal share
    emas = place(task, config, device)
    model, optimizer = accelerator.prepare(task.model, make_optimizer(task.model, config))
    for ema in emas:
        ema.follow(model, device, keeper=main)
    return _Run(task, config, description, accelerator, model, optimizer, emas)


def _restore(run: _Run, source: Path) -> None:
    record = load(source, run.accelerator, run.emas)
    run.step, run.seconds, run.good = record["step"], record["seconds"], source
    run.sums = record.get("since_last_record", {})  # older checkpoints have none


def _warn_of_size(run: _Run) -> None:
    """Before a run that nobody limited fills the disk."""
    size = expected_bytes(run.task.model, len(run.emas))
    count = -(-run.config.steps // run.config.checkpoint_every)
    if run.config.keep is None and count * size > LARGE:
        text = "a checkpoint takes about %.1f GB; all %d are kept, %.0f GB (--keep N keeps the newest N)"
        logger.warning(text, size / 1e9, count, count * size / 1e9)


def _warn_of_precision(run: _Run) -> None:
    if run.config.precision == "bf16" and not multiplies_bfloat16(run.accelerator.device):
        logger.warning("precision: bf16 takes many times as long as float32 on this processor")


def _train(run: _Run, log: Log, stop: StopRequest) -> None:
    accelerator = run.accelerator
    where = accelerator.process_index, accelerator.num_processes
    on_gpu = accelerator.device.type == "cuda"
    with open_stream(run.task, run.config, *where, run.step, on_gpu) as batches:
        _steps(run, log, stop, batches)


def _steps(run: _Run, log: Log, stop: StopRequest, batches: Batches) -> None:
    config, clock = run.config, _Clock(run)
    if run.step:
        _look(run, log, resumed=True)  # a signal or a kill after the checkpoint may have prevented it
    while run.step < config.steps:
        clock.start()
        lr = _set_learning_rate(run)
        sums, stopping = _accumulate(run, batches, stop)
        loss = _means(sums)["loss"]
        norm = _update(run, loss)
        clock.stop()
        log.advance(loss)
        run.sums = _added(run.sums, sums)
        if _due(config.log_every, run.step):
            log.record(run.step, _means(run.sums) | {"lr": lr, "grad_norm": norm} | clock.lap())
            run.sums = {}
        if stopping or _due(config.checkpoint_every, run.step) or run.step == config.steps:
            _save(run)
        if stopping and run.step < config.steps:
            logger.warning("stopped by %s after step %d; resume to continue", stop.received or "a signal", run.step)
            return
        _look(run, log)


def _set_learning_rate(run: _Run) -> float:
    """First thing in a step: DeepSpeed updates the weights at the end of the last backward pass."""
    lr = learning_rate(run.config, run.step)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    return lr


def _accumulate(run: _Run, batches: Batches, stop: StopRequest) -> tuple[Sums, bool]:
    """Leaves the gradient of one global batch in the model.

    Returns the sums over that batch of the loss and the task's scalars, and whether any process has to stop.
    """
    accelerator, stage = run.accelerator, run.config.plan.at(run.step)
    count = micro_batches_per_step(run.config, stage, accelerator.num_processes)
    sums: dict[str, Tensor] = {}
    for remaining in reversed(range(count)):
        batch = {
            name: value.to(accelerator.device, non_blocking=True) for name, value in checked(next(batches)).items()
        }
        with accumulating(accelerator, run.model, last=not remaining):
            loss, scalars = run.task.loss(run.model, batch)
            _check_per_sample(loss, batch)
            # The gradient is averaged over the processes, hence their number.
            accelerator.backward(loss.sum() * (accelerator.num_processes / stage.batch_size))
        for name, scalar in {"loss": loss, **scalars}.items():
            sums[name] = sums.get(name, 0) + _sums(scalar)
    stopping = torch.tensor([float(stop.received is not None)] * 2, device=accelerator.device)
    # One reduction and one wait for the device per step.
    *pairs, (stops, _) = cast(Tensor, accelerator.reduce(torch.stack([*sums.values(), stopping]), "sum")).tolist()
    return dict(zip(sums, pairs, strict=True)), stops > 0


def _added(sums: Sums, more: Sums) -> Sums:
    old = {name: sums.get(name, (0.0, 0.0)) for name in more}
    return {name: (old[name][0] + total, old[name][1] + weight) for name, (total, weight) in more.items()}


def _means(sums: Sums) -> dict[str, float]:
    """Without those that nothing contributed to."""
    return {name: total / weight for name, (total, weight) in sums.items() if weight}


def _sums(scalar: Scalar) -> Tensor:
    """The weighted sum of the values and the sum of the weights, (2,)."""
    values, weights = scalar if isinstance(scalar, tuple) else (scalar, torch.ones_like(scalar))
    return torch.stack([(values.detach().float() * weights).sum(), weights.float().sum()])


def _check_per_sample(loss: Tensor, batch: Mapping[str, Tensor]) -> None:
    expected = (len(next(iter(batch.values()))),)
    if tuple(loss.shape) != expected:
        raise ValueError(f"a task's loss has one value per sample: expected shape {expected}, got {tuple(loss.shape)}")


def _update(run: _Run, loss: float) -> float:
    """One optimizer step, unless loss or gradient is not finite; returns the norm of the gradient."""
    norm = gradient_norm(run.accelerator, run.model, run.config.clip)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        safe = f"the last good checkpoint is {run.good}" if run.good else "there is no checkpoint yet"
        raise FloatingPointError(f"step {run.step + 1}: loss {loss}, gradient norm {norm}; {safe}")
    run.optimizer.step()
    run.optimizer.zero_grad()
    for ema in run.emas:
        ema.update(run.model)
    run.step += 1
    return norm


def _due(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0


def _save(run: _Run) -> None:
    record = _record(run) | {"since_last_record": run.sums}
    run.good = save(run.config.output, record, run.accelerator, run.emas, run.task, run.config.keep)


def _record(run: _Run) -> dict[str, Any]:
    return {"step": run.step, "seconds": run.seconds, **run.description}


@torch.no_grad()
def _look(run: _Run, log: Log, resumed: bool = False) -> None:
    """Validation and preview, where due, with the averaged weights; of a resumed run what it has not done already."""
    validating, showing = _due(run.config.validate_every, run.step), _due(run.config.preview_every, run.step)
    if not (validating or showing):
        return
    module = run.emas[0].gather(run.accelerator.device)
    if run.accelerator.is_main_process:
        if validating and not (resumed and log.has_validation(run.step)) and (figures := run.task.validate(module)):
            _keep_best(run, figures)
            log.validation(run.step, figures)
        if showing and not (resumed and log.has_image(run.step)) and (image := run.task.preview(module)):
            log.image(run.step, image)
    run.accelerator.wait_for_everyone()


def _keep_best(run: _Run, figures: Mapping[str, float]) -> None:
    monitor = run.task.monitor
    if monitor is not None and figures[monitor] > best_figure(run.config.output, monitor):
        save_best(run.config.output, _record(run) | {"figures": dict(figures)}, run.emas[0], run.task)


class _Clock:
    """Times the updates alone: validation, previews and checkpoints do not count."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._lap = (run.step, run.seconds)

    def start(self) -> None:
        self._began = time.perf_counter()

    def stop(self) -> None:
        self._run.seconds += time.perf_counter() - self._began

    def lap(self) -> dict[str, float]:
        """Rate since the last call and seconds since the very first step."""
        step, seconds = self._lap
        self._lap = (self._run.step, self._run.seconds)
        plan = self._run.config.plan
        images = plan.first_position(self._run.step) - plan.first_position(step)
        rate = images / max(self._run.seconds - seconds, 1e-9)
        return {"images_per_second": rate, "seconds": self._run.seconds}
