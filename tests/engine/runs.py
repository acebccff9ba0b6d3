"""Run as a script, by one of several processes: trains once per configuration given as JSON."""

import json
import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from accelerate import PartialState
from denoising import DenoisingTask, sharded
from toy import ToyTask, toy_config

from iptv2_diffusion.engine import fit


def main(runs: list[dict[str, Any]]) -> None:
    """`signal_at`: the position whose process sends itself SIGTERM; a broken loss is reported in error-<rank>.txt.

    `task` names another task, "denoiser"; `sharded` spreads the parameters over the processes.
    """
    for changes in runs:
        output, at, breaks_at = Path(changes.pop("output")), changes.pop("signal_at", -1), changes.pop("breaks_at", -1)
        denoiser, spread = changes.pop("task", "") == "denoiser", changes.pop("sharded", False)
        trainer = os.getpid()
        task = ToyTask(
            on_sample=lambda position, at=at, trainer=trainer: (
                os.kill(trainer, signal.SIGTERM) if position == at else None
            ),
            breaks_at=breaks_at,
        )
        try:
            with sharded("TransformerLayer" if denoiser else "Linear") if spread else nullcontext():
                fit(DenoisingTask() if denoiser else task, toy_config(output, **changes))
        except FloatingPointError as error:
            (output / f"error-{os.environ['RANK']}.txt").write_text(str(error))


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    finally:
        PartialState().destroy_process_group()
