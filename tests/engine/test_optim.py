"""The optimizers, and the learning rate of each step."""

import pytest
import torch
from timm.optim import muon
from toy import ToyTask, tensors, toy_config

from iptv2_diffusion.engine import fit, loop, optim
from iptv2_diffusion.engine.optim import learning_rate, make_optimizer


def test_constant(tmp_path):
    config = toy_config(tmp_path, lr=0.1)
    assert [learning_rate(config, step) for step in (0, 3, 5, 1000)] == [0.1] * 4


def test_warm_up_is_linear_and_ends_at_the_rate(tmp_path):
    config = toy_config(tmp_path, lr=0.4, warmup_steps=4)
    rates = [learning_rate(config, step) for step in range(6)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_cosine_end_points(tmp_path):
    config = toy_config(tmp_path, lr=1.0, lr_final=0.2, schedule="cosine", steps=14, warmup_steps=3)
    assert learning_rate(config, 2) == pytest.approx(1.0)
    assert learning_rate(config, 3) == pytest.approx(1.0)
    assert learning_rate(config, 8) == pytest.approx(0.6)  # half way from 3 to 13
    assert learning_rate(config, 13) == pytest.approx(0.2)
    to_zero = toy_config(tmp_path, lr=1.0, schedule="cosine", steps=3)
    assert [learning_rate(to_zero, step) for step in range(3)] == pytest.approx([1.0, 0.5, 0.0])


def test_one_cosine_step_uses_the_rate(tmp_path):
    assert learning_rate(toy_config(tmp_path, lr=1.0, schedule="cosine", steps=1), 0) == 1.0


def test_frozen_parameters_are_left_out(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).requires_grad_(False))
    optimizer = make_optimizer(model, toy_config(tmp_path, betas=(0.8, 0.9), weight_decay=0.1))
    (group,) = optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in model[0].parameters()]
    assert (group["betas"], group["weight_decay"], group["lr"]) == ((0.8, 0.9), 0.1, 1e-2)


@pytest.mark.parametrize("bfloat16", [True, False])
def test_muon_turns_the_steps_of_matrices_orthogonal_and_leaves_the_rest_to_adam(tmp_path, monkeypatch, bfloat16):
    monkeypatch.setattr(optim, "multiplies_bfloat16", lambda device: bfloat16)
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(5, 12, 3), torch.nn.Conv2d(12, 12, 3, groups=12))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    gradients = [torch.randn(parameter.shape, generator=generator) for parameter in before]
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.grad = gradient.clone()
    make_optimizer(model, toy_config(tmp_path, optimizer="muon", lr=0.01)).step()
    kernel, *others = [(old - new.detach()) / 0.01 for old, new in zip(before, model.parameters(), strict=True)]
    u, _, v = torch.linalg.svd(gradients[0].reshape(12, 45), full_matrices=False)
    orthogonal = 0.2 * 45**0.5 * u @ v  # of the root mean square that Adam's steps have, 0.2
    assert orthogonal.square().mean().sqrt() == pytest.approx(0.2)
    step = kernel.reshape(12, 45)
    # Five Newton-Schulz iterations bring singular values near 1, in bfloat16 or float32.
    assert torch.nn.functional.cosine_similarity(step.flatten(), orthogonal.flatten(), dim=0) > 0.97
    stretch = torch.linalg.svdvals(step) / (0.2 * 45**0.5)
    assert 0.6 < stretch.min() <= stretch.max() < 1.3
    for other, gradient in zip(others, gradients[1:], strict=True):
        torch.testing.assert_close(other.sign(), gradient.sign(), rtol=0, atol=0)
        assert other.std() / other.abs().mean() == pytest.approx(float(other.sign().std()), rel=1e-3)  # all as large


def test_muon_without_bfloat16_follows_the_iteration_to_single_precision(tmp_path, monkeypatch):
    monkeypatch.setattr(optim, "multiplies_bfloat16", lambda device: False)
    weight = torch.nn.Parameter(torch.zeros(6, 9))
    weight.grad = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    x = weight.grad.double() / weight.grad.double().norm()
    make_optimizer(torch.nn.ParameterList([weight]), toy_config(tmp_path, optimizer="muon", lr=0.01)).step()
    for a, b, c in muon._COEFFICIENTS["quintic"]:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    torch.testing.assert_close(-weight.detach().double() / 0.01, 0.2 * 9**0.5 * x, rtol=1e-4, atol=1e-5)
    assert muon.zeropower_via_newtonschulz(weight.grad, 1, [(1, 0, 0)]).dtype == torch.bfloat16  # timm's as it was


def test_gpus_are_taken_to_multiply_bfloat16_and_cpus_without_onednn_not_to(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert optim.multiplies_bfloat16(torch.device("cuda"))
    assert not optim.multiplies_bfloat16(torch.device("cpu"))


@pytest.mark.parametrize(("bfloat16", "precision", "warned"), [(False, "bf16", 1), (True, "bf16", 0), (False, "no", 0)])
def test_processors_that_only_emulate_bfloat16_are_named(tmp_path, monkeypatch, caplog, bfloat16, precision, warned):
    monkeypatch.setattr(loop, "multiplies_bfloat16", lambda device: bfloat16)
    fit(ToyTask(width=6), toy_config(tmp_path, steps=1, precision=precision))
    assert caplog.text.count("bf16 takes many times as long") == warned


def test_muon_resumes_bit_for_bit(tmp_path):
    def train(output, **changes):
        return fit(ToyTask(width=6), toy_config(output, optimizer="muon", **changes))

    train(tmp_path / "whole")
    train(tmp_path / "parts", steps=3)
    assert train(tmp_path / "parts", resume=True) == 6
    whole, parts = (tensors(tmp_path / name / "checkpoint-00000006") for name in ("whole", "parts"))
    assert any(name.endswith("momentum_buffer") for name in whole)
    torch.testing.assert_close(whole, parts, rtol=0, atol=0)
