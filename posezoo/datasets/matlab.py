"""Reading MATLAB files in a process of its own: scipy can crash on damaged ones."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..errors import DataError

__all__ = ["load_mat"]

_SECONDS = 120  # the published files take one
_SCRIPT = """
import pickle, sys
from scipy.io import loadmat
content = loadmat(sys.argv[1], squeeze_me=sys.argv[2] == "True")
sys.stdout.buffer.write(pickle.dumps(content))
"""


def load_mat(path: str | Path, *, squeeze: bool = False) -> dict[str, Any]:
    """Return the variables of a MATLAB file; `squeeze` drops axes of length 1.

    Raises:
        DataError: scipy is not installed, or the file is missing, damaged or no MATLAB file.
    """
    if importlib.util.find_spec("scipy") is None:
        raise DataError(f"reading {path} needs scipy; run: pip install 'posezoo[eval]'")
    if not Path(path).is_file():
        raise DataError(f"cannot read {path} as a MATLAB file: there is no such file")
    paths = os.pathsep.join(folder for folder in sys.path if folder)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, str(path), str(squeeze)],
            capture_output=True, timeout=_SECONDS, env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip
        if done.returncode == 0:
            return dict(pickle.loads(done.stdout))
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines and done.returncode > 0 else "scipy crashed on it"
    except subprocess.TimeoutExpired:
        reason = f"scipy did not end within {_SECONDS} s"
    except Exception as error:  # of unpickling what a damaged file gave
        reason = str(error)
    raise DataError(f"cannot read {path} as a MATLAB file: {reason}; it is damaged: fetch it again")
