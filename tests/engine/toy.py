"""A task small enough to train in milliseconds."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from iptv2_diffusion.engine import TrainConfig, read_records
from iptv2_diffusion.engine.task import Scalar


class ToyNet(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, width: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class ToyTask:
    """Regresses two fixed functions of random vectors; `on_sample` is called with each position.

    The loss of the position `breaks_at` is `broken`.
    """

    def __init__(
        self,
        seed: int = 0,
        width: int = 8,
        dropout: float = 0.0,
        on_sample: Callable[[int], None] | None = None,
        breaks_at: int = -1,
        broken: float = math.nan,
    ) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = ToyNet(width, dropout)
        self.seed, self.on_sample, self.breaks_at, self.broken = seed, on_sample, breaks_at, broken
        self.validated: list[dict[str, Tensor]] = []

    monitor = None

    def prepare(self, device: torch.device) -> None:
        self.device = device

    def sample(self, position: int) -> dict[str, Tensor]:
        if self.on_sample:
            self.on_sample(position)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + position)
        return {"x": torch.randn(4, generator=generator), "position": torch.tensor(position)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Mapping[str, Scalar]]:
        x = batch["x"]
        target = torch.stack([x.sum(1), x.prod(1)], 1)
        error = (model(x) - target).square().mean(1)
        error = torch.where(batch["position"] == self.breaks_at, self.broken, error)
        return error, {"size": x.abs().mean(1)}

    def validate(self, model: nn.Module) -> dict[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        self.validated.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"loss": float(model(torch.ones(3, 4)).square().mean())}

    def preview(self, model: nn.Module) -> Image.Image | None:
        return Image.new("L", (5, 3), 128)

    def export(self, folder: Path) -> None:
        (folder / "names.json").write_text('["a", "b"]')


def toy_config(output: Path, **changes: Any) -> TrainConfig:
    """Six small steps, everything on, a checkpoint every third."""
    schedule = {"log_every": 1, "checkpoint_every": 3, "validate_every": 2, "preview_every": 4}
    config = TrainConfig(output=output, steps=6, batch_size=8, lr=1e-2, ema=("0.9",), workers=0)
    return replace(config, **(schedule | changes))


def records(output: Path) -> list[dict[str, Any]]:
    """The lines of stats.jsonl without what a clock measured."""
    lines = read_records(output)
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


def losses(output: Path) -> Tensor:
    return torch.tensor([record["loss"] for record in records(output) if "loss" in record], dtype=torch.float64)


def tensors(checkpoint: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint: trained weights, averaged weights, optimizer."""
    found = {f"{file}:{n}": t for file in checkpoint.rglob("*.safetensors") for n, t in load_file(file).items()}
    found = {name.removeprefix(str(checkpoint)): tensor for name, tensor in found.items()}
    for file in sorted((checkpoint / "state").glob("pytorch_model*.bin")):
        found |= {f"{file.name}:{name}": tensor for name, tensor in torch.load(file, weights_only=True).items()}
    optimizer = torch.load(checkpoint / "state" / "optimizer.bin", weights_only=True)
    return found | {
        f"optimizer:{i}.{n}": t for i, s in optimizer["state"].items() for n, t in s.items() if isinstance(t, Tensor)
    }


def assert_same_checkpoint(a: Path, b: Path, averages: int = 1) -> None:
    """Bit for bit; 4 weights, 4 of every average, 4 times (step, first and second moment)."""
    assert len(tensors(a)) == 16 + 4 * averages
    torch.testing.assert_close(tensors(a), tensors(b), rtol=0, atol=0)
