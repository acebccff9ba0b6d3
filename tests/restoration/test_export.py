"""Exports: fused and training weights."""

from pathlib import Path
from typing import Any

import pytest
import torch

from iptv2_diffusion import IPTV2Restorer
from iptv2_diffusion.restoration.export import FORMATS, export, written_whole
from iptv2_diffusion.restoration.model_files import load_restorer

TINY: dict[str, Any] = {"width": 4, "layers": (1, 2), "heads": (1, 2), "window": 8, "grid": 4}
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums in another order


def make(**fields: Any) -> IPTV2Restorer:
    model = IPTV2Restorer(**(TINY | fields)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def images(batch: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(height))


@torch.no_grad()
def test_weights_in_either_form_are_the_same_function(tmp_path: Path) -> None:
    model, image = make(), images(1, 19, 22)
    expected = model(image)
    export(model.fuse(), tmp_path / "fused.safetensors", "safetensors")
    export(load_restorer(tmp_path / "fused.safetensors").unfuse(), tmp_path / "training", "diffusers")
    for name, form in (("fused.safetensors", True), ("training", False)):
        loaded = load_restorer(tmp_path / name)
        assert loaded.config["fused"] is form
        torch.testing.assert_close(loaded(image), expected, **CLOSE)


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_is_overwritten(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"model{FORMATS[format].suffix}"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        export(make(), path, format)
    assert path.read_text() == "mine"


def test_wrong_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a name that ends with .safetensors for safetensors, got model.pt"):
        export(make(), tmp_path / "model.pt", "safetensors")


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_what_fails_leaves_nothing_behind(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "deeper" / "model"

    def write(fails: bool) -> None:
        with written_whole(path) as unfinished:
            if folder:
                unfinished.mkdir()
            (unfinished / "part" if folder else unfinished).write_text("part")
            assert not path.exists()
            if fails:
                raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write(fails=True)
    assert list(path.parent.iterdir()) == []
    write(fails=False)
    assert [entry.name for entry in path.parent.iterdir()] == ["model"]
