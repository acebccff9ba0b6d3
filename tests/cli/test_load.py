"""What --ckpt may name."""

from pathlib import Path
from typing import Any

import pytest
import torch

import iptv2_diffusion
from iptv2_diffusion import IPTV2Restorer
from iptv2_diffusion.cli.load import find_model, load_restorer
from iptv2_diffusion.restoration.model_files import save_weights

TINY: dict[str, Any] = {"width": 4, "layers": (1,), "heads": (1,), "window": 8, "grid": 4}


def test_every_place_leads_to_the_weights(tmp_path: Path) -> None:
    """A run to its newest checkpoint, by step and not by name or age."""
    models = {step: IPTV2Restorer(**TINY) for step in (9, 10)}
    for step, model in models.items():
        checkpoint = tmp_path / "run" / f"checkpoint-{step:08d}"
        model.save_pretrained(checkpoint / "model")
        (checkpoint / "run.json").write_text("{}")
    first = tmp_path / "run" / "checkpoint-00000009"
    save_weights(models[9], tmp_path / "one.safetensors")
    places = {
        tmp_path / "run": 10,
        first: 9,
        first / "model": 9,
        tmp_path / "one.safetensors": 9,
    }
    assert iptv2_diffusion.load_restorer is load_restorer  # the public one
    for place, step in places.items():
        for kind in (str, Path):
            assert torch.equal(load_restorer(kind(place)).stem.weight, models[step].stem.weight)
    (tmp_path / "model_index.json").write_text("{}")
    assert find_model(tmp_path) == tmp_path / "transformer"


def test_a_hub_id_is_asked_of_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = IPTV2Restorer(**TINY), []
    report: dict[str, list[str]] = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}

    def from_pretrained(source: str, **options: Any) -> Any:
        asked.append((source, options["use_safetensors"]))
        return model, report

    monkeypatch.setattr(IPTV2Restorer, "from_pretrained", from_pretrained)
    assert load_restorer("somebody/restorer") is model
    assert asked == [("somebody/restorer", True)]


@pytest.mark.parametrize("place", ["no/such/place", "absent.safetensors"])
def test_what_is_not_there_is_named(place: str) -> None:
    with pytest.raises(FileNotFoundError, match=place):
        load_restorer(place)
