"""Score a restorer on benchmarks of Tables 1 to 5, each by its own protocol, beside the paper's figures.

Names: cbsd68-25, kodak24-50, mcmaster-15, urban100-25; set12-15, bsd68-50, urban100-gray-25; sidd-val, sidd-bench, dnd, polyu;
gopro, hide; dpdd-single, dpdd-dual; rain100h, rain100l, test2800, test100, test1200. Groups: cbsd68 (all noise levels),
awgn-color, awgn-color-25, awgn-gray, motion, derain-y, table1 to table5. --data-path is the set's folder, or one that
holds the sets. Every protocol is described in eval/README.md.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iptv2_diffusion.cli.common import allow_tf32, run, say
from iptv2_diffusion.config import add_flags, arg, from_flags
from iptv2_diffusion.files import check_place
from iptv2_diffusion.restoration.protocols import Benchmark, select
from iptv2_diffusion.restoration.tasks import TASKS, serves

if TYPE_CHECKING:
    from iptv2_diffusion.cli.benchmark_data import Pictures
    from iptv2_diffusion.cli.scoring import Origin, Restore


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    benchmark: tuple[str, ...] = arg(help="names or groups")
    data_path: Path | None = arg(None, "folder of the set, or of the sets")
    pairs: tuple[Path, ...] | None = arg(None, "instead: folders INPUT TARGET, LEFT RIGHT TARGET, or CLEAN for noise")
    ckpt: str | None = arg(
        None, "restorer: training run, checkpoint, saved model, .safetensors file, hub id, or task of bundled weights"
    )
    identity: bool = arg(False, "score the degraded pictures themselves, without a model")
    tile: int | None = arg(None, "pixels a side of tiles; none: the whole picture at once")
    overlap: int = arg(64, "least number of pixels that neighbouring tiles share")
    local: int | None = arg(None, "pixels within which the grid attention stays, 384 for instance; none: global")
    ensemble: bool = arg(False, "average over the 8 flips and quarter turns")
    limit: int | None = arg(None, "score the first pictures only")
    lpips: bool = arg(False, "also LPIPS, where the table has it; needs the extra of that name")
    indoor_labels: Path | None = arg(None, "DPDD: numbers of the indoor pictures, from 1, .npy or text")
    outdoor_labels: Path | None = arg(None, "DPDD: numbers of the outdoor pictures")
    output: Path | None = arg(None, "new JSON file for the records")
    save_pictures: Path | None = arg(
        None, "folder for what was restored; for dnd and sidd-bench what their servers take"
    )
    device: str | None = arg(None, "none: a GPU where there is one")

    def __post_init__(self) -> None:
        if (self.ckpt is None) != self.identity:
            raise ValueError("expected either --ckpt or --identity")
        if (self.data_path is None) == (self.pairs is None):
            raise ValueError("expected either --data-path or --pairs")
        if (self.indoor_labels is None) != (self.outdoor_labels is None):
            raise ValueError("expected both --indoor-labels and --outdoor-labels, or neither")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"expected --limit of at least 1, got {self.limit}")
        if self.pairs is not None and len(self.benchmarks) > 1:
            raise ValueError(f"--pairs: expected one benchmark, got {', '.join(b.name for b in self.benchmarks)}")
        self._check_outputs()

    def _check_outputs(self) -> None:
        if self.output is not None and self.output.exists():
            raise FileExistsError(f"{self.output} exists already")
        if self.output is not None:
            check_place(self.output)
        served = [benchmark.name for benchmark in self.benchmarks if not benchmark.protocol.scores]
        if served and self.save_pictures is None:
            raise ValueError(f"{', '.join(served)}: only a server can score it; --save-pictures writes what it takes")
        reporting = [benchmark.name for benchmark in self.benchmarks if benchmark.protocol.lpips]
        for flag in ("lpips", "indoor_labels"):
            if getattr(self, flag) and not reporting:
                raise ValueError(f"--{flag.replace('_', '-')} is for dpdd-single and dpdd-dual")

    @property
    def benchmarks(self) -> list[Benchmark]:
        return select(self.benchmark)


def main() -> None:
    run(_evaluate)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser, EvaluateConfig)
    return parser


def _evaluate() -> None:
    command(make_parser().parse_args())


def command(flags: argparse.Namespace) -> None:
    config = from_flags(EvaluateConfig, flags)
    allow_tf32(False)  # figures are compared

    from iptv2_diffusion.cli.records import write_record
    from iptv2_diffusion.cli.scoreboard import scoreboard

    _check_lpips(config)
    restore, origin = _restorer(config)
    jobs = [_job(config, benchmark) for benchmark in config.benchmarks]  # what can be refused, is before the first runs
    records: list[dict[str, Any]] = []
    for job in jobs:
        records.append(job(restore, origin))
        write_record(config.output, records, overwrite=len(records) > 1)  # only the first must find no such file
    say(scoreboard(records))


def _restorer(config: EvaluateConfig) -> "tuple[Restore, Origin]":
    """What restores a picture, and what the record says about it. ValueError where it does not fit the benchmarks."""
    from iptv2_diffusion.cli.load import choose_device, load_restorer
    from iptv2_diffusion.cli.scoring import Origin, identity
    from iptv2_diffusion.restoration.inference import fitting_layout, restore

    layout = "set" if config.pairs is None else "folders"
    if config.ckpt is None:
        return identity, Origin(model={"name": "input"}, layout=layout)
    model = load_restorer(config.ckpt).fuse()
    check_fit(model.config, config.benchmarks)
    model.to(choose_device(config.device))
    mode = {"tile": config.tile, "overlap": config.overlap, "ensemble": config.ensemble, "local": config.local}
    inference = {"mode": "tiles" if config.tile else "whole picture", **mode, "device": str(model.device)}
    if config.tile:
        tiles = fitting_layout(model, (), config.tile, config.overlap)
        inference |= {"tile": tiles.tile, "overlap": tiles.overlap}
    return partial(restore, model, **mode), Origin(
        model=_described(model, config.ckpt), inference=inference, layout=layout
    )


def check_fit(model: Any, benchmarks: Sequence[Benchmark]) -> None:
    """`model` is the config of a restorer. ValueError for one of another task or with other channels."""
    task, channels = model.get("task"), (model["in_channels"], model["out_channels"])
    for benchmark in benchmarks:
        wanted = benchmark.protocol.task
        if not serves(task, wanted):
            raise ValueError(f"{benchmark.name} is for models of {wanted}, this one was trained for {task}")
        if channels != TASKS[wanted].channels:
            raise ValueError(f"{benchmark.name} is for models of {TASKS[wanted].channels} channels, got {channels}")


def _described(model: Any, ckpt: str) -> dict[str, Any]:
    config = {name: value for name, value in dict(model.config).items() if not name.startswith("_")}
    return {
        "name": "ours",
        "class": type(model).__name__,
        "source": ckpt,
        "task": config.get("task"),
        "fused": config["fused"],
        "dtype": str(model.dtype),
        "config": config,
    }


def _job(config: EvaluateConfig, benchmark: Benchmark) -> "Callable[[Restore, Origin], dict[str, Any]]":
    """Everything about one benchmark but the model."""
    from tqdm import tqdm

    from iptv2_diffusion.cli.benchmark_data import make_writer
    from iptv2_diffusion.cli.scoring import evaluate

    pictures = _open(config, benchmark)
    return partial(
        evaluate,
        benchmark,
        pictures,
        limit=config.limit,
        parts=_parts(config, benchmark, len(pictures.names)),
        lpips=config.lpips,
        writer=None if config.save_pictures is None else make_writer(benchmark, config.save_pictures),
        track=partial(tqdm, desc=benchmark.name, unit=" pictures"),
    )


def _open(config: EvaluateConfig, benchmark: Benchmark) -> "Pictures":
    from iptv2_diffusion.cli.benchmark_data import open_benchmark, open_folders

    if config.pairs is not None:
        return open_folders(benchmark, config.pairs, config.limit)
    assert config.data_path is not None
    return open_benchmark(benchmark, config.data_path)


def _parts(config: EvaluateConfig, benchmark: Benchmark, count: int) -> dict[str, list[int]] | None:
    from iptv2_diffusion.cli.scoring import scenes
    from iptv2_diffusion.data.dpdd import read_labels

    if config.indoor_labels is None or config.outdoor_labels is None or not benchmark.protocol.lpips:
        return None
    count = min(count, config.limit or count)
    indoor, outdoor = (read_labels(path, count).tolist() for path in (config.indoor_labels, config.outdoor_labels))
    return scenes(indoor, outdoor, count)


def _check_lpips(config: EvaluateConfig) -> None:
    """OSError at once where its network is not to be had."""
    if config.lpips:
        import numpy as np

        from iptv2_diffusion.metrics.lpips import lpips_alex

        black = np.zeros((64, 64, 3), np.float32)
        lpips_alex(black, black)


if __name__ == "__main__":
    main()
