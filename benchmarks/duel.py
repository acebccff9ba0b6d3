"""Contenders timed in turn: A B A B ..., each in a process of its own that waits while the other works."""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO, Any, cast

import torch
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
PLAIN = "10068cb"  # the implementation before any work on speed


@dataclass(frozen=True)
class Entry:
    """A contender: what it is called, what it does, and the version of the package it does it with."""

    name: str
    settings: dict[str, Any]
    commit: str | None = None  # None: the working tree


@dataclass(frozen=True)
class Figures:
    name: str
    parameters: int
    seconds: float  # median
    fastest: float
    memory: int  # bytes on top of what the process held before a step
    macs: int  # of a step
    operators: list[tuple[str, int, float]] | None = None  # name, calls, milliseconds

    @property
    def gflops(self) -> float:
        """Achieved, a multiply-accumulate counted as two."""
        return 2 * self.macs / self.seconds / 1e9


class Worker:
    def __init__(self, entry: Entry, package: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(package)}
        command = [sys.executable, str(HERE / "worker.py"), json.dumps(entry.settings)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, env=environment, text=True, **pipes)
        self._name = entry.name
        description = self._read()
        self.parameters: int = description["parameters"]
        self.macs: int = description["macs"]

    def ask(self, question: str) -> Any:
        pipe = cast(IO[str], self._process.stdin)
        pipe.write(question + "\n")
        pipe.flush()
        return self._read()

    def close(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            cast(IO[str], pipe).close()
        self._process.wait()

    def _read(self) -> Any:
        line = cast(IO[str], self._process.stdout).readline()
        if not line:
            code = self._process.wait()
            self.close()
            reason = "killed, perhaps for want of memory" if code == -9 else f"exit code {code}"
            raise RuntimeError(f"a contender ended by itself ({reason}): {self._name}")
        return json.loads(line)


def duel(entries: Sequence[Entry], rounds: int, profile: bool = False) -> list[Figures]:
    """Contenders take turns; the first steps, two or for few rounds one, are not counted."""
    warmup = 1 if rounds <= 3 else 2
    with ExitStack() as stack:
        workers = []
        for entry in entries:
            worker = Worker(entry, stack.enter_context(package_at(entry.commit)))
            stack.callback(worker.close)
            workers.append(worker)
        times: list[list[float]] = [[] for _ in workers]
        for turn in tqdm(range(warmup + rounds), desc=" / ".join(entry.name for entry in entries), leave=False):
            for worker, record in zip(workers, times, strict=True):
                taken = worker.ask("time")
                if turn >= warmup:
                    record.append(taken)
        memory = [int(worker.ask("memory")) for worker in workers]
        operators = [worker.ask("profile") if profile else None for worker in workers]
        rows = zip(entries, workers, times, memory, operators, strict=True)
        return [Figures(e.name, w.parameters, median(t), min(t), m, w.macs, o) for e, w, t, m, o in rows]


@contextmanager
def package_at(commit: str | None) -> Iterator[Path]:
    """A folder that holds the package as of a commit."""
    if commit is None:
        yield REPOSITORY
        return
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", commit, "iptv2_diffusion"], cwd=REPOSITORY, check=True, stdout=subprocess.PIPE
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


def matmul_peak(threads: int, device: str) -> float:
    """GFLOP/s of a product of two 2048 x 2048 matrices in fp32."""
    settings = {"work": "matmul", "size": 2048, "threads": threads, "device": device}
    (figures,) = duel([Entry("matmul", settings)], rounds=8)
    return figures.gflops


def environment(threads: int, device: str) -> str:
    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    hardware = torch.cuda.get_device_name() if device.startswith("cuda") else f"{cpu}, {threads} threads"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True)
    return f"{hardware}; torch {torch.__version__}; Python {platform.python_version()}; commit {commit.stdout.strip()}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []
