"""Training with other objectives than the plain one, and losses by bins of the timestep."""

from pathlib import Path
from typing import Any

import pytest
import torch
from dummy import GaussianDenoiser, tiny_vae
from torch import Tensor
from torch.utils.data import default_collate

from iptv2_diffusion import LatentCodec
from iptv2_diffusion.diffusion.objective import make_objective
from iptv2_diffusion.diffusion.schedule import flow_scheduler, is_flow, load_scheduler, paper_scheduler
from iptv2_diffusion.diffusion.task import GenerationTask
from iptv2_diffusion.diffusion.terms import bin_names, bin_weights

NAMES = [
    *("t000-124", "t125-249", "t250-374", "t375-499"),
    *("t500-624", "t625-749", "t750-874", "t875-999"),
]


class Denoiser(GaussianDenoiser):
    """That of one class; remembers the timesteps it was asked at."""

    null_label = 5

    def forward(self, hidden_states: Tensor, timestep: Any, class_labels: Tensor, return_dict: bool = True) -> Any:
        self.__dict__.setdefault("timesteps", []).append(timestep)
        return super().forward(hidden_states, timestep, class_labels, return_dict)


class Gaussian:
    """The data that the denoiser is exact for, with its own draws."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def example(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        own = torch.Generator().manual_seed(index)
        return {"latents": -1 + 0.4 * torch.randn(4, 8, 8, generator=own), "label": torch.tensor(0)}


def make_task(prediction: str = "flow", held_out: int | None = None, **options: Any) -> Any:
    scheduler = flow_scheduler() if prediction == "flow" else paper_scheduler()
    model: Any = Denoiser(out_channels=4, prediction_type=prediction)
    return GenerationTask(
        model,
        scheduler,
        LatentCodec(tiny_vae()),
        Gaussian(12),
        class_names=list("abcde"),
        objective=make_objective(scheduler.config, **options),
        held_out=None if held_out is None else Gaussian(held_out),
    )


def batch_of(task: GenerationTask, positions: range) -> dict[str, Tensor]:
    return default_collate([task.sample(position) for position in positions])


def test_bins_are_eighths_of_the_schedule() -> None:
    assert bin_names() == NAMES
    edges = torch.tensor([0, 124, 125, 249, 250, 874, 875, 999])
    inside = torch.stack(list(bin_weights(edges, 1000).values()))
    assert inside.argmax(0).tolist() == [0, 0, 1, 1, 2, 6, 7, 7]
    assert inside.sum(0).tolist() == [1] * 8
    assert bin_weights(torch.tensor([124.99, 125.0, 1000.0]), 1000)["t125-249"].tolist() == [0, 1, 0]
    assert bin_weights(torch.tensor([5, 49]), 50)["t875-999"].tolist() == [0, 1]


@pytest.mark.parametrize("prediction", ["epsilon", "flow"])
@torch.no_grad()
def test_training_logs_the_error_of_each_bin(prediction: str) -> None:
    task = make_task(prediction)
    batch = batch_of(task, range(64))
    loss, scalars = task.loss(task.model, batch)
    assert list(scalars) == ["simple", "bound", *(f"simple/{name}" for name in NAMES)]
    index = (batch["t"] // 125).long()
    for i, name in enumerate(NAMES):
        values, weights = scalars[f"simple/{name}"]
        assert weights.equal((index == i).float())
        assert values.equal(scalars["simple"])
    assert loss.equal(scalars["simple"])


@pytest.mark.parametrize("prediction", ["epsilon", "flow"])
@torch.no_grad()
def test_held_out_loss_by_bins(prediction: str) -> None:
    """On its own data an exact denoiser is off by the posterior's variance: s^2 a^2 / (a^2 s^2 + b^2) of the noise."""
    task = make_task(prediction, held_out=200)
    figures = task.validate(task.model)
    t = torch.cat(task.model.timesteps).double()
    assert list(figures) == ["held_out_loss", *(f"held_out_loss/{name}" for name in NAMES)]
    assert ((t / 250).long() == torch.arange(4).repeat(200)).all()
    if prediction == "flow":
        a, b = 1 - t / 1000, t / 1000
        exact = 0.16 * (a + b) ** 2 / ((0.4 * a) ** 2 + b**2)  # the error in z_0, b / a of which is that in the noise
    else:
        cumprod = (1 - paper_scheduler().betas.double()).cumprod(0)[t.long()]
        exact = 0.16 * cumprod / (0.16 * cumprod + 1 - cumprod)
    for i, name in enumerate(NAMES):
        expected = exact[(t // 125).long() == i].mean().item()
        assert figures[f"held_out_loss/{name}"] == pytest.approx(expected, rel=0.05)
    counts = torch.stack([inside.sum() for inside in bin_weights(t, 1000).values()])
    binned = torch.tensor([figures[f"held_out_loss/{name}"] for name in NAMES])
    assert figures["held_out_loss"] == pytest.approx(((counts * binned).sum() / counts.sum()).item(), rel=1e-5)


@torch.no_grad()
def test_bins_that_no_example_has_are_left_out() -> None:
    """One example has four timesteps."""
    figures = make_task("epsilon", held_out=1).validate(Denoiser(out_channels=4))
    assert len(figures) == 1 + 4
    assert figures["held_out_loss"] == pytest.approx(sum(list(figures.values())[1:]) / 4)


def test_a_flow_trains_at_times_of_its_own_and_is_validated_at_uniform_ones() -> None:
    task = make_task(held_out=20, flow_mean=2.0, flow_std=0.1)
    batch = batch_of(task, range(200))
    assert batch["t"].dtype == torch.float32
    assert (batch["t"] / 1000).logit().mean().item() == pytest.approx(2, abs=0.03)
    assert len(batch["t"].unique()) == 200
    torch.testing.assert_close(make_task(flow_mean=2.0, flow_std=0.1).sample(7)["t"], batch["t"][7], rtol=0, atol=0)
    with torch.no_grad():
        task.validate(task.model)
    assert torch.cat(task.model.timesteps).mean().item() == pytest.approx(500, abs=50)


def test_a_flow_is_shown_and_saved(tmp_path: Path) -> None:
    task = make_task()
    assert task.preview(task.model).size == (64, 112)
    assert torch.stack(task.model.timesteps[:2]).tolist() == [1000.0, pytest.approx(960)]  # 25 steps
    task.export(tmp_path)
    assert is_flow(load_scheduler(tmp_path / "scheduler").config)


@torch.no_grad()
def test_min_snr_weighs_the_loss_and_nothing_that_is_reported() -> None:
    plain, weighted = make_task("epsilon", held_out=4), make_task("epsilon", held_out=4, min_snr=5.0)
    batch = batch_of(plain, range(24))
    (loss, scalars), (lighter, same) = (task.loss(task.model, batch) for task in (plain, weighted))
    torch.testing.assert_close(lighter, loss * weighted.objective.weight[batch["t"]])
    assert same["simple"].equal(scalars["simple"])
    assert plain.validate(plain.model) == weighted.validate(weighted.model)
