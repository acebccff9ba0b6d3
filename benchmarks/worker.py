"""One contender in a process of its own, which works only when it is told to.

The parent writes "time" or "memory" on a line and reads one number back: seconds of a step, or bytes of resident memory
that a step needs on top of what the process held before it. The first line out describes the contender.
"""

import contextlib
import ctypes
import gc
import json
import sys
import time
from pathlib import Path

import torch
from workloads import WORKLOADS

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(field: str) -> int:
    """A field of /proc/self/status in bytes: VmRSS now, VmHWM at its highest."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def seconds(step) -> float:
    start = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_bytes(step) -> int:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # hand back what earlier steps left in the allocator
        CLEAR.write_text("5")  # forget the highest value so far
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    contender = WORKLOADS[settings["work"]](settings)
    print(json.dumps({"parameters": contender.parameters}), flush=True)
    answers = {"time": seconds, "memory": peak_bytes}
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()](contender.step)), flush=True)


if __name__ == "__main__":
    main()
