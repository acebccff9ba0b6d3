"""`python -m eval.fid`, which is `iptv2-eval generation`: figures and their names, ADM's files, protocols, refusals."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from eval import fid
from iptv2_diffusion.cli import evaluate
from iptv2_diffusion.diffusion.protocols import find_protocol
from iptv2_diffusion.metrics import extractors, inception
from iptv2_diffusion.metrics.extractors import FEATURES, LOGITS, SPATIAL, Extractor
from iptv2_diffusion.metrics.frechet import Gaussian

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
Call = Callable[..., str]
PROTOCOL = asdict(find_protocol("dit-paper-cfg1.5"))
COUNT = 24


def colours(images: torch.Tensor) -> torch.Tensor:
    """(B, 6): mean colours of the upper and of the lower half."""
    return images.float().unflatten(2, (2, -1)).mean((3, 4)).flatten(1)


def toy(name: str, device: torch.device, weights_sha256: str = "1" * 64) -> Extractor:
    def extract(images: torch.Tensor) -> dict[str, torch.Tensor]:
        found = colours(images)
        return {FEATURES: found, SPATIAL: found[:, :2], LOGITS: found / 64}

    dimensions = {FEATURES: 6, SPATIAL: 2, LOGITS: 6}
    return Extractor(name=name, weights_sha256=weights_sha256, dimensions=dimensions, device=device, extract=extract)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extractors.EXTRACTORS, "toy", lambda device: toy("toy", device))


@pytest.fixture
def stands_for_inception(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Its weights; the network behind them is the toy."""
    (tmp_path / "weights.pth").write_bytes(b"weights")

    def make(weights: Path, device: torch.device) -> Extractor:
        return toy(inception.NAME, device, inception.PUBLISHED_SHA256)

    monkeypatch.setattr(inception, "inception_extractor", make)
    return tmp_path / "weights.pth"


@pytest.fixture
def folder(tmp_path: Path, real_images: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> Path:
    """`samples` and `real`: parts of two photographs, as pictures; `real.npz` holds the same."""
    for name, photograph in (("samples", "cat"), ("real", "coffee")):
        pixels = real_images[photograph].permute(1, 2, 0).numpy()
        parts = np.stack([pixels[9 * i : 9 * i + 64, 14 * i : 14 * i + 64] for i in range(COUNT)])
        (tmp_path / name).mkdir()
        for index, part in enumerate(parts):
            Image.fromarray(part).save(tmp_path / name / f"{index:06d}.png")
        np.savez_compressed(tmp_path / f"{name}.npz", arr_0=parts)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """What it prints."""

    def run(*flags: object) -> str:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["eval.fid", "--device", "cpu", "--cache", "cache", *map(str, flags)])
        fid.main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(call: Call, capsys: pytest.CaptureFixture[str]) -> Call:
    """The one line that it ends with."""

    def run(*flags: object) -> str:
        with pytest.raises(SystemExit) as stop:
            call(*flags)
        assert stop.value.code == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    return run


def record(name: str) -> dict[str, Any]:
    return json.loads(Path(name).read_text("utf-8"))


def loaded(name: str) -> torch.Tensor:
    return torch.from_numpy(np.load(name)["arr_0"]).permute(0, 3, 1, 2)


def by_scipy(a: np.ndarray, b: np.ndarray) -> float:
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s + t - 2 * np.real(scipy.linalg.sqrtm(s @ t))))


def test_figures_in_another_feature_space_are_named_after_it(folder: Path, call: Call) -> None:
    shown = call("--samples", "samples", "--reference", "real.npz", "--features", "toy", "--output", "new/out.json")
    found = record("new/out.json")
    a, b = (colours(loaded(f"{name}.npz")).double().numpy() for name in ("samples", "real"))
    assert found["figures"]["frechet_distance[toy]@24"] == pytest.approx(by_scipy(a, b), rel=1e-6)
    assert found["figures"]["spatial_frechet_distance[toy]@24"] == pytest.approx(by_scipy(a[:, :2], b[:, :2]), rel=1e-6)
    assert {name.split("[")[0] for name in found["figures"]} == {
        *("frechet_distance", "spatial_frechet_distance", "inception_score", "inception_score_deviation"),
        *("precision", "recall"),
    }
    assert "FID" not in shown
    assert f"{found['figures']['frechet_distance[toy]@24']:.4f}" in shown
    assert found["extractor"] == {"name": "toy", "weights_sha256": "1" * 64}
    assert found["reference"]["images"] == found["reference"]["compared_images"] == COUNT
    assert found["samples"]["settings"] == "unknown"
    assert set(found["samples"]["drawing"].values()) == {"unknown"}


def test_without_output_the_record_is_beside_the_samples(folder: Path, call: Call, refused: Call) -> None:
    """A second scoring gets a name of its own."""
    flags = ("--reference", "real.npz", "--features", "toy")
    for name in ("scores-toy-24.json", "scores-toy-24-2.json"):
        assert f"The record is samples/{name}" in call("--samples", "samples", *flags)
    assert "The record is scores-toy-24.json" in call("--samples", "samples.npz", *flags)
    found, again = record("samples/scores-toy-24.json"), record("samples/scores-toy-24-2.json")
    assert found["figures"].keys() == again["figures"].keys()
    assert found["packages"].keys() == {"iptv2_diffusion", "torch", "numpy", "torch_fidelity"}
    (folder / "samples" / "settings.json").write_text(json.dumps({**PROTOCOL, "num_samples": COUNT}))
    shown = call("--samples", "samples", *flags, "--protocol", "dit-paper-cfg1.5")
    assert "samples/scores-toy-dit-paper-cfg1.5-24.json" in shown
    assert len(list((folder / "cache").iterdir())) == 1  # of the reference


def test_a_folder_that_takes_no_record_is_refused_at_once(
    folder: Path, refused: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # which holds for root, too
    assert "the record cannot be written to samples: pass --output" in refused(
        "--samples", "samples", "--reference", "real", "--features", "toy"
    )
    assert not (folder / "cache").exists()


OWN = """
import torch
from iptv2_diffusion.metrics.extractors import FEATURES, Extractor

def extract(images):
    return {FEATURES: images.float().mean((2, 3))}

def make(device):
    kinds = {FEATURES: 3}
    return Extractor(name="inception-v3-adm", weights_sha256="3" * 64, dimensions=kinds, device=device, extract=extract)

def nothing(device):
    return None

def bare():
    return None
"""


def test_features_of_ones_own_function(folder: Path, call: Call, refused: Call) -> None:
    """Named after the function, whatever it calls itself."""
    (folder / "my_features.py").write_text(OWN)
    flags = ("--samples", "samples", "--reference", "real", "--features")
    shown = call(*flags, "my_features:make", "--output", "out.json")
    a, b = (loaded(f"{name}.npz").double().mean((2, 3)).numpy() for name in ("samples", "real"))
    figures = record("out.json")["figures"]
    assert figures["frechet_distance[my_features.make]@24"] == pytest.approx(by_scipy(a, b), rel=1e-5)
    assert "FID" not in shown
    for function, message in (
        ("my_features:absent", "cannot import --features my_features:absent: module 'my_features' has no attribute"),
        ("no_such:make", "cannot import --features no_such:make: No module named 'no_such'"),
        ("my_features:nothing", "to return an Extractor of 'features', got None"),
        ("my_features:bare", "expected --features my_features:bare to take a torch.device: bare() takes 0"),
    ):
        assert message in refused(*flags, function)


class MeanColour(FeatureExtractorBase):
    """In the place of those whose weights have to be fetched."""

    def __init__(self, name: str, features_list: list[str], **options: Any) -> None:
        super().__init__(name, features_list)
        if name == "broken":
            raise RuntimeError("no connection\nto the hub")
        self.scale = torch.nn.Parameter(torch.tensor(2.0))

    @staticmethod
    def get_provided_features_list() -> Any:
        return ("other", "colour")

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> Any:
        return {"fid": "colour"}[metric]

    def forward(self, input: torch.Tensor) -> tuple[torch.Tensor, ...]:
        assert input.dtype == torch.uint8
        return (input.float().mean((2, 3)) * self.scale,)


def test_features_of_torch_fidelity(folder: Path, call: Call, refused: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("clip-vit-b-32", "broken"):
        monkeypatch.setitem(FEATURE_EXTRACTORS_REGISTRY, name, MeanColour)
    flags = ("--samples", "samples", "--reference", "real", "--features")
    shown = call(*flags, "clip-vit-b-32", "--output", "out.json")
    a, b = (2 * loaded(f"{name}.npz").double().mean((2, 3)).numpy() for name in ("samples", "real"))
    found = record("out.json")
    assert found["figures"]["frechet_distance[clip-vit-b-32]@24"] == pytest.approx(by_scipy(a, b), rel=1e-5)
    assert len(found["extractor"]["weights_sha256"]) == 64
    assert "FID" not in shown
    assert refused(*flags, "broken").endswith("torch-fidelity cannot make broken: no connection")
    assert "dinov2-vit-l-14" in refused(*flags, "unknown")


def test_images_of_different_sizes_are_named(folder: Path, call: Call, refused: Call) -> None:
    flags = ("--samples", "samples", "--reference", "real", "--features", "toy", "--size", "32")
    different = "the samples have 64x64 pixels, the reference's images 32x32"
    assert f"Sizes differ: {different}." in call(*flags, "--output", "out.json")
    (folder / "samples" / "settings.json").write_text(json.dumps({**PROTOCOL, "num_samples": COUNT}))
    assert refused(*flags, "--protocol", "dit-paper-cfg1.5").endswith(different)


def test_equal_sets_in_the_latents_of_the_bundled_vae(folder: Path, call: Call) -> None:
    flags = ("--reference", "real.npz", "--features", "vae-latents", "--output")
    call("--samples", "real", *flags, "same.json")
    call("--samples", "samples", *flags, "other.json")
    same, other = record("same.json"), record("other.json")
    assert same["figures"]["frechet_distance[vae-latents]@24"] == pytest.approx(0, abs=1e-9)
    assert same["figures"]["precision[vae-latents]@24"] == same["figures"]["recall[vae-latents]@24"] == 1
    assert other["figures"]["frechet_distance[vae-latents]@24"] > 1
    assert other["figures"]["precision[vae-latents]@24"] < 1
    assert same["samples"]["pixels_sha256"] == same["reference"]["pixels_sha256"] != other["samples"]["pixels_sha256"]


def test_statistics_are_written_and_read_as_adm_does(folder: Path, call: Call, refused: Call) -> None:
    call("--reference", "real", "--features", "toy", "--write-stats", "stats.npz")
    with np.load("stats.npz") as arrays:
        stored = dict(arrays)
    np.testing.assert_array_equal(stored["arr_0"], np.load("real.npz")["arr_0"])
    assert {name: stored[name].shape for name in ("mu", "sigma", "mu_s", "sigma_s")} == {
        **{"mu": (6,), "sigma": (6, 6)},
        **{"mu_s": (2,), "sigma_s": (2, 2)},
    }
    for name, reference in (("images", "real"), ("stored", "stats.npz")):
        call("--samples", "samples", "--reference", reference, "--features", "toy", "--output", f"{name}.json")
    images, statistics = record("images.json"), record("stored.json")
    assert statistics["figures"] == pytest.approx(images["figures"], rel=1e-9)
    assert statistics["reference"]["statistics"] == "stored"
    assert statistics["reference"]["features"] == images["reference"]["features"] == f"toy-{'1' * 16}"
    assert statistics["reference"]["statistics_sha256"] == images["reference"]["statistics_sha256"]
    np.savez("unsigned.npz", **{name: array for name, array in stored.items() if name != "extractor"})
    assert "unsigned.npz has statistics of Inception, expected toy-1111" in refused(
        "--samples", "samples", "--reference", "unsigned.npz", "--features", "toy"
    )


def test_adms_own_files(folder: Path, call: Call, refused: Call, stands_for_inception: Path) -> None:
    """Types are mixed, no word on the network, with or without images; the statistics count, not the images."""
    a, b = (colours(loaded(f"{name}.npz")).double().numpy() for name in ("samples", "real"))
    adm = {"mu": b.mean(0).astype(np.float32), "sigma": 2 * np.cov(b, rowvar=False)}
    adm |= {"mu_s": b[:, :2].mean(0), "sigma_s": np.cov(b[:, :2], rowvar=False).astype(np.float32)}
    np.savez("adm.npz", arr_0=np.load("real.npz")["arr_0"], **adm)
    np.savez("bare.npz", mu=adm["mu"], sigma=adm["sigma"])
    flags = ("--samples", "samples.npz", "--inception-weights", stands_for_inception, "--reference")
    said = {name: call(*flags, f"{name}.npz", "--output", f"{name}.json") for name in ("adm", "bare")}
    assert all(f"{name}.npz does not say of which network" in text for name, text in said.items())
    assert "With" not in said["adm"]
    assert "With bare.npz no sFID (mu_s and sigma_s are missing), no precision and recall (there are no" in said["bare"]
    assert record("bare.json")["reference"]["features"] == "assumed"
    found, bare = record("adm.json")["figures"], record("bare.json")["figures"]
    s, t = np.cov(a, rowvar=False), adm["sigma"]
    shift = np.square(a.mean(0) - b.mean(0)).sum()
    expected = shift + np.trace(s + t - 2 * np.real(scipy.linalg.sqrtm(s @ t)))
    assert found["FID@24"] == pytest.approx(expected, rel=1e-5)
    assert found["sFID@24"] == pytest.approx(by_scipy(a[:, :2], b[:, :2]), rel=1e-5)
    assert set(found) == {"FID@24", "IS@24", "IS_deviation@24", "sFID@24", "precision@24", "recall@24"}
    assert bare == {name: found[name] for name in ("FID@24", "IS@24", "IS_deviation@24")}
    np.savez("small.npz", mu=np.zeros(3), sigma=np.eye(3))
    assert "expected 6 features in small.npz, got (3,) and (3, 3)" in refused(*flags, "small.npz")


def test_table_6_stands_beside_the_samples(
    folder: Path, call: Call, refused: Call, stands_for_inception: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--samples", "samples", "--reference", "real", "--inception-weights", stands_for_inception)
    unknown = call(*flags, "--paper-table6")
    assert unknown.count("IPTV2-S") == 8
    assert "may not be comparable" in unknown
    settings = {**PROTOCOL, "num_samples": COUNT, "seed": 0, "ema": "0.9999", "training_steps": 400_000}
    (folder / "samples" / "settings.json").write_text(json.dumps(settings))
    shown = call(*flags, "--paper-table6", "--protocol", "dit-paper-cfg1.5", "--output", "out.json")
    rows = [line.split() for line in shown.splitlines()[6:-1]]
    assert rows[0][2:] == ["CFG", "GFLOPs", "iterations", "samples", "FID", "IS", "sFID", "precision", "recall"]
    assert ["IPTV2-S", "1.5", "6.24", "800k", "50000", "7.71", "147.47", "6.07", "0.7619", "0.5240"] in rows
    assert len(rows) == 1 + 8 + 1
    figures = record("out.json")["figures"]
    assert rows[-1][:5] == ["ours", "1.5", "400k", "24", f"{figures['FID@24']:.2f}"]
    assert rows[-1][-1] == f"{figures['recall@24']:.4f}"
    found = record("out.json")
    assert found["protocol"] == "dit-paper-cfg1.5"
    assert found["samples"]["settings"] == settings
    assert found["samples"]["drawing"]["quantise"] == "truncate"
    assert found["samples"]["drawing"]["ckpt"] == "unknown"
    monkeypatch.setattr(inception, "PUBLISHED_SHA256", "2" * 64)
    monkeypatch.setattr(inception, "inception_extractor", lambda weights, device: toy(inception.NAME, device))
    assert "--paper-table6 needs the published Inception weights" in refused(*flags, "--paper-table6")
    assert "frechet_distance[inception-v3-adm]@24" in call(*flags)


def test_samples_of_another_protocol_are_refused(folder: Path, refused: Call) -> None:
    flags = ("--samples", "samples", "--reference", "real", "--features", "toy")
    named = (*flags, "--protocol", "dit-paper-cfg1.5")
    assert "no settings.json beside the samples says how they were drawn" in refused(*named)
    file = folder / "samples" / "settings.json"
    file.write_text(json.dumps({**PROTOCOL, "steps": 50, "quantise": "round"}))
    line = refused(*named)
    assert line.endswith("not drawn by dit-paper-cfg1.5: steps 50 instead of 250, quantise round instead of truncate")
    file.write_text(json.dumps({**PROTOCOL, "num_samples": 50_000}))
    assert "expected the 50000 samples that settings.json speaks of, found 24" in refused(*flags)
    for content in ("[]", "{"):
        file.write_text(content)
        assert "settings.json" in refused(*flags)
    assert not (folder / "cache").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--reference", "real"), "expected --samples or --write-stats"),
        (("--reference", "real", "--write-stats", "stats"), "expected a name that ends with .npz"),
        (("--reference", "real", "--write-stats", "real.npz"), "real.npz exists already"),
        (("--reference", "real", "--write-stats", "s.npz", "--kid"), "need --samples"),
        (("--samples", "samples", "--reference", "absent"), "expected a folder of pictures or an .npz file"),
        (("--samples", "samples", "--reference", "real", "--output", "real"), "real exists already"),
        (("--samples", "samples", "--reference", "real", "--protocol", "dit"), "unknown protocol 'dit'"),
        (("--samples", "samples", "--reference", "real", "--features", "x"), "unknown features 'x'"),
        (("--samples", "samples", "--reference", "real", "--features", "toy", "--paper-table6"), "are for Inception"),
        (("--samples", "samples", "--reference", "real", "--features", "toy", "--kid"), "at least 1000 images in"),
        (("--samples", "samples", "--reference", "real", "--inception-weights", "absent"), "found no absent"),
        (("--samples", "samples", "--reference", "real", "--batch-size", "0"), "--batch-size of at least 1"),
    ],
)
def test_refusals(folder: Path, refused: Call, flags: tuple[str, ...], message: str) -> None:
    assert message in refused(*flags)
    assert not (folder / "cache").exists()


def test_figures_say_how_many_samples() -> None:
    from iptv2_diffusion.cli.generation_figures import full_name

    published = toy(inception.NAME, torch.device("cpu"), inception.PUBLISHED_SHA256)
    names = [full_name("FID", count, published) for count in (1000, 9999, 10_000, 50_000, 50_001)]
    assert names == ["FID@1000", "FID@9999", "FID@10k", "FID@50k", "FID@50001"]
    assert full_name("KID_deviation", 50_000, toy("toy", torch.device("cpu"))) == "kernel_distance_deviation[toy]@50k"


def test_the_kernel_distance_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from iptv2_diffusion.cli.generation_figures import figures
    from iptv2_diffusion.cli.image_statistics import Statistics
    from iptv2_diffusion.cli.references import Reference
    from iptv2_diffusion.metrics import kernel_distance

    monkeypatch.setattr(kernel_distance, "SUBSETS", 1)
    rows = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
    fits = {FEATURES: Gaussian(rows.mean(0), np.cov(rows, rowvar=False))}
    samples = Statistics(gaussians=fits, features=rows, score=None)
    found = figures(samples, Reference(gaussians=fits, features=rows + 1, description={}), kernel=True)
    assert found["KID"] == kernel_distance.kernel_distance(torch.from_numpy(rows), torch.from_numpy(rows + 1))[0]
    assert found["KID"] > 1
    assert "KID" not in figures(samples, Reference(gaussians=fits, features=rows, description={}))


def test_it_is_a_part_of_iptv2_eval(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["--samples", "samples", "--reference", "real", "--features", "toy", "--cache", "none"]
    monkeypatch.setattr(sys, "argv", ["iptv2-eval", "generation", *flags, "--device", "cpu", "--output", "out.json"])
    evaluate.main()
    assert "frechet_distance[toy]@24" in record("out.json")["figures"]
