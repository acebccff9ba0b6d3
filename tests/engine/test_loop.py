"""What a run computes depends on its recipe alone."""

import json
import math
import multiprocessing

import numpy as np
import pytest
import torch
from toy import ToyNet, ToyTask, assert_same_checkpoint, losses, records, tensors, toy_config

from iptv2_diffusion.engine import averages, fit, loop, newest, read_records, read_run
from iptv2_diffusion.engine.checkpoint import expected_bytes


def test_training_equals_a_plain_loop(tmp_path):
    """AdamW on the mean over the batch, average and record, written out again."""
    task = ToyTask()
    assert fit(task, toy_config(tmp_path, micro_batch=3)) == 6
    plain = ToyTask()
    optimizer = torch.optim.AdamW(plain.model.parameters(), lr=1e-2, betas=(0.9, 0.999), weight_decay=0.0)
    average = {name: value.clone() for name, value in plain.model.state_dict().items()}
    for step, record in enumerate(r for r in records(tmp_path) if "loss" in r):
        batch = torch.utils.data.default_collate([plain.sample(p) for p in range(step * 8, step * 8 + 8)])
        loss, scalars = plain.loss(plain.model, batch)
        size = scalars["size"]
        assert isinstance(size, torch.Tensor)
        optimizer.zero_grad()
        loss.mean().backward()
        norm = torch.cat([p.grad.flatten() for p in plain.model.parameters() if p.grad is not None]).norm()
        optimizer.step()
        average = {n: 0.9 * average[n] + 0.1 * value for n, value in plain.model.state_dict().items()}
        measured = [record[name] for name in ("step", "loss", "size", "grad_norm", "lr")]
        expected = [step + 1, loss.mean().item(), float(size.mean()), float(norm), 1e-2]
        np.testing.assert_allclose(measured, expected, rtol=1e-5)
    torch.testing.assert_close(task.model.state_dict(), plain.model.state_dict(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(task.validated[-1], average, rtol=1e-4, atol=1e-6)


def test_clipping_limits_the_gradient(tmp_path):
    fit(ToyTask(), toy_config(tmp_path / "free", steps=1))
    fit(ToyTask(), toy_config(tmp_path / "clipped", steps=1, clip=0.01))
    assert records(tmp_path / "clipped")[0]["grad_norm"] == records(tmp_path / "free")[0]["grad_norm"] > 0.01
    moments = tensors(newest(tmp_path / "clipped") or tmp_path)
    # After one step the first moment is a tenth of the gradient.
    norm = torch.cat([value.flatten() * 10 for name, value in moments.items() if name.endswith("exp_avg")]).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("averages", [("0.9",), ("power-0.1", "0.9", "0.5")])
def test_six_steps_equal_three_and_three(tmp_path, averages):
    fit(ToyTask(), toy_config(tmp_path / "whole", ema=averages))
    fit(ToyTask(), toy_config(tmp_path / "parts", ema=averages, steps=3))
    torch.manual_seed(1234)
    assert fit(ToyTask(seed=0), toy_config(tmp_path / "parts", ema=averages, resume=True)) == 6
    for name in ("checkpoint-00000003", "checkpoint-00000006"):
        assert_same_checkpoint(tmp_path / "whole" / name, tmp_path / "parts" / name, len(averages))
    assert records(tmp_path / "whole") == records(tmp_path / "parts")
    assert len(records(tmp_path / "parts")) == 6 + 3


def test_every_average_is_the_one_it_would_be_alone(tmp_path):
    names = ("power-0.1", "0.9", "0.5")
    task = ToyTask()
    fit(task, toy_config(tmp_path / "all", ema=names))
    places = averages(tmp_path / "all" / "checkpoint-00000006")
    assert [str(place.relative_to(tmp_path / "all" / "checkpoint-00000006")) for place in places.values()] == [
        *("model", "ema/0.9", "ema/0.5")
    ]
    for name in names:
        fit(ToyTask(), toy_config(tmp_path / name, ema=(name,)))
        alone, found = tmp_path / name / "checkpoint-00000006" / "model", places[name]
        weights = [ToyNet.from_pretrained(place).state_dict() for place in (alone, found)]
        torch.testing.assert_close(*weights, rtol=0, atol=0)
    torch.testing.assert_close(task.validated[-1], ToyNet.from_pretrained(places["power-0.1"]).state_dict())


def test_scalars_with_weights_are_means_over_the_samples_that_have_them(tmp_path):
    class Weighted(ToyTask):
        def loss(self, model, batch):
            loss, scalars = super().loss(model, batch)
            first = (batch["position"] < 3).float()
            return loss, {**scalars, "first": (loss, first), "heavy": (loss, batch["position"].float())}

    fit(Weighted(), toy_config(tmp_path, steps=2, micro_batch=2))
    task = ToyTask()
    batch = torch.utils.data.default_collate([task.sample(position) for position in range(8)])
    loss = task.loss(task.model, batch)[0].detach()
    record, later = (entry for entry in records(tmp_path) if "loss" in entry)
    assert record["first"] == pytest.approx(loss[:3].mean().item(), rel=1e-5)
    assert record["heavy"] == pytest.approx((loss * torch.arange(8)).sum().item() / 28, rel=1e-5)
    assert "first" not in later
    assert "heavy" in later


@pytest.mark.parametrize("stop", [3, 4])
def test_a_record_has_the_means_since_the_one_before_also_after_an_interruption(tmp_path, stop):
    class Weighted(ToyTask):
        def loss(self, model, batch):
            loss, scalars = super().loss(model, batch)
            return loss, {**scalars, "third": (loss, ((batch["position"] >= 18) & (batch["position"] < 21)).float())}

    fit(Weighted(), toy_config(tmp_path / "every"))
    fit(Weighted(), toy_config(tmp_path / "whole", log_every=2))
    fit(Weighted(), toy_config(tmp_path / "parts", log_every=2, steps=stop))
    fit(Weighted(), toy_config(tmp_path / "parts", log_every=2, resume=True))
    assert records(tmp_path / "whole") == records(tmp_path / "parts")
    singles = [record for record in records(tmp_path / "every") if "loss" in record]
    pairs = [record for record in records(tmp_path / "whole") if "loss" in record]
    assert [record["step"] for record in pairs] == [2, 4, 6]
    for pair, *two in zip(pairs, singles[::2], singles[1::2], strict=True):
        for name in ("loss", "size"):
            assert pair[name] == pytest.approx((two[0][name] + two[1][name]) / 2, rel=1e-6)
        assert pair["grad_norm"] == two[1]["grad_norm"]
    assert ["third" in record for record in pairs] == [False, True, False]
    assert pairs[1]["third"] == pytest.approx(singles[2]["third"], rel=1e-6)


def test_checkpoints_without_sums_are_resumed(tmp_path):
    fit(ToyTask(), toy_config(tmp_path, steps=3, log_every=2))
    path = tmp_path / "checkpoint-00000003" / "run.json"
    record = read_run(path.parent)
    assert record.pop("since_last_record").keys() == {"loss", "size"}
    path.write_text(json.dumps(record))
    fit(ToyTask(), toy_config(tmp_path, log_every=2, resume=True))
    assert [record["step"] for record in records(tmp_path) if "loss" in record] == [2, 4, 6]


def test_a_disk_that_will_be_full_is_announced(tmp_path, monkeypatch, caplog):
    fit(ToyTask(), toy_config(tmp_path / "small", steps=1))
    assert "checkpoint" not in caplog.text
    monkeypatch.setattr(loop, "LARGE", 2500)
    fit(ToyTask(), toy_config(tmp_path / "kept", steps=3, keep=2, checkpoint_every=1))
    assert "checkpoint" not in caplog.text
    # 58 parameters of 4 bytes: the weights, two moments, two averages, 1160 bytes in all.
    fit(ToyTask(), toy_config(tmp_path / "large", steps=3, checkpoint_every=1, ema=("0.9", "0.5")))
    assert "a checkpoint takes about 0.0 GB; all 3 are kept, 0 GB (--keep N keeps the newest N)" in caplog.text
    assert expected_bytes(ToyNet(), 2) == 1160
    files = sum(path.stat().st_size for path in (tmp_path / "large" / "checkpoint-00000003").rglob("*.safetensors"))
    assert files > 3 * 4 * 58


def test_global_random_state_is_resumed_and_otherwise_untouched(tmp_path):
    """No task should use it, but a module with dropout does."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    fit(ToyTask(), toy_config(tmp_path / "none", steps=1))
    assert torch.equal(before, torch.get_rng_state())
    fit(ToyTask(dropout=0.5), toy_config(tmp_path / "whole"))
    torch.manual_seed(1)
    fit(ToyTask(dropout=0.5), toy_config(tmp_path / "parts", steps=3))
    torch.manual_seed(2)
    fit(ToyTask(dropout=0.5), toy_config(tmp_path / "parts", resume=True))
    assert_same_checkpoint(tmp_path / "whole" / "checkpoint-00000006", tmp_path / "parts" / "checkpoint-00000006")


def test_resuming_drops_records_beyond_the_checkpoint(tmp_path):
    fit(ToyTask(), toy_config(tmp_path / "whole"))
    fit(ToyTask(), toy_config(tmp_path / "parts", steps=3))
    with (tmp_path / "parts" / "stats.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 99.0}\n{"step": 5, "lo')
    fit(ToyTask(), toy_config(tmp_path / "parts", resume=True))
    assert records(tmp_path / "whole") == records(tmp_path / "parts")


@pytest.mark.parametrize("changes", [{"micro_batch": 2}, {"micro_batch": 3}, {"micro_batch": 100}])
def test_micro_batches_change_nothing_but_rounding(tmp_path, changes):
    fit(ToyTask(), toy_config(tmp_path / "one"))
    fit(ToyTask(), toy_config(tmp_path / "other", **changes))
    torch.testing.assert_close(losses(tmp_path / "one"), losses(tmp_path / "other"), rtol=0, atol=1e-6)


def test_workers_change_nothing(tmp_path):
    fit(ToyTask(), toy_config(tmp_path / "one", steps=3))
    fit(ToyTask(), toy_config(tmp_path / "other", steps=3, workers=1, micro_batch=8))
    assert_same_checkpoint(tmp_path / "one" / "checkpoint-00000003", tmp_path / "other" / "checkpoint-00000003")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_data_arrives_as_it_is_and_leaves_no_worker_behind(tmp_path, workers):
    def on_sample(position: int) -> None:
        if position == 11:
            raise ValueError("sample 11 is broken")

    with pytest.raises(ValueError, match=r"^sample 11 is broken$") as error:
        fit(ToyTask(on_sample=on_sample), toy_config(tmp_path, workers=workers))
    assert error.tb is not None  # keeps the frames of the loop alive, as the interpreter's last exception does
    assert multiprocessing.active_children() == []


def test_bf16_keeps_float32_weights(tmp_path):
    task = ToyTask()
    fit(task, toy_config(tmp_path / "bf16", precision="bf16"))
    assert {p.dtype for p in task.model.parameters()} == {torch.float32}
    assert {t.dtype for t in tensors(tmp_path / "bf16" / "checkpoint-00000006").values()} == {torch.float32}
    fresh = ToyTask()
    with torch.autocast("cpu", torch.bfloat16):
        batch = torch.utils.data.default_collate([fresh.sample(p) for p in range(8)])
        expected = fresh.model(batch["x"]).float()
    target = torch.stack([batch["x"].sum(1), batch["x"].prod(1)], 1)
    assert records(tmp_path / "bf16")[0]["loss"] == pytest.approx((expected - target).square().mean().item(), rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path, value):
    task = ToyTask(breaks_at=4 * 8 + 5, broken=value)  # in the fifth step
    with pytest.raises(FloatingPointError, match=rf"step 5: loss {value}.*last good checkpoint is .*-00000003"):
        fit(task, toy_config(tmp_path / "broken", checkpoint_every=3, micro_batch=4))
    fit(ToyTask(), toy_config(tmp_path / "sound", steps=4, micro_batch=4))
    weights = {f"/state/model.safetensors:{name}": value for name, value in task.model.state_dict().items()}
    sound = tensors(tmp_path / "sound" / "checkpoint-00000004")
    torch.testing.assert_close(weights, {name: sound[name] for name in weights}, rtol=0, atol=0)
    assert [r["step"] for r in records(tmp_path / "broken") if "loss" in r] == [1, 2, 3, 4]


def test_a_broken_first_step_says_that_there_is_no_checkpoint(tmp_path):
    with pytest.raises(FloatingPointError, match=r"step 1: .*there is no checkpoint yet"):
        fit(ToyTask(breaks_at=0), toy_config(tmp_path))


def test_a_loss_has_one_value_per_sample(tmp_path):
    class Averaged(ToyTask):
        def loss(self, model, batch):
            loss, scalars = super().loss(model, batch)
            return loss.mean(), scalars

    with pytest.raises(ValueError, match=r"expected shape \(8,\), got \(\)"):
        fit(Averaged(), toy_config(tmp_path))


def test_previews_validation_and_tensorboard(tmp_path):
    fit(ToyTask(), toy_config(tmp_path))
    assert [path.name for path in sorted((tmp_path / "previews").iterdir())] == ["step-00000004.png"]
    validations = [record for record in records(tmp_path) if "validation/loss" in record]
    assert [record["step"] for record in validations] == [2, 4, 6]
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Scalars("validation/loss")] == [2, 4, 6]
    assert [event.step for event in events.Images("preview")] == [4]


def test_the_clock_is_recorded_and_continues(tmp_path):
    fit(ToyTask(), toy_config(tmp_path, steps=3))
    first = read_run(tmp_path / "checkpoint-00000003")["seconds"]
    fit(ToyTask(), toy_config(tmp_path, resume=True))
    lines = read_records(tmp_path)
    seconds = [line["seconds"] for line in lines if "seconds" in line]
    assert 0 < first < seconds[3]
    assert seconds == sorted(seconds)
    rate = 8 / (seconds[1] - seconds[0])
    assert [line for line in lines if "seconds" in line][1]["images_per_second"] == pytest.approx(rate)


def test_unequal_shares_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 3)
    with pytest.raises(ValueError, match="batch_size: expected a multiple of the 3 processes, got 8"):
        fit(ToyTask(), toy_config(tmp_path / "absent"))
    assert not (tmp_path / "absent").exists()
