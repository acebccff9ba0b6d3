"""Speed and memory beside the peers': `python -m benchmarks`.

Each row times contenders in turn in one run and prints the ratio of the medians to the first one named, the peer.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.duel import Figures, duel, environment, matmul_peak
from benchmarks.rows import ROWS, Row

HEADER = [
    "| work | contender | parameters, M | median, s | fastest, s | ratio | GFLOP/s | of peak | peak memory, MiB | ratio |",
    "|---|---|---|---|---|---|---|---|---|---|",
]
OPERATORS = 12  # of a profile


def _lines(title: str, figures: Sequence[Figures], peak: float) -> Iterable[str]:
    peer = figures[0]
    for f in figures:
        yield (
            f"| {title} | {f.name} | {f.parameters / 1e6:.1f} | {f.seconds:.3f} | {f.fastest:.3f} | "
            f"{f.seconds / peer.seconds:.2f} | {f.gflops:.1f} | {f.gflops / peak:.2f} | "
            f"{f.memory / 2**20:.0f} | {f.memory / max(peer.memory, 1):.2f} |"
        )


def _profile(title: str, figures: Figures) -> Iterable[str]:
    rows = figures.operators or []
    total = sum(milliseconds for *_, milliseconds in rows)
    yield from ["", f"{title}: {figures.name}, {total:.0f} ms in operators", ""]
    yield from ["| operator | calls | ms | share |", "|---|---|---|---|"]
    for name, calls, milliseconds in rows[:OPERATORS]:
        yield f"| `{name}` | {calls} | {milliseconds:.1f} | {milliseconds / total:.1%} |"


def _measured(row: Row, shared: dict[str, Any], rounds: int | None, profile: bool) -> list[Figures]:
    entries = [replace(entry, settings=entry.settings | shared) for entry in row.entries]
    return duel(entries, rounds or row.rounds, profile)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", default=list(ROWS), help=f"of {', '.join(ROWS)}; none: all")
    parser.add_argument("--rounds", type=int, help="counted steps of each contender; none: 1 to 7, fewer for long ones")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"), help="bf16: autocast")
    parser.add_argument("--profile", action="store_true", help="say which operators the time goes to")
    parser.add_argument("--output", type=Path, help="a Markdown file for the results; must not exist")
    return parser


def main() -> None:
    parser = make_parser()
    args = parser.parse_args()
    if unknown := set(args.rows) - set(ROWS):
        parser.error(f"unknown rows {', '.join(sorted(unknown))}, expected some of {', '.join(ROWS)}")
    if args.output and args.output.exists():
        parser.error(f"{args.output} exists")
    if args.rounds is not None and args.rounds < 1:
        parser.error(f"expected --rounds of at least 1, got {args.rounds}")
    shared = {"threads": args.threads, "device": args.device, "precision": args.precision}
    peak = matmul_peak(args.threads, args.device)
    report = [f"{environment(args.threads, args.device)}; {args.precision}; fp32 matmul peak {peak:.0f} GFLOP/s", ""]
    report += [f"`python -m benchmarks {' '.join(sys.argv[1:])}`", "", *HEADER]
    profiles: list[str] = []
    for name in args.rows:
        figures = _measured(ROWS[name], shared, args.rounds, args.profile)
        lines = list(_lines(ROWS[name].title, figures, peak))
        report += lines
        if args.profile:
            details = [line for f in figures for line in _profile(ROWS[name].title, f)]
            profiles += details
            lines += details
        print("\n".join(lines), flush=True)
        if args.output:  # after every row, so that an interruption loses one at most
            args.output.write_text("\n".join(report + profiles) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
