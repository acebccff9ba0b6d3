"""Exports: fused and training weights, and graphs that run at any size."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from iptv2_diffusion import IPTV2Restorer, IPTV2Transformer2DModel, create_restorer
from iptv2_diffusion.restoration import export as module
from iptv2_diffusion.restoration.export import FORMATS, blocks, export, graph_multiple, trace, written_whole
from iptv2_diffusion.restoration.model_files import load_restorer

# The multiple is 8; tracing takes seconds a layer.
TINY: dict[str, Any] = {"width": 4, "layers": (1, 2), "heads": (1, 2), "window": 8, "grid": 4}
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums in another order
SIZES = [(1, 24, 24), (1, 24, 40), (1, 56, 32)]


def make(**fields: Any) -> IPTV2Restorer:
    model = IPTV2Restorer(**(TINY | fields)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def images(batch: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(height))


@pytest.mark.parametrize(
    ("name", "fields", "multiple"),
    [
        ("IPTV2-Ti", {}, 64),
        ("IPTV2-S", {}, 64),
        ("IPTV2-B", {}, 128),
        ("IPTV2-S", {"window": 64, "grid": 6}, 192),
        ("IPTV2-S", {"attention": ("fcsa",)}, 32),
        ("IPTV2-S", {"attention": ("mdta",)}, 8),
    ],
)
def test_sides_are_multiples_of_every_window_and_grid(name: str, fields: dict[str, Any], multiple: int) -> None:
    with torch.device("meta"):
        assert graph_multiple(create_restorer(name, **fields)) == multiple


@torch.no_grad()
@pytest.mark.parametrize(
    "fields",
    [
        {"layers": (1, 1)},
        pytest.param({"norm": "centred", "in_channels": 6, "shift": "cyclic"}, marks=pytest.mark.slow),
        pytest.param({"attention": ("mdta",), "feed_forward": "gdfn"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_traced_graph_runs_at_any_size(fields: dict[str, Any]) -> None:
    model = make(**fields)
    before = copy.deepcopy(model.state_dict())
    graph = trace(model).module()
    for size in SIZES:
        image = images(*size, model.config["in_channels"])
        torch.testing.assert_close(graph(blocks(image, graph_multiple(model))), model(image), **CLOSE)
    assert model.state_dict().keys() == before.keys()  # still in training form


@pytest.mark.slow
@torch.no_grad()
def test_programs_are_loaded_without_this_package(tmp_path: Path) -> None:
    model, image = make(), images(1, 24, 32)
    export(model, tmp_path / "model.pt2", "torch-export")
    metadata = {"config": "", "form": "", "size_multiple": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=metadata)
    torch.testing.assert_close(program.module()(blocks(image, 8)), model(image), **CLOSE)
    assert json.loads(metadata["config"])["width"] == 4
    assert (metadata["form"], metadata["size_multiple"]) == ("fused", "8")


@pytest.fixture
def run_onnx(tmp_path: Path) -> Callable[..., Any]:
    runtime = pytest.importorskip("onnxruntime", reason='needs the extra "onnx"')
    pytest.importorskip("onnxscript", reason='needs the extra "onnx"')

    def session(model: IPTV2Restorer) -> Any:
        export(model, tmp_path / "model.onnx", "onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        return runtime.InferenceSession(tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"])

    return session


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(
    "fields",
    [{"norm": "bias_free"}, {"norm": "centred", "in_channels": 6}],
    ids=str,
)
def test_onnx_runtime_agrees_at_several_sizes(run_onnx: Callable[..., Any], fields: dict[str, Any]) -> None:
    model = make(**fields)
    session = run_onnx(model)
    for size in SIZES:
        image = images(*size, model.config["in_channels"])
        (restored,) = session.run(["restored"], {"image": image.numpy()})
        np.testing.assert_allclose(restored, model(image).numpy(), atol=1e-4, rtol=0)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["config"])["_class_name"] == "IPTV2Restorer"
    assert (metadata["form"], metadata["size_multiple"]) == ("fused", "8")


def test_onnx_says_which_packages_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(OSError, match=r'ONNX needs onnx and onnxscript: pip install "iptv2-diffusion\[onnx\]"'):
        export(make(), tmp_path / "model.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []


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


def test_wrong_names_and_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a name that ends with .onnx for onnx, got model.pt"):
        export(make(), tmp_path / "model.pt", "onnx")
    denoiser = IPTV2Transformer2DModel(sample_size=16, num_classes=2, cond_dim=8, **TINY)
    with pytest.raises(ValueError, match="onnx is for restorers, got a model of class IPTV2Transformer2DModel"):
        export(denoiser, tmp_path / "model.onnx", "onnx")


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
