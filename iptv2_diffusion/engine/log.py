"""The record of a run: `stats.jsonl`, trackers, a progress bar and previews. Only the main process writes."""

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import TensorBoardTracker, WandBTracker
from PIL import Image
from tqdm import tqdm

from iptv2_diffusion.engine.settings import TrainConfig

STATS = "stats.jsonl"
WANDB_ID = "wandb_id.txt"
PROJECT = "iptv2"  # at Weights & Biases


def check_trackers(names: Sequence[str]) -> None:
    """ValueError for one whose package is not installed."""
    if missing := [name for name in names if find_spec(name) is None]:
        raise ValueError(f"tracker: {missing[0]} is not installed here (pip install {missing[0]})")


def _tracker(name: str, config: TrainConfig, start: int, description: Mapping[str, Any]) -> Any:
    """TensorBoard in output/tensorboard, or a run of Weights & Biases that has the output folder's name."""
    output = config.output
    if name == "tensorboard":
        return TensorBoardTracker("tensorboard", output, purge_step=start + 1)
    settings = {"name": output.name, "dir": output, "config": dict(description)}
    return WandBTracker(PROJECT, id=_identity(output / WANDB_ID, config.resume), resume="allow", **settings)


def _identity(path: Path, resume: bool) -> str:
    """Of a run at Weights & Biases, kept in a file, so that resuming continues it however it ended."""
    if not (resume and path.exists()):
        _replace(path, secrets.token_hex(8))
    return path.read_text(encoding="utf-8")


class Log:
    """`start`: updates already done; whatever an interrupted run recorded beyond them is dropped.

    Trackers that keep one get the `description` of the run.
    """

    def __init__(
        self, accelerator: Accelerator, config: TrainConfig, start: int, description: Mapping[str, Any]
    ) -> None:
        self._accelerator = accelerator
        self._output = config.output
        self._main = accelerator.is_main_process
        if self._main:
            self._output.mkdir(parents=True, exist_ok=True)
            _truncate(self._output / STATS, start)
        names = (config.tracker or ()) if self._main else ()
        accelerator.log_with = [_tracker(name, config, start, description) for name in names]
        accelerator.init_trackers(PROJECT)
        self._bar = tqdm(total=config.steps, initial=start, unit="step", dynamic_ncols=True, disable=not self._main)

    def advance(self, loss: float) -> None:
        self._bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
        self._bar.update()

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """One line of `stats.jsonl` and one point per value in the trackers, after `step` updates."""
        if self._main:
            with (self._output / STATS).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        self._accelerator.log(dict(values), step=step)

    def validation(self, step: int, figures: Mapping[str, float]) -> None:
        self.record(step, {f"validation/{name}": float(value) for name, value in figures.items()})

    def has_validation(self, step: int) -> bool:
        path = self._output / STATS
        return path.exists() and f'{{"step": {step}, "validation/' in path.read_text(encoding="utf-8")

    def image(self, step: int, image: Image.Image) -> None:
        path = self._preview(step)
        path.parent.mkdir(exist_ok=True)
        unfinished = path.with_name(f".{path.name}")
        image.save(unfinished)
        os.replace(unfinished, path)
        pixels = np.asarray(image.convert("RGB"))[None]  # (1, H, W, 3)
        for tracker in self._accelerator.trackers:
            if isinstance(tracker, TensorBoardTracker):
                tracker.log_images({"preview": pixels}, step=step, dataformats="NHWC")
            elif isinstance(tracker, WandBTracker):
                tracker.log_images({"preview": [image]}, step=step)

    def has_image(self, step: int) -> bool:
        return self._preview(step).exists()

    def _preview(self, step: int) -> Path:
        return self._output / "previews" / f"step-{step:08d}.png"

    def close(self) -> None:
        self._bar.close()
        for tracker in self._accelerator.trackers:
            tracker.finish()


def read_records(run: Path) -> list[dict[str, Any]]:
    """What a run has recorded so far, each with its `step`; a last line may be half written."""
    text = (run / STATS).read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _truncate(path: Path, start: int) -> None:
    """Keeps the records of the first `start` updates; a last line cut short by a crash goes too."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= start]
    _replace(path, "".join(line + "\n" for line in kept))


def _replace(path: Path, text: str) -> None:
    """Whole or not at all."""
    unfinished = path.with_name("." + path.name)
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return float("inf")
