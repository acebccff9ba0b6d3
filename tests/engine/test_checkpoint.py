"""Checkpoint folders: contents, choice of the newest, refusals."""

import json
import os
import shutil

import pytest
import torch
from toy import ToyNet, ToyTask, assert_same_checkpoint, records, tensors, toy_config

from iptv2_diffusion.engine import averages, fit, newest, read_run
from iptv2_diffusion.engine.checkpoint import best_figure


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of three steps."""
    output = tmp_path_factory.mktemp("trained") / "run"
    task = ToyTask()
    fit(task, toy_config(output, steps=3, validate_every=3), model=dict(task.model.config), command="train")
    return output, task


def resume(output, **changes):
    return fit(ToyTask(), toy_config(output, resume=True, **changes), model=dict(ToyNet().config))


@pytest.fixture
def run(trained, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(trained[0], tmp_path / "run")


def test_contents(trained):
    output, task = trained
    folder = output / "checkpoint-00000003"
    record = read_run(folder)
    assert record["step"] == 3
    assert record["config"]["output"] == str(output)
    assert record["config"]["betas"] == [0.9, 0.999]
    assert record["info"]["command"] == "train"
    assert json.loads((folder / "names.json").read_text()) == ["a", "b"]
    loaded = ToyNet.from_pretrained(folder / "model")
    torch.testing.assert_close(loaded.state_dict(), task.validated[-1], rtol=0, atol=0)  # the average
    weights = {f"/state/model.safetensors:{name}": value for name, value in task.model.state_dict().items()}
    torch.testing.assert_close({name: tensors(folder)[name] for name in weights}, weights, rtol=0, atol=0)
    assert list(output.glob(".checkpoint-*")) == []


def test_newest_goes_by_the_step_in_the_name(tmp_path):
    assert newest(tmp_path) is None
    assert newest(tmp_path / "absent") is None
    for age, name in enumerate(["checkpoint-00000020", "checkpoint-100000000", "checkpoint-00000003", "checkpoint-x"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}" * (age + 1))
        os.utime(tmp_path / name, (1e9 + age, 1e9 + age))
    (tmp_path / ".checkpoint-00000030").mkdir()
    (tmp_path / ".checkpoint-00000030" / "run.json").write_text("{}")
    (tmp_path / "checkpoint-200000000").mkdir()  # without run.json
    assert newest(tmp_path) == tmp_path / "checkpoint-100000000"


def test_a_leftover_of_an_interrupted_write_is_ignored_and_removed(run):
    leftover = run / ".checkpoint-00000005"
    shutil.copytree(run / "checkpoint-00000003", leftover)
    assert newest(run) == run / "checkpoint-00000003"
    resume(run, steps=5)
    assert newest(run) == run / "checkpoint-00000005"
    assert not leftover.exists()


def test_a_failing_export_leaves_no_checkpoint(tmp_path):
    class Fails(ToyTask):
        def export(self, folder):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fit(Fails(), toy_config(tmp_path))
    assert newest(tmp_path) is None
    assert list(tmp_path.glob("checkpoint-*")) == []


def test_old_checkpoints_are_removed(tmp_path):
    fit(ToyTask(), toy_config(tmp_path, checkpoint_every=1, keep=2))
    assert sorted(p.name for p in tmp_path.glob("*checkpoint-*")) == ["checkpoint-00000005", "checkpoint-00000006"]


def test_an_occupied_folder_is_refused(run):
    with pytest.raises(FileExistsError, match=r"already holds a run .*checkpoint-00000003"):
        fit(ToyTask(), toy_config(run))
    shutil.rmtree(run / "checkpoint-00000003")
    with pytest.raises(FileExistsError, match=r"already holds a run \(stats.jsonl\)"):
        fit(ToyTask(), toy_config(run))


def test_the_best_survives_a_kill_while_it_is_replaced(tmp_path):
    for name, value in ((".best-before", 2.0), (".best", 3.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"figures": {"psnr": value}}))
    assert best_figure(tmp_path, "psnr") == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_resuming_what_has_no_checkpoint_yet_starts_from_the_first_step(trained, tmp_path):
    """Whatever the recipe was: one command line serves a queue that starts it again and again."""
    for name, stats in (("absent", None), ("empty", None), ("killed", '{"step": 2, "loss": 99.0}\n{"step": 3, "lo')):
        output = tmp_path / name
        if name != "absent":
            output.mkdir()
        if stats:
            (output / "stats.jsonl").write_text(stats)
            (output / ".checkpoint-00000003").mkdir()
        assert resume(output, steps=3, validate_every=3) == 3
        assert records(output) == records(trained[0])
        assert_same_checkpoint(output / "checkpoint-00000003", trained[0] / "checkpoint-00000003")


def test_the_best_of_another_recipe_is_not_mixed_in(tmp_path):
    class Kept(ToyTask):
        monitor = "loss"

    fit(Kept(), toy_config(tmp_path, steps=3, validate_every=3))
    shutil.rmtree(tmp_path / "checkpoint-00000003")
    with pytest.raises(ValueError, match=r"/best was trained with another configuration: lr \(0.01 then, 0.02 now\)$"):
        fit(Kept(), toy_config(tmp_path, resume=True, lr=0.02))
    assert fit(Kept(), toy_config(tmp_path, resume=True)) == 6


def test_an_incomplete_folder_is_in_the_way_of_a_run_that_starts_afresh_too(tmp_path):
    (tmp_path / "checkpoint-00000003").mkdir()
    with pytest.raises(ValueError, match=r"checkpoint-00000003 has no run.json"):
        resume(tmp_path)


def test_another_configuration_is_refused_by_name(run):
    expected = r"batch_size \(8 then, 16 now\), betas \(\[0.9, 0.999\] then, \[0.8, 0.999\] now\)$"
    with pytest.raises(ValueError, match=expected):
        resume(run, batch_size=16, betas=(0.8, 0.999), micro_batch=1)
    with pytest.raises(ValueError, match=r"model.width \(8 then, absent now\)"):
        fit(ToyTask(), toy_config(run, resume=True))


def test_checkpoints_from_before_there_were_several_averages_are_resumed(run):
    path = run / "checkpoint-00000003" / "run.json"
    record = read_run(path.parent)
    assert record["config"]["ema"] == ["0.9"]
    del record["config"]["tracker"]
    record["config"]["ema"] = 0.9
    path.write_text(json.dumps(record))
    assert averages(path.parent) == {"0.9": path.parent / "model"}
    assert resume(run) == 6
    with pytest.raises(ValueError, match=r"ema \(\['0.9'\] then, \['0.99'\] now\)$"):
        resume(run, ema=("0.99",))


def test_another_model_is_refused_by_name(run):
    with pytest.raises(ValueError, match=r"another configuration: model.width \(8 then, 9 now\)$"):
        fit(ToyTask(width=9), toy_config(run, resume=True), model=dict(ToyNet(width=9).config))
    other_version = {**ToyNet().config, "_diffusers_version": "0"}
    assert fit(ToyTask(), toy_config(run, resume=True), model=other_version) == 6


def test_weights_of_another_shape_are_refused(run):
    record = read_run(run / "checkpoint-00000003")
    (run / "checkpoint-00000003" / "run.json").write_text(json.dumps(record | {"info": {}}))
    with pytest.raises(ValueError, match=r"does not fit the model: .*body.0.weight.*8.*9"):
        fit(ToyTask(width=9), toy_config(run, resume=True))


def test_what_may_change_on_resuming(run, tmp_path):
    moved = run.rename(tmp_path / "moved")
    changes = {"micro_batch": 4, "checkpoint_every": 100, "keep": 1, "validate_every": None, "preview_every": None}
    assert resume(moved, steps=5, log_every=5, **changes) == 5


def test_a_finished_run_has_nothing_left_to_do(run):
    before = sorted(path.name for path in run.iterdir())
    assert resume(run, steps=3) == 3
    assert sorted(path.name for path in run.iterdir()) == before
    with pytest.raises(ValueError, match=r"steps: expected at least the 3 of .*, got 2"):
        resume(run, steps=2)


def test_an_incomplete_folder_in_the_way_is_refused(run):
    (run / "checkpoint-00000006").mkdir()
    with pytest.raises(ValueError, match=r"checkpoint-00000006 has no run.json"):
        resume(run)


def test_damaged_further_averages_are_named(tmp_path):
    fit(ToyTask(), toy_config(tmp_path, steps=3, ema=("0.9", "power-0.1")))
    path = tmp_path / "checkpoint-00000003" / "ema" / "power-0.1" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"ema/power-0.1/diffusion_pytorch_model.safetensors is damaged"):
        fit(ToyTask(), toy_config(tmp_path, ema=("0.9", "power-0.1"), resume=True))


@pytest.mark.parametrize(
    "name", ["model/diffusion_pytorch_model.safetensors", "state/model.safetensors", "state/optimizer.bin"]
)
def test_damaged_and_missing_weights_are_named(run, name):
    path = run / "checkpoint-00000003" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with pytest.raises(ValueError, match=f"{name} is damaged") as caught:
        resume(run)
    assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        resume(run)


def test_a_damaged_record_is_named(run):
    (run / "checkpoint-00000003" / "run.json").write_text('{"step": 3')
    with pytest.raises(ValueError, match=r"run.json: not a readable checkpoint record"):
        resume(run)


def test_information_that_is_not_json_is_refused_before_work(tmp_path):
    with pytest.raises(ValueError, match="run information has to be JSON"):
        fit(ToyTask(), toy_config(tmp_path / "absent"), model=object())
    assert not (tmp_path / "absent").exists()
