"""Single files and folders of models: what they say of themselves, and what does not fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_restorer import TINY, make

from iptv2_diffusion import IPTV2Transformer2DModel
from iptv2_diffusion.restoration.model_files import load_model, load_restorer, save_weights

NAME = "model.safetensors"


def header(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def rewrite(path: Path, change: dict[str, Any], **metadata: str) -> None:
    """Replaces tensors (None: removes) and parts of the header."""
    tensors, found = load_file(path) | change, header(path) | metadata
    save_file({key: tensor for key, tensor in tensors.items() if tensor is not None}, path, metadata=found)


@pytest.mark.parametrize("fields", [{}, {"fused": True}, {"in_channels": 6, "norm": "centred"}], ids=str)
@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_round_trip(tmp_path: Path, fields: dict[str, Any], folder: bool) -> None:
    model, path = make(**fields), tmp_path / NAME
    if folder:
        model.save_pretrained(path)
    else:
        save_weights(model, path)
    loaded = load_restorer(str(path))
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in loaded.state_dict().items())
    assert {k: v for k, v in loaded.config.items() if k[0] != "_"} == json.loads(
        json.dumps({k: v for k, v in model.config.items() if k[0] != "_"})
    )
    assert not loaded.training


def test_the_header_says_what_the_file_holds(tmp_path: Path) -> None:
    save_weights(make(), tmp_path / NAME)
    assert header(tmp_path / NAME)["form"] == "training"
    save_weights(make().fuse(), tmp_path / NAME)
    found = header(tmp_path / NAME)
    assert (found["form"], found["format"]) == ("fused", "pt")
    config = json.loads(found["config"])
    assert (config["_class_name"], config["width"], config["fused"]) == ("IPTV2Restorer", 4, True)


def test_any_class_by_its_name(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"sample_size": 16, "num_classes": 2, "cond_dim": 8} | TINY
    model = IPTV2Transformer2DModel(**fields)
    save_weights(model, tmp_path / NAME)
    loaded = load_model(tmp_path / NAME, {"IPTV2Transformer2DModel": IPTV2Transformer2DModel})
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in loaded.state_dict().items())
    with pytest.raises(ValueError, match="of class IPTV2Transformer2DModel, expected IPTV2Restorer"):
        load_restorer(tmp_path / NAME)


STEM = "stem.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({STEM: None}, r"1 tensors differ; first stem.weight: expected \(4, 3, 3, 3\), got none"),
        ({STEM: torch.zeros(4, 1, 3, 3)}, r"first stem.weight: expected \(4, 3, 3, 3\), got \(4, 1, 3, 3\)"),
        ({"extra": torch.zeros(2)}, r"first extra: expected none, got \(2,\)"),
    ],
    ids=["missing", "misshapen", "unexpected"],
)
def test_weights_that_do_not_fit_their_config_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    save_weights(make(), tmp_path / NAME)
    rewrite(tmp_path / NAME, change)
    with pytest.raises(ValueError, match=words):
        load_restorer(tmp_path / NAME)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[]", "a JSON object"),
        ("{", "does not hold a model"),
        ('{"_class_name": "IPTV2Restorer", "widht": 8}', "widht"),
        ('{"_class_name": "IPTV2Restorer", "window": 7}', "power of two"),
    ],
)
def test_configs_of_no_network_are_refused(tmp_path: Path, config: str, words: str) -> None:
    save_weights(make(), tmp_path / NAME)
    rewrite(tmp_path / NAME, {}, config=config)
    with pytest.raises(ValueError, match=words):
        load_restorer(tmp_path / NAME)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / NAME
    for place in (path, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"folder with config.json or its .safetensors file"):
            load_restorer(place)
    save_file({STEM: torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="does not hold a model and its config"):
        load_restorer(path)
    save_weights(make(), path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="does not hold a model and its config"):
        load_restorer(path)
