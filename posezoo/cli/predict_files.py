"""What `posezoo predict` writes, decided before anything is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .predict_options import PredictOptions

if TYPE_CHECKING:
    from ..media import Source
    from ..outputs.formats import TextFormat
    from ..outputs.sink import Sink
    from ..predictor import PosePredictor

__all__ = ["PredictFiles"]


class PredictFiles:
    """The files of a run.

    Args:
        sources: the inputs.
        options: what is written.

    Attributes:
        form: of the texts in one file, or on standard output; None where there are several files.
        results: the file of each input's results, where each has its own.
        drawings, tokens: the picture or film of each input.

    Raises:
        InputError: an ending that means nothing, two inputs with one output, or an output with
            too long a name.
    """

    def __init__(self, sources: Sequence[Source], options: PredictOptions) -> None:
        from ..media import Photo
        from ..outputs.formats import text_format
        from ..outputs.names import files_of, picture_paths, require_short_names

        self.sources, self.options = sources, options
        self.form: TextFormat | None = None
        self.results: dict[str, Path] = {}
        out = options.out
        if out is not None and (str(out) == "-" or (out.exists() and not _is_own(out))):
            raise InputError(f"--out is {out}, no file; leave it out for standard output")
        if options.form == "openpose" and (out is None or out.suffix):
            raise InputError(f"--format openpose writes a folder; --out is {out}")
        if options.form == "openpose":
            self.results = files_of(sources, out, "", "")  # type: ignore[arg-type]
        elif out is not None and (out.is_dir() or not out.suffix) and options.form is None:
            self.results = files_of(sources, out, ".json", ".jsonl")
        elif out is not None and out.is_dir():
            raise InputError(f"--out is the folder {out}; give the name of a file in it")
        else:
            self.form = text_format(options.form, out, sources)
        self.drawings, self.tokens = {}, {}
        if options.draw is not None:
            self.drawings = picture_paths("--draw", sources, options.draw)
        if options.draw_tokens is not None:
            photos = [source for source in sources if isinstance(source, Photo)]
            if len(photos) < len(sources):
                raise InputError("--draw-tokens is for photos; give no film and no camera")
            self.tokens = picture_paths("--draw-tokens", photos, options.draw_tokens)
        require_short_names(self._names())

    def _names(self) -> Iterator[Path]:
        """Yield every file or folder of an input, finished or on the way."""
        from ..media import Photo
        from ..media.film import parts_of
        from ..outputs.openpose import openpose_file

        yield from (*self.results.values(), *self.drawings.values(), *self.tokens.values())
        for source in self.sources:
            is_photo, name = isinstance(source, Photo), str(source)
            if self.options.form == "openpose":
                yield openpose_file(self.results[name], None if is_photo else 0)
            if self.drawings and not is_photo:
                yield parts_of(self.drawings[name])

    @property
    def written(self) -> list[Path]:
        """Everything that is written for good."""
        files = [*self.results.values(), *self.drawings.values(), *self.tokens.values()]
        return files if self.options.out is None or self.results else [self.options.out, *files]

    def sinks(self, predictor: PosePredictor) -> list[Sink]:
        """Return what writes them, but for the texts in one file.

        Raises:
            InputError: the model cannot give what is asked for.
        """
        from ..outputs.formats import JsonLines
        from ..outputs.openpose import OpenPoseFolder
        from ..outputs.overlays import Overlays, TokenPictures
        from ..outputs.textfile import FilePerInput
        from ..tokenview import require_tokens

        sinks: list[Sink] = []
        if self.options.form == "openpose":
            sinks.append(OpenPoseFolder(self.results, predictor.skeleton))
        elif self.results:
            sinks.append(FilePerInput(self.results, JsonLines()))
        if self.drawings:
            sinks.append(Overlays(self.drawings, self.options.draw_threshold, self.options.every))
        if self.tokens:
            require_tokens(predictor)
            sinks.append(TokenPictures(self.tokens, predictor))
        return sinks

    def identity(self) -> dict[str, str]:
        """What an interrupted run and the one that goes on must have in common."""
        names = "\n".join(f"{type(s).__name__} {s} {_size(s)}" for s in self.sources)
        inputs = hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()
        return {**self.options.identity(), "inputs": inputs}

    def of(self, source: str) -> Path | None:
        """Return the file to name for a source that is finished, None where all go to one."""
        return self.results.get(source) or self.drawings.get(source)


def _is_own(path: Path) -> bool:
    """Tell whether a path is a file or folder: no device, no pipe."""
    return path.is_file() or path.is_dir()


def _size(source: Source) -> int:
    """Return the bytes of a file, so that a run does not go on with another one; -1 without one."""
    from ..media import Film, Photo

    path = source.path if isinstance(source, (Photo, Film)) else None
    return path.stat().st_size if path is not None and path.is_file() else -1
