"""Detectors: whatever they are and whatever they say, boxes that can be used or a clear error."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation.made import Brightest
from torch import Tensor, nn

import posezoo
from posezoo.detectors import (
    DETECTORS,
    BatchDetector,
    PeopleFinder,
    build_detector,
)
from posezoo.detectors.rtdetr import RTDetrDetector
from posezoo.detectors.torchvision_models import TorchvisionDetector
from posezoo.errors import InputError, WeightsUnavailableError

IMAGE = np.zeros((100, 120, 3), np.uint8)
BOXES = np.array([[10, 10, 50, 90], [60.0, 5, 100, 80], [0, 0, 30, 60]])
SCORES = np.array([0.9, 0.4, 0.7])


def _find(detector: Any, **options: Any) -> Any:
    return PeopleFinder(detector, **options).find([IMAGE])[0]


@dataclasses.dataclass
class Detections:
    xyxy: Any
    confidence: Any = None
    class_id: Any = None
    data: Any = dataclasses.field(default_factory=dict)


@pytest.mark.parametrize(
    "answer",
    [
        (BOXES, SCORES),
        [BOXES.tolist(), SCORES.tolist()],
        (torch.tensor(BOXES, requires_grad=True), torch.tensor(SCORES)),
        Detections(BOXES, SCORES),
        Detections(torch.tensor(BOXES), torch.tensor(SCORES)),
    ],
    ids=["arrays", "lists", "tensors", "detections", "detections of tensors"],
)
def test_boxes_come_as_arrays_lists_tensors_or_detections(answer: Any) -> None:
    boxes, scores = _find(lambda image: answer)
    assert boxes.dtype == np.float64 and scores.dtype == np.float32
    assert (boxes == BOXES).all() and scores == pytest.approx(SCORES)


@pytest.mark.parametrize(
    "answer", [([], []), (np.zeros((0, 4)), np.zeros(0)), Detections(np.zeros((0, 4)))], ids=repr
)
def test_nobody_is_no_error(answer: Any) -> None:
    boxes, scores = _find(lambda image: answer)
    assert boxes.shape == (0, 4) and scores.shape == (0,)


def test_no_detector_takes_the_whole_image() -> None:
    boxes, scores = _find(None)
    assert boxes.tolist() == [[0, 0, 120, 100]] and scores.tolist() == [1]


def test_detections_without_confidence_score_one() -> None:
    assert _find(lambda image: Detections(BOXES))[1].tolist() == [1, 1, 1]


def test_persons_are_told_by_name_else_by_class() -> None:
    named = Detections(BOXES, SCORES, np.array([7, 0, 7]), {"class_name": ["Person", "dog", "car"]})
    assert (_find(lambda image: named)[0] == BOXES[:1]).all()
    numbered = Detections(BOXES, SCORES, np.array([0, 1, 1]))
    assert (_find(lambda image: numbered)[0] == BOXES[:1]).all()
    assert (_find(lambda image: numbered, person_class=1)[0] == BOXES[1:]).all()


def test_detections_of_supervision_itself() -> None:
    supervision = pytest.importorskip("supervision")
    detections = supervision.Detections(
        xyxy=BOXES, confidence=SCORES, class_id=np.array([0, 0, 16]),
        data={"class_name": np.array(["person", "person", "dog"])},
    )  # fmt: skip
    boxes, scores = _find(lambda image: detections)
    assert (boxes == BOXES[:2]).all() and scores == pytest.approx(SCORES[:2])
    assert len(_find(lambda image: supervision.Detections.empty())[0]) == 0


@pytest.mark.parametrize(
    ("bad", "score", "words"),
    [
        ([np.nan, 0, 10, 10], 0.5, "NaN"),
        ([0, 0, np.inf, 10], 0.5, "infinity"),
        ([30, 0, 10, 50], 0.5, "no area"),
        ([200, 0, 220, 50], 0.5, "outside the image of 120 x 100 pixels"),
        ([0, 0, 10, 50], np.nan, "a score that is not finite"),
    ],
    ids=str,
)
def test_a_bad_box_costs_that_box(
    bad: list[float], score: float, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    boxes, scores = np.insert(BOXES, 1, bad, axis=0), np.insert(SCORES, 1, score)
    with caplog.at_level(logging.WARNING):
        found, found_scores = _find(lambda image: (boxes, scores))
    assert (found == BOXES).all() and found_scores == pytest.approx(SCORES)
    (record,) = caplog.records
    assert "left out 1 of the detector's 4 boxes; box 1 [" in record.getMessage()
    assert words in record.getMessage()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "the detector returned a NoneType; it must return two arrays"),
        ("boxes", "the detector returned a str"),
        (BOXES, "the detector returned a ndarray"),
        ((BOXES, SCORES, SCORES), "the detector returned a tuple"),
        ((BOXES[:, :3], SCORES), r"boxes of shape \(3, 3\) and scores of shape \(3,\)"),
        ((BOXES, SCORES[:2]), r"scores of shape \(2,\), expected \(N, 4\) and \(N,\)"),
        ((BOXES[0], SCORES), r"boxes of shape \(4,\)"),
        ((5.0, 3.0), r"boxes of shape \(\)"),
        (([["a"] * 4], [1]), "the detector's boxes are not numbers"),
        ((BOXES, {"a": 1}), "the detector's scores are not numbers"),
        (Detections("abc", SCORES), "the detector's boxes are not numbers"),
        (Detections(BOXES, SCORES, np.zeros(2)), "2 classes for 3 boxes"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_other_answers_are_one_clear_error_of_that_image(answer: Any, words: str) -> None:
    error = _find(lambda image: answer)
    assert isinstance(error, InputError)
    with pytest.raises(InputError, match=words):
        raise error


def test_a_detector_that_crashes_costs_that_image() -> None:
    def detector(image: np.ndarray) -> Any:
        if image[0, 0, 0]:
            raise RuntimeError("out of ideas")
        return BOXES, SCORES

    first, second, third = PeopleFinder(detector).find([IMAGE, IMAGE + 1, IMAGE])
    assert isinstance(second, InputError)
    assert str(second) == "the detector failed: RuntimeError: out of ideas"
    assert isinstance(first, tuple) and isinstance(third, tuple)


def test_options_choose_among_the_boxes() -> None:
    detector = lambda image: (BOXES, SCORES)  # noqa: E731
    assert (_find(detector, threshold=0.5)[0] == BOXES[[0, 2]]).all()
    assert (_find(detector, max_people=1)[0] == BOXES[:1]).all()
    assert (_find(detector, max_people=2)[0] == BOXES[[0, 2]]).all()
    assert (_find(detector, min_size=35)[0] == BOXES[:2]).all()
    speck = np.array([[5, 5, 5.5, 40]])
    assert len(_find(lambda image: (speck, [1.0]))[0]) == 0
    crowd = np.tile(BOXES[:1], (300, 1))
    assert len(_find(lambda image: (crowd, np.ones(300)))[0]) == 300


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"detector": "fasterrcn"}, "unknown detector 'fasterrcn'; did you mean 'fasterrcnn'"),
        ({"detector": 5}, "detector is a int; give a name, a callable"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"max_people": 0}, "max_people is 0; valid: at least 1"),
        ({"min_size": -1}, "min_size is -1; valid: pixels"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        PeopleFinder(**options)


class Recorder(BatchDetector):
    """Find one box in each image, as wide as its first value; remember what it was given."""

    batch_size = 3

    def __init__(self, fails_on: int | None = None) -> None:
        self.asked: list[list[int]] = []
        self.fails_on = fails_on

    def detect(self, images: Sequence[np.ndarray]) -> list[Any]:
        values = [int(image[0, 0, 0]) for image in images]
        self.asked.append(values)
        assert len({image.shape for image in images}) == 1
        if self.fails_on in values:
            raise RuntimeError("no memory")
        return [(np.array([[0, 0, value, 9.0]]), np.ones(1)) for value in values]


def _values(*values: int, size: tuple[int, int] = (100, 120)) -> list[np.ndarray]:
    return [np.full((*size, 3), value, np.uint8) for value in values]


def test_images_of_one_size_go_together_and_answers_keep_the_order() -> None:
    detector = Recorder()
    images = _values(1, 2) + _values(3, size=(50, 60)) + _values(4, 5)
    found = PeopleFinder(detector).find(images)
    assert detector.asked == [[1, 2, 4], [5], [3]]
    assert [boxes[0, 2] for boxes, _ in found] == [1, 2, 3, 4, 5]  # type: ignore[misc]


def test_of_images_that_fail_together_only_the_bad_one_fails() -> None:
    detector = Recorder(fails_on=2)
    found = PeopleFinder(detector).find(_values(1, 2, 3))
    assert [isinstance(row, InputError) for row in found] == [False, True, False]
    assert detector.asked == [[1, 2, 3], [1], [2], [3]]


def test_the_predictor_asks_for_several_images_together() -> None:
    detector = Recorder()
    predictor = posezoo.PosePredictor(Brightest(), detector=detector)
    images = _values(20, 30, 40, 50)
    given = np.array([[0, 0, 77.0, 90]])
    results = predictor.predict_batch(images, [None, None, given, None])
    assert detector.asked == [[20, 30], [50]]
    assert [result.bboxes[0, 2] for result in results] == [20, 30, 77, 50]
    broken = InputError("no such photo")
    stream = predictor.predict_each(
        [(image, None, None) for image in images[:2]] + [broken, (images[3], None, None)]
    )
    outcomes = list(stream)
    assert outcomes[2] is broken
    assert [o.bboxes[0, 2] for o in outcomes if isinstance(o, posezoo.PoseResult)] == [20, 30, 50]
    assert detector.asked[2:] == [[20, 30], [50]]


def test_the_predictor_takes_a_finder_with_options() -> None:
    finder = PeopleFinder(lambda image: (BOXES, SCORES), max_people=2)
    result = posezoo.PosePredictor(Brightest(), detector=finder)(IMAGE)
    assert result.bboxes.tolist() == BOXES[[0, 2]].tolist()


class Fixed(nn.Module):
    """A torchvision detector that always finds a person, a dog and a faint person."""

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        for image in images:
            assert image.shape[0] == 3 and 0 <= image.min() and image.max() <= 1
        return [
            {
                "boxes": torch.tensor(BOXES, dtype=torch.float32) + 10 * image[0, 0, 0],
                "labels": torch.tensor([1, 18, 1]),
                "scores": torch.tensor([0.9, 0.8, 0.3]),
            }
            for image in images
        ]


def test_torchvision_detectors_keep_persons_above_the_threshold() -> None:
    detector = TorchvisionDetector(Fixed(), "cpu", threshold=0.5)
    (first, scores), (second, _) = detector.detect(_values(0, 255))
    assert (first == BOXES[:1]).all() and scores == pytest.approx([0.9])
    assert (second == BOXES[:1] + 10).all()
    assert (detector(_values(255)[0])[0] == second).all()
    assert len(TorchvisionDetector(Fixed(), "cpu", threshold=0.2)(IMAGE)[0]) == 2


def test_a_torchvision_network_with_random_weights_runs() -> None:
    from torchvision.models import get_model

    torch.manual_seed(0)
    model = get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None)
    for boxes, scores in TorchvisionDetector(model, "cpu", 0.0).detect([IMAGE, IMAGE]):
        assert boxes.shape == (len(scores), 4)


@pytest.fixture(scope="module")
def rtdetr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny RT-DETR of random weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.RTDetrConfig(
        backbone_config=backbone, encoder_hidden_dim=16, encoder_in_channels=[8, 16, 16],
        encoder_ffn_dim=16, encoder_attention_heads=2, d_model=16, decoder_in_channels=[16] * 3,
        decoder_ffn_dim=16, decoder_layers=1, decoder_attention_heads=2, num_queries=20,
        num_denoising=0, id2label={0: "dog", 1: "person"}, label2id={"dog": 0, "person": 1},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("rtdetr")
    transformers.RTDetrForObjectDetection(config).save_pretrained(folder)
    transformers.RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def test_rtdetr_finds_boxes_of_persons_in_image_pixels(rtdetr: Path) -> None:
    detector = RTDetrDetector.from_pretrained(str(rtdetr), threshold=0.0)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (100, 120, 3), dtype=np.uint8) for _ in range(2)]
    (boxes, scores), (second, _) = detector.detect(images)
    assert detector.person == 1
    assert 0 < len(scores) <= 20 and boxes.shape == (len(scores), 4) and len(second)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert (centers > 0).all() and (centers < [120, 100]).all()
    np.testing.assert_allclose(detector(images[0])[0], boxes, atol=1e-3)
    above = RTDetrDetector.from_pretrained(str(rtdetr), threshold=float(np.median(scores)))
    assert 0 < len(above(images[0])[1]) < len(scores)
    found = PeopleFinder(detector).find(images)
    assert all(isinstance(row, tuple) for row in found)


def test_rtdetr_without_persons_or_without_files_is_refused(rtdetr: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match="cannot be loaded"):
        RTDetrDetector.from_pretrained(str(tmp_path / "none"))
    detector = RTDetrDetector.from_pretrained(str(rtdetr))
    detector.model.config.id2label = {0: "dog", 1: "cat"}
    with pytest.raises(InputError, match="the detector knows no 'person', only dog, cat"):
        RTDetrDetector(detector.model, detector.processor, "cpu", 0.5)


def test_rtdetr_without_the_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'posezoo\[rtdetr\]'"):
        build_detector("rtdetr")


@pytest.mark.parametrize(
    ("device", "builder"),
    [("cpu", "fasterrcnn_mobilenet_v3_large_fpn"), ("cuda", "fasterrcnn_resnet50_fpn_v2")],
)
def test_auto_is_quick_on_the_cpu_and_the_best_elsewhere(
    device: str, builder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def get_model(name: str, weights: Any) -> nn.Module:
        asked.append(name)
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models.get_model", get_model)
    with pytest.raises(WeightsUnavailableError, match=r"cannot be fetched \(no network\)"):
        build_detector("auto", device=device)
    assert asked == [builder] and builder in DETECTORS.values()


@pytest.mark.parametrize(
    ("model", "detector", "expected"),
    [
        ("hrnet_s_192x144.bodies", "auto", "bodies"),
        ("hrnet_s_192x144.bodies", "ssdlite", "ssdlite"),
        ("hrnet_s_192x144.bodies", None, None),
        ("vitpose_b_simple_256x192", "auto", "auto"),
    ],
)
def test_auto_fetches_nothing_beside_a_model_of_the_package(
    model: str, detector: str | None, expected: str | None
) -> None:
    finder = PeopleFinder(detector, max_people=3)
    beside = finder.beside(posezoo.get_pretrained_cfg(model))
    assert beside.detector == expected and beside.max_people == 3 and finder.detector == detector


def test_a_message_without_network_names_the_detector_of_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def get_model(name: str, weights: Any) -> nn.Module:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models.get_model", get_model)
    with pytest.raises(WeightsUnavailableError, match="--detector bodies"):
        build_detector("ssdlite")
