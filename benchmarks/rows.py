"""The claims, a row each: who works beside whom, and on what. The first contender of a row is what the others compare to."""

from dataclasses import dataclass
from typing import Any

from benchmarks.duel import PLAIN, Entry

DIT_16 = "DiT-7x180"  # within 1 % of the cost of IPTV2-Ti-16 on 4x16x16


@dataclass(frozen=True)
class Row:
    title: str
    entries: list[Entry]
    rounds: int = 7


def _against(title: str, peer: str, ours: str, *, rounds: int = 7, plain: bool = True, **settings: Any) -> Row:
    """The peer, ours, and ours as it was before any work on speed."""
    before = [Entry(f"{ours}, plain", settings | {"model": ours}, commit=PLAIN)] if plain else []
    return Row(title, [Entry(name, settings | {"model": name}) for name in (peer, ours)] + before, rounds)


def _against_plain(title: str, ours: str, *, rounds: int = 7, **settings: Any) -> Row:
    settings |= {"model": ours}
    return Row(title, [Entry(f"{ours}, plain", settings, commit=PLAIN), Entry(ours, settings)], rounds)


def _checkpointed() -> Row:
    settings = {"work": "denoiser-update", "size": 32, "batch": 32}
    ours = settings | {"model": "IPTV2-S", "checkpointing": True}
    entries = [Entry("DiT-S/2", settings | {"model": "DiT-S/2"}), Entry("IPTV2-S, checkpointing", ours)]
    return Row("training step, 32 x 4x32x32", entries, rounds=1)


def _growth(name: str) -> Row:
    entries = [
        Entry(f"{name}, {size}x{size}", {"work": "restorer-forward", "model": name, "size": size, "batch": 1})
        for size in (512, 1024)
    ]
    return Row("growth with the image", entries, rounds=3)


_S: dict[str, Any] = {"peer": "DiT-S/2", "ours": "IPTV2-S", "size": 32}
_RESTORER: dict[str, Any] = {"peer": "Restormer", "work": "restorer-forward", "batch": 1}
_EMOJI: dict[str, Any] = {"ours": "IPTV2-Ti-16", "work": "denoiser-update", "size": 16, "batch": 32}

ROWS: dict[str, Row] = {
    "forward": _against("forward, 8 x 4x32x32", **_S, batch=8, work="denoiser-forward"),
    "forward-compiled": _against(
        "forward, 8 x 4x32x32, compiled", **_S, batch=8, work="denoiser-forward", compile=True, plain=False
    ),
    "backward": _against("forward and backward, 8 x 4x32x32", **_S, batch=8, work="denoiser-backward", rounds=5),
    "update": _against("training step, 32 x 4x32x32", **_S, batch=32, work="denoiser-update", rounds=2, plain=False),
    "update-checkpointed": _checkpointed(),
    "base-256": _against("restoration, 256x256", **_RESTORER, ours="IPTV2-B", size=256, rounds=5),
    "base-512": _against("restoration, 512x512", **_RESTORER, ours="IPTV2-B", size=512, rounds=1),
    "small-256": _against("restoration, 256x256", **_RESTORER, ours="IPTV2-S", size=256, rounds=5),
    "nafnet-256": _against(
        "restoration, 256x256", "NAFNet", "IPTV2-S", work="restorer-forward", size=256, batch=1, rounds=5
    ),
    "growth": _growth("IPTV2-Ti"),
    "emoji": _against_plain("training step, 32 x 4x16x16", **_EMOJI),
    "emoji-dit": _against("training step, 32 x 4x16x16", DIT_16, **_EMOJI),
    "patches": _against_plain(
        "restorer's forward and backward, 8 x 3x64x64", "IPTV2-Ti", work="restorer-backward", size=64, batch=8
    ),
}
