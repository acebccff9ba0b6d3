"""Progressive learning: samples grow and batches shrink at fixed steps (Section 4, implementation details)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

SPELLING = re.compile(r"(\d+):(\d+)x(\d+)")


@dataclass(frozen=True)
class Stage:
    start: int  # the first update of the stage, from 0
    first: int  # the first position of its part of the training stream
    batch_size: int  # samples per update over all processes
    size: int | None = None  # pixels a side; None: the task's own


class Stages:
    """Where each step and each position of the stream belongs."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = tuple(stages)

    def at(self, step: int) -> Stage:
        return next(stage for stage in reversed(self._stages) if stage.start <= step)

    def of(self, position: int) -> Stage:
        return next(stage for stage in reversed(self._stages) if stage.first <= position)

    def first_position(self, step: int) -> int:
        """Of update `step`, which is the number of samples that earlier updates take."""
        stage = self.at(step)
        return stage.first + (step - stage.start) * stage.batch_size

    def __iter__(self):
        return iter(self._stages)


def parse_stages(texts: Sequence[str]) -> Stages:
    """From items START:SIZExBATCH, "116000:192x32" for instance; ValueError where they make no sense."""
    rows: list[tuple[int, int, int]] = []
    for text in texts:
        match = SPELLING.fullmatch(text)
        if not match or not int(match[2]) or not int(match[3]):
            raise ValueError(f"stages: expected START:SIZExBATCH such as 116000:192x32, got {text}")
        rows.append((int(match[1]), int(match[2]), int(match[3])))
    starts = [start for start, *_ in rows]
    if not rows or starts[0] != 0 or starts != sorted(set(starts)):
        raise ValueError(f"stages: expected starts that rise from 0, got {' '.join(map(str, starts)) or 'none'}")
    stages = [Stage(0, 0, rows[0][2], rows[0][1])]
    for start, size, batch_size in rows[1:]:
        last = stages[-1]
        stages.append(Stage(start, last.first + (start - last.start) * last.batch_size, batch_size, size))
    return Stages(stages)
