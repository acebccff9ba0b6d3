"""Records and trackers."""

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from toy import ToyTask, records, toy_config

from iptv2_diffusion.engine import fit, log, read_records


class Project(ModuleType):
    """A stand-in for the package wandb, which keeps what it is told."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.settings: dict[str, Any] = {}
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.finished = False

    def init(self, **settings: Any) -> Any:
        self.settings = settings
        return SimpleNamespace(log=lambda values, step: self.logged.append((step, values)), finish=self.finish)

    def finish(self) -> None:
        self.finished = True

    def Image(self, image: Any) -> Any:  # noqa: N802 - wandb's name
        return image.size


def test_without_trackers_there_is_the_record_alone(tmp_path):
    fit(ToyTask(), toy_config(tmp_path, tracker=None, steps=3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-00000003", "stats.jsonl"]


def test_weights_and_biases_get_what_the_record_gets(tmp_path, monkeypatch):
    wandb = Project()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    fit(ToyTask(), toy_config(tmp_path / "run", tracker=("wandb", "tensorboard")), note="x")
    assert {key: wandb.settings[key] for key in ("project", "name", "dir")} == {
        **{"project": "iptv2", "name": "run"},
        "dir": tmp_path / "run",
    }
    assert json.loads(json.dumps(wandb.settings["config"]))["info"] == {"note": "x"}
    told = [(step, values) for step, values in wandb.logged if "preview" not in values]
    written = [(record.pop("step"), record) for record in records(tmp_path / "run")]
    clock = ("seconds", "images_per_second")
    assert [(step, {k: v for k, v in values.items() if k not in clock}) for step, values in told] == written
    assert [entry for entry in wandb.logged if "preview" in entry[1]] == [(4, {"preview": [(5, 3)]})]
    assert wandb.finished
    assert (tmp_path / "run" / "tensorboard").is_dir()


def test_a_run_of_weights_and_biases_is_continued_however_it_ended(tmp_path, monkeypatch):
    wandb, found = Project(), []
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for output, resume in (("run", False), ("run", True), ("other", True)):
        fit(ToyTask(), toy_config(tmp_path / output, tracker=("wandb",), steps=3, resume=resume))
        found.append(wandb.settings["id"])
        assert wandb.settings["resume"] == "allow"
    assert found[0] == found[1] != found[2]
    assert len(found[0]) == 16


def test_an_absent_tracker_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "find_spec", lambda name: None if name == "wandb" else object())
    with pytest.raises(ValueError, match=r"^tracker: wandb is not installed here \(pip install wandb\)$"):
        fit(ToyTask(), toy_config(tmp_path / "absent", tracker=("tensorboard", "wandb")))
    assert not (tmp_path / "absent").exists()


@pytest.mark.slow
def test_weights_and_biases_itself_works_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    fit(ToyTask(), toy_config(tmp_path, tracker=("wandb",)))
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_a_half_written_record_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "stats.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    assert read_records(tmp_path) == [{"step": 1, "loss": 0.5}]
