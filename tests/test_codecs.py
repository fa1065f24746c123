"""Decoding and flip merging: stored cases, hand-made heatmaps with known answers, properties."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

import posezoo
from posezoo.codecs import HeatmapCodec, RegressionCodec, RegressionOutput, build_codec
from posezoo.errors import InputError
from posezoo.geometry import input_to_image
from posezoo.skeletons import COCO_17, COCO_WHOLEBODY_133, MPII_16, Skeleton
from posezoo.zoo.config import DecodeCfg, InputCfg, PretrainedCfg

GOLDENS = Path(__file__).parent / "goldens/evaluation"
DECODE = load_file(GOLDENS / "decode.safetensors")
GROUPS = json.loads((GOLDENS / "decode.json").read_text())
FLIP = load_file(GOLDENS / "flip.safetensors")

QUARTER = 1e-3  # tolerances of the stored cases, image pixels
DARK = 5e-3
DECODERS = {
    "mmpose0.none": ("mmpose0", "none", None, QUARTER),
    "mmpose0.default": ("mmpose0", "quarter", None, QUARTER),
    "mmpose1.default": ("mmpose1", "quarter", None, QUARTER),
    "mmpose0.unbiased_k11": ("mmpose0", "dark", 11, DARK),
    "mmpose0.unbiased_k17": ("mmpose0", "dark", 17, DARK),
    "mmpose1.unbiased_k11": ("mmpose1", "dark", 11, DARK),
    "tokenpose.dark_k11": ("tokenpose", "dark", 11, DARK),
}


def _codec(count: int = 2, **changes: Any) -> HeatmapCodec:
    values: dict[str, Any] = {
        "input_size": (64, 48),
        "heatmap_size": (16, 12),
        "geometry": "mmpose0",
        "refine": "quarter",
        "flip_indices": tuple(range(count)),
    }
    return HeatmapCodec(**(values | changes))


def _maps(*points: tuple[float, float], size: tuple[int, int] = (16, 12), sigma: float = 2.0,
          height: float = 1.0) -> Tensor:  # fmt: skip
    """Gaussians around (x, y) cells, `(1, K, h, w)`."""
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij")
    maps = [height * torch.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2))
            for px, py in points]  # fmt: skip
    return torch.stack(maps)[None]


def _cells(codec: HeatmapCodec, heatmaps: Tensor) -> list[list[float]]:
    """Decoded positions of the first person, turned back into cells."""
    points, _ = codec.decode(heatmaps)
    stride = torch.tensor(codec.input_size[::-1]) / torch.tensor(codec.heatmap_size[::-1])
    return (points[0] / stride).tolist()


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_stored_heatmaps_give_the_stored_keypoints(
    group: str, decoder: str, dtype: torch.dtype
) -> None:
    geometry, refine, kernel, tolerance = DECODERS[decoder]
    heatmaps = DECODE[f"{group}.heatmaps"].to(dtype)
    input_size = tuple(GROUPS[group]["input_wh"][::-1])
    codec = _codec(
        heatmaps.shape[1], input_size=input_size, heatmap_size=tuple(heatmaps.shape[-2:]),
        geometry=geometry, refine=refine, blur_kernel=kernel,
    )  # fmt: skip
    points, scores = codec.decode(heatmaps)
    assert points.dtype == scores.dtype == dtype
    sizes = DECODE[f"{group}.scale_200"] * 200
    image = input_to_image(points, DECODE[f"{group}.center"], sizes, input_size, geometry)
    expected = DECODE[f"{group}.{decoder}"].to(dtype)
    torch.testing.assert_close(image, expected, rtol=0, atol=tolerance)
    assert (scores == DECODE[f"{group}.score"]).all()


@pytest.mark.parametrize("group", GROUPS)
def test_tokenpose_quarter_offset_follows_hrnet(group: str) -> None:
    """Compared in cells: HRNet maps them to the image by another rule than TokenPose."""
    heatmaps = DECODE[f"{group}.heatmaps"]
    input_size = tuple(GROUPS[group]["input_wh"][::-1])
    size = tuple(heatmaps.shape[-2:])
    shared = {"input_size": input_size, "heatmap_size": size}
    points, _ = _codec(heatmaps.shape[1], geometry="tokenpose", **shared).decode(heatmaps)
    factor = (input_size[1] - 1) / (size[1] - 1)
    middle_in = torch.tensor([input_size[1] - 1, input_size[0] - 1]) / 2
    cells = (points - middle_in) / factor + torch.tensor([size[1] - 1, size[0] - 1]) / 2
    image = input_to_image(
        cells * torch.tensor(input_size[::-1]) / torch.tensor(size[::-1]),
        DECODE[f"{group}.center"], DECODE[f"{group}.scale_200"] * 200, input_size, "mmpose0",
    )  # fmt: skip
    torch.testing.assert_close(image, DECODE[f"{group}.hrnet.default"], rtol=0, atol=QUARTER)


def test_quarter_offset_points_to_the_larger_neighbour() -> None:
    heatmaps = _maps((5.3, 7.0), (5.0, 6.6))
    assert _cells(_codec(), heatmaps) == [[5.25, 7.0], [5.0, 6.75]]


@pytest.mark.parametrize(
    ("peak", "together", "alone"),
    [
        ((1, 7), (1.0, 7.0), (1.0, 7.25)),  # index 1 counts as border for its own axis
        ((0, 7), (0.0, 7.0), (0.0, 7.0)),
        ((11, 7), (11.0, 7.0), (11.0, 7.25)),
        ((10, 7), (10.25, 7.25), (10.25, 7.25)),
        ((5, 1), (5.0, 1.0), (5.25, 1.0)),
        ((5, 0), (5.0, 0.0), (5.0, 0.0)),
        ((5, 15), (5.0, 15.0), (5.25, 15.0)),
        ((5, 14), (5.25, 14.25), (5.25, 14.25)),
        ((2, 2), (2.25, 2.25), (2.25, 2.25)),
        ((0, 0), (0.0, 0.0), (0.0, 0.0)),
    ],
)
def test_quarter_offset_at_the_border(
    peak: tuple[int, int], together: tuple[float, float], alone: tuple[float, float]
) -> None:
    x, y = peak
    heatmaps = torch.zeros(1, 1, 16, 12)
    for dx, dy, value in ((0, 0, 1.0), (1, 0, 0.5), (0, 1, 0.5)):
        if x + dx < 12 and y + dy < 16:
            heatmaps[0, 0, y + dy, x + dx] = value
    for geometry, expected in (("mmpose0", together), ("mmpose1", alone)):
        assert _cells(_codec(1, geometry=geometry), heatmaps) == [list(expected)], geometry


def test_first_of_equal_maxima_wins() -> None:
    heatmaps = torch.zeros(1, 2, 16, 12)
    for x, y in ((9, 3), (4, 3), (2, 8)):
        heatmaps[0, 0, y, x] = 0.5
    heatmaps[0, 1] = 0.25
    assert _cells(_codec(refine="none"), heatmaps) == [[4.0, 3.0], [0.0, 0.0]]


@pytest.mark.cuda
def test_cuda_decodes_like_the_cpu_without_waiting() -> None:
    generator = torch.Generator().manual_seed(0)
    heatmaps = (torch.rand(8, 17, 64, 48, generator=generator) * 8).round() / 8  # many ties
    smooth = DECODE["a.heatmaps"]
    cfg = {"input_size": (256, 192), "heatmap_size": (64, 48)}
    flip = COCO_17.flip_indices
    for refine, geometry in (("none", "mmpose0"), ("quarter", "mmpose1"), ("dark", "tokenpose")):
        codec = _codec(17, refine=refine, geometry=geometry, blur_kernel=11, flip_indices=flip,
                       shift_heatmap=True, **cfg)  # fmt: skip
        for maps in (heatmaps, smooth):
            if refine == "dark" and maps is heatmaps:
                continue  # noise: the Hessian is ill conditioned
            on_gpu = maps.cuda()
            torch.cuda.set_sync_debug_mode("error")
            try:
                merged = codec.merge_flip(on_gpu, on_gpu)
                points, scores = codec.decode(on_gpu)
                input_to_image(points, points[:, 0], points[:, 1], (256, 192), geometry)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            expected, expected_scores = codec.decode(maps)
            torch.testing.assert_close(points.cpu(), expected, rtol=0, atol=1e-3)
            assert (scores.cpu() == expected_scores).all()
            assert (merged.cpu() == codec.merge_flip(maps, maps)).all()


@pytest.mark.parametrize("refine", ["quarter", "dark", "none"])
def test_maps_without_positive_value_are_placed_by_convention(refine: str) -> None:
    heatmaps = torch.stack([torch.zeros(16, 12), torch.full((16, 12), -0.5)])[None]
    heatmaps[0, 1, 8, 6] = -0.1
    for geometry in ("mmpose0", "mmpose1"):
        codec = _codec(geometry=geometry, refine=refine, blur_kernel=11)
        assert _cells(codec, heatmaps) == [[-1.0, -1.0], [-1.0, -1.0]]
    codec = _codec(geometry="tokenpose", refine=refine, blur_kernel=11)
    points, scores = codec.decode(heatmaps)
    origin = -7.5 * 47 / 11 + 31.5  # row 0, with the factor of the width about the middle
    torch.testing.assert_close(points, torch.tensor([[[0.0, origin]] * 2]))
    torch.testing.assert_close(scores, torch.tensor([[0.0, -0.1]]))


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.floats(15, 32), st.floats(15, 48)), min_size=2, max_size=2),
    st.sampled_from([(2.0, 11), (3.0, 17)]),
)
def test_dark_recovers_gaussians(points: list[tuple[float, float]], width: Any) -> None:
    """Away from the border, where zeros blur in, the peak is found far below a quarter cell."""
    sigma, kernel = width
    heatmaps = _maps(*points, size=(64, 48), sigma=sigma)
    codec = _codec(input_size=(256, 192), heatmap_size=(64, 48), refine="dark",
                   blur_kernel=kernel)  # fmt: skip
    decoded = torch.tensor(_cells(codec, heatmaps))
    torch.testing.assert_close(decoded, torch.tensor(points), rtol=0, atol=0.01)


@settings(max_examples=50)
@given(st.tuples(st.floats(2.6, 9.4), st.floats(2.6, 13.4)))
def test_quarter_offset_is_within_a_quarter_cell(point: tuple[float, float]) -> None:
    for geometry in ("mmpose0", "mmpose1"):
        (decoded,) = _cells(_codec(1, geometry=geometry), _maps(point))
        assert max(abs(decoded[0] - point[0]), abs(decoded[1] - point[1])) <= 0.25 + 1e-5


def test_dark_leaves_the_border_and_flat_maps_alone() -> None:
    border = _maps((1.3, 8.0), (6.0, 13.6), (9.7, 8.0), (6.0, 1.3))
    heatmaps = torch.cat([border, torch.ones(1, 1, 16, 12)], dim=1)
    codec = _codec(5, refine="dark", blur_kernel=11)
    expected = [[1.0, 8.0], [6.0, 14.0], [10.0, 8.0], [6.0, 1.0], [0.0, 0.0]]
    assert _cells(codec, heatmaps) == expected


def test_cells_become_input_pixels_by_the_geometry() -> None:
    heatmaps = _maps((3, 5))
    assert _codec(1, refine="none").decode(heatmaps)[0].tolist() == [[[12.0, 20.0]]]
    points, _ = _codec(1, refine="none", geometry="tokenpose").decode(heatmaps)
    expected = torch.tensor([[[3 * 47 / 11, (5 - 7.5) * 47 / 11 + 31.5]]], dtype=torch.float64)
    torch.testing.assert_close(points, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_merged_and_decoded_in_float32(dtype: torch.dtype) -> None:
    heatmaps = _maps((5.3, 7.0), (5.0, 6.6)).to(dtype)
    codec = _codec(refine="dark", blur_kernel=11)
    points, scores = codec.decode(heatmaps)
    assert points.dtype == scores.dtype == torch.float32
    assert (points == codec.decode(heatmaps.float())[0]).all()
    merged = codec.merge_flip(heatmaps, heatmaps)
    assert merged.dtype == torch.float32
    assert (merged == codec.merge_flip(heatmaps.float(), heatmaps.float())).all()


def test_autocast_does_not_touch_the_blur() -> None:
    codec, heatmaps = _codec(refine="dark", blur_kernel=11), _maps((5.3, 7.0), (5.0, 6.6)).float()
    with torch.autocast("cpu", torch.bfloat16):
        points, _ = codec.decode(heatmaps)
    assert (points == codec.decode(heatmaps)[0]).all()


@pytest.mark.parametrize("refine", ["quarter", "dark", "none"])
def test_nan_in_a_heatmap_stays_nan_in_its_score_alone(refine: str) -> None:
    heatmaps = _maps((5.3, 7.0), (5.0, 6.6))
    clean, _ = _codec(refine=refine, blur_kernel=11).decode(heatmaps)
    heatmaps[0, 0, 3, 3] = float("nan")
    points, scores = _codec(refine=refine, blur_kernel=11).decode(heatmaps)
    assert scores[0].isnan().tolist() == [True, False]
    assert (points[0, 1] == clean[0, 1]).all()


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize(
    ("skeleton", "key"), [(COCO_17, "coco17"), (COCO_WHOLEBODY_133, "wholebody133"),
                          (MPII_16, "mpii16")], ids=lambda x: getattr(x, "name", x)
)  # fmt: skip
def test_stored_outputs_give_the_stored_merge(skeleton: Skeleton, key: str, shift: bool) -> None:
    plain, mirrored = FLIP[f"{key}.plain"], FLIP[f"{key}.mirrored_input"]
    codec = _codec(flip_indices=skeleton.flip_indices, heatmap_size=tuple(plain.shape[-2:]),
                   shift_heatmap=shift)  # fmt: skip
    expected = FLIP[f"{key}.merged_{'shift' if shift else 'noshift'}"]
    torch.testing.assert_close(codec.merge_flip(plain, mirrored), expected, rtol=0, atol=1e-6)


@settings(max_examples=25)
@given(st.integers(0, 2**31))
def test_merging_with_the_mirror_image_of_itself_changes_nothing(seed: int) -> None:
    heatmaps = torch.rand(2, 17, 8, 6, generator=torch.Generator().manual_seed(seed))
    codec = _codec(flip_indices=COCO_17.flip_indices, heatmap_size=(8, 6))
    mirrored = heatmaps.flip(-1)[:, list(COCO_17.flip_indices)]
    assert (codec.merge_flip(heatmaps, mirrored) == heatmaps).all()


def test_merging_does_not_change_its_arguments() -> None:
    first, second = torch.rand(1, 2, 16, 12), torch.rand(1, 2, 16, 12)
    copies = first.clone(), second.clone()
    _codec(shift_heatmap=True).merge_flip(first, second)
    _codec(refine="dark", blur_kernel=11).decode(first)
    assert (first == copies[0]).all() and (second == copies[1]).all()


def test_heatmaps_of_another_shape_are_refused() -> None:
    for shape in ((1, 3, 16, 12), (1, 2, 12, 16), (2, 16, 12)):
        with pytest.raises(InputError, match=r"expected \(B, 2, 16, 12\)"):
            _codec().decode(torch.zeros(shape))


def test_no_persons_decode_to_empty_tensors() -> None:
    for refine in ("quarter", "dark", "none"):
        codec = _codec(refine=refine, blur_kernel=11)
        points, scores = codec.decode(codec.merge_flip(torch.zeros(0, 2, 16, 12),
                                                       torch.zeros(0, 2, 16, 12)))  # fmt: skip
        assert points.shape == (0, 2, 2) and scores.shape == (0, 2)


class _Output(NamedTuple):
    keypoints: Tensor
    logits: Tensor


PCT = RegressionCodec(input_size=(256, 256), flip_indices=COCO_17.flip_indices)


def test_stored_coordinates_give_the_stored_merge() -> None:
    merged = PCT.merge_flip(
        _Output(FLIP["pct.joints"], FLIP["pct.token_top1_logits"]),
        _Output(FLIP["pct.joints_mirrored_input"], FLIP["pct.token_top1_logits_mirrored_input"]),
    )
    points, scores = PCT.decode(merged)
    torch.testing.assert_close(points, FLIP["pct.joints_merged"], rtol=0, atol=1e-4)
    torch.testing.assert_close(scores, FLIP["pct.score_merged"][..., 0], rtol=0, atol=1e-5)
    image = input_to_image(points, FLIP["pct.center"], FLIP["pct.scale_200"] * 200, (256, 256),
                           "mmpose0")  # fmt: skip
    torch.testing.assert_close(image, FLIP["pct.image_xy"], rtol=0, atol=1e-3)


def test_regression_score_is_the_mean_of_each_tokens_largest_logit() -> None:
    logits = torch.tensor([[[1.0, 5.0, 2.0], [7.0, -1.0, 0.0]]], dtype=torch.bfloat16)
    other = torch.tensor([[[4.0, 1.0, 1.0], [2.0, 2.0, 10.0]]], dtype=torch.bfloat16)
    keypoints = torch.rand(1, 17, 2)
    points, scores = PCT.decode(_Output(keypoints, logits))
    assert scores.tolist() == [[6.0] * 17] and (points == keypoints).all()
    merged = PCT.merge_flip(_Output(keypoints, logits), _Output(keypoints, other))
    assert isinstance(merged, RegressionOutput) and merged.logits.shape == (1, 2, 1)
    assert PCT.decode(merged)[1].tolist() == [[6.5] * 17]


@pytest.mark.parametrize("shape", [(2, 16, 2), (2, 18, 2), (2, 17, 3), (17, 2)])
def test_keypoints_of_another_model_are_refused(shape: tuple[int, ...]) -> None:
    good, bad = (_Output(torch.zeros(s), torch.zeros(2, 34, 8)) for s in ((2, 17, 2), shape))
    for run in (lambda: PCT.decode(bad), lambda: PCT.merge_flip(good, bad)):
        with pytest.raises(InputError, match=r"keypoints have shape .*, expected \(B, 17, 2\)"):
            run()


def test_mirrored_keypoints_merge_to_themselves() -> None:
    keypoints = torch.randint(0, 256, (3, 17, 2)).float()
    mirrored = keypoints[:, list(COCO_17.flip_indices)] * torch.tensor([-1.0, 1.0])
    mirrored += torch.tensor([255.0, 0.0])
    merged = PCT.merge_flip(*(_Output(k, torch.zeros(3, 34, 8)) for k in (keypoints, mirrored)))
    assert (merged.keypoints == keypoints).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"refine": "dark"}, "blur_kernel is None.*odd"),
        ({"refine": "dark", "blur_kernel": 10}, "blur_kernel is 10"),
        ({"refine": "dark", "blur_kernel": 1}, "blur_kernel is 1"),
        ({"refine": "megvii"}, "refine is 'megvii', expected one of quarter, dark, dark_udp, none"),
        ({"geometry": "ud"}, "geometry is 'ud', expected one of mmpose0, mmpose1, tokenpose, udp"),
        ({"refine": "dark_udp", "blur_kernel": None}, "blur_kernel is None"),
        ({"heatmap_size": (1, 12)}, r"heatmap_size is \(1, 12\)"),
        ({"input_size": (64,)}, r"input_size is \(64,\)"),
        ({"flip_indices": (1, 2, 0)}, "do not swap"),
        ({"flip_indices": (0, 5)}, "do not swap"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(_codec(), **change)


def _cfg(dataset: str, decode: DecodeCfg | None, **input_args: Any) -> PretrainedCfg:
    task = "classification" if decode is None else "pose"
    return PretrainedCfg(task=task, dataset=dataset, decode=decode,
                         input=InputCfg(size=(256, 192), **input_args))  # fmt: skip


def test_configurations_give_their_codec() -> None:
    decode = DecodeCfg(codec="heatmap", heatmap_size=(64, 48), refine="dark", blur_kernel=11)
    assert build_codec(_cfg("coco_wholebody", decode, geometry="tokenpose")) == HeatmapCodec(
        input_size=(256, 192),
        heatmap_size=(64, 48),
        geometry="tokenpose",
        refine="dark",
        flip_indices=COCO_WHOLEBODY_133.flip_indices,
        blur_kernel=11,
        shift_heatmap=False,
    )
    shifted = dataclasses.replace(decode, shift_heatmap=True, refine="quarter")
    built = build_codec(_cfg("mpii", shifted, geometry="mmpose0"))
    assert isinstance(built, HeatmapCodec)
    assert built.shift_heatmap and built.flip_indices == MPII_16.flip_indices
    assert build_codec(_cfg("coco", DecodeCfg(codec="regression"))) == RegressionCodec(
        input_size=(256, 192), flip_indices=COCO_17.flip_indices
    )


def test_configurations_without_codec_are_refused() -> None:
    with pytest.raises(InputError, match="classification model; only pose models"):
        build_codec(_cfg("in1k", None))
    with pytest.raises(InputError, match="needs heatmap_size and geometry"):
        build_codec(_cfg("coco", DecodeCfg(codec="heatmap", refine="none")))


def _udp_by_hand(heatmap: np.ndarray, kernel: int) -> np.ndarray:
    """The cell of one heatmap's maximum, moved as arXiv 1911.07524 and its code do."""
    reach, sigma = kernel // 2, 0.3 * ((kernel - 1) / 2 - 1) + 0.8
    wave = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    wave /= wave.sum()
    blurred = np.apply_along_axis(
        lambda line: np.convolve(np.pad(line, reach, mode="reflect"), wave, "valid"), 0, heatmap
    )
    blurred = np.apply_along_axis(
        lambda line: np.convolve(np.pad(line, reach, mode="reflect"), wave, "valid"), 1, blurred
    )
    logs = np.pad(np.log(np.clip(blurred, 0.001, 50)), 1, mode="edge")
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    near = logs[y : y + 3, x : x + 3]
    step = np.array([near[1, 2] - near[1, 0], near[2, 1] - near[0, 1]]) / 2
    xx = near[1, 2] - 2 * near[1, 1] + near[1, 0]
    yy = near[2, 1] - 2 * near[1, 1] + near[0, 1]
    xy = (
        near[2, 2] - near[1, 2] - near[2, 1] + 2 * near[1, 1] - near[1, 0] - near[0, 1] + near[0, 0]
    )
    hessian = np.array([[xx, xy / 2], [xy / 2, yy]]) + np.finfo(np.float32).eps * np.eye(2)
    return np.array([x, y]) - np.linalg.solve(hessian, step)


def test_udp_decoding_is_the_written_out_formula_at_the_border_too():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :48]
    peaks = rng.uniform(-1, 1, (17, 2)) * [24.5, 32.5] + [24, 32]
    heatmaps = np.exp(-((columns - peaks[:, :1, None]) ** 2 + (rows - peaks[:, 1:, None]) ** 2) / 8)
    heatmaps += rng.normal(0, 0.003, heatmaps.shape)
    codec = build_codec(posezoo.get_pretrained_cfg("vitpose_b_256x192"))
    points, scores = codec.decode(torch.from_numpy(heatmaps)[None])
    expected = np.array([_udp_by_hand(h, 11) for h in heatmaps]) * [191 / 47, 255 / 63]
    np.testing.assert_allclose(points[0].numpy(), expected, atol=1e-9)
    np.testing.assert_allclose(scores[0].numpy(), heatmaps.max((1, 2)))
    empty, _ = codec.decode(torch.zeros(1, 17, 64, 48))
    np.testing.assert_allclose(empty[0], [[-191 / 47, -255 / 63]] * 17, rtol=1e-6)
