"""Tens of thousands of samples: shared among processes, continued where a run stopped, the same whoever draws them.

Sample i has the seed SEED + i, from which its label, its noise and that of every step come. So the set does not depend
on batches or processes but for rounding, and with the same --batch-size not even for that.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from iptv2_diffusion.cli.common import say
from iptv2_diffusion.cli.drawing import Models, captions, check_request, describe, draw, load_models, named_labels
from iptv2_diffusion.cli.processes import own_device, processes
from iptv2_diffusion.cli.sample_config import USUAL_SET, SampleConfig
from iptv2_diffusion.cli.sample_folder import SampleFolder
from iptv2_diffusion.diffusion.protocols import differences, find_protocol
from iptv2_diffusion.rng import derived_generator, permutation

LABELS = 1  # the second key of the randomness of labels; that of noise has none


def draw_many(config: SampleConfig) -> None:
    """Draws whatever of the set is missing in --output. ValueError and OSError come before anything is written."""
    config = replace(
        config,
        num_samples=config.num_samples or USUAL_SET,
        class_draw=config.class_draw or "random",
        format=config.format or "png",
    )
    assert config.output is not None  # the config saw to it
    with processes(config.device) as state:
        models = load_models(config, own_device(config.device))
        check_request(config, models)
        labels = draw_labels(config, models.pipeline)
        folder = SampleFolder(config.output, _settings(config, models), labels, captions(models.pipeline, labels))
        missing = folder.missing()
        state.wait_for_everyone()  # nobody writes into the folder before everybody has looked at it
        if state.is_main_process and missing:
            folder.begin()
        state.wait_for_everyone()
        started = time.monotonic()
        _draw_missing(config, models, folder, missing, state)
        state.wait_for_everyone()
        if state.is_main_process:
            _finish(config, folder, len(missing), time.monotonic() - started)


def draw_labels(config: SampleConfig, pipeline: Any) -> list[int]:
    """Of the classes asked for: uniform and independent, or each as often as the others (but for one) and shuffled."""
    classes = named_labels(config, pipeline) or list(range(pipeline.num_classes))
    count = config.num_samples or 0
    if config.class_draw == "balanced":
        chosen = permutation(count, config.seed, LABELS) % len(classes)
        return [classes[index] for index in chosen.tolist()]
    generators = (derived_generator(config.seed + index, LABELS) for index in range(count))
    return [classes[int(torch.randint(len(classes), (), generator=generator))] for generator in generators]


def _settings(config: SampleConfig, models: Models) -> dict[str, Any]:
    """For settings.json. Whether there is an .npz besides the pictures is no setting, whether it is alone is one."""
    settings = describe(config, models) | {"format": "npz" if config.format == "npz" else "png"}
    del settings["output"]
    if config.protocol is not None and (found := differences(find_protocol(config.protocol), settings)):
        raise ValueError(f"--protocol {config.protocol}: these samples would not be its own: {', '.join(found)}")
    return settings


def _draw_missing(
    config: SampleConfig, models: Models, folder: SampleFolder, missing: Sequence[int], state: Any
) -> None:
    """This process's share of the batches of which something is missing."""
    batches = sorted({index // config.batch_size for index in missing})
    models.pipeline.set_progress_bar_config(disable=True)
    quiet = not (state.is_main_process and missing)
    total = len(folder.labels)
    with tqdm(total=total, initial=total - len(missing), unit="img", disable=quiet) as bar:
        for batch in batches[state.process_index :: state.num_processes]:
            _draw_batch(config, models, folder, batch * config.batch_size)
            if not quiet:
                bar.update(folder.count() - bar.n)


def _draw_batch(config: SampleConfig, models: Models, folder: SampleFolder, start: int) -> None:
    indices = range(start, min(start + config.batch_size, len(folder.labels)))
    labels = [folder.labels[index] for index in indices]
    pictures = draw(config, models, labels, [config.seed + index for index in indices])
    for index, pixels in zip(indices, pictures, strict=True):
        folder.add(index, pixels)


def _finish(config: SampleConfig, folder: SampleFolder, drawn: int, seconds: float) -> None:
    if missing := folder.missing():
        raise OSError(f"{len(missing)} samples are missing in {folder.path}: run the same command again")
    if drawn:
        say(f"{drawn} samples in {seconds:.0f} s, {drawn / seconds:.3g} a second")
    folder.finish(npz=config.format != "png")
    say(f"{len(folder.labels)} samples are in {folder.path}")
