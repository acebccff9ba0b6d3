"""Command lines run in this process: what they print, and the one line that refused ones end with."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

Call = Callable[..., str]


def printed_by(
    main: Callable[[], None],
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Call:
    """Runs `main` with these words, its own name being the first, and more flags."""

    def run(*flags: object) -> str:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [*words, *map(str, flags)])
        main()
        return capsys.readouterr().out

    return run


def refusal_of(call: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*flags: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            call(*flags)
        assert stop.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        return lines[0]

    return run
