"""`PosePredictor`: images and boxes in, `PoseResult` out.

The flow, for any number of images: boxes to centres and sizes -> exact crops on the device ->
batches filled across images -> model (with flip test: image and mirror image as one batch) ->
codec -> image pixels. Only keypoints and scores leave the device.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .codecs import build_codec
from .detectors import BatchDetector, Detector, PeopleFinder
from .device import Download, choose_device, choose_dtype, has_fast_bfloat16, upload, weight_dtype
from .engines.network import ExportedNetwork, require_device
from .engines.opening import dtypes_of, open_network, runs_exported
from .errors import InputError
from .geometry import check_bboxes, get_convention
from .inflight import Batch, CropRequest, Rows, Running, halves
from .optimization import optimize, ready
from .results import PoseResult
from .transforms import TopDownCrop, load_image, warp_crops
from .zoo.catalog import DEFAULT_MODEL
from .zoo.model import PoseNetwork, ZooModel
from .zoo.wrapped import unwrap

if TYPE_CHECKING:
    from .streaming import FrameResult
    from .streaming.options import Smoothing

__all__ = ["CropRequest", "PosePredictor"]

_CPU_BATCH = 8
_KEPT_PIXELS = 1 << 24  # on a GPU, of images to be cut together: 54 of 640x480, 0.25 GB
_log = logging.getLogger(__name__)

ImageLike = np.ndarray | Image.Image | str | Path
StreamSource = int | ImageLike | Iterable[str | Path | int] | Iterable[ImageLike]
Item = tuple[ImageLike, np.ndarray | None, np.ndarray | None]
"""An image, boxes or None for the detector's, and their scores or None."""
_Located = tuple[np.ndarray, np.ndarray, np.ndarray]
"""An image, boxes (N, 4) and scores (N,)."""

_NOBODY = CropRequest(
    image=np.zeros((1, 1, 3), np.uint8),
    centers=np.zeros((0, 2), np.float32),
    box_sizes=np.zeros((0, 2), np.float32),
)


class PosePredictor:
    """Find the keypoints of people in images.

    torch's threads do not survive a fork: a process forked after a predictor ran on the CPU with
    several threads hangs in its first forward. Start processes with `spawn`, or make the
    predictor inside them.

    Args:
        model: a pose model; the name of one, which is then loaded with its weights; or a `.pt2`
            or `.onnx` file that `posezoo export` wrote. The default is ViTPose-B with the simple
            decoder: reported AP 75.5 on COCO val2017, 17.5 GMACs a person and twice that with
            flip test, a download of 344 MB. A given model keeps its device, type and mode: it
            runs in evaluation mode whatever it is in, and where device or type differ or it is
            to be compiled, `predictor.model` is a copy as `posezoo.optimize` makes it, as it is
            for a name.
        detector: used for images that come without boxes: "auto" or a short name of
            `posezoo.detectors.DETECTORS`, a callable, or None (the whole image is one box); a
            `PeopleFinder` sets threshold, number and size of the people as well. It is loaded
            when the first such image arrives. "auto" is the quick one on the CPU, 1.4 s a photo,
            and the best one elsewhere; for a model of the package, that of the package.
        device: where to run; None leaves a given model where it is and puts a named one on
            CUDA if there is any.
        dtype: float32 and float64 run as such; bfloat16 and float16 run under autocast. Engines
            other than torch have fewer. "auto" is bfloat16 where device and engine compute it
            faster, else float32; `predictor.dtype` says which, and so does the log.
        compile: run the network through torch.compile.
        engine: what runs the network: "torch", or on the CPU "onnxruntime" or "openvino", for
            which a model is exported once and kept in the cache. None is torch, or for a file
            what fits it.
        batch_size: crops per forward (twice as many with flip test). On the CPU at most 8 are
            used: larger batches fall out of its cache and take longer per crop.
        flip_test: average with the mirrored image; None = the recipe of the weights.

    Raises:
        InputError: not a pose model, or an option outside its range.
    """

    def __init__(
        self,
        model: nn.Module | str | Path = DEFAULT_MODEL,
        *,
        detector: str | BatchDetector | Detector | PeopleFinder | None = "auto",
        device: str | int | torch.device | None = None,
        dtype: str | torch.dtype = torch.float32,
        compile: bool = False,
        engine: str | None = None,
        batch_size: int = 64,
        flip_test: bool | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        if device is not None or (isinstance(model, str) and not runs_exported(model, engine)):
            device = choose_device(device)
        dtype = _chosen_dtype(dtype, model, device, engine)
        opened = open_network(model, engine=engine, dtype=dtype, compile=compile)
        network = _checked(unwrap(opened))
        self.cfg = network.pretrained_cfg
        self.convention = get_convention(self.cfg.input.geometry)
        self.padding = self.cfg.input.bbox_padding
        self.skeleton = self.cfg.skeleton
        weights = next(network.parameters(), torch.empty(0, device="cpu"))
        self.device = weights.device if device is None else device
        self.dtype = network.dtype if isinstance(network, ExportedNetwork) else dtype
        require_device(network, self.device)
        prepare = ready if isinstance(model, nn.Module) else optimize
        self.model = prepare(opened, device=self.device, dtype=self.dtype, compile=compile)
        self._modules = list(self.model.modules())
        self.batch_size = min(batch_size, _CPU_BATCH) if self.device.type == "cpu" else batch_size
        self.flip_test = self.cfg.decode.flip_test if flip_test is None else flip_test
        self.codec = build_codec(self.cfg)
        self.crop = TopDownCrop(self.cfg.input.size, self.cfg.input.mean, self.cfg.input.std)
        self._kept_pixels = 0 if self.device.type == "cpu" else _KEPT_PIXELS
        if not isinstance(detector, PeopleFinder):
            detector = PeopleFinder(detector, device=self.device)
        self.finder = detector.beside(self.cfg)

    def __call__(
        self,
        image: ImageLike,
        bboxes: np.ndarray | None = None,
        bbox_scores: np.ndarray | None = None,
    ) -> PoseResult:
        """Find the poses of one image.

        Args:
            image: uint8 RGB array (H, W, 3), Pillow image, or path.
            bboxes: (N, 4) xyxy in image pixels; None asks the detector.
            bbox_scores: (N,), default 1.

        Returns:
            A result with N persons in the order of the boxes; keypoints in image pixels.

        Raises:
            InputError: unreadable image; boxes of wrong shape, without area, not finite, or
                outside the image.
        """
        return self.predict_batch([image], [bboxes], [bbox_scores])[0]

    def predict_batch(
        self,
        images: Sequence[ImageLike],
        bboxes: Sequence[np.ndarray | None] | None = None,
        bbox_scores: Sequence[np.ndarray | None] | None = None,
    ) -> list[PoseResult]:
        """Find the poses of several images; batches fill across them.

        Arguments are as in `__call__`, one entry per image; the first bad one raises. Files are
        read as batches need them. `predict_each` goes on after a bad image.
        """
        if isinstance(images, (str, Path, Image.Image, np.ndarray)):
            raise InputError(
                f"images is one {type(images).__name__}; give a list of images, or call the "
                "predictor itself with a single one"
            )
        all_boxes = [None] * len(images) if bboxes is None else list(bboxes)
        all_scores = [None] * len(images) if bbox_scores is None else list(bbox_scores)
        if not len(images) == len(all_boxes) == len(all_scores):
            raise InputError(
                f"got {len(images)} images, {len(all_boxes)} sets of boxes and "
                f"{len(all_scores)} sets of scores; give one of each per image"
            )
        results = []
        for result in self.predict_each(zip(images, all_boxes, all_scores)):
            if isinstance(result, InputError):
                raise result
            results.append(result)
        return results

    def predict_each(self, items: Iterable[Item | InputError]) -> Iterator[PoseResult | InputError]:
        """Yield the result of each (image, bboxes, bbox_scores) in order, or why it has none.

        Images are read as batches need them, so that any number may come from a generator; a bad
        one costs only itself. Items are as in `__call__`, or the error for which there is none.
        """
        waiting: deque[tuple[tuple[int, int], np.ndarray, np.ndarray] | InputError] = deque()

        def requests() -> Iterator[CropRequest]:
            for located in self._locate(items):
                try:
                    if isinstance(located, InputError):
                        raise located
                    image, boxes, scores = located
                    request = self.request(image, boxes)
                    self._matrices(request)  # refuses boxes too small to be cut
                except InputError as error:
                    waiting.append(error)
                    yield _NOBODY
                else:
                    waiting.append((image.shape[:2], boxes, scores))
                    yield request

        for found in self.predict_crops(requests()):
            item = waiting.popleft()
            yield item if isinstance(item, InputError) else self._result(*item, found)

    def stream(
        self,
        source: StreamSource,
        *,
        every: int = 1,
        start: float = 0.0,
        stop: float | None = None,
        max_frames: int | None = None,
        detect_every: int = 1,
        track: bool = False,
        smooth: Smoothing | None = None,
    ) -> Iterator[FrameResult]:
        """Yield the poses of photos, films or a camera, frame by frame, in order.

        Memory does not grow with the number of frames; they are read in the background, and
        batches fill across frames. What cannot be read is yielded with its `error`.

        Args:
            source: a photo, video, folder, pattern with wildcards or list in a `.txt` file; the
                number of a camera; several of these; or an image in memory, or an iterable of such.
            every: use each so many-th frame of a film only.
            start: seconds from the first frame; earlier frames are left out.
            stop: seconds; frames from there on are left out.
            max_frames: at most so many frames of a film.
            detect_every: ask the detector for each so many-th frame of a film only; between them
                boxes follow the poses, unless people overlap.
            track: set `ids` that last from frame to frame.
            smooth: calm the keypoints of tracked people: "one-euro" (Casiez et al., CHI 2012)
                looks back only, "savgol" also a few frames ahead.

        Raises:
            InputError: nothing to read, an option out of range, or a missing package.
        """
        from .media import Images, find_sources
        from .media.frames import FrameChoice
        from .streaming import PoseStream, StreamOptions, units_of

        choice = FrameChoice(every=every, start=start, stop=stop, limit=max_frames)
        options = StreamOptions(
            choice=choice, detect_every=detect_every, track=track, smooth=smooth
        )
        if isinstance(source, (str, Path, int)):
            source = [source]
        if isinstance(source, Image.Image) or (isinstance(source, np.ndarray) and source.ndim < 4):
            source = [source]
        if isinstance(source, bytes) or not isinstance(source, Iterable):
            raise InputError(
                f"source is a {type(source).__name__}; give paths, the number of a camera, or an "
                "iterable of images"
            )
        named = isinstance(source, Sequence) and all(
            isinstance(s, (str, Path, int)) for s in source
        )
        sources = find_sources(source) if named else [Images(source)]  # type: ignore[arg-type]
        for step in PoseStream(self, options).run(units_of(sources, track=track)):
            yield from step.found

    def _result(
        self,
        image_size: tuple[int, int],
        boxes: np.ndarray,
        scores: np.ndarray,
        found: tuple[np.ndarray, np.ndarray],
    ) -> PoseResult:
        keypoints, keypoint_scores = found
        return PoseResult(
            keypoints=keypoints,
            keypoint_scores=keypoint_scores,
            bboxes=boxes.astype(np.float32),
            bbox_scores=scores,
            skeleton=self.skeleton,
            image_size=image_size,
        )

    def request(self, image: np.ndarray, bboxes: np.ndarray) -> CropRequest:
        """Turn boxes (N, 4) xyxy into the crop request that the recipe of the weights asks."""
        centers, box_sizes = self.convention.center_size(bboxes, self.cfg.input.size, self.padding)
        return CropRequest(image=image, centers=centers, box_sizes=box_sizes)

    def crops(self, image: ImageLike, bboxes: np.ndarray) -> Tensor:
        """Return what the network sees of boxes (N, 4) xyxy before normalisation.

        Returns:
            uint8 RGB (N, 3, H, W) on the model's device.

        Raises:
            InputError: see `__call__`.
        """
        pixels = load_image(image)
        request = self.request(pixels, check_bboxes(bboxes, pixels.shape[:2]))
        image_on_device = upload(pixels, self.device)
        return warp_crops(image_on_device, self._matrices(request), self.cfg.input.size)

    @torch.inference_mode()
    def predict_crops(
        self, requests: Iterable[CropRequest]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (N, K, 2) keypoints in image pixels and (N, K) scores for each request, in order.

        Requests are read as batches need them, so they may come from a loader. The result of a
        batch is fetched after the next one was started.
        """
        waiting: deque[Rows] = deque()
        batch, running = Batch(self.crop, self.convention, self._kept_pixels), Running()
        for request in requests:
            rows = Rows(len(request.centers), self.skeleton.num_keypoints)
            waiting.append(rows)
            image = upload(request.image, self.device) if len(request.centers) else None
            first = 0
            while image is not None and first < len(request.centers):
                last = min(first + self.batch_size - batch.count, len(request.centers))
                batch.add(image, request, rows, slice(first, last))
                if batch.count == self.batch_size:
                    previous, running = running, self._start(batch)
                    previous.finish()
                    batch = Batch(self.crop, self.convention, self._kept_pixels)
                first = last
            while waiting and not waiting[0].missing:
                yield waiting.popleft().result
        previous, running = running, self._start(batch) if batch.count else Running()
        previous.finish()
        running.finish()
        for rows in waiting:
            yield rows.result

    def _locate(self, items: Iterable[Item | InputError]) -> Iterator[_Located | InputError]:
        """Yield each image with boxes and scores: the given ones, checked, or the detector's.

        Images without boxes wait until there are enough of them for the detector.

        Raises:
            WeightsUnavailableError: the detector's weights cannot be fetched.
        """
        waiting: list[np.ndarray | _Located | InputError] = []
        for item in items:
            waiting.append(self._read(item))
            is_known = len(waiting) == 1 and not isinstance(waiting[0], np.ndarray)
            if is_known or len(waiting) >= self.finder.batch_size:
                yield from self._detect(waiting)
                waiting = []
        yield from self._detect(waiting)

    def _read(self, item: Item | InputError) -> np.ndarray | _Located | InputError:
        """Return an image with its given boxes, an image alone, or why there is none."""
        try:
            if isinstance(item, InputError):
                raise item
            source, bboxes, bbox_scores = item
            image = load_image(source)
            if bboxes is None:
                if bbox_scores is not None:
                    raise InputError("bbox_scores without bboxes; give both or neither")
                return image
            boxes = check_bboxes(bboxes, image.shape[:2])
            scores = np.ones(len(boxes)) if bbox_scores is None else np.asarray(bbox_scores)
            if scores.shape != (len(boxes),) or not np.isfinite(scores.astype(np.float64)).all():
                raise InputError(
                    f"bbox_scores must be {len(boxes)} finite numbers, one per box; "
                    f"got shape {scores.shape}"
                )
            return image, boxes, scores.astype(np.float32)
        except InputError as error:
            return error

    def _detect(
        self, read: list[np.ndarray | _Located | InputError]
    ) -> Iterator[_Located | InputError]:
        """Yield what was read, images alone with the boxes that the detector finds in them."""
        found = iter(self.finder.find([image for image in read if isinstance(image, np.ndarray)]))
        for image in read:
            if not isinstance(image, np.ndarray):
                yield image
                continue
            people = next(found)
            yield people if isinstance(people, InputError) else (image, *people)

    def _matrices(self, request: CropRequest) -> np.ndarray:
        return self.convention.crop_matrices(request.centers, request.box_sizes, self.crop.size)

    def _start(self, batch: Batch) -> Running:
        """Run one batch; nothing here waits for the device."""
        images = batch.crops().to(self.model_dtype)  # (B, 3, H, W)
        with self._evaluating():
            if self.flip_test:
                both = self.model(torch.cat([images, images.flip(-1)]))  # (2 B, ...)
                output = self.codec.merge_flip(*halves(both, len(images)))
            else:
                output = self.model(images)
        points, scores = self.codec.decode(output)  # (B, K, 2), (B, K)
        points = self.convention.input_to_image(
            points,
            upload(np.concatenate(batch.centers), self.device),
            upload(np.concatenate(batch.box_sizes), self.device),
            self.cfg.input.size,
        )
        packed = torch.cat([points, scores[..., None]], dim=-1)  # (B, K, 3)
        return Running(Download(packed.float()), batch.targets)

    @property
    def model_dtype(self) -> torch.dtype:
        """The type of the weights and of the images given to the model."""
        return weight_dtype(self.dtype)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Put modules that are in training mode into evaluation mode for a moment."""
        training = [module for module in self._modules if module.training]
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True


def _chosen_dtype(
    dtype: str | torch.dtype,
    model: nn.Module | str | Path,
    device: torch.device | None,
    engine: str | None,
) -> torch.dtype:
    """Return the type asked for, or what "auto" is here.

    Args:
        device: where torch runs the network; None where a given model is, or for engines.
    """
    if dtype != "auto":
        return choose_dtype(dtype)
    network = unwrap(model) if isinstance(model, nn.Module) else None
    weights = None if network is None else next(network.parameters(), None)
    where = device or (torch.device("cpu") if weights is None else weights.device)
    types = dtypes_of(model, engine)
    fast = has_fast_bfloat16(where) and torch.bfloat16 in types
    chosen = torch.bfloat16 if fast else torch.float32
    _log.info("dtype auto is %s on %s", str(chosen).removeprefix("torch."), where)
    return chosen


def _checked(network: Any) -> Any:
    """Return a network that has all that is needed to crop for it and to decode its output.

    Raises:
        InputError: it is no pose model, its configuration is incomplete, or its keypoints are
            not those of its skeleton.
    """
    if not isinstance(network, PoseNetwork) or network.pretrained_cfg.task != "pose":
        what = type(network).__name__
        if isinstance(network, (ZooModel, ExportedNetwork)):
            what = network.pretrained_cfg.name
        raise InputError(f"{what} is not a pose model; see posezoo.list_models(task='pose')")
    cfg = network.pretrained_cfg
    if cfg.decode is None or cfg.input.geometry is None or cfg.input.bbox_padding is None:
        raise InputError(f"{cfg.name} has a configuration without crop or decoding")
    if network.num_keypoints != cfg.skeleton.num_keypoints:
        raise InputError(
            f"the model has {network.num_keypoints} keypoints, the {cfg.dataset} skeleton "
            f"{cfg.skeleton.num_keypoints}; give pretrained_cfg its own_skeleton, as "
            "`posezoo train --skeleton` does"
        )
    return network
