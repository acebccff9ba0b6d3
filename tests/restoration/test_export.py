"""Exports: fused and training weights, and graphs that run at any size."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_restorer import CLOSE, TINY, make
from torch.export import ExportedProgram
from torch.torch_version import TorchVersion

from iptv2_diffusion import IPTV2Restorer, IPTV2Transformer2DModel, create_restorer
from iptv2_diffusion import load_restorer as load_bundled
from iptv2_diffusion.files import written_whole
from iptv2_diffusion.restoration import export as module
from iptv2_diffusion.restoration.export import FORMATS, export, graph_multiple, trace
from iptv2_diffusion.restoration.model_files import load_restorer

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "restoration.md"
SHALLOW: dict[str, Any] = {"layers": (0, 2)}  # one FCSA and one GGSA: a layer takes seconds to trace and convert
SIZES = [(1, 24, 24), (1, 24, 40), (1, 56, 32), (2, 32, 24), (1, 8, 8)]


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
        ("IPTV2-Lite", {}, 32),
        ("IPTV2-Lite/2", {}, 64),
        ("IPTV2-Lite+/2", {}, 128),
    ],
)
def test_sides_are_multiples_of_every_window_and_grid(name: str, fields: dict[str, Any], multiple: int) -> None:
    with torch.device("meta"):
        assert graph_multiple(create_restorer(name, **fields)) == multiple


@pytest.fixture(scope="module")
def model() -> IPTV2Restorer:
    return make(**SHALLOW)


@pytest.fixture(scope="module")
def program(model: IPTV2Restorer) -> ExportedProgram:
    return trace(model)


def test_a_traced_graph_runs_at_any_size(model: IPTV2Restorer, program: ExportedProgram) -> None:
    assert not model.config["fused"]  # as it was
    assert all(parameter.requires_grad for parameter in model.parameters())
    graph = program.module()
    for size in SIZES:
        torch.testing.assert_close(graph(images(*size)), model(images(*size)), **CLOSE)


def test_a_traced_graph_of_an_unshuffled_network_runs_at_any_size() -> None:
    model = make(**SHALLOW, unshuffle=2)
    graph = trace(model).module()
    for batch, height, width in SIZES:
        image = images(batch, 2 * height, 2 * width)
        torch.testing.assert_close(graph(image), model(image), **CLOSE)


@torch.no_grad()
def test_programs_are_read_without_this_package(
    model: IPTV2Restorer, program: ExportedProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "trace", lambda _: program)
    export(model, tmp_path / "model.pt2", "torch-export")
    metadata: dict[str, str] = dict.fromkeys(("config", "form", "size_multiple"), "")
    graph = torch.export.load(tmp_path / "model.pt2", extra_files=metadata).module()
    torch.testing.assert_close(graph(images(1, 24, 40)), model(images(1, 24, 40)), **CLOSE)
    assert_describes(metadata, model)
    assert str(Path(module.__file__).parent).encode() not in (tmp_path / "model.pt2").read_bytes()


def assert_describes(metadata: dict[str, str], model: IPTV2Restorer) -> None:
    assert json.loads(metadata["config"]) == json.loads(model.to_json_string())
    assert (metadata["form"], metadata["size_multiple"]) == ("fused", "8")


@pytest.fixture(scope="module")
def onnx_file(model: IPTV2Restorer, program: ExportedProgram, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "denoiser.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "trace", lambda _: program)
        export(model, path, "onnx")
    return path


def test_onnx_runtime_agrees_at_any_size(model: IPTV2Restorer, onnx_file: Path) -> None:
    session = assert_agrees(onnx_file, model)
    assert_describes(session.get_modelmeta().custom_metadata_map, model)
    for end in (*session.get_inputs(), *session.get_outputs()):
        assert end.shape == ["batch", 3, "height", "width"]


@torch.no_grad()
def assert_agrees(path: Path, model: IPTV2Restorer) -> Any:
    session: Any = onnxruntime.InferenceSession(path)
    for size in SIZES:
        image = images(*size, model.config["in_channels"])
        (restored,) = session.run(["restored"], {"image": image.numpy()})
        np.testing.assert_allclose(restored, model(image).numpy(), rtol=0, atol=1e-4)
    return session


@torch.no_grad()
def test_the_documents_example_pads_and_crops(
    model: IPTV2Restorer, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [example] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    photo = (255 * images(1, 37, 42)[0].permute(1, 2, 0)).byte().numpy()
    names: dict[str, Any] = {"np": np, "onnxruntime": onnxruntime, "photo": photo}
    monkeypatch.chdir(onnx_file.parent)
    exec(compile(example, str(DOCUMENT), "exec"), names)
    image = torch.from_numpy(photo).permute(2, 0, 1)[None] / 255
    expected = model(torch.nn.functional.pad(image, (0, 6, 0, 3), mode="reflect"))[..., :37, :42].clamp(0, 1)
    np.testing.assert_allclose(names["restored"], expected.numpy(), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"layers": (1, 1), "norm": "centred", "in_channels": 6},
        {"shift": "cyclic", "relative_bias": False},
        {"parallel": True, "feed_forward": "leffn", "resample_kernel": 1},
        {"attention": ("mdta",), "feed_forward": "gdfn"},
    ],
    ids=str,
)
def test_every_kind_of_restorer_runs_in_onnx_runtime(tmp_path: Path, fields: dict[str, Any]) -> None:
    model = make(**(SHALLOW | fields))
    export(model, tmp_path / "model.onnx", "onnx")
    assert_agrees(tmp_path / "model.onnx", model)


@pytest.mark.slow
@torch.no_grad()
def test_the_bundled_denoiser_runs_in_onnx_runtime(tmp_path: Path) -> None:
    model = load_bundled("denoise-color")
    export(model, tmp_path / "model.onnx", "onnx")
    session: Any = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for size in ((1, 64, 96), (2, 160, 64), (1, 256, 224)):
        image = images(*size)
        (restored,) = session.run(["restored"], {"image": image.numpy()})
        np.testing.assert_allclose(restored, model(image).numpy(), rtol=0, atol=1e-4)


def test_an_old_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.4.1+cpu"))
    with pytest.raises(OSError, match=r"graphs need PyTorch 2.13 or newer, got 2.4.1\+cpu"):
        trace(make())


def test_onnx_says_which_packages_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript.optimizer", None)
    with pytest.raises(OSError, match=r'ONNX needs other packages: pip install "iptv2-diffusion\[onnx\]"'):
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
    path, others = tmp_path / "deeper" / "model", tmp_path / "deeper" / ".model"
    others.mkdir(parents=True)

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
    assert list(path.parent.iterdir()) == [others]
    write(fails=False)
    assert sorted(path.parent.iterdir()) == [others, path]
