"""SIGKILL at any moment, of a run that is always started with --resume."""

import itertools
import multiprocessing
import os
import random
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import ToyTask, assert_same_checkpoint, records, toy_config

from iptv2_diffusion.engine import fit, newest, read_run

EVERY, KILLS, STEPS = 3, 20, 3000
TOUCHES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir"}
UNFINISHED = ".checkpoint-"  # how the folder of one that is being written begins


def train(output: Path, touched: str, touch: int, waiting: Connection | None) -> None:
    """Dies when it touches a path with `touched` in it for the `touch`-th time, or tells so and goes on."""
    torch.set_num_threads(1)
    touches = itertools.count(1)

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in TOUCHES or touched not in str(arguments[0]) or next(touches) != touch:
            return
        if waiting is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            waiting.send_bytes(b"!")

    sys.addaudithook(count)
    fit(Guarded(), config(output, resume=True))


class Guarded(ToyTask):
    """Its best weights are kept, too."""

    monitor = "loss"


def config(output, **changes):
    changes = {"steps": STEPS, "tracker": None, "preview_every": None, "ema": ("0.9", "power-0.1")} | changes
    return toy_config(output, checkpoint_every=EVERY, validate_every=2, keep=2, **changes)


def last_recorded(output) -> int:
    lines = (output / "stats.jsonl").read_text().splitlines() if (output / "stats.jsonl").exists() else []
    steps = [int(line.split(",")[0].split()[-1]) for line in lines if line.endswith("}")]
    return max(steps, default=0)


def kill_somewhere(output, draw: random.Random, number: int, context) -> None:
    """At a random access to the folder, in every fourth run to an unfinished checkpoint, or a few milliseconds later."""
    receiver, sender = context.Pipe(duplex=False)
    touched, last = (UNFINISHED, 20) if number % 4 == 0 else (str(output), 150)
    waiting = None if number % 2 == 0 else sender
    process = context.Process(target=train, args=(output, touched, draw.randint(1, last), waiting))
    process.start()
    sender.close()
    if waiting is not None:
        receiver.recv_bytes()
        time.sleep(draw.uniform(0, 0.03))
        process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "finished or failed before it was killed"


@pytest.mark.slow
def test_killing_never_loses_more_than_the_steps_since_the_last_checkpoint(tmp_path, monkeypatch):
    """One run, killed 20 times and resumed each time, ends as one that was left alone, bit for bit."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toy"])
    draw, output, unfinished = random.Random(0), tmp_path / "killed", 0
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for the server's imports
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for number in range(KILLS):
        kill_somewhere(output, draw, number, context)
        unfinished += any(output.glob(f"{UNFINISHED}*"))
        folder = newest(output)
        assert 0 <= last_recorded(output) - (read_run(folder)["step"] if folder else 0) <= EVERY
    assert unfinished >= KILLS // 4, "no kill fell into the writing of a checkpoint"
    folder = newest(output)
    assert folder is not None
    steps = -(-(read_run(folder)["step"] + 1) // EVERY) * EVERY
    assert fit(Guarded(), config(output, steps=steps, resume=True)) == steps
    fit(Guarded(), config(tmp_path / "whole", steps=steps))
    assert records(output) == records(tmp_path / "whole")
    assert sorted(os.listdir(output)) == sorted(os.listdir(tmp_path / "whole"))
    assert_same_checkpoint(*(run / f"checkpoint-{steps:08d}" for run in (output, tmp_path / "whole")), averages=2)
