"""Fixtures of all tests. The Hub client reads its settings at import, so they are set here."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # on a busy machine two threads can take forty times as long

sys.path.insert(0, str(Path(__file__).parent))

_HOME = tempfile.mkdtemp(prefix="posezoo-tests-")
os.environ.update(
    HF_HOME=_HOME,
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_XET="1",
    NO_PROXY="127.0.0.1,localhost",
    no_proxy="127.0.0.1,localhost",
    POSEZOO_CACHE=str(Path(_HOME) / "posezoo"),
)
for _name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "POSEZOO_HUB_NAMESPACE"):
    os.environ.pop(_name, None)

from standins.files import LocalOnly  # noqa: E402
from standins.hub import StandInHub  # noqa: E402

urllib.request.install_opener(urllib.request.build_opener(LocalOnly))
_HUB = StandInHub()
_HUB.__enter__()
os.environ["HF_ENDPOINT"] = _HUB.url


def fresh_sessions() -> None:
    """Close the Hub client's connections, which remember whether it was offline."""
    import huggingface_hub

    if hasattr(huggingface_hub, "close_session"):
        huggingface_hub.close_session()
    else:  # 0.x
        from huggingface_hub.utils import reset_sessions

        reset_sessions()


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    """The stand-in Hub, emptied; the Hub client of this process talks to it."""
    fresh_sessions()
    _HUB.repos.clear()
    _HUB.lfs.clear()
    _HUB.log.clear()
    _HUB.faults.clear()
    yield _HUB
    _HUB.faults.clear()


@pytest.fixture(autouse=True)
def _fresh_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own posezoo cache, and finds the Hub client's empty."""
    shutil.rmtree(Path(_HOME) / "hub", ignore_errors=True)
    monkeypatch.setenv("POSEZOO_CACHE", str(tmp_path / "posezoo-cache"))


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of real photos beside the repository; tests that want it skip without."""
    folder = Path(__file__).parents[2] / "shared" / "photos"
    if not folder.is_dir():
        pytest.skip("no real photos (../shared/photos)")
    return folder
