"""The record of a run: `stats.jsonl`, TensorBoard, a progress bar and previews. Only the main process writes."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import TensorBoardTracker
from PIL import Image
from tqdm import tqdm

STATS = "stats.jsonl"


class Log:
    """`start`: updates already done; whatever an interrupted run recorded beyond them is dropped."""

    def __init__(self, accelerator: Accelerator, output: Path, start: int, steps: int) -> None:
        self._accelerator = accelerator
        self._output = output
        self._main = accelerator.is_main_process
        if self._main:
            output.mkdir(parents=True, exist_ok=True)
            _truncate(output / STATS, start)
        accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": start + 1}})
        self._bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True, disable=not self._main)

    def advance(self, loss: float) -> None:
        self._bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
        self._bar.update()

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """One line of `stats.jsonl` and one point per value in TensorBoard, after `step` updates."""
        if self._main:
            with (self._output / STATS).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        self._accelerator.log(dict(values), step=step)

    def image(self, step: int, image: Image.Image) -> None:
        folder = self._output / "previews"
        folder.mkdir(exist_ok=True)
        unfinished = folder / f".step-{step:08d}.png"
        image.save(unfinished)
        os.replace(unfinished, folder / f"step-{step:08d}.png")
        pixels = np.asarray(image.convert("RGB"))[None]  # (1, H, W, 3)
        for tracker in self._accelerator.trackers:
            if isinstance(tracker, TensorBoardTracker):
                tracker.log_images({"preview": pixels}, step=step, dataformats="NHWC")

    def close(self) -> None:
        self._bar.close()
        for tracker in self._accelerator.trackers:
            tracker.finish()


def _truncate(path: Path, start: int) -> None:
    """Keeps the records of the first `start` updates; a last line cut short by a crash goes too."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= start]
    unfinished = path.with_name("." + path.name)
    unfinished.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(unfinished, path)


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return float("inf")
