"""What the flags of a set of samples mean: labels, classes, protocols."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sample_flags import flags_of

from iptv2_diffusion.cli.drawing import named_labels
from iptv2_diffusion.cli.sample_config import SampleConfig, read_config
from iptv2_diffusion.cli.sample_many import draw_labels


def labels(**settings: Any) -> list[int]:
    config = SampleConfig(**{"output": Path("set"), "format": "png", "class_draw": "random"} | settings)
    return draw_labels(config, SimpleNamespace(num_classes=10, id2label={}, label_ids=lambda names: names))


def test_numbers_that_name_other_classes_are_refused() -> None:
    folders = sorted(map(str, range(20)))
    pipeline: Any = SimpleNamespace(id2label=dict(enumerate(folders)), label_ids=lambda names: names)
    assert named_labels(SampleConfig(classes=("0", "1")), pipeline) == [0, 1]
    for asked, message in (
        ("2", "--classes 2 may mean class 2, whose name is 10, or class 12, whose name is 2"),
        ("10", "--classes 10 may mean class 10, whose name is 18, or class 2, whose name is 10"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            named_labels(SampleConfig(classes=("0", asked)), pipeline)


def test_random_classes_are_uniform_and_follow_the_seed() -> None:
    drawn = labels(num_samples=5000)
    assert max(abs(count - 500) for count in Counter(drawn).values()) < 5 * 450**0.5  # five standard deviations
    assert labels(num_samples=20, seed=100) == drawn[100:120]
    pairs = Counter(pairwise(drawn))
    assert len(pairs) == 100
    assert max(abs(count - 50) for count in pairs.values()) < 5 * 50**0.5
    assert set(labels(num_samples=40, classes=("3", "5"))) == {3, 5}


def test_balanced_classes_come_equally_often_in_no_order() -> None:
    drawn = labels(num_samples=1003, class_draw="balanced")
    assert sorted(Counter(drawn).values()) == [100] * 7 + [101] * 3
    assert len(set(drawn[:30])) > 5
    assert drawn != labels(num_samples=1003, class_draw="balanced", seed=1)


def test_a_protocol_decides_and_its_settings_satisfy_it() -> None:
    config = read_config(flags_of("--protocol", "dit-paper-cfg1.5", "--output", "set", "--steps", 250))
    assert (config.scheduler, config.steps, config.cfg_scale, config.guidance_channels) == ("ddpm", 250, 1.5, 3)
    assert (config.quantise, config.class_draw, config.is_set, config.num_samples) == ("truncate", "random", True, None)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--cfg-scale", "4"), "--cfg-scale 4.0, not 1.5"),
        (("--steps", "50", "--quantise", "round"), "--steps 50, not 250, --quantise round, not truncate"),
        (("--scheduler", "ddim"), "--scheduler ddim, not ddpm"),
        (("--guidance-channels", "none"), "--guidance-channels None, not 3"),
        (("--class-draw", "balanced"), "--class-draw balanced, not random"),
        (("--guidance-interval", "0.1", "0.8"), "--guidance-interval (0.1, 0.8), not None"),
        (("--cache-interval", "2"), "--cache-interval 2, not 1"),
        (("--guide-ema", "0.999"), "--guide-ema 0.999, not None"),
        (("--classes", "3"), "--classes"),
        (("--size", "64"), "--size 64, not None"),
        (("--precision", "bf16"), "--precision bf16, not fp32"),
    ],
)
def test_flags_that_contradict_the_protocol_are_named(flags: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=r"--protocol dit-paper-cfg1\.5 contradicts") as error:
        read_config(flags_of("--protocol", "dit-paper-cfg1.5", "--output", "set", *flags))
    assert words in str(error.value)
