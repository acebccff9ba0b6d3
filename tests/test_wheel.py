"""A wheel holds all that the package needs: its bundled models work without the repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

ROOT = Path(__file__).resolve().parents[1]
LICENCES = {"LICENSE", "FLUENT_EMOJI_LICENSE", "restorers/LICENSE"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the contents of a wheel that was built from a copy of the sources."""
    copy, target = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("installed")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "iptv2_diffusion", copy / "iptv2_diffusion", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    (wheel,) = copy.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(target)
    return target


def run(installed: Path, folder: Path, *words: str) -> str:
    """Output of Python with the wheel, in another folder than the repository."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_every_file_of_the_package_is_in_the_wheel(installed: Path) -> None:
    def files(root: Path) -> set[str]:
        paths = (path.relative_to(root) for path in (root / "iptv2_diffusion").rglob("*") if path.is_file())
        return {str(path) for path in paths if "__pycache__" not in path.parts}

    assert files(installed) == files(ROOT)
    (notices,) = installed.glob("*.dist-info/licenses")
    found = {str(path.relative_to(notices)) for path in notices.rglob("*") if path.is_file()}
    assert {name.removeprefix("iptv2_diffusion/assets/") for name in found} == LICENCES


@pytest.mark.slow
def test_bundled_models_work_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    where = run(installed, tmp_path, "-c", "import iptv2_diffusion; print(iptv2_diffusion.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    Image.fromarray(data.astronaut()[:64, 60:140]).save(tmp_path / "photo.jpg")
    restore = ("-m", "iptv2_diffusion.cli.restore", "photo.jpg", "--task", "denoise", "--output", "restored")
    run(installed, tmp_path, *restore)
    flags = ("--cfg-scale", "4.0", "--steps", "2", "--num-samples", "1", "--output", "drawn")
    assert "bundled" in run(installed, tmp_path, "-m", "iptv2_diffusion.cli.sample", *flags)
    for name, size in (("restored/photo.jpg", (80, 64)), ("drawn/000000.png", (128, 128))):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == size
