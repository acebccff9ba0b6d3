"""Scripts in processes of their own, without the seconds that libraries take to be imported there.

Every process is a child of a server that has imported the libraries, but nothing of this package.
"""

import multiprocessing
import os
import runpy
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

LIBRARIES = [
    *("pytest", "torch", "torch._dynamo", "torch.utils.tensorboard", "accelerate", "timm.layers", "cv2"),
    *("diffusers.models.modeling_utils", "diffusers.models.autoencoders.autoencoder_kl"),
    *("diffusers.pipelines.pipeline_utils", "diffusers.schedulers.scheduling_ddpm"),
]
ON_CPU = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(LIBRARIES)


class Finished(NamedTuple):
    out: str
    err: str


def run(folder: Path, script: Path | str, *words: object, ranks: int = 1, seconds: float = 900) -> list[Finished]:
    """`python script words`, or `python -m script words` for a name; in several processes as a launcher starts them.

    They compute on the CPU. What each says is kept in the folder.
    """
    port, processes = _free_port(), []
    for rank in range(ranks):
        environment = dict(os.environ) | ON_CPU | ({} if ranks == 1 else _ranked(rank, ranks, port))
        said = folder / f"rank-{rank}"
        said.mkdir(parents=True)
        for end in Finished._fields:
            (said / end).touch()
        processes.append(SERVER.Process(target=_run, args=(said, script, [*map(str, words)], environment)))
        processes[-1].start()
    try:
        for process in processes:
            process.join(seconds)
    finally:
        for process in processes:
            process.kill()
            process.join()
    finished = [
        Finished(*((folder / f"rank-{rank}" / end).read_text() for end in Finished._fields)) for rank in range(ranks)
    ]
    assert [process.exitcode for process in processes] == [0] * ranks, finished
    return finished


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _ranked(rank: int, ranks: int, port: int) -> dict[str, str]:
    shared = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in (shared | {"RANK": rank, "LOCAL_RANK": rank}).items()}


def _run(folder: Path, script: Path | str, words: Sequence[str], environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, end in enumerate(Finished._fields, 1):
        os.dup2(os.open(folder / end, os.O_WRONLY | os.O_CREAT), number)
    import torch

    torch.set_num_threads(1)
    sys.argv[:] = [str(script), *words]
    if isinstance(script, Path):
        runpy.run_path(str(script), run_name="__main__")
    else:
        runpy.run_module(script, run_name="__main__", alter_sys=True)
