"""A tiny latent denoiser and its task, and sharded parameters on the CPU."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import Tensor, nn
from toy import ToyTask

from iptv2_diffusion import IPTV2Transformer2DModel
from iptv2_diffusion.engine import parallel
from iptv2_diffusion.engine.task import Scalar

TINY: dict[str, Any] = {
    "sample_size": 8,
    "num_classes": 3,
    "cond_dim": 16,
    "width": 8,
    "layers": (2, 2),
    "heads": (1, 2),
}


class DenoisingTask(ToyTask):
    """Predicts the noise in random latents; the error at late timesteps is logged by itself."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = IPTV2Transformer2DModel(**TINY, grid=4)
            nn.init.normal_(self.model.head.weight, std=0.1)  # zero would hide most of the gradient

    def sample(self, position: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(position)
        z, noise = torch.randn(2, 4, 8, 8, generator=generator)
        t, label = torch.randint(1000, (), generator=generator), torch.randint(3, (), generator=generator)
        return {"z": z, "noise": noise, "t": t, "label": label}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Mapping[str, Scalar]]:
        share = (batch["t"] / 1000)[:, None, None, None]
        output = model((1 - share) * batch["z"] + share * batch["noise"], batch["t"], batch["label"]).sample
        loss = (output[:, :4] - batch["noise"]).square().flatten(1).mean(1)
        return loss, {"loss_late": (loss, (batch["t"] >= 900).float())}

    def validate(self, model: nn.Module) -> dict[str, float]:
        return {}


@contextmanager
def sharded(layer: str, **settings: Any) -> Iterator[None]:
    """Makes `fit` shard the parameters of each module of class `layer`: accelerate itself allows that on GPUs only."""

    class Sharding(Accelerator):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            plugin = FullyShardedDataParallelPlugin(
                auto_wrap_policy="transformer_based_wrap",
                transformer_cls_names_to_wrap=[layer],
                **{"fsdp_version": 2, "state_dict_type": "FULL_STATE_DICT"} | settings,
            )
            AcceleratorState._shared_state["fsdp_plugin"] = plugin
            for state in (PartialState, AcceleratorState):
                state._shared_state["distributed_type"] = DistributedType.FSDP

    usual, parallel.Accelerator = parallel.Accelerator, Sharding
    kind = PartialState().distributed_type
    try:
        yield
    finally:
        parallel.Accelerator = usual
        PartialState._shared_state["distributed_type"] = kind
        AcceleratorState._reset_state()
