"""Several processes and mixed precision, through accelerate: plain, DDP, FSDP (version 2) and DeepSpeed (ZeRO 1 and 2).

Weights, gradients, their reductions and averages are float32 everywhere. accelerate's own mixed precision stays off: under
FSDP and DeepSpeed it would cast weights and gradients, not only what autocast knows to be safe.
"""

import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import wraps
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import DistributedType, convert_outputs_to_fp32, parse_flag_from_env
from torch import nn

from iptv2_diffusion.engine.ema import EMA
from iptv2_diffusion.engine.settings import TrainConfig
from iptv2_diffusion.engine.task import Task

# Where each kind keeps the trained weights in `state/`; they cannot read each other's.
WEIGHTS = {DistributedType.FSDP: "pytorch_model_fsdp.bin", DistributedType.DEEPSPEED: "pytorch_model"}
PLAIN_WEIGHTS = "model.safetensors"


def make_accelerator(config: TrainConfig, **options: Any) -> Accelerator:
    """ValueError for a kind of parallelism that the training loop cannot do, or a launcher that wants what it does."""
    _check_launcher(config)
    # The other processes wait while the main one validates; the usual limit of ten minutes may be too short.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=2))
    accelerator = Accelerator(mixed_precision="no", cpu=only_cpu(), kwargs_handlers=[patience], **options)
    if config.optimizer == "muon" and accelerator.distributed_type in WEIGHTS:
        raise ValueError(
            f"optimizer: expected adamw with {accelerator.distributed_type.value}; muon needs whole matrices"
        )
    if accelerator.distributed_type == DistributedType.FSDP:
        _check_fsdp(accelerator.state.fsdp_plugin)
    elif accelerator.distributed_type == DistributedType.DEEPSPEED:
        _set_up_deepspeed(accelerator.state.deepspeed_plugin, config)
    else:
        _save_without_wrappers(accelerator)
    return accelerator


def only_cpu() -> bool:
    """Whether accelerate is to be told: else it takes the processes of a launcher for strangers where there is no GPU."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def weights_name(accelerator: Accelerator) -> str:
    """The file or folder of the trained weights in `state/`."""
    return WEIGHTS.get(accelerator.distributed_type, PLAIN_WEIGHTS)


def autocast_forward(model: nn.Module, device: torch.device) -> None:
    """Lets the forward pass compute in bfloat16 what autocast knows to be safe; it still returns float32."""
    inner: Callable[..., Any] = model.forward

    @wraps(inner)
    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device.type, torch.bfloat16):
            return inner(*args, **kwargs)

    model.forward = convert_outputs_to_fp32(forward)


def place(task: Task, config: TrainConfig, device: torch.device) -> list[EMA]:
    """Brings the task and its model to the device, ready to be trained in the precision asked for; the model's averages."""
    task.prepare(device)
    # Before the forward pass is wrapped. DDP then gives everyone the main process's weights, so the averages of the
    # others may start elsewhere; only the main process's are ever used.
    emas = [EMA(task.model, name) for name in config.ema]
    task.model.to(device).train()
    if config.precision == "bf16":
        autocast_forward(task.model, device)
    return emas


def accumulating(accelerator: Accelerator, model: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Around forward and backward of a micro-batch, of which only the last one of a step exchanges gradients."""
    accelerator.sync_gradients = last  # what DeepSpeed goes by
    return nullcontext() if last else accelerator.no_sync(model)


def gradient_norm(accelerator: Accelerator, model: nn.Module, clip: float | None) -> float:
    """The norm of the whole gradient, before it is clipped; with DeepSpeed the update is done already."""
    norm: Any = accelerator.clip_grad_norm_(model.parameters(), clip or math.inf)  # inf: only measures
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


def _check_launcher(config: TrainConfig) -> None:
    """Against gradients that are divided twice, and a precision that is asked for in vain."""
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if precision not in ("no", config.precision):
        raise ValueError(
            f"expected accelerate's mixed_precision to be no, got {precision}: "
            f"--precision decides, and is {config.precision}"
        )
    _check_accumulation(os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", 1))


def _check_accumulation(steps: int | str) -> None:
    if str(steps) not in ("1", "auto"):
        raise ValueError(
            f"expected accelerate's gradient_accumulation_steps to be 1, got {steps}: --micro-batch decides"
        )


def _check_fsdp(plugin: Any) -> None:
    """Version 2 shards every parameter by itself; a full state dict serves any number of processes."""
    got = plugin.fsdp_version, plugin.state_dict_type.name
    if got != (2, "FULL_STATE_DICT"):
        raise ValueError(f"FSDP: expected fsdp_version 2 and FULL_STATE_DICT in accelerate's configuration, got {got}")


def _set_up_deepspeed(plugin: Any, config: TrainConfig) -> None:
    if plugin.zero_stage not in (1, 2):
        raise ValueError(
            f"DeepSpeed: expected zero_stage 1 or 2 in accelerate's configuration, got {plugin.zero_stage}"
        )
    _check_accumulation(plugin.deepspeed_config.get("gradient_accumulation_steps", 1))
    plugin.deepspeed_config["gradient_clipping"] = config.clip or 0.0
    plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = 1  # wanted, and used for its statistics only


def _save_without_wrappers(accelerator: Accelerator) -> None:
    """Makes `state/` independent of the number of processes: DDP would prefix the names of the weights."""

    def on_save(models: list[Any], weights: list[Any], folder: str) -> None:
        weights[:] = [accelerator.unwrap_model(model).state_dict() for model in models]

    def on_load(models: list[Any], folder: str) -> None:
        models[:] = [accelerator.unwrap_model(model) for model in models]

    accelerator.register_save_state_pre_hook(on_save)  # pyright: ignore[reportArgumentType]
    accelerator.register_load_state_pre_hook(on_load)  # pyright: ignore[reportArgumentType]
