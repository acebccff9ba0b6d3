"""Averages of a width chosen after training, from the power-function averages that the checkpoints of a run hold.

Karras et al. 2024, Section 3.2 and Appendix C: the profile over training of any average is approximated by a linear
combination of the stored ones, which then combines their weights just so.
"""

import json
import math
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from iptv2_diffusion.engine.checkpoint import RUN, averages, check_whole, checkpoints, read_run
from iptv2_diffusion.engine.decay import POWER, check_name, gamma, is_constant, sigma_rel


@dataclass(frozen=True)
class Profile:
    """(gamma + 1) tau^gamma / step^(gamma + 1) for updates tau in [0, step]: the share of each in the average."""

    step: int
    gamma: float

    def dot(self, other: "Profile") -> float:
        """The integral of the product of both profiles."""
        first, last = sorted((self, other), key=lambda profile: profile.step)
        ratio = math.exp(last.gamma * math.log(first.step / last.step))
        return (first.gamma + 1) * (last.gamma + 1) * ratio / ((first.gamma + last.gamma + 1) * last.step)


@dataclass(frozen=True)
class Snapshot:
    folder: Path  # of the weights
    profile: Profile


def snapshots(output: Path, step: int) -> list[Snapshot]:
    """The power-function averages in the checkpoints of a run, up to that step; ValueError if there are none."""
    found = [
        Snapshot(place, Profile(number, gamma(sigma_rel(name))))
        for number, folder in checkpoints(output)
        if number <= step
        for name, place in averages(folder).items()
        if not is_constant(name)
    ]
    if not found:
        raise ValueError(f"{output} holds no power-function averages: train with --ema power-0.05 power-0.1, say")
    return found


def solve(profiles: Sequence[Profile], target: Profile) -> tuple[np.ndarray, float]:
    """The factors whose combination of `profiles` is nearest to `target`, and what stays of it, relative (0 is exact).

    They sum to 1, which the paper leaves to the fit: the weights would shrink or grow by what is missing.
    """
    products = np.array([[a.dot(b) for b in profiles] for a in profiles])
    goal = np.array([a.dot(target) for a in profiles])
    # In units of each profile's own norm; a multiplier's row and column hold the sum.
    units = np.append(1 / np.sqrt(np.diag(products)), 1.0)
    ones = np.ones((len(profiles), 1))
    system = np.block([[products, ones], [ones.T, np.zeros((1, 1))]]) * np.outer(units, units)
    factors = (np.linalg.lstsq(system, np.append(goal, 1.0) * units, rcond=None)[0] * units)[:-1]
    whole = target.dot(target)
    rest = whole - 2 * factors @ goal + factors @ products @ factors
    return factors, math.sqrt(max(rest, 0.0) / whole)


def reconstruct(run: Path, sigma: float, target: Path, step: int | None = None) -> tuple[int, float]:
    """Writes a checkpoint without training state, whose model is the average of relative width `sigma` after `step`.

    `step` is that of a checkpoint; None: of the newest. Returns the number of averages combined and the relative error
    of the profile. ValueError, FileNotFoundError or FileExistsError where that cannot be done.
    """
    name = f"{POWER}{sigma:g}"
    check_name(name)
    if target.exists():
        raise FileExistsError(f"{target} exists already")
    folders = dict(checkpoints(run))
    if not folders:
        raise FileNotFoundError(f"{run} holds no complete checkpoint-*")
    step = max(folders) if step is None else step
    if step not in folders:
        raise ValueError(f"{run} has no checkpoint of step {step}; it has {', '.join(map(str, folders))}")
    found = snapshots(run, step)
    factors, error = solve([snapshot.profile for snapshot in found], Profile(step, gamma(sigma)))
    _write(folders[step], target, [snapshot.folder for snapshot in found], factors, name)
    return len(found), error


def _write(source: Path, target: Path, folders: Sequence[Path], factors: np.ndarray, name: str) -> None:
    """A copy of the checkpoint `source` with another model and nothing to resume from."""
    files = [file.name for file in sorted((source / "model").glob("*.safetensors"))]
    for folder in folders:
        for file in files:
            check_whole(folder / file)
    unfinished = target.with_name(f".unfinished-{target.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source, unfinished, ignore=shutil.ignore_patterns("state", "ema"))
    for file in files:
        _combine([folder / file for folder in folders], factors, unfinished / "model" / file)
    run = read_run(source)
    run["config"]["ema"] = [name]
    (unfinished / RUN).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    os.rename(unfinished, target)


def _combine(files: Sequence[Path], factors: np.ndarray, target: Path) -> None:
    with ExitStack() as stack:
        sources = [stack.enter_context(safe_open(file, framework="pt")) for file in files]
        last = sources[-1]
        weights = {}
        for name in last.keys():  # noqa: SIM118 - not a mapping
            weights[name] = _combined([source.get_tensor(name) for source in sources], factors)
        save_file(weights, target, metadata=last.metadata())


def _combined(tensors: Sequence[Tensor], factors: np.ndarray) -> Tensor:
    """In float64; of counters and the like the last."""
    last = tensors[-1]
    if not last.is_floating_point():
        return last
    total = torch.zeros_like(last, dtype=torch.float64)
    for tensor, factor in zip(tensors, factors, strict=True):
        total.add_(tensor, alpha=factor)
    return total.to(last.dtype)
