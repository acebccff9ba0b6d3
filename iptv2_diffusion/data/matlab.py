"""MATLAB files: the old format (v5) through SciPy, the new one (v7.3, which is HDF5) through h5py, both optional.

OSError where the package is missing.
"""

from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from iptv2_diffusion.data.image_writers import write_bytes


def load_v5(path: Path, variable: str) -> Any:
    """The array `variable`, and nothing else, of a file. ValueError naming the file without it."""
    scipy_io = _optional("scipy.io")
    try:
        content = scipy_io.loadmat(path, variable_names=[variable])
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged files raise a variety
        raise ValueError(f"cannot read {path} as a MATLAB file (v5): {error}") from error
    if variable not in content:
        raise ValueError(f"expected the variable {variable} in {path}, it has none of that name")
    return content[variable]


def open_v73(path: Path) -> Any:
    """An open `h5py.File`; arrays have MATLAB's axes in reverse. ValueError naming a file that is none."""
    h5py = _optional("h5py")
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"cannot read {path} as a MATLAB file (v7.3): {error}") from error


def save_v5(path: Path, variables: dict[str, Any], *, overwrite: bool = False) -> None:
    """The file appears whole or not at all. Arrays of type object become cell arrays."""
    file = BytesIO()
    _optional("scipy.io").savemat(file, variables, do_compression=True)
    write_bytes(path, file.getvalue(), overwrite=overwrite)


def _optional(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise OSError(f'MATLAB files need another package: pip install "iptv2-diffusion[mat]" ({error})') from error
