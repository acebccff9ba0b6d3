"""Checkpoint folders: written whole or not at all, found by step, resumed exactly.

checkpoint-00001000/   after 1,000 updates
    model/             averaged weights, as users load them (`from_pretrained`)
    ema/NAME/          further averages, if the run has them
    state/             trained weights, optimizer and random state, as accelerate saves them
    run.json           step, seconds trained, the TrainConfig and what else describes the run
    ...                whatever the task exports
best/                  model/, run.json (with the figures) and exports of the best validation so far
"""

import json
import math
import os
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from iptv2_diffusion.engine.ema import EMA
from iptv2_diffusion.engine.log import STATS
from iptv2_diffusion.engine.parallel import PLAIN_WEIGHTS, WEIGHTS, weights_name
from iptv2_diffusion.engine.settings import MAY_CHANGE, TrainConfig
from iptv2_diffusion.engine.task import Task

RUN, BEST = "run.json", "best"


def newest(output: Path) -> Path | None:
    """The complete checkpoint with the largest step in its name."""
    complete = checkpoints(output)
    return complete[-1][1] if complete else None


def checkpoints(output: Path) -> list[tuple[int, Path]]:
    """The steps and folders of all complete checkpoints, in order."""
    return [(step, folder) for step, folder in _folders(output) if (folder / RUN).is_file()]


def read_run(folder: Path) -> dict[str, Any]:
    """`run.json` of a checkpoint: step, seconds, config, info."""
    path = folder / RUN
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a readable checkpoint record ({error})") from None
    if missing := [name for name in ("step", "seconds", "config", "info") if name not in run]:
        raise ValueError(f"{path}: not a checkpoint record, it lacks {', '.join(missing)}")
    return run


def describe(config: TrainConfig, info: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `run.json` that stays the same throughout a run, in JSON's own types."""
    return json.loads(json.dumps({"config": asdict(config), "info": dict(info)}, default=_plain))


def starting_point(config: TrainConfig, description: Mapping[str, Any]) -> Path | None:
    """The checkpoint to continue from; None: from the start. Refuses whatever would mix two different runs."""
    folder = newest(config.output)
    if not config.resume:
        occupied = [folder for _, folder in _folders(config.output)] + list(config.output.glob(STATS))
        if occupied:
            raise FileExistsError(
                f"{config.output} already holds a run ({occupied[0].name}): resume it or choose another"
            )
        return None
    record = folder or config.output / BEST  # which may be there before the first checkpoint, and will be kept
    if (record / RUN).is_file():
        _check_agreement(record, read_run(record), description)
    _check_room(config, folder)
    for path in _weight_files(folder) if folder else []:
        check_whole(path)
    return folder


def expected_bytes(model: nn.Module, averages: int) -> int:
    """Of a checkpoint, all in float32: the weights, their two moments in the optimizer, their averages."""
    return 4 * (3 + averages) * sum(parameter.numel() for parameter in model.parameters())


def averages(folder: Path) -> dict[str, Path]:
    """The averages of a checkpoint: name -> folder of its weights."""
    first, *others = _names(read_run(folder)["config"]["ema"])
    return {first: folder / "model"} | {name: folder / "ema" / name for name in others}


def _names(ema: Any) -> list[str]:
    """Of the averages in a record; in older ones there is one, a number."""
    return ema if isinstance(ema, list) else [str(ema)]


def save(
    output: Path, record: Mapping[str, Any], accelerator: Accelerator, emas: Sequence[EMA], task: Task, keep: int | None
) -> Path:
    """Called by every process. A name without dot appears only when everything in the folder is written."""
    folder = output / f"checkpoint-{record['step']:08d}"
    unfinished = output / f".{folder.name}"
    if accelerator.is_main_process:
        _remove_unfinished(output)
        unfinished.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(unfinished / "state"))
    for ema in emas:
        ema.gather(torch.device("cpu"))
    if accelerator.is_main_process:
        for ema in emas[1:]:
            ema.module.save_pretrained(unfinished / "ema" / ema.name)
        _write_model(unfinished, record, emas[0], task)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        os.rename(unfinished, folder)
        _remove_old(output, keep)
    accelerator.wait_for_everyone()
    return folder


def best_figure(output: Path, monitor: str) -> float:
    """The largest so far."""
    path = _best(output) / RUN
    return json.loads(path.read_text(encoding="utf-8"))["figures"][monitor] if path.is_file() else -math.inf


def save_best(output: Path, record: Mapping[str, Any], ema: EMA, task: Task) -> None:
    """By the main process, in the place of the best before it."""
    folder, (unfinished, former) = _best(output), _while_replaced(output)
    _write_model(unfinished, record, ema, task)
    if folder.exists():
        os.rename(folder, former)
    os.rename(unfinished, folder)
    shutil.rmtree(former, ignore_errors=True)


def _best(output: Path) -> Path:
    """The folder, put back if a run was killed while another replaced it, and nothing else left of that."""
    folder, (unfinished, former) = output / BEST, _while_replaced(output)
    if former.exists() and not folder.exists():
        os.rename(former, folder)
    for leftover in (unfinished, former):
        shutil.rmtree(leftover, ignore_errors=True)
    return folder


def _while_replaced(output: Path) -> tuple[Path, Path]:
    """The names of the best to come and of the best before it."""
    return output / f".{BEST}", output / f".{BEST}-before"


def _write_model(folder: Path, record: Mapping[str, Any], ema: EMA, task: Task) -> None:
    ema.module.save_pretrained(folder / "model")
    task.export(folder)
    (folder / RUN).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def load(folder: Path, accelerator: Accelerator, emas: Sequence[EMA]) -> dict[str, Any]:
    """Restores model, optimizer, random state and averages in place; returns `run.json`."""
    run, places = read_run(folder), averages(folder)
    if not (folder / "state" / weights_name(accelerator)).exists():
        raise ValueError(
            f"{folder} was saved under another kind of parallelism: it has no state/{weights_name(accelerator)}"
        )
    try:
        accelerator.load_state(str(folder / "state"))
        for ema in emas:
            files = sorted(places[ema.name].glob("*.safetensors"))
            weights = {name: tensor for file in files for name, tensor in load_file(file).items()}
            ema.load(weights, run["step"])
    except RuntimeError as error:  # what load_state_dict says about missing, unexpected and misshapen tensors
        raise ValueError(f"{folder} does not fit the model: {' '.join(str(error).split())}") from None
    return run


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise ValueError(f"run information has to be JSON, got {value!r}")


def _folders(output: Path) -> list[tuple[int, Path]]:
    matches = [(re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in output.glob("checkpoint-*")]
    return sorted((int(match[1]), path) for match, path in matches if match)


def _remove_unfinished(output: Path) -> None:
    for leftover in output.glob(".checkpoint-*"):
        shutil.rmtree(leftover)


def _remove_old(output: Path, keep: int | None) -> None:
    for _, folder in checkpoints(output)[: -keep if keep else 0]:
        hidden = folder.with_name(f".{folder.name}")
        os.rename(folder, hidden)  # so that a half-removed folder never passes for a checkpoint
        shutil.rmtree(hidden)


def _check_agreement(folder: Path, run: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    was, now = _relevant(run), _relevant(description)
    pairs = {name: (was.get(name, "absent"), now.get(name, "absent")) for name in sorted(was | now)}
    differing = [f"{name} ({then} then, {new} now)" for name, (then, new) in pairs.items() if then != new]
    if differing:
        raise ValueError(f"{folder} was trained with another configuration: {', '.join(differing)}")


def _relevant(run: Mapping[str, Any]) -> dict[str, Any]:
    """What has to agree on resuming; underscored entries are versions and the like."""
    info = {
        f"{part}.{name}": value
        for part in ("model", "recipe")
        for name, value in run["info"].get(part, {}).items()
        if not name.startswith("_")
    }
    # The whole course of a cosine depends on its end.
    free = MAY_CHANGE if run["config"]["schedule"] == "constant" else MAY_CHANGE - {"steps"}
    config = run["config"] | {"ema": _names(run["config"]["ema"])}
    return {name: value for name, value in config.items() if name not in free} | info


def _check_room(config: TrainConfig, folder: Path | None) -> None:
    step = read_run(folder)["step"] if folder else 0
    if step > config.steps:
        raise ValueError(f"steps: expected at least the {step} of {folder}, got {config.steps}")
    blocking = [path for number, path in _folders(config.output) if number > step]
    if blocking:
        raise ValueError(f"{blocking[0]} has no {RUN}: complete or remove it, its name will be needed")


def _weight_files(folder: Path) -> list[Path]:
    state = folder / "state"
    averaged = [file for place in averages(folder).values() for file in _safetensors(place)]
    weights = next((state / name for name in WEIGHTS.values() if (state / name).exists()), state / PLAIN_WEIGHTS)
    if weights.is_dir():  # DeepSpeed's, with the optimizer
        return averaged + sorted(weights.glob("*.pt"))
    return [*averaged, weights, state / "optimizer.bin"]


def _safetensors(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors")) or [folder / "diffusion_pytorch_model.safetensors"]


def check_whole(path: Path) -> None:
    """ValueError for a missing or truncated weight file, found without reading the weights."""
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt"):  # compares the file's size with its header
                return
        if not zipfile.is_zipfile(path):  # the directory of torch's zip format stands at the end
            raise ValueError(f"{path} is damaged: not a whole torch file")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
