"""The benchmark's own arithmetic and its rows. Timings are no tests."""

from typing import Any

import pytest

from benchmarks.__main__ import make_parser
from benchmarks.duel import Entry, duel
from benchmarks.rows import DIT_16, ROWS
from benchmarks.workloads import WORKLOADS, denoiser_forward

CPU: dict[str, Any] = {"threads": 1, "device": "cpu", "precision": "fp32"}


def test_contenders_take_turns_and_report() -> None:
    settings = CPU | {"work": "matmul", "size": 96}
    figures = duel([Entry("one", settings), Entry("two", settings)], rounds=2, profile=True)
    assert [f.name for f in figures] == ["one", "two"]
    for f in figures:
        assert f.macs == 96**3
        assert 0 < f.fastest <= f.seconds
        assert f.gflops == pytest.approx(2 * 96**3 / f.seconds / 1e9)
        assert [calls for name, calls, _ in f.operators or [] if name == "aten::mm"] == [1]


def test_a_contender_that_fails_is_named() -> None:
    with pytest.raises(RuntimeError, match="broken"):
        duel([Entry("broken", CPU | {"work": "none"})], rounds=1)


@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_rows_name_work_that_exists(row: Any) -> None:
    assert len({entry.name for entry in row.entries}) == len(row.entries) > 1
    assert {entry.settings["work"] for entry in row.entries} <= set(WORKLOADS)
    assert row.rounds >= 1


def test_the_small_dit_costs_what_the_small_denoiser_costs() -> None:
    settings = CPU | {"size": 16, "batch": 1}
    ours, dit = (denoiser_forward(settings | {"model": name}).macs for name in ("IPTV2-Ti-16", DIT_16))
    assert dit == pytest.approx(ours, rel=0.02)


@pytest.mark.parametrize("flags", [["forward", "base-256", "--rounds", "9"], ["backward", "--profile"], []])
def test_documented_flags_parse(flags: list[str]) -> None:
    assert make_parser().parse_args(flags).rows
