"""Boxes, crop matrices and the way back: stored cases and properties."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from posezoo.errors import InputError
from posezoo.geometry import (
    boxes_to_center_size,
    check_bboxes,
    crop_matrices,
    input_to_image,
    invert_matrices,
    mpii_center_size,
)
from posezoo.zoo.config import Geometry

STORED = json.loads((Path(__file__).parent / "goldens/evaluation/boxes.json").read_text())
FRACTIONS = np.array(STORED["heatmap_point_fractions"])
GEOMETRIES: tuple[Geometry, ...] = get_args(Geometry)
CASES = [
    pytest.param(geometry, case["box_xywh"], row, id=f"{geometry}-{i}-{case['kind']}-{j}")
    for i, case in enumerate(STORED["cases"])
    for j, row in enumerate(case["by_size"])
    for geometry in GEOMETRIES
    if geometry in row
]


def _xyxy(box_xywh: list[float]) -> np.ndarray:
    x, y, w, h = box_xywh
    return np.array([[x, y, x + w, y + h]])


def _cells_to_input(cells: np.ndarray, row: dict[str, Any], geometry: Geometry) -> np.ndarray:
    """SPEC section 7, written out: heatmap cells to input pixels."""
    (w_in, h_in), (w, h) = row["input_wh"], row["heatmap_wh"]
    if geometry != "tokenpose":
        return cells * np.array([w_in / w, h_in / h])
    factor = (w_in - 1) / (w - 1)
    middle_in, middle = np.array([w_in - 1, h_in - 1]) / 2, np.array([w - 1, h - 1]) / 2
    return (cells - middle) * factor + middle_in


@pytest.mark.parametrize(("geometry", "box", "row"), CASES)
def test_stored_boxes_give_the_stored_numbers(
    geometry: Geometry, box: list[float], row: dict[str, Any]
) -> None:
    stored = row[geometry]
    size = tuple(row["input_wh"][::-1])
    centers, sizes = boxes_to_center_size(_xyxy(box), size, row["padding"], geometry)
    expected = np.array(stored["scale_px"]) if "scale_px" in stored else None
    expected = np.array(stored["scale_200"]) * 200 if expected is None else expected
    tolerance = 2e-5 * expected.max()
    np.testing.assert_allclose(sizes[0], expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(centers[0], stored["center"], rtol=0, atol=tolerance)

    matrix, stored_matrix = crop_matrices(centers, sizes, size, geometry)[0], stored["matrix"]
    stored_matrix = np.array(stored_matrix)
    factor = stored_matrix[0, 0]
    np.testing.assert_allclose(matrix[:, :2], stored_matrix[:, :2], rtol=0, atol=2e-5 * factor)
    shift = 2e-5 * factor * (expected.max() + np.abs(stored["center"]).max())
    np.testing.assert_allclose(matrix[:, 2], stored_matrix[:, 2], rtol=0, atol=shift)

    cells = FRACTIONS * (np.array(row["heatmap_wh"]) - 1)
    points = torch.tensor(_cells_to_input(cells, row, geometry)[None], dtype=torch.float32)
    back = input_to_image(points, centers, sizes, size, geometry)[0].numpy()
    np.testing.assert_allclose(back, stored["back"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", STORED["mpii"], ids=lambda c: str(c["center"]))
def test_stored_mpii_people_give_the_stored_numbers(case: dict[str, Any]) -> None:
    centers, sizes = mpii_center_size([case["center"]], [case["scale"]])
    np.testing.assert_allclose(centers[0], case["center_out"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(sizes[0] / 200, case["scale_out_200"], rtol=1e-12)
    matrix = crop_matrices(centers, sizes, (256, 256), "tokenpose")[0]
    np.testing.assert_allclose(matrix, case["tokenpose"]["matrix_256"], rtol=0, atol=1e-6)
    points = torch.tensor(FRACTIONS[None] * 255.0)
    back = input_to_image(points, centers, sizes, (256, 256), "tokenpose")[0]
    np.testing.assert_allclose(
        back, case["tokenpose"]["back_64"], rtol=0, atol=2e-5 * sizes[0].max()
    )


def test_mpii_people_without_centre_are_not_moved_or_enlarged() -> None:
    centers, sizes = mpii_center_size([[-1.0, 50.0]], [2.0])
    assert centers.tolist() == [[-2.0, 49.0]]
    assert sizes.tolist() == [[400.0, 400.0]]


boxes = st.tuples(
    st.floats(-500, 4000), st.floats(-500, 4000), st.floats(3, 2000), st.floats(3, 2000)
)
input_sizes = st.sampled_from([(256, 192), (384, 288), (448, 320), (256, 256)])
paddings = st.sampled_from([1.0, 1.12, 1.25])


@given(boxes, input_sizes, paddings, st.sampled_from(GEOMETRIES))
def test_crop_then_back_is_the_identity(
    box: Any, size: tuple[int, int], padding: float, geometry: Geometry
) -> None:
    centers, sizes = boxes_to_center_size(_xyxy(box), size, padding, geometry)
    matrix = crop_matrices(centers, sizes, size, geometry)[0]
    rng = np.random.default_rng(0)
    points = centers[0] + (rng.uniform(size=(5, 2)) - 0.5) * sizes[0].astype(np.float64)
    inside = points @ matrix[:, :2].T + matrix[:, 2]
    back = input_to_image(torch.tensor(inside[None]), centers, sizes, size, geometry)[0]
    # float32 corners of the crop: 6e-8 of the coordinates, magnified where the box is small
    np.testing.assert_allclose(back, points, rtol=0, atol=1e-3 + 1e-6 * sizes.max())


@given(boxes, input_sizes, paddings, st.sampled_from(GEOMETRIES))
def test_box_has_the_aspect_of_the_input_and_holds_the_person(
    box: Any, size: tuple[int, int], padding: float, geometry: Geometry
) -> None:
    _, sizes = boxes_to_center_size(_xyxy(box), size, padding, geometry)
    width, height = sizes[0]
    assert width / height == pytest.approx(size[1] / size[0], rel=1e-5)
    assert width >= box[2] * padding * (1 - 1e-3) and height >= box[3] * padding * (1 - 1e-3)
    ratio = max(box[2] / size[1], box[3] / size[0]) * padding
    assert width == pytest.approx(ratio * size[1], rel=1e-3)


@given(boxes, st.floats(-3, 3))
def test_inverse_of_a_matrix_undoes_it(box: Any, angle: float) -> None:
    centers, sizes = boxes_to_center_size(_xyxy(box), (256, 192), 1.25, "mmpose0")
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ crop_matrices(centers, sizes, (256, 192), "mmpose0")
    inverse = invert_matrices(matrix)
    product = inverse[0, :, :2] @ matrix[0, :, :2]
    np.testing.assert_allclose(product, np.eye(2), atol=1e-9)
    there = inverse[0, :, :2] @ matrix[0, :, 2] + inverse[0, :, 2]
    np.testing.assert_allclose(there, 0, atol=1e-6)


def test_xywh_boxes_survive_the_way_through_corners() -> None:
    rng = np.random.default_rng(0)
    xywh = rng.uniform(0.5, 600, size=(2000, 4)).round(2)
    _, sizes = boxes_to_center_size(
        np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1), (256, 192), 1.25, "mmpose0"
    )
    width, height = xywh[:, 2], xywh[:, 3]
    fixed = np.stack([np.maximum(width, height * 0.75), np.maximum(height, width / 0.75)], 1)
    upstream = fixed.astype(np.float32) / np.float32(200) * np.float32(1.25) * np.float32(200)
    assert (sizes == upstream).all()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_many_boxes_equal_one_by_one(geometry: Geometry) -> None:
    rng = np.random.default_rng(1)
    corner = rng.uniform(-50, 300, size=(40, 2))
    bboxes = np.concatenate([corner, corner + rng.uniform(5, 300, size=(40, 2))], axis=1)
    centers, sizes = boxes_to_center_size(bboxes, (256, 192), 1.25, geometry)
    together = crop_matrices(centers, sizes, (256, 192), geometry)
    alone = [
        crop_matrices(*boxes_to_center_size(bboxes[i], (256, 192), 1.25, geometry), (256, 192),
                      geometry)[0]
        for i in range(40)
    ]  # fmt: skip
    assert (together == np.stack(alone)).all()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_no_boxes_give_no_matrices(geometry: Geometry) -> None:
    centers, sizes = boxes_to_center_size(np.zeros((0, 4)), (256, 192), 1.25, geometry)
    assert crop_matrices(centers, sizes, (256, 192), geometry).shape == (0, 2, 3)
    assert input_to_image(torch.zeros(0, 17, 2), centers, sizes, (256, 192), geometry).shape == (
        0,
        17,
        2,
    )


@pytest.mark.parametrize("width", [0.8, 0.2, 0.5])
def test_tokenpose_box_of_a_pixel_is_refused_by_index_and_size(width: float) -> None:
    bboxes = [[0, 0, 50, 50], [10, 10, 10 + width, 10 + width]]
    centers, sizes = boxes_to_center_size(bboxes, (256, 256), 1.25, "tokenpose")
    with pytest.raises(InputError, match=rf"box 1 is {sizes[1, 0]} pixels wide.*more than 1"):
        crop_matrices(centers, sizes, (256, 256), "tokenpose")


def test_box_below_float32_resolution_is_refused() -> None:
    centers, sizes = boxes_to_center_size([[500, 500, 500 + 1e-7, 500 + 1e-7]], (256, 192), 1.25,
                                          "mmpose0")  # fmt: skip
    with pytest.raises(InputError, match="box 0 is .* pixels wide after padding, too small"):
        crop_matrices(centers, sizes, (256, 192), "mmpose0")


@pytest.mark.parametrize("empty", [[], np.zeros((0, 4)), np.zeros((0, 4), np.int32)])
def test_no_boxes_are_fine(empty: Any) -> None:
    checked = check_bboxes(empty, (480, 640))
    assert checked.shape == (0, 4) and checked.dtype == np.float64


def test_good_boxes_come_back_unchanged_as_float64() -> None:
    bboxes = [[-5, -5, 3, 3], [0.25, 1.5, 700, 500], [639, 479, 1e6, 1e6]]
    checked = check_bboxes(bboxes, (480, 640))
    assert checked.dtype == np.float64 and checked.tolist() == bboxes


@pytest.mark.parametrize(
    ("bboxes", "message"),
    [
        ([1, 2, 3, 4], r"shape \(4,\), expected \(N, 4\)"),
        ([[1, 2, 3]], r"shape \(1, 3\)"),
        (np.zeros((2, 1, 4)), r"shape \(2, 1, 4\)"),
        (np.zeros((0, 5)), r"shape \(0, 5\)"),
        ([["a", 0, 1, 1]], "not numbers"),
        ([[0, 0, 9, 9], [0, 0, float("nan"), 9]], r"bbox 1 \[0.0, 0.0, nan, 9.0\] holds NaN"),
        ([[0, 0, 9, float("inf")]], "bbox 0 .* holds NaN, infinity"),
        ([[0, 0, 9, 1e30]], "over 1e9"),
        ([[5, 5, 5, 9]], r"bbox 0 \[5.0, 5.0, 5.0, 9.0\] has no area.*not xywh"),
        ([[100, 100, 50, 60]], "has no area"),
        ([[1, 1, 2, 2], [640, 0, 700, 20]], "bbox 1 .* outside the image of 640 x 480"),
        ([[0, -30, 20, 0]], "bbox 0 .* outside"),
        ([[-30, 0, 0, 20]], "bbox 0 .* outside"),
        ([[5, 480, 9, 490]], "bbox 0 .* outside"),
    ],
)
def test_bad_boxes_are_refused_by_index_and_value(bboxes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_bboxes(bboxes, (480, 640))
