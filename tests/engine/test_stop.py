"""Signals end a run after the step that they come in."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy import ToyTask, assert_same_checkpoint, records, toy_config

from iptv2_diffusion.engine import fit, newest, read_run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_ends_with_a_checkpoint(tmp_path, number, workers, caplog):
    """Sent while step 3 fetches its data (by a worker possibly ahead of it): the step is finished first."""
    trainer = os.getpid()
    previous = signal.getsignal(number)
    task = ToyTask(on_sample=lambda position: os.kill(trainer, number) if position == 2 * 8 + 1 else None)
    done = fit(task, toy_config(tmp_path / "parts", steps=500, checkpoint_every=1000, workers=workers))
    assert done == 3 if workers == 0 else done < 500
    assert f"stopped by {number.name} after step {done}" in caplog.text
    assert signal.getsignal(number) is previous
    folder = newest(tmp_path / "parts")
    assert folder is not None
    assert read_run(folder)["step"] == done
    fit(ToyTask(), toy_config(tmp_path / "parts", steps=done + 2, resume=True))
    fit(ToyTask(), toy_config(tmp_path / "whole", steps=done + 2))
    name = f"checkpoint-{done + 2:08d}"
    assert_same_checkpoint(tmp_path / "whole" / name, tmp_path / "parts" / name)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_process_group_spares_the_workers(tmp_path, number):
    """As Ctrl-C in a terminal, or a scheduler, sends it."""
    script = Path(__file__).with_name("runs.py")
    runs = [{"output": str(tmp_path), "steps": 1_000_000, "checkpoint_every": 1_000_000, "workers": 2}]
    environment = os.environ | {"PYTHONPATH": str(script.parents[2])}
    process = subprocess.Popen(
        [sys.executable, str(script), json.dumps(runs)], env=environment, start_new_session=True, stderr=subprocess.PIPE
    )
    try:
        while process.poll() is None and not (tmp_path / "stats.jsonl").exists():
            time.sleep(0.05)
        os.killpg(process.pid, number)
        errors = process.communicate(timeout=60)[1].decode()
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    folder = newest(tmp_path)
    assert folder is not None
    assert read_run(folder)["step"] == records(tmp_path)[-1]["step"]
