"""Tables of our scores beside the paper's."""

from typing import Any

from iptv2_diffusion.cli.scoreboard import scoreboard
from iptv2_diffusion.restoration.protocols import BENCHMARKS
from iptv2_diffusion.restoration.published import published


def made_up(benchmark: str, **means: float) -> dict[str, Any]:
    """A record as far as tables read it."""
    entry = BENCHMARKS[benchmark]
    parts = {"indoor": {"psnr": 28.0}} if benchmark == "dpdd-dual" else {}
    head = {"benchmark": benchmark, "title": entry.title, "table": entry.table, "model": {"name": "ours"}}
    return {**head, "parts": parts, "means": means, "pictures": 50, "pictures_of_the_set": entry.count}


def test_scores_stand_beside_the_papers() -> None:
    header, first, second = scoreboard([made_up("rain100h", psnr=31.456, ssim=0.9001)]).splitlines()
    assert header.split() == ["Table", "5", *published("rain100h"), "ours", "pictures"]
    assert " ".join(first.split()) == "Rain100H PSNR, dB 30.41 30.95 31.46 31.54 31.73 31.46 50 of 100"
    assert " ".join(second.split()) == "Rain100H SSIM 0.890 0.892 0.904 0.907 0.911 0.900 50 of 100"
    assert first.index("31.73") + 5 == header.index("Base") + 4  # columns end together


def test_tables_show_what_is_missing() -> None:
    records = [made_up(name, psnr=30.0) for name in ("cbsd68-25", "cbsd68-50", "gopro", "dpdd-dual", "test100")]
    colour, motion, defocus, rest = scoreboard([*records[:2], *records[2:]]).split("\n\n")
    assert colour.splitlines()[1].split()[-6:] == ["31.84", "-", "30.00", "50", "of", "68"]
    assert colour.splitlines()[2].split()[-6:] == ["28.65", "28.65", "30.00", "50", "of", "68"]
    assert " ".join(motion.splitlines()[1].split()) == "GoPro PSNR, dB 33.92 30.00 50 of 1111"
    assert "lacks its body" in motion.splitlines()[2]
    assert "indoor PSNR, dB" in defocus.splitlines()[1]
    assert defocus.splitlines()[1].split()[-5:] == ["29.90", "28.00", "50", "of", "76"]
    assert rest.splitlines()[0].startswith("the paper prints no figures")
    assert "scored by a server" in scoreboard([made_up("dnd")])
