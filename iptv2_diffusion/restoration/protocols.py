"""The benchmarks of Tables 1 to 5, and PolyU's, and how each is scored, as data; what decides every detail is in `eval/README.md`.

Common to all: the score is the mean over pictures of each picture's score, no border is cropped, PSNR is over all
channels jointly, and the restored image is clamped to [0, 1].
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

SIGMAS = (15, 25, 50)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    task: str  # of `restoration.tasks`
    rounded: bool  # to 8 bits before it is scored, white being 255; else floats are scored, white being 1
    colour: Literal["RGB", "gray", "Y"] = "RGB"
    scores: tuple[str, ...] = ("psnr", "ssim")  # none where only a server has the clean pictures
    ssim: str | None = None  # one of metrics.fidelity.SSIM_METHODS
    lpips: bool = False  # the table reports it, too


PROTOCOLS: dict[str, Protocol] = {
    "awgn-color": Protocol(task="denoise-color", rounded=True, scores=("psnr",)),
    "awgn-gray": Protocol(task="denoise-gray", rounded=True, colour="gray", scores=("psnr",)),
    "sidd-val": Protocol(task="denoise-real", rounded=False, ssim="matlab3d"),
    "sidd-bench": Protocol(task="denoise-real", rounded=True, scores=()),
    "dnd": Protocol(task="denoise-real", rounded=False, scores=()),
    "polyu": Protocol(task="denoise-real", rounded=True, ssim="matlab3d"),  # the paper has no figures of it
    "motion": Protocol(task="motion-deblur", rounded=True, ssim="matlab3d"),
    "dpdd-single": Protocol(
        task="defocus-deblur", rounded=False, scores=("psnr", "ssim", "mae"), ssim="sk7", lpips=True
    ),
    "dpdd-dual": Protocol(
        task="defocus-deblur-dual", rounded=False, scores=("psnr", "ssim", "mae"), ssim="sk7", lpips=True
    ),
    "derain-y": Protocol(task="derain", rounded=True, colour="Y", ssim="wang"),
}


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    name: str
    title: str
    data_set: str  # of `data.restoration_sets`
    protocol_id: str
    count: int  # pictures in the whole set
    partial: bool = False  # a part of it may be scored as if it were the set; records say how many pictures there were
    table: int | None = None  # of the paper; None: it reports no such figure
    sigma: int | None = None  # of the noise that is added, in units of 1/255

    @property
    def protocol(self) -> Protocol:
        return PROTOCOLS[self.protocol_id]

    @property
    def tags(self) -> frozenset[str]:
        """What selects it: its name, its set, its protocol, either at its noise level, its table."""
        tags = {self.name, self.protocol_id, f"table{self.table}"}
        if self.sigma is not None:
            tags |= {self.name.removesuffix(f"-{self.sigma}"), f"{self.protocol_id}-{self.sigma}"}
        return frozenset(tags - {"tableNone"})


def _gaussian(name: str, title: str, data_set: str, protocol_id: str, count: int) -> list[Benchmark]:
    return [
        Benchmark(
            name=f"{name}-{sigma}",
            title=f"{title}, sigma {sigma}",
            data_set=data_set,
            protocol_id=protocol_id,
            count=count,
            table=1,
            sigma=sigma,
        )
        for sigma in SIGMAS
    ]


def _rain(title: str, count: int, table: int | None) -> Benchmark:
    name = title.lower()
    return Benchmark(name=name, title=title, data_set=name, protocol_id="derain-y", count=count, table=table)


def _all() -> list[Benchmark]:
    return [
        *_gaussian("cbsd68", "CBSD68", "cbsd68", "awgn-color", 68),
        *_gaussian("kodak24", "Kodak24", "kodak24", "awgn-color", 24),
        *_gaussian("mcmaster", "McMaster", "mcmaster", "awgn-color", 18),
        *_gaussian("urban100", "Urban100", "urban100", "awgn-color", 100),
        *_gaussian("set12", "Set12", "set12", "awgn-gray", 12),
        *_gaussian("bsd68", "BSD68", "bsd68", "awgn-gray", 68),
        *_gaussian("urban100-gray", "Urban100 gray", "urban100", "awgn-gray", 100),
        Benchmark(
            name="sidd-val", title="SIDD validation", data_set="sidd-val", protocol_id="sidd-val", count=1280, table=2
        ),
        Benchmark(
            name="sidd-bench", title="SIDD benchmark", data_set="sidd-bench", protocol_id="sidd-bench", count=1280
        ),
        Benchmark(name="dnd", title="DND", data_set="dnd", protocol_id="dnd", count=1000, table=2),
        Benchmark(name="polyu", title="PolyU", data_set="polyu", protocol_id="polyu", count=100, partial=True),
        Benchmark(name="gopro", title="GoPro", data_set="gopro-test", protocol_id="motion", count=1111, table=3),
        Benchmark(name="hide", title="HIDE", data_set="hide", protocol_id="motion", count=2025, table=3),
        Benchmark(
            name="dpdd-single", title="DPDD, single", data_set="dpdd-test", protocol_id="dpdd-single", count=76, table=4
        ),
        Benchmark(
            name="dpdd-dual", title="DPDD, dual", data_set="dpdd-dual-test", protocol_id="dpdd-dual", count=76, table=4
        ),
        _rain("Rain100H", 100, 5),
        _rain("Rain100L", 100, 5),
        _rain("Test2800", 2800, 5),
        _rain("Test100", 100, None),  # trained for and named in the text, but no figure is printed
        _rain("Test1200", 1200, None),
    ]


BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _all()}


def select(wanted: Iterable[str]) -> list[Benchmark]:
    """By names or tags (`cbsd68`, `awgn-color-25`, `table1`), each once, in the order of the tables.

    ValueError for a word that selects nothing.
    """
    wanted = list(wanted)
    known = {tag for benchmark in BENCHMARKS.values() for tag in benchmark.tags}
    if unknown := [word for word in wanted if word not in known]:
        raise ValueError(f"expected benchmarks out of {', '.join(sorted(known))}; got {', '.join(unknown)}")
    return [benchmark for benchmark in BENCHMARKS.values() if benchmark.tags.intersection(wanted)]


def noisy(clean: np.ndarray, sigma: float) -> np.ndarray:
    """(H, W, C) uint8 -> float32, white being 1, with Gaussian noise: neither clipped nor quantised.

    The stream starts anew for every picture, with seed 0, and runs through rows, columns, channels: the same noise
    that Restormer's evaluation draws. `sigma` in units of 1/255.
    """
    if clean.dtype != np.uint8 or clean.ndim != 3:
        raise ValueError(f"expected a picture (H, W, C) uint8 to add noise to, got {clean.shape} {clean.dtype}")
    noise = np.random.RandomState(0).normal(0, sigma / 255, clean.shape)  # this stream is frozen; a Generator's is not
    return (clean.astype(np.float32) / 255 + noise).astype(np.float32)
