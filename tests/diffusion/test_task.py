"""The stream of training samples, the loss on them, and what is measured, shown and saved beside it."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from dummy import GaussianDenoiser, alpha_cumprod, tiny_vae
from torch import Tensor
from torch.utils.data import default_collate

from iptv2_diffusion import LatentCodec
from iptv2_diffusion.data.sources import LatentMoments
from iptv2_diffusion.diffusion.objective import DiffusionObjective
from iptv2_diffusion.diffusion.schedule import make_scheduler, paper_scheduler
from iptv2_diffusion.diffusion.task import GenerationTask

CLASSES = NULL = 5
SHAPE = (4, 8, 8)
DRAWS = ("noise", "posterior_noise", "t", "label_draw")
EXACT: dict[str, Any] = {"rtol": 0, "atol": 0}


class Recorder(GaussianDenoiser):
    """Keeps the (x, t, labels) of every forward; its answer depends on the label."""

    null_label = NULL
    size_multiple = 1

    def forward(self, hidden_states: Tensor, timestep: Any, class_labels: Tensor, return_dict: bool = True) -> Any:
        calls = self.__dict__.setdefault("calls", [])
        calls.append((hidden_states.detach(), timestep, class_labels))
        return super().forward(hidden_states, timestep, class_labels, return_dict)

    def seen(self) -> tuple[Tensor, Tensor, Tensor]:  # all rows of all forwards since the last call
        calls, self.__dict__["calls"] = self.__dict__.get("calls", []), []
        x, t, labels = (torch.cat(parts) for parts in zip(*calls, strict=True))
        return x, t, labels


@dataclass
class Rows:
    """Constant latents that name their row: `unit * (index + 1)`, of class index % CLASSES."""

    count: int
    unit: float = 1.0
    visited: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count

    def example(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        self.visited.append(index)
        return {"latents": torch.full(SHAPE, self.unit * (index + 1)), "label": torch.tensor(index % CLASSES)}


class Pixels:
    """Twelve random pictures (3, 16, 16) uint8."""

    pixels = torch.randint(256, (12, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def example(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"pixels": self.pixels[index], "label": torch.tensor(index % CLASSES)}


def moments() -> LatentMoments:
    mean = torch.randn(12, *SHAPE, generator=torch.Generator().manual_seed(0))
    return LatentMoments(mean, torch.full_like(mean, 0.1), torch.arange(12) % CLASSES)


def make_task(source: Any = None, *, prediction: str = "epsilon", learned: bool = True, **options: Any) -> Any:
    model: Any = Recorder(out_channels=8 if learned else 4, prediction_type=prediction)
    config = dict(paper_scheduler().config) | {"prediction_type": prediction}
    scheduler = make_scheduler("ddpm", config, learned_sigma=learned)
    source, codec = moments() if source is None else source, LatentCodec(tiny_vae())
    return GenerationTask(model, scheduler, codec, source, class_names=list("abcde"), **options)


def batch_of(task: GenerationTask, positions: range) -> dict[str, Tensor]:
    return default_collate([task.sample(position) for position in positions])


def visits(task: GenerationTask, epoch: int) -> list[int]:
    count = len(task.source)
    positions = range(epoch * count, (epoch + 1) * count)
    return [round(task.sample(position)["latents"].mean().item()) - 1 for position in positions]


def test_an_epoch_visits_every_example_once_and_each_in_another_order() -> None:
    orders = [visits(make_task(Rows(17)), epoch) for epoch in range(3)] + [visits(make_task(Rows(17), seed=1), 0)]
    assert all(sorted(order) == list(range(17)) for order in orders)
    assert len({tuple(order) for order in [*orders, range(17)]}) == 5


def test_a_sample_is_a_function_of_seed_and_position() -> None:
    positions = [0, 5, 40, 11, 12, 3, 29]  # of four epochs
    task = make_task(seed=3)
    state = torch.get_rng_state()
    samples = {position: task.sample(position) for position in positions}
    assert torch.get_rng_state().equal(state)
    torch.manual_seed(1)
    again = make_task(seed=3)
    for position in reversed(positions):
        torch.testing.assert_close(task.sample(position), samples[position], **EXACT)
        torch.testing.assert_close(again.sample(position), samples[position], **EXACT)
    torch.set_rng_state(state)


def test_another_seed_draws_everything_anew() -> None:
    first, other = make_task(seed=0).sample(7), make_task(seed=1).sample(7)
    assert [name for name in DRAWS if first[name].equal(other[name])] == []


def test_every_position_has_draws_of_its_own() -> None:
    """Also where it visits an example again: there are five rounds of twelve."""
    batch = batch_of(make_task(), range(60))
    for name in ("noise", "posterior_noise", "label_draw"):
        assert len(batch[name].unique(dim=0)) == 60, name
    assert len(batch["t"].unique()) > 50
    assert len(batch["latents"].unique(dim=0)) == 60  # sampled from their posterior each time
    every = torch.cat([batch["noise"], batch["posterior_noise"]]).flatten(1)
    correlation = torch.corrcoef(every).fill_diagonal_(0)
    assert correlation.abs().max() < 0.35  # of 256 values: 5.6 standard deviations
    torch.testing.assert_close(every.mean(), torch.tensor(0.0), rtol=0, atol=0.03)
    torch.testing.assert_close(every.std(), torch.tensor(1.0), rtol=0, atol=0.03)


def test_draws_are_uniform() -> None:
    task = make_task(Rows(3))
    task.latent_shape = (1, 1, 1)  # for speed
    samples = [task.sample(position) for position in range(10_000)]
    t = torch.stack([sample["t"] for sample in samples])
    draws = torch.stack([sample["label_draw"] for sample in samples])
    assert t.dtype == torch.int64
    assert (t.min().item(), t.max().item()) == (0, 999)
    assert 0 <= draws.min() < draws.max() < 1
    for tenths in (t // 100, (draws * 10).long()):
        assert (tenths.bincount() - 1000).abs().max() < 150  # 5 standard deviations
    assert torch.corrcoef(torch.stack([t.double(), draws.double()]))[0, 1].abs() < 0.05


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_labels_are_dropped_exactly_where_the_draw_says(probability: float) -> None:
    task = make_task(label_dropout=probability)
    batch = batch_of(task, range(96))
    task.loss(task.model, batch)
    dropped = batch["label_draw"] < probability
    assert dropped.float().mean().item() == pytest.approx(probability, abs=0.1)
    _, t, labels = task.model.seen()
    assert labels.equal(torch.where(dropped, NULL, batch["label"]))
    assert t.equal(batch["t"])


def test_a_tenth_of_the_labels_is_dropped_unless_told_otherwise() -> None:
    assert make_task().label_dropout == 0.1


@pytest.mark.parametrize(("prediction", "learned"), [("epsilon", True), ("epsilon", False), ("v_prediction", False)])
def test_the_loss_is_the_objective_of_the_noised_latents(prediction: str, learned: bool) -> None:
    task = make_task(prediction=prediction, learned=learned, label_dropout=0.3)
    batch = batch_of(task, range(24))
    z, noise, t = batch["latents"], batch["noise"], batch["t"]
    loss, scalars = task.loss(task.model, batch)
    noised: Any = task.scheduler.add_noise(z, noise, t)
    x, _, labels = task.model.seen()
    torch.testing.assert_close(x, noised)
    output = task.model(noised, t, labels).sample
    a = alpha_cumprod(t)[:, None, None, None].float()
    target = noise if prediction == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * z
    simple = (output[:, :4] - target).square().mean((1, 2, 3))
    terms = DiffusionObjective(task.scheduler.config).terms(output, z, noise, t)
    assert loss.shape == (24,)
    plain = {name: scalars[name] for name in ("simple", "bound")}
    torch.testing.assert_close(plain, {"simple": simple, "bound": terms.bound}, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, scalars["simple"] + scalars["bound"])
    assert (scalars["bound"] > 0).all() == learned
    loss.sum().backward()
    assert task.model.gain.grad.abs() > 0


def test_the_loss_is_that_of_the_given_model() -> None:
    """Which may be a wrapper of the task's, or its average."""
    task, wrapped = make_task(held_out=moments()), Recorder()
    task.loss(wrapped, batch_of(task, range(2)))
    task.validate(wrapped)
    assert len(wrapped.rows) > 1
    assert task.model.rows == []


def test_a_picture_gives_the_same_latents_from_its_pixels_and_from_its_moments() -> None:
    task = make_task(Pixels())
    batch = batch_of(task, range(12))
    mean, std = LatentCodec(tiny_vae()).moments(batch["pixels"].float() / 255 * 2 - 1)
    from_pixels, _ = task.loss(task.model, batch)
    x, t, _ = task.model.seen()
    z = mean + std * batch["posterior_noise"]
    from_latents, _ = task.loss(task.model, {**batch, "latents": z})
    torch.testing.assert_close(task.model.seen()[0], x)
    torch.testing.assert_close(from_latents, from_pixels)
    torch.testing.assert_close(x, DiffusionObjective(task.scheduler.config).add_noise(z, batch["noise"], t))


def test_validation_reads_held_out_examples_and_keeps_their_labels() -> None:
    """Latents so large that they can be told from x whatever the noise."""
    training, held_out = Rows(40, unit=-1e6), Rows(20, unit=1e6)
    task = make_task(training, held_out=held_out, label_dropout=1.0)
    task.validate(task.model)
    x, t, labels = task.model.seen()
    rows = (x.double().mean((1, 2, 3)) / alpha_cumprod(t).sqrt() / 1e6).round().long() - 1
    indices = torch.arange(20).repeat_interleave(4)
    assert rows.equal(indices)
    assert labels.equal(indices % CLASSES)
    assert (t // 250).equal(torch.arange(4).repeat(20))  # one of each quarter
    assert len(t.unique()) > 60
    assert training.visited == []


@torch.no_grad()
def test_validation_is_the_mean_error_on_fixed_noise() -> None:
    held_out = Rows(20, unit=0.1)
    task = make_task(Rows(3), held_out=held_out)
    figures = task.validate(task.model)
    x, t, labels = task.model.seen()
    z = 0.1 * torch.arange(1, 21).repeat_interleave(4).double()[:, None, None, None]
    a = alpha_cumprod(t)[:, None, None, None]
    noise = ((x.double() - a.sqrt() * z) / (1 - a).sqrt()).float()
    correlation = torch.corrcoef(noise.flatten(1)).fill_diagonal_(0)
    assert correlation.abs().max() < 0.35
    error = (task.model(x, t, labels).sample[:, :4] - noise).square().mean().item()
    assert figures["held_out_loss"] == pytest.approx(error, rel=1e-4)

    task.sample(1)
    torch.rand(3)
    assert task.validate(task.model) == figures
    assert make_task(Rows(7), held_out=held_out).validate(task.model) == figures
    assert make_task(Rows(3), held_out=held_out, seed=1).validate(task.model) != figures


def test_without_held_out_examples_nothing_is_measured() -> None:
    for held_out in (None, Rows(0)):
        task = make_task(held_out=held_out)
        assert task.validate(task.model) == {}
        assert task.model.rows == []


def test_preview_shows_guided_samples_of_classes_spread_over_all() -> None:
    task = make_task(learned=False)
    preview = task.preview(task.model)
    assert preview.size == (3 * 16 + 4 * 4, 3 * (16 + 16) + 4 * 4)  # pixels: pictures, lines of captions, gaps
    asked = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4])
    assert len(task.model.labels) in (25, 50)  # in one forward or in two
    assert torch.cat(task.model.labels).bincount().tolist() == [50, 50, 50, 50, 25, 225]
    assert all(set(asked.tolist()) | {NULL} >= set(labels.tolist()) for labels in task.model.labels)
    cells = [preview.crop((x, y, x + 16, y + 16)) for y in (4, 40, 76) for x in (4, 24, 44)]
    assert len({cell.tobytes() for cell in cells}) == 9  # each from noise of its own


def test_preview_is_a_function_of_the_weights_and_the_seed() -> None:
    def shown(task: Any, model: Any = None) -> bytes:
        torch.rand(1)
        return task.preview(model or task.model).tobytes()

    task = make_task()
    first = shown(task)
    assert shown(task) == first == shown(make_task())
    assert shown(make_task(seed=1)) != first
    assert shown(task, Recorder(std=0.8)) != first
    assert task.scheduler.config == make_task().scheduler.config


def test_exported_files_load_again(tmp_path: Path) -> None:
    task = make_task(prediction="v_prediction", learned=False)
    task.class_names = ["Menschen & Körper", "数字"]
    task.export(tmp_path)
    loaded: Any = DDPMScheduler.from_pretrained(tmp_path / "scheduler")
    for name in ("variance_type", "clip_sample", "timestep_spacing", "num_train_timesteps"):
        assert loaded.config[name] == task.scheduler.config[name], name
    assert loaded.config.prediction_type == "v_prediction"
    torch.testing.assert_close(loaded.betas, task.scheduler.betas, **EXACT)
    assert json.loads((tmp_path / "class_names.json").read_text(encoding="utf-8")) == task.class_names


def test_prepare_moves_what_the_loss_computes_with() -> None:
    task = make_task()
    task.prepare(torch.device("meta"))
    assert {tensor.device.type for tensor in [*task.codec.vae.parameters(), *task.objective.buffers()]} == {"meta"}


def test_the_posterior_is_not_sampled_from_the_noise_of_the_diffusion() -> None:
    """With a posterior of unit variance around zero the latents are that noise."""
    unit = replace(moments(), mean=torch.zeros(12, *SHAPE), std=torch.ones(12, *SHAPE))
    batch = batch_of(make_task(unit), range(24))
    both = torch.cat([batch["latents"], batch["noise"]]).flatten(1)
    assert torch.corrcoef(both).fill_diagonal_(0).abs().max() < 0.35
