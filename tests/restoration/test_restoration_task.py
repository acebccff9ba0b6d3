"""The training task of restorers: samples, loss, figures and pictures."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from iptv2_diffusion.restoration.restorer import IPTV2Restorer
from iptv2_diffusion.restoration.task import RestorationTask, to_uint8

TINY: dict[str, Any] = {"width": 8, "layers": (1, 1), "heads": (1, 1), "window": 8, "grid": 4}


class Noise:
    """Patches of one value, with noise."""

    def __len__(self) -> int:
        return 5

    def patch(self, index: int, size: int | None, generator: torch.Generator, *, centred: bool = False):
        clean = torch.full((3, size or 16, size or 16), index / 5)
        return {"degraded": clean + 0.1 * torch.randn(clean.shape, generator=generator), "clean": clean}


def make(**changes: Any) -> RestorationTask:
    torch.manual_seed(0)
    model = IPTV2Restorer(**TINY)
    task = RestorationTask(model, Noise(), size_at=lambda position: 8 if position < 10 else 16, **changes)
    task.prepare(torch.device("cpu"))
    return task


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_samples_depend_on_seed_and_position_alone():
    task = make(seed=3)
    forward = [task.sample(position) for position in range(20)]
    assert [sample["clean"].shape[-1] for sample in forward] == [8] * 10 + [16] * 10
    fresh = make(seed=3)
    assert all(equal(fresh.sample(position), forward[position]) for position in reversed(range(20)))
    assert not equal(make(seed=4).sample(0), forward[0])


def test_every_epoch_visits_every_picture_once():
    task = make()
    for epoch in range(4):
        values = [float(task.sample(5 * epoch + place)["clean"][0, 0, 0]) for place in range(5)]
        assert sorted(values) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])


def test_mixup_mixes_both_pictures_alike():
    task = make(mixup=1.2)
    values = {round(float(task.sample(position)["clean"][0, 0, 0]), 4) for position in range(30)}
    assert len(values) > 20
    sample = task.sample(12)
    difference = (sample["degraded"] - sample["clean"]).std()
    assert 0.06 < difference < 0.11  # of two noises of 0.1, mixed


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("l1", [0.3, 0.04]),
        ("l1+fft", [0.3 + 0.1 * 0.3 * 64 / 80, 0.04 + 0.1 * 0.04 * 64 / 80]),  # one of 8 x 5 complex terms is not zero
        ("charbonnier", [(0.09 + 1e-6) ** 0.5, (0.0016 + 1e-6) ** 0.5]),
        ("psnr", [10 * math.log10(0.09 + 1e-8), 10 * math.log10(0.0016 + 1e-8)]),
    ],
)
def test_loss_is_the_mean_of_every_sample(loss, expected):
    batch = {"degraded": torch.zeros(2, 3, 8, 8), "clean": torch.zeros(2, 3, 8, 8)}
    shift = torch.tensor([0.3, -0.04])[:, None, None, None]
    got, figures = make(loss=loss).loss(lambda x: x + shift, batch)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(got, torch.tensor(expected))
    torch.testing.assert_close(figures["psnr"], -20 * torch.tensor([0.3, 0.04]).log10())


def test_the_spectrum_is_that_of_numpy():
    error = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    batch = {"degraded": error, "clean": torch.zeros(2, 3, 6, 8)}
    got, _ = make(loss="l1+fft").loss(torch.nn.Identity(), batch)
    terms = np.fft.rfft2(error.double().numpy())
    spectrum = (np.abs(terms.real) + np.abs(terms.imag)).mean((1, 2, 3)) / 2
    expected = error.double().abs().mean((1, 2, 3)) + 0.1 * torch.from_numpy(spectrum)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=0)


def test_gradients_reach_every_parameter():
    task = make()
    task.model.train()
    batch = {name: torch.stack([task.sample(p)[name] for p in range(10, 14)]) for name in ("degraded", "clean")}
    task.loss(task.model, batch)[0].mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.model.parameters())


def test_figures_are_means_over_the_held_out_pictures():
    scores = {"psnr": lambda a, b: float(np.abs(a.astype(int) - b).mean()), "one": lambda a, b: 1.0}
    held_out = {"15": Noise(), "25": Noise()}
    task = make(held_out=held_out, scores=scores, validation_size=None)
    assert task.monitor == "psnr"
    identity = torch.nn.Identity()
    figures = task.validate(identity)
    assert set(figures) == {"psnr", "psnr_15", "psnr_25", "one", "one_15", "one_25"}
    assert figures["one"] == 1
    assert figures["psnr_15"] == figures["psnr_25"] == figures["psnr"]  # the same noise in both
    assert 17 < figures["psnr"] < 21  # mean of |noise| of 0.1, clipped at both ends of the range
    assert task.validate(identity) == figures


def test_preview_shows_before_after_and_truth():
    picture = make(held_out={"15": Noise(), "25": Noise()}).preview(torch.nn.Identity())
    assert picture is not None
    assert picture.size == (3 * 260 + 4, 4 * 276 + 4)
    assert make().preview(torch.nn.Identity()) is None
    assert make(scores={"psnr": lambda a, b: 1.0}).validate(torch.nn.Identity()) == {}  # and no mean of nothing
    assert make().monitor is None


def test_rounding_to_8_bits():
    levels = torch.tensor([-0.1, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.2]).view(1, 1, 5)
    assert to_uint8(levels)[..., 0].tolist() == [[0, 0, 1, 255, 255]]
