"""MATLAB files: the old format (v5) through SciPy, the new one (v7.3, which is HDF5) through h5py, both optional.

OSError where the package is missing.
"""

from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

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
    if not path.is_file():
        raise FileNotFoundError(f"expected a MATLAB file (v7.3), found no file {path}")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"cannot read {path} as a MATLAB file (v7.3): {error}") from error


def is_cell_array(entry: Any) -> bool:
    """Whether an entry of an `open_v73` file is one: an array of references."""
    h5py = _optional("h5py")
    return isinstance(entry, h5py.Dataset) and h5py.check_ref_dtype(entry.dtype) is not None


def cells(file: Any, array: Any) -> list[np.ndarray]:
    """Of a cell array of an `open_v73` file, with MATLAB's axes; a cell that is no array comes as an empty one."""
    entries = [file[reference] for reference in np.ravel(array)]
    return [np.asarray(entry[()] if hasattr(entry, "dtype") else ()).T for entry in entries]


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
