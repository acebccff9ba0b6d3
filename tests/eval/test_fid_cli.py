"""`python -m eval.fid`, which is `iptv2-eval generation`: figures and their names, ADM's files, protocols, refusals."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from in_process import Call
from toy_features import COUNT, by_scipy, colours, loaded, record, toy

from iptv2_diffusion.cli import evaluate
from iptv2_diffusion.diffusion.protocols import find_protocol
from iptv2_diffusion.metrics import inception
from iptv2_diffusion.metrics.extractors import FEATURES
from iptv2_diffusion.metrics.frechet import Gaussian

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
PROTOCOL = asdict(find_protocol("dit-paper-cfg1.5"))


def test_figures_in_another_feature_space_are_named_after_it(sets: Path, fid_of: Call) -> None:
    shown = fid_of("--samples", "samples", "--reference", "real.npz", "--features", "toy", "--output", "new/out.json")
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


def test_without_output_the_record_is_beside_the_samples(sets: Path, fid_of: Call, fid_refused: Call) -> None:
    """A second scoring gets a name of its own."""
    flags = ("--reference", "real.npz", "--features", "toy")
    for name in ("scores-toy-24.json", "scores-toy-24-2.json"):
        assert f"The record is samples/{name}" in fid_of("--samples", "samples", *flags)
    assert "The record is scores-toy-24.json" in fid_of("--samples", "samples.npz", *flags)
    found, again = record("samples/scores-toy-24.json"), record("samples/scores-toy-24-2.json")
    assert found["figures"].keys() == again["figures"].keys()
    assert found["packages"].keys() == {"iptv2_diffusion", "torch", "numpy", "torch_fidelity"}
    (sets / "samples" / "settings.json").write_text(json.dumps({**PROTOCOL, "num_samples": COUNT}))
    shown = fid_of("--samples", "samples", *flags, "--protocol", "dit-paper-cfg1.5")
    assert "samples/scores-toy-dit-paper-cfg1.5-24.json" in shown
    assert len(list((sets / "cache").iterdir())) == 1  # of the reference


def test_a_folder_that_takes_no_record_is_refused_at_once(
    sets: Path, fid_refused: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # which holds for root, too
    assert "the record cannot be written to samples: pass --output" in fid_refused(
        "--samples", "samples", "--reference", "real", "--features", "toy"
    )
    assert "takes no new files" in fid_refused(
        "--samples", "samples", "--reference", "real", "--features", "toy", "--output", "new/out.json"
    )
    assert not (sets / "cache").exists()


def test_what_cannot_be_kept_costs_no_figures(sets: Path, fid_of: Call) -> None:
    (sets / "cache").write_text("no folder")
    with pytest.warns(UserWarning, match="the statistics are not kept"):
        fid_of("--samples", "samples", "--reference", "real", "--features", "toy", "--output", "out.json")
    assert "frechet_distance[toy]@24" in record("out.json")["figures"]


def test_images_of_different_sizes_are_named(sets: Path, fid_of: Call, fid_refused: Call) -> None:
    flags = ("--samples", "samples", "--reference", "real", "--features", "toy", "--size", "32")
    different = "the samples have 64x64 pixels, the reference's images 32x32"
    assert f"Sizes differ: {different}." in fid_of(*flags, "--output", "out.json")
    (sets / "samples" / "settings.json").write_text(json.dumps({**PROTOCOL, "num_samples": COUNT}))
    assert fid_refused(*flags, "--protocol", "dit-paper-cfg1.5").endswith(different)


def test_equal_sets_in_the_latents_of_the_bundled_vae(sets: Path, fid_of: Call) -> None:
    flags = ("--reference", "real.npz", "--features", "vae-latents", "--output")
    fid_of("--samples", "real", *flags, "same.json")
    fid_of("--samples", "samples", *flags, "other.json")
    same, other = record("same.json"), record("other.json")
    assert same["figures"]["frechet_distance[vae-latents]@24"] == pytest.approx(0, abs=1e-9)
    assert same["figures"]["precision[vae-latents]@24"] == same["figures"]["recall[vae-latents]@24"] == 1
    assert other["figures"]["frechet_distance[vae-latents]@24"] > 1
    assert other["figures"]["precision[vae-latents]@24"] < 1
    assert same["samples"]["pixels_sha256"] == same["reference"]["pixels_sha256"] != other["samples"]["pixels_sha256"]


def test_statistics_are_written_and_read_as_adm_does(sets: Path, fid_of: Call, fid_refused: Call) -> None:
    fid_of("--reference", "real", "--features", "toy", "--write-stats", "stats.npz")
    with np.load("stats.npz") as arrays:
        stored = dict(arrays)
    np.testing.assert_array_equal(stored["arr_0"], np.load("real.npz")["arr_0"])
    assert {name: stored[name].shape for name in ("mu", "sigma", "mu_s", "sigma_s")} == {
        **{"mu": (6,), "sigma": (6, 6)},
        **{"mu_s": (2,), "sigma_s": (2, 2)},
    }
    for name, reference in (("images", "real"), ("stored", "stats.npz")):
        fid_of("--samples", "samples", "--reference", reference, "--features", "toy", "--output", f"{name}.json")
    images, statistics = record("images.json"), record("stored.json")
    assert statistics["figures"] == pytest.approx(images["figures"], rel=1e-9)
    assert statistics["reference"]["statistics"] == "stored"
    assert statistics["reference"]["features"] == images["reference"]["features"] == f"toy-{'1' * 16}"
    assert statistics["reference"]["statistics_sha256"] == images["reference"]["statistics_sha256"]
    np.savez("unsigned.npz", **{name: array for name, array in stored.items() if name != "extractor"})
    assert "unsigned.npz has statistics of Inception, expected toy-1111" in fid_refused(
        "--samples", "samples", "--reference", "unsigned.npz", "--features", "toy"
    )


def test_adms_own_files(sets: Path, fid_of: Call, fid_refused: Call, stands_for_inception: Path) -> None:
    """Types are mixed, no word on the network, with or without images; the statistics count, not the images."""
    a, b = (colours(loaded(f"{name}.npz")).double().numpy() for name in ("samples", "real"))
    adm = {"mu": b.mean(0).astype(np.float32), "sigma": 2 * np.cov(b, rowvar=False)}
    adm |= {"mu_s": b[:, :2].mean(0), "sigma_s": np.cov(b[:, :2], rowvar=False).astype(np.float32)}
    np.savez("adm.npz", arr_0=np.load("real.npz")["arr_0"], **adm)
    np.savez("bare.npz", mu=adm["mu"], sigma=adm["sigma"])
    flags = ("--samples", "samples.npz", "--inception-weights", stands_for_inception, "--reference")
    said = {name: fid_of(*flags, f"{name}.npz", "--output", f"{name}.json") for name in ("adm", "bare")}
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
    assert "expected 6 features in small.npz, got (3,) and (3, 3)" in fid_refused(*flags, "small.npz")


def test_table_6_stands_beside_the_samples(
    sets: Path, fid_of: Call, fid_refused: Call, stands_for_inception: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--samples", "samples", "--reference", "real", "--inception-weights", stands_for_inception)
    unknown = fid_of(*flags, "--paper-table6")
    assert unknown.count("IPTV2-S") == 8
    assert "may not be comparable" in unknown
    settings = {**PROTOCOL, "num_samples": COUNT, "seed": 0, "ema": "0.9999", "training_steps": 400_000}
    (sets / "samples" / "settings.json").write_text(json.dumps(settings))
    shown = fid_of(*flags, "--paper-table6", "--protocol", "dit-paper-cfg1.5", "--output", "out.json")
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
    assert "--paper-table6 needs the published Inception weights" in fid_refused(*flags, "--paper-table6")
    assert "frechet_distance[inception-v3-adm]@24" in fid_of(*flags)


def test_samples_of_another_protocol_are_refused(sets: Path, fid_refused: Call) -> None:
    flags = ("--samples", "samples", "--reference", "real", "--features", "toy")
    named = (*flags, "--protocol", "dit-paper-cfg1.5")
    assert "no settings.json beside the samples says how they were drawn" in fid_refused(*named)
    file = sets / "samples" / "settings.json"
    file.write_text(json.dumps({**PROTOCOL, "steps": 50, "quantise": "round"}))
    line = fid_refused(*named)
    assert line.endswith("not drawn by dit-paper-cfg1.5: steps 50 instead of 250, quantise round instead of truncate")
    file.write_text(json.dumps({**PROTOCOL, "num_samples": 50_000}))
    assert "expected the 50000 samples that settings.json speaks of, found 24" in fid_refused(*flags)
    for content in ("[]", "{"):
        file.write_text(content)
        assert "settings.json" in fid_refused(*flags)
    assert not (sets / "cache").exists()


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
def test_refusals(sets: Path, fid_refused: Call, flags: tuple[str, ...], message: str) -> None:
    assert message in fid_refused(*flags)
    assert not (sets / "cache").exists()


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


def test_it_is_a_part_of_iptv2_eval(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["--samples", "samples", "--reference", "real", "--features", "toy", "--cache", "none"]
    monkeypatch.setattr(sys, "argv", ["iptv2-eval", "generation", *flags, "--device", "cpu", "--output", "out.json"])
    evaluate.main()
    assert "frechet_distance[toy]@24" in record("out.json")["figures"]
