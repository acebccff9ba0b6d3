import dataclasses
import re
import subprocess
import sys
from typing import Any

import pytest

from iptv2_diffusion.backbone.config import DENOISERS, RESTORERS, BackboneConfig, preset

SMALL: dict[str, Any] = {"width": 8, "layers": (2, 2, 2), "heads": (1, 2, 4)}


def make(**fields: Any) -> BackboneConfig:
    return BackboneConfig(**(SMALL | fields))


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"feed_forward": "mlp"}, ["feed_forward", "rep_leffn, leffn, ffn, gdfn", "'mlp'"]),
        ({"shift": "swin"}, ["shift", "interior, cyclic", "'swin'"]),
        ({"norm": "batch"}, ["norm", "centred, bias_free", "'batch'"]),
        ({"init": "zeros"}, ["init", "torch, xavier", "'zeros'"]),
        ({"attention": ("fcsa", "swin")}, ["attention", "fcsa, ggsa, mdta", "'swin'"]),
        ({"attention": ()}, ["at least one attention", "()"]),
        ({"heads": (1, 2)}, ["as many heads as levels", "(1, 2)", "(2, 2, 2)"]),
        ({"heads": (3, 2, 4)}, ["width", "(3, 2, 4)", "8"]),
        ({"width": 9, "heads": (1, 1, 1)}, ["even width", "9"]),
        ({"window": 12}, ["power of two", "12"]),
        ({"window": 1}, ["at least 2", "1"]),
        ({"window": 0}, ["power of two", "0"]),
        ({"grid": 0}, ["grid >= 1", "0"]),
        ({"resample_kernel": 2}, ["resample_kernel 1 or 3", "2"]),
        ({"parallel": True, "layers": (2, 3, 2)}, ["parallel", "even layers", "(2, 3, 2)"]),
        ({"parallel": True, "attention": ("fcsa",)}, ["parallel", "two attentions", "fcsa"]),
        ({"parallel": True, "refinement": 1}, ["parallel", "even"]),
        ({"size": 18}, ["multiple of 4", "18"]),
        # Counts and ratios that no network has.
        ({"layers": (), "heads": ()}, ["layers", "()"]),
        ({"layers": (2, -1, 2)}, ["layers", "-1"]),
        ({"refinement": -1}, ["refinement", "-1"]),
        ({"heads": (0, 2, 4)}, ["heads", "(0, 2, 4)"]),
        ({"width": 0}, ["width", "0"]),
        ({"size": 0}, ["size", "0"]),
        ({"inner_ratio": 0.0}, ["inner_ratio", "0.0"]),
        ({"inner_ratio": -1.0}, ["inner_ratio", "-1.0"]),
        ({"cond_dim": 0}, ["cond_dim", "0"]),
    ],
    ids=str,
)
def test_bad_input_is_refused_with_what_was_expected(fields: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ValueError, match=re.escape(parts[-1])) as error:
        make(**fields)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize("table", [DENOISERS, RESTORERS], ids=["denoisers", "restorers"])
def test_unknown_preset_lists_those_that_exist(table: dict[str, dict]) -> None:
    with pytest.raises(ValueError, match="IPTV2-Q") as error:
        preset(table, "IPTV2-Q")
    assert ", ".join(table) in str(error.value)


def test_a_preset_is_a_copy() -> None:
    preset(RESTORERS, "IPTV2-S")["width"] = 1
    assert preset(RESTORERS, "IPTV2-S")["width"] == 32


def test_names_of_the_presets() -> None:
    assert set(DENOISERS) == {"IPTV2-Ti", "IPTV2-S", "IPTV2-B", "IPTV2-L", "IPTV2-XL", "IPTV2-Ti-16"}
    assert set(RESTORERS) == {
        "IPTV2-Ti",
        "IPTV2-Lite",
        "IPTV2-Lite/2",
        "IPTV2-Lite+/2",
        "IPTV2-S",
        "IPTV2-B",
        "IPTV2-B+",
    }


def test_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().width = 16  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("fields", "windows", "grids", "bottoms"),
    [
        # Restoration: window 32 gives [32, 16, 8, 4], bottom branches always, the same grid everywhere.
        ({"window": 32, "grid": 8}, [32, 16, 8, 4], [8] * 4, [True] * 4),
        ({"window": 16, "grid": 16}, [16, 8, 4, 2], [16] * 4, [True] * 4),
        ({"window": 8}, [8, 4, 2, 2], [8] * 4, [True] * 4),  # never under 2
        # Latents of 32: half of it; grids no larger than the map.
        ({"size": 32, "window": 16, "grid": 8}, [16, 8, 4, 2], [8, 8, 8, 4], [True] * 4),
        ({"size": 32, "window": 16, "grid": 16}, [16, 8, 4, 2], [16, 16, 8, 4], [True] * 4),
        ({"size": 32, "window": 32}, [32, 16, 8, 4], [8, 8, 8, 4], [False] * 4),
        ({"size": 16, "window": 8}, [8, 4, 2, 2], [8, 8, 4, 2], [True, True, True, False]),
        ({"size": 16, "window": 64}, [16, 8, 4, 2], [8, 8, 4, 2], [False] * 4),  # never over the map
    ],
    ids=str,
)
def test_windows_and_grids_by_level(
    fields: dict[str, Any], windows: list[int], grids: list[int], bottoms: list[bool]
) -> None:
    config = make(layers=(1, 1, 1, 1), heads=(1, 1, 1, 1), **fields)
    assert [config.window_at(level) for level in range(4)] == windows
    assert [config.grid_at(level) for level in range(4)] == grids
    assert [config.has_bottom_branch(level) for level in range(4)] == bottoms


@pytest.mark.parametrize(("levels", "multiple", "out_width"), [(1, 1, 8), (2, 2, 16), (3, 4, 16), (4, 8, 16)])
def test_what_follows_from_the_number_of_levels(levels: int, multiple: int, out_width: int) -> None:
    config = make(layers=(1,) * levels, heads=(1,) * levels)
    assert (config.levels, config.multiple, config.out_width) == (levels, multiple, out_width)


def test_configuration_and_presets_load_without_torch() -> None:
    code = "import sys, iptv2_diffusion.backbone.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
