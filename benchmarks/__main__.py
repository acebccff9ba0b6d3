"""Speed and memory beside the peers': `python -m benchmarks`.

Each row times contenders in turn in one run and prints the ratio of the medians to the first one named, the peer.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.duel import PLAIN, Entry, Figures, duel, environment, matmul_peak

Row = tuple[str, Callable[[dict[str, Any]], list[Entry]]]


def _against(peer: str, ours: str, **settings: Any) -> Callable[[dict[str, Any]], list[Entry]]:
    """The peer, ours, and ours as it was before any work on speed."""

    def entries(shared: dict[str, Any]) -> list[Entry]:
        common = {"compile": False} | settings | shared
        return [
            Entry(peer, common | {"model": peer}),
            Entry(ours, common | {"model": ours}),
            Entry(f"{ours}, plain", common | {"model": ours}, commit=PLAIN),
        ]

    return entries


def _against_plain(ours: str, **settings: Any) -> Callable[[dict[str, Any]], list[Entry]]:
    def entries(shared: dict[str, Any]) -> list[Entry]:
        common = {"compile": False, "model": ours} | settings | shared
        return [Entry(f"{ours}, plain", common, commit=PLAIN), Entry(ours, common)]

    return entries


_S = {"size": 32, "batch": 8}
ROWS: dict[str, Row] = {
    "forward": ("forward, 8 x 4x32x32", _against("DiT-S/2", "IPTV2-S", work="denoiser-forward", **_S)),
    "forward-compiled": (
        "forward, 8 x 4x32x32, torch.compile",
        _against("DiT-S/2", "IPTV2-S", work="denoiser-forward", **(_S | {"compile": True})),
    ),
    "backward": ("forward and backward, 8 x 4x32x32", _against("DiT-S/2", "IPTV2-S", work="denoiser-backward", **_S)),
    "update": (
        "training step, 32 x 4x32x32",
        _against("DiT-S/2", "IPTV2-S", work="denoiser-update", size=32, batch=32),
    ),
    "base-256": ("restoration, 256x256", _against("Restormer", "IPTV2-B", work="restorer-forward", size=256, batch=1)),
    "base-512": ("restoration, 512x512", _against("Restormer", "IPTV2-B", work="restorer-forward", size=512, batch=1)),
    "small-256": ("restoration, 256x256", _against("Restormer", "IPTV2-S", work="restorer-forward", size=256, batch=1)),
    "emoji": (
        "training step, 32 x 4x16x16",
        _against_plain("IPTV2-Ti-16", work="denoiser-update", size=16, batch=32),
    ),
    "patches": (
        "restorer's forward and backward, 8 x 3x64x64",
        _against_plain("IPTV2-Ti", work="restorer-backward", size=64, batch=8),
    ),
}


def _lines(title: str, figures: Sequence[Figures]) -> list[str]:
    peer = figures[0]
    return [
        f"| {title} | {f.name} | {f.parameters / 1e6:.1f} | {f.seconds:.3f} | {f.fastest:.3f} | "
        f"{f.seconds / peer.seconds:.2f} | {f.memory / 2**20:.0f} | {f.memory / max(peer.memory, 1):.2f} |"
        for f in figures
    ]


HEADER = [
    "| work | contender | parameters, M | median, s | fastest, s | ratio | peak memory, MiB | ratio |",
    "|---|---|---|---|---|---|---|---|",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", default=list(ROWS), help=f"of {', '.join(ROWS)}; none: all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="a Markdown file for the results; must not exist")
    args = parser.parse_args()
    if unknown := set(args.rows) - set(ROWS):
        parser.error(f"unknown rows {', '.join(sorted(unknown))}, expected some of {', '.join(ROWS)}")
    if args.output and args.output.exists():
        parser.error(f"{args.output} exists")
    shared = {"threads": args.threads, "device": args.device}
    report = [f"{environment(**shared)}; matmul peak {matmul_peak(**shared):.0f} GFLOP/s", ""]
    report += [f"`python -m benchmarks {' '.join(sys.argv[1:])}`", "", *HEADER]
    for name in args.rows:
        title, entries = ROWS[name]
        lines = _lines(title, duel(entries(shared), args.rounds))
        print("\n".join(lines), flush=True)
        report += lines
        if args.output:  # after every row, so that an interruption loses one at most
            args.output.write_text("\n".join(report) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
