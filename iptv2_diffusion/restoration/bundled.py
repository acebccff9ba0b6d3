"""The small restorers that come with the package, by the names of their tasks. Standard library only."""

from collections.abc import Sequence
from pathlib import Path

from iptv2_diffusion.restoration.tasks import TASKS, members

FOLDER = Path(__file__).parents[1] / "assets" / "restorers"


def bundled_weights(task: str) -> Path | None:
    """The file of the restorer for that task, which `load_restorer` also finds under the task's name."""
    path = FOLDER / f"{task}.safetensors"
    return path if task in TASKS and path.is_file() else None


def bundled_tasks(wanted: str | None = None) -> Sequence[str]:
    """Those that have weights here, of all tasks or of the task or group that is named."""
    return [task for task in (TASKS if wanted is None else members(wanted)) if bundled_weights(task)]
