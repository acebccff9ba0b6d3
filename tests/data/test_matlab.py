import sys
from pathlib import Path

import pytest

from iptv2_diffusion.data.matlab import load_v5, open_v73


@pytest.mark.parametrize(("module", "call"), [("h5py", open_v73), ("scipy.io", lambda path: load_v5(path, "x"))])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, call) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(OSError, match=r'pip install "iptv2-diffusion\[mat\]"'):
        call(tmp_path / "x.mat")


def test_camera_shake_kernels_are_read(shared_data) -> None:
    pytest.importorskip("h5py")
    with open_v73(shared_data("levin09_kernels.mat")) as file:
        assert "kernels" in file
