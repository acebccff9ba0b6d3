"""Progressive stages: which step and position belong where, on any number of processes."""

import json

import pytest
import torch
from toy import ToyTask, assert_same_checkpoint, records, toy_config

from iptv2_diffusion.engine import fit, newest
from iptv2_diffusion.engine.ema import EMA
from iptv2_diffusion.engine.rehearsal import rehearse
from iptv2_diffusion.engine.stages import Stage, parse_stages
from iptv2_diffusion.engine.stream import micro_batches, micro_batches_per_step

TEXTS = ("0:8x8", "2:12x4", "5:16x2")


def test_stages_count_the_stream():
    stages = parse_stages(TEXTS)
    assert list(stages) == [Stage(0, 0, 8, 8), Stage(2, 16, 4, 12), Stage(5, 28, 2, 16)]
    assert [stages.at(step).size for step in range(7)] == [8, 8, 12, 12, 12, 16, 16]
    assert [stages.first_position(step) for step in range(8)] == [0, 8, 16, 20, 24, 28, 30, 32]
    assert [stages.of(position).size for position in (0, 15, 16, 27, 28, 1000)] == [8, 8, 12, 12, 16, 16]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("128x64",), "expected START:SIZExBATCH such as 116000:192x32, got 128x64"),
        (("0:128x0",), "expected START:SIZExBATCH"),
        (("5:128x64",), "expected starts that rise from 0, got 5"),
        (("0:128x64", "9:192x32", "9:256x16"), "expected starts that rise from 0, got 0 9 9"),
    ],
)
def test_wrong_stages_are_refused(texts, message):
    with pytest.raises(ValueError, match=message):
        parse_stages(texts)


def test_stages_beyond_the_last_step_are_refused(tmp_path):
    with pytest.raises(ValueError, match="stages: expected starts below the 5 steps, got 5"):
        toy_config(tmp_path, stages=TEXTS, steps=5)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("micro_batch", [None, 1, 3])
def test_every_step_covers_its_positions_once(tmp_path, processes, micro_batch):
    config = toy_config(tmp_path, steps=7, stages=TEXTS, micro_batch=micro_batch)
    walks = [micro_batches(config, rank, processes, start=0) for rank in range(processes)]
    seen = []
    for step in range(7):
        count = micro_batches_per_step(config, config.plan.at(step), processes)
        seen += [position for walk in walks for _ in range(count) for position in next(walk)]
    assert seen == list(range(32))
    assert all(next(walk, None) is None for walk in walks)


def test_micro_batches_shrink_with_the_area(tmp_path):
    config = toy_config(tmp_path, steps=3, stages=("0:8x8", "1:16x8", "2:32x8"), micro_batch=4)
    assert [len(part) for part in micro_batches(config, 0, 1, 0)] == [4, 4, *[1] * 8, *[1] * 8]


def test_resuming_inside_a_stage_equals_the_whole_run(tmp_path):
    changes = {"steps": 7, "stages": TEXTS, "checkpoint_every": 3, "micro_batch": 3}
    torch.manual_seed(0)
    assert fit(ToyTask(dropout=0.1), toy_config(tmp_path / "whole", **changes)) == 7
    torch.manual_seed(0)
    fit(ToyTask(dropout=0.1), toy_config(tmp_path / "parts", **changes))
    for step in (6, 7):
        for file in sorted((tmp_path / "parts" / f"checkpoint-{step:08d}").rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        (tmp_path / "parts" / f"checkpoint-{step:08d}").rmdir()
    assert fit(ToyTask(dropout=0.1), toy_config(tmp_path / "parts", resume=True, **changes)) == 7
    whole, parts = newest(tmp_path / "whole"), newest(tmp_path / "parts")
    assert whole is not None
    assert parts is not None
    assert_same_checkpoint(whole, parts)
    assert records(tmp_path / "whole") == records(tmp_path / "parts")


class Monitored(ToyTask):
    """Its figure rises, falls and rises again."""

    monitor = "psnr"
    figures = (1.0, 3.0, 2.0)

    def validate(self, model):
        super().validate(model)
        return {"psnr": self.figures[len(self.validated) - 1]}


def test_the_best_weights_are_kept(tmp_path):
    task = Monitored()
    fit(task, toy_config(tmp_path, validate_every=2))
    record = json.loads((tmp_path / "best" / "run.json").read_text())
    assert (record["step"], record["figures"]) == (4, {"psnr": 3.0})
    best = task.model.from_pretrained(tmp_path / "best" / "model").state_dict()
    torch.testing.assert_close(best, task.validated[1], rtol=0, atol=0)
    assert not list(tmp_path.glob(".best*"))


def test_rehearsal_visits_every_stage(tmp_path):
    seen = []
    config = toy_config(tmp_path, steps=7, stages=TEXTS, micro_batch=4)
    costs = list(rehearse(ToyTask(on_sample=seen.append), config, torch.device("cpu")))
    assert [cost.stage.size for cost in costs] == [8, 12, 16]
    assert [cost.micro_batch for cost in costs] == [4, 1, 1]
    assert seen == [*[0, 1, 2, 3] * 2, *[16] * 2, *[28] * 2]
    assert all(cost.seconds > 0 and cost.peak_bytes and cost.peak_bytes > 2**20 for cost in costs)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_rehearsal_is_in_the_precision_of_the_run_and_has_its_averages(tmp_path, monkeypatch, precision):
    wanted, updated = precision == "bf16", []

    class Watched(ToyTask):
        def loss(self, model, batch):
            self.model.body.register_forward_pre_hook(lambda *_: autocast.append(torch.is_autocast_enabled("cpu")))
            return super().loss(model, batch)

    autocast = []
    monkeypatch.setattr(EMA, "update", lambda self, model: updated.append(self.name))
    list(rehearse(Watched(), toy_config(tmp_path, precision=precision, ema=("0.9", "0.99")), torch.device("cpu")))
    assert set(autocast) == {wanted}
    assert updated == ["0.9", "0.99"] * 2
