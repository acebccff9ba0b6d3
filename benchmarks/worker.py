"""One contender in a process of its own, which works only when it is told to.

The parent writes "time", "memory" or "profile" on a line and reads one answer back: seconds of a step, bytes of resident
memory that a step needs on top of what the process held before it, or the operators of a step with their calls and
milliseconds. The first line out describes the contender.
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


def operators(step) -> list[tuple[str, int, float]]:
    """Name, calls and own milliseconds (of the device, where there is one), the longest first."""
    with torch.profiler.profile() as profiler:
        step()
    on_gpu = torch.cuda.is_available()
    rows = [
        (event.key, event.count, (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e3)
        for event in profiler.key_averages()
    ]
    return sorted(rows, key=lambda row: -row[2])


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    contender = WORKLOADS[settings["work"]](settings)
    print(json.dumps({"parameters": contender.parameters, "macs": contender.macs}), flush=True)
    answers = {"time": seconds, "memory": peak_bytes, "profile": operators}
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()](contender.step)), flush=True)


if __name__ == "__main__":
    main()
