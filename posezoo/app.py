"""A page for a browser: drop a photo or a short film, see the poses. What a Hub Space runs.

Everything that is uploaded or made is in one temporary folder, which is removed when the page
ends; files older than an hour are removed before.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .draw import draw_poses
from .errors import InputError, PoseZooError
from .media.film import FilmWriter
from .media.video import frame_rate
from .outputs.formats import JsonLines
from .predictor import PosePredictor
from .results import PoseResult
from .streaming import FrameResult
from .tokenview import shows_tokens, token_rows
from .zoo.catalog import OFFLINE_MODEL, list_models

__all__ = ["PosePage", "build", "serving"]

_MEGABYTES = 64  # of an upload
_SECONDS = 60.0  # of computation for a film; what is found by then is shown
_FILM = 20.0  # seconds of a film that are looked at
_KEPT = 3600  # seconds for which files are kept
_PIXELS = 1280  # longer side of the picture that is shown
_WHOLE, _DETECTOR = "the whole image is one person", "find the people"


class PosePage:
    """What the page does, without the page.

    Args:
        models: names to choose from.
        folder: where files are written.
        seconds: for one film.
    """

    def __init__(self, models: Sequence[str], folder: Path, seconds: float = _SECONDS) -> None:
        self.models, self.folder, self.seconds = list(models), folder, seconds
        self._predictor = lru_cache(maxsize=2)(_make_predictor)

    def photo(
        self, image: NDArray[np.uint8] | None, model: str, people: str, threshold: float
    ) -> tuple[Any, str, list[list[Any]], Any, str]:
        """Return picture, summary, table, tokens and the JSON file of a photo.

        Raises:
            InputError: no photo was given, or it cannot be used.
        """
        if image is None:
            raise InputError("there is no photo yet; drop one")
        predictor = self._predictor(self._known(model), people == _DETECTOR)
        start = time.perf_counter()
        result = predictor(image)
        words = f"{_people(len(result))} in {1000 * (time.perf_counter() - start):.0f} ms"
        tokens = None
        if shows_tokens(predictor) and len(result):
            tokens = token_rows(predictor, image, result.bboxes)
        picture = draw_poses(image, result, threshold=threshold)
        picture.thumbnail((_PIXELS, _PIXELS))
        file = self._file(".json", json.dumps(result.to_dict()) + "\n")
        return picture, words, _table(result, threshold), tokens, file

    def film(
        self, path: str | None, model: str, people: str, threshold: float
    ) -> tuple[str | None, str, str]:
        """Return the film with poses, a summary, and the file of JSON lines.

        Raises:
            InputError: no film was given, or it cannot be read.
        """
        if path is None:
            raise InputError("there is no film yet; drop one")
        predictor = self._predictor(self._known(model), people == _DETECTOR)
        start = time.perf_counter()
        try:
            rate = frame_rate(Path(path))
        except InputError as error:
            raise _without_folder(error, path) from error
        out = Path(tempfile.mkdtemp(dir=self.folder), "poses.mp4")
        form, lines, frames, count = JsonLines(), [], 0, 0
        stream = predictor.stream(path, stop=_FILM, track=True, smooth="savgol", detect_every=5)
        with FilmWriter(out, rate) as film:
            for found in stream:
                lines.append(form.text(_without_path(found)))
                if found.result is None or found.image is None:
                    continue
                picture = draw_poses(found.image, found.result, threshold=threshold)
                film.write(np.asarray(picture), found.time or 0.0)
                frames, count = frames + 1, count + len(found.result)
                if time.perf_counter() - start > self.seconds:
                    break
        seconds = time.perf_counter() - start
        if not frames:
            raise InputError(str(json.loads(lines[0])["error"]) if lines else "an empty film")
        words = f"{frames} frame{'s' * (frames > 1)}, {_people(count)}"
        words += f", {frames / seconds:.1f} frames per second"
        if seconds > self.seconds:
            words += f"; stopped after {self.seconds:.0f} s"
        return str(out), words, self._file(".jsonl", "".join(lines))

    def _known(self, model: str) -> str:
        if model not in self.models:
            raise InputError(f"model is {model!r}; valid: {', '.join(self.models)}")
        return model

    def _file(self, ending: str, text: str) -> str:
        path = Path(tempfile.mkdtemp(dir=self.folder), f"poses{ending}")
        path.write_text(text, encoding="utf-8")
        return str(path)


def _make_predictor(model: str, detect: bool) -> PosePredictor:
    return PosePredictor(model, detector="auto" if detect else None)


def _people(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"


def _without_path(found: FrameResult) -> FrameResult:
    """Leave the folder of the server out of what is handed back."""
    name = Path(found.source).name
    error = None if found.error is None else _without_folder(found.error, found.source)
    return FrameResult(
        source=name, index=found.index, time=found.time, error=error, result=found.result
    )


def _without_folder(error: InputError, path: str) -> InputError:
    return InputError(str(error).replace(path, Path(path).name))


def _table(result: PoseResult, threshold: float) -> list[list[Any]]:
    return [
        [person + 1, name, round(float(x), 1), round(float(y), 1), round(float(score), 2)]
        for person in range(len(result))
        for name, (x, y), score in zip(
            result.skeleton.keypoint_names,
            result.keypoints[person],
            result.keypoint_scores[person],
        )
        if score >= threshold
    ]


@contextmanager
def _own_folder() -> Iterator[Path]:
    """Give the folder that gradio and the page write to, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="posezoo-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        yield Path(folder)


def build(page: PosePage, title: str = "posezoo") -> Any:
    """Return the page as `gradio.Blocks`.

    Raises:
        InputError: gradio is not installed.
    """
    gradio = _import_gradio()

    def told(function: Any) -> Any:
        def run(*values: Any) -> Any:
            try:
                return function(*values)
            except PoseZooError as error:
                raise gradio.Error(str(error), print_exception=False) from error

        return run

    with gradio.Blocks(
        title=title, analytics_enabled=False, delete_cache=(_KEPT // 4, _KEPT)
    ) as blocks:
        gradio.Markdown(
            f"# {title}\nKeypoints of people. Up to {_MEGABYTES} MB; of films the first "
            f"{_FILM:.0f} seconds. Files are deleted within an hour."
        )
        with gradio.Row():
            model = gradio.Dropdown(page.models, value=page.models[0], label="Model")
            people = gradio.Radio([_WHOLE, _DETECTOR], value=_WHOLE, label="People")
            threshold = gradio.Slider(0, 1, 0.3, step=0.05, label="Smallest score shown")
        with gradio.Tab("Photo"):
            with gradio.Row():
                photo = gradio.Image(type="numpy", sources=["upload", "webcam"], label="Photo")
                picture = gradio.Image(type="pil", format="png", label="Poses")
            find = gradio.Button("Find poses", variant="primary")
            words = gradio.Markdown()
            with gradio.Row():
                table = gradio.Dataframe(
                    headers=["person", "keypoint", "x", "y", "score"], label="Keypoints"
                )
                tokens = gradio.Image(
                    type="pil", format="png", label="Tokens (TCFormer's regions, TMPose's mask)"
                )
            file = gradio.File(label="JSON")
            find.click(
                told(page.photo), [photo, model, people, threshold],
                [picture, words, table, tokens, file], api_name="photo",
            )  # fmt: skip
        with gradio.Tab("Film"):
            with gradio.Row():
                film = gradio.Video(sources=["upload"], label="Film")
                poses = gradio.Video(label="Poses")
            look = gradio.Button("Find poses", variant="primary")
            summary = gradio.Markdown()
            lines = gradio.File(label="JSON lines")
            look.click(
                told(page.film), [film, model, people, threshold],
                [poses, summary, lines], api_name="film",
            )  # fmt: skip
    return blocks


@contextmanager
def serving(models: Sequence[str] = (), host: str = "127.0.0.1", port: int = 7860) -> Iterator[Any]:
    """Serve the page while the block runs; give the running `gradio.Blocks`.

    Args:
        models: names to choose from; default: all with weights, the packaged one for photographs
            first.
        host: address to bind to. "0.0.0.0" opens the page to the whole network.
        port: number of the port.

    Raises:
        InputError: gradio is not installed, or the port is taken.
    """
    gradio = _import_gradio()
    known = list_models(pretrained=True, task="pose", tags=True)
    names = list(models or sorted(known, key=lambda name: name != OFFLINE_MODEL))
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    with _own_folder() as folder:
        blocks = build(PosePage(names, folder))
        blocks.queue(max_size=16, default_concurrency_limit=1)
        try:
            blocks.launch(
                server_name=host, server_port=port, share=False, prevent_thread_lock=True,
                max_file_size=_MEGABYTES << 20, footer_links=[], theme=theme, show_error=True,
            )  # fmt: skip
        except OSError as error:
            raise InputError(f"the page cannot be served at {host}:{port}: {error}") from error
        try:
            yield blocks
        finally:
            blocks.close()


def _import_gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        raise InputError("the page needs the package gradio: pip install 'posezoo[app]'") from error
    return gradio
