"""The loader's benchmark runs and reports on pictures and pairs. Timings are no tests."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.loader import main


@pytest.mark.parametrize("pairs", [False, True])
def test_every_size_gets_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: bool) -> None:
    for folder in ("blur", "sharp"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            Image.fromarray(np.full((40, 50, 3), 99, np.uint8)).save(tmp_path / folder / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    data = ["--pairs", "blur", "sharp"] if pairs else ["--photographs", "sharp"]
    quick = ["--seconds", "0.01", "--sizes", "16", "32", "--tile", "32", "--overlap", "8"]
    monkeypatch.setattr("benchmarks.loader.STEP_PIXELS", 1)
    monkeypatch.setattr(sys, "argv", ["loader", *data, *quick, "--output", "result.md"])
    main()
    first, *rest = Path("result.md").read_text().splitlines()
    assert "1 threads; torch" in first
    assert rest[1] == f"`python -m benchmarks.loader {' '.join(data + quick)} --output result.md`"
    table = [re.findall(r"[\d.]+", line) for line in rest[-2:]]
    assert [row[0] for row in table] == ["16", "32"]
    assert all(float(value) > 0 for row in table for value in row)
    with pytest.raises(SystemExit):
        main()
