"""Training of any task: `fit(task, TrainConfig(...))`. Nothing here knows what is being trained."""

from iptv2_diffusion.engine.checkpoint import averages, newest, read_run
from iptv2_diffusion.engine.log import read_records
from iptv2_diffusion.engine.loop import fit
from iptv2_diffusion.engine.settings import TrainConfig
from iptv2_diffusion.engine.task import Task

__all__ = ["Task", "TrainConfig", "averages", "fit", "newest", "read_records", "read_run"]
