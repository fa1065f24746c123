"""Reading images, exact crops, normalisation: stored crops, a plain reference, bad input."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from standins.device import FAR, StandInDevice
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from posezoo.errors import InputError
from posezoo.geometry import boxes_to_center_size, crop_matrices
from posezoo.transforms import TopDownCrop, build_transform, load_image, warp_crops, warp_many
from posezoo.zoo.config import DecodeCfg, InputCfg, PretrainedCfg

GOLDENS = Path(__file__).parent / "goldens/evaluation"
STORED = json.loads((GOLDENS / "warp.json").read_text())
HASHES = json.loads((GOLDENS / "crop_hashes.json").read_text())
TENSORS = load_file(GOLDENS / "warp.safetensors")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NOISE: Tensor = TENSORS["noise_image"]


def _sha256(array: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _rows(crop: Tensor) -> np.ndarray:
    return crop.permute(1, 2, 0).numpy()  # (h, w, 3)


def _cases(source: str) -> list[str]:
    return [name for name, case in STORED["cases"].items() if case["source"] == source]


def _stored_crop(name: str, image: Tensor) -> np.ndarray:
    case = STORED["cases"][name]
    (crop,) = warp_crops(image, np.array([case["matrix"]]), tuple(case["size_wh"][::-1]))
    return _rows(crop)


@pytest.mark.parametrize("name", _cases("noise"))
def test_stored_noise_crops_are_equal_to_the_bit(name: str) -> None:
    assert (_stored_crop(name, NOISE) == TENSORS[name].numpy()).all()


def test_large_image_gives_the_crops_of_its_parts() -> None:
    image = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (2600, 500, 3), dtype=np.uint8)
    )
    for top in (0, 1000, 2000):
        scale = np.array([[[0.4, 0.0, 0.0], [0.0, 0.4, 0.0]]])
        (part,) = warp_crops(image[top : top + 600], scale, (200, 200))
        scale[0, 1, 2] = -0.4 * top
        (whole,) = warp_crops(image, scale, (200, 200))
        assert torch.equal(whole, part)


@pytest.mark.parametrize("name", _cases("photo"))
def test_stored_photo_crops_are_equal_to_the_bit(name: str, photos: Path) -> None:
    image = torch.from_numpy(load_image(photos / "coco" / STORED["photo"]))
    assert _sha256(_stored_crop(name, image)) == STORED["cases"][name]["sha256"]


@pytest.mark.parametrize("run", HASHES)
def test_every_detection_crop_has_the_published_bytes(run: str, photos: Path) -> None:
    case, folder = HASHES[run], photos / "coco"
    detections = json.loads((folder / "test_coco_det_AP_H_56.json").read_text())
    files = {
        image["id"]: image["file_name"]
        for image in json.loads((folder / "test_coco.json").read_text())["images"]
    }
    size = tuple(case["input_wh"][::-1])
    found: dict[int, str] = {}
    for image_id, file in files.items():
        rows = [i for i, d in enumerate(detections) if d["image_id"] == image_id]
        bboxes = np.array([detections[i]["bbox"] for i in rows])
        bboxes[:, 2:] += bboxes[:, :2]
        centers, sizes = boxes_to_center_size(bboxes, size, case["padding"], case["geometry"])
        matrices = crop_matrices(centers, sizes, size, case["geometry"])
        crops = warp_crops(torch.from_numpy(load_image(folder / file)), matrices, size)
        found |= {i: _sha256(_rows(crop))[:16] for i, crop in zip(rows, crops, strict=True)}
    different = [i for i, expected in enumerate(case["sha256"]) if found[i] != expected]
    assert len(found) == 118 and different == []


def _reference_warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The recipe of the specification, one output pixel at a time."""
    full = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    (a, b, e), (c, d, f) = full[:2]
    height, width = image.shape[:2]
    out = np.zeros((*size, 3), np.uint8)
    for y, x in np.ndindex(*size):
        sx = (int(np.rint((b * y + e) * 1024)) + 16 + int(np.rint(a * x * 1024))) >> 5
        sy = (int(np.rint((d * y + f) * 1024)) + 16 + int(np.rint(c * x * 1024))) >> 5
        total = np.zeros(3, np.int64)
        for row, row_weight in ((sy >> 5, 32 - (sy & 31)), ((sy >> 5) + 1, sy & 31)):
            for column, weight in ((sx >> 5, 32 - (sx & 31)), ((sx >> 5) + 1, sx & 31)):
                if 0 <= row < height and 0 <= column < width:
                    total += image[row, column].astype(np.int64) * 32 * row_weight * weight
        out[y, x] = (total + 16384) >> 15
    return out


# multiples of 1/64: the inverse of the matrix is then nearly free of rounding
steps = st.integers(-64 * 30, 64 * 30).map(lambda n: n / 64)
scales = st.sampled_from([0.25, 0.5, 1.0, 2.0, 8.0])


@settings(max_examples=30, deadline=None)
@given(scales, steps, steps, st.sampled_from([(1, 0), (0, 1), (-1, 0), (0, -1), (0.6, 0.8)]))
def test_crops_equal_the_plain_reference(
    scale: float, dx: float, dy: float, direction: tuple[float, float]
) -> None:
    cos, sin = direction
    matrix = np.array([[scale * cos, -scale * sin, dx], [scale * sin, scale * cos, dy]])
    image = NOISE[:23, :31]
    crop = _rows(warp_crops(image, matrix[None], (12, 17))[0])
    expected = _reference_warp(image.numpy(), matrix, (12, 17))
    if direction == (0.6, 0.8):  # not exact in binary: a position may fall on the other side
        assert (crop != expected).mean() < 0.02
    else:
        assert (crop == expected).all()


def test_identity_copies_the_image_and_pads_with_black() -> None:
    height, width = NOISE.shape[:2]
    (crop,) = warp_crops(NOISE, np.array([[[1.0, 0, 2], [0, 1, 3]]]), (height + 5, width + 7))
    assert (crop[:, 3:-2, 2:-5].permute(1, 2, 0) == NOISE).all()
    assert crop.sum(dtype=torch.int64) == NOISE.sum(dtype=torch.int64)


@pytest.mark.parametrize("matrix", [[[1, 0.25, 3], [0, 1, -2]], [[1, 0, 3], [0.25, 1, -2]]])
def test_shear_along_one_axis_equals_the_plain_reference(matrix: list[list[float]]) -> None:
    crop = _rows(warp_crops(NOISE, np.array([matrix], float), (12, 17))[0])
    assert (crop == _reference_warp(NOISE.numpy(), np.array(matrix, float), (12, 17))).all()


@pytest.mark.filterwarnings("error")  # numpy only warns when a number does not fit an integer
@pytest.mark.parametrize("shift", [1e4, -1e4, 1e9, -1e9, 1e18, -1e18])
def test_crops_far_outside_are_black(shift: float) -> None:
    matrices = np.array([[[1.0, 0, shift], [0, 1, 0]], [[1.0, 0, 0], [0, 1, shift]],
                         [[1e-9, 0, shift], [0, 1e-9, shift]]])  # fmt: skip
    assert not warp_crops(NOISE, matrices, (20, 30)).any()


def test_crops_do_not_depend_on_their_company() -> None:
    """Straight and turned maps take different paths; a mixed call must agree with both."""
    straight = np.array([[[1.3, 0, 5.2], [0, 1.3, -7.9]]] * 40)
    straight[:, 0, 2] += np.arange(40)
    turned = np.array([[[0.9, -0.4, 10.0], [0.4, 0.9, -20.0]]])
    together = warp_crops(NOISE, np.concatenate([straight, turned]), (24, 18))
    alone = [warp_crops(NOISE, m[None], (24, 18))[0] for m in (*straight, *turned)]
    assert (together == torch.stack(alone)).all()


def test_matrices_may_be_tensors_and_there_may_be_none() -> None:
    matrices = np.array([[[1.3, 0, 5.2], [0, 1.3, -7.9]]])
    from_array = warp_crops(NOISE, matrices, (24, 18))
    assert (warp_crops(NOISE, torch.from_numpy(matrices), (24, 18)) == from_array).all()
    none = warp_crops(NOISE, matrices[:0], (24, 18))
    assert none.shape == (0, 3, 24, 18) and none.dtype == torch.uint8


def _several(
    seed: int, shapes: list[tuple[int, int]], counts: list[int], turned: bool
) -> tuple[list[Tensor], list[np.ndarray]]:
    """Make images of bright noise, and maps of each to crops (19, 14), every fourth outside."""
    rng = np.random.default_rng(seed)
    images = [torch.from_numpy(rng.integers(100, 256, (*s, 3), dtype=np.uint8)) for s in shapes]
    matrices = []
    for (height, width), count in zip(shapes, counts):
        linear = rng.normal(size=(count, 2, 2)) * np.array([[1, turned], [turned, 1]])
        shift = rng.normal([7.0, 9.5], 5, (count, 2)) - linear @ np.array([width / 2, height / 2])
        shift[3::4] *= 10.0 ** rng.integers(0, 12)
        matrices.append(np.concatenate([linear, shift[:, :, None]], axis=2))
    return images, matrices


shapes = st.tuples(st.integers(1, 40), st.integers(1, 60))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32), st.lists(st.tuples(shapes, st.integers(0, 5)), min_size=1, max_size=5),
    st.booleans(),
)  # fmt: skip
def test_crops_of_many_images_equal_those_of_each(
    seed: int, pictures: list[tuple[tuple[int, int], int]], turned: bool
) -> None:
    sides, counts = zip(*pictures)
    images, matrices = _several(seed, list(sides), list(counts), turned)
    alone = [warp_crops(image, maps, (19, 14)) for image, maps in zip(images, matrices)]
    assert torch.equal(warp_many(images, matrices, (19, 14)), torch.cat(alone))


def test_crops_of_many_images_fill_several_launches() -> None:
    images, matrices = _several(0, [(9, 70), (33, 8)], [60, 90], turned=False)
    alone = [warp_crops(image, maps, (19, 14)) for image, maps in zip(images, matrices)]
    together = warp_many(images, matrices, (19, 14))
    assert torch.equal(together, torch.cat(alone))
    assert together.flatten(1).amax(1).bool().sum() > 100  # the others are black


def test_crops_on_a_device_need_no_wait_and_few_operations() -> None:
    images, matrices = _several(0, [(30, 40)] * 20, [4] * 20, turned=True)
    expected = torch.cat([warp_crops(i, maps, (19, 14)) for i, maps in zip(images, matrices)])
    with StandInDevice() as device:
        far = [image.to(FAR) for image in images]
        crops, one = warp_many(far, matrices, (19, 14)), warp_crops(far[0], matrices[0], (19, 14))
    assert device.waits == {}
    assert torch.equal(crops.as_subclass(Tensor), expected)
    assert torch.equal(one.as_subclass(Tensor), expected[:4])
    with _Counted() as counted:
        warp_many(images, matrices, (19, 14))
    assert counted.operations < 10 * len(images)


class _Counted(TorchDispatchMode):
    """Counts operations."""

    operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.cuda
def test_cuda_crops_equal_the_cpu() -> None:
    rng = np.random.default_rng(0)
    matrices = rng.normal(size=(70, 2, 3)) * np.array([1, 1, 40])
    for maps in (matrices, matrices * np.array([[1, 0, 1], [0, 1, 1]])):
        on_gpu = warp_crops(NOISE.cuda(), maps, (64, 48))
        assert on_gpu.is_cuda and (on_gpu.cpu() == warp_crops(NOISE, maps, (64, 48))).all()


@pytest.mark.cuda
@pytest.mark.parametrize("turned", [False, True])
def test_cuda_crops_of_many_images_equal_the_cpu(turned: bool) -> None:
    sides = [(480, 640), (1, 1), (333, 500), (1, 700), (640, 427)]
    images, matrices = _several(0, sides, [40, 3, 0, 5, 70], turned)
    on_gpu = warp_many([image.cuda() for image in images], matrices, (19, 14))
    alone = [warp_crops(image, maps, (19, 14)) for image, maps in zip(images, matrices)]
    assert on_gpu.is_cuda and torch.equal(on_gpu.cpu(), torch.cat(alone))
    none = warp_many([images[0].cuda()], [matrices[0][:0]], (19, 14))
    assert none.shape == (0, 3, 19, 14)


def test_top_down_crop_normalises_after_padding() -> None:
    matrices = np.array([[[1.0, 0, 10], [0, 1, 0]], [[2.0, 0, 0], [0, 2, 0]]])
    tensor = TopDownCrop((32, 24), MEAN, STD)(NOISE, matrices)
    assert tensor.shape == (2, 3, 32, 24) and tensor.dtype == torch.float32
    crops = warp_crops(NOISE, matrices, (32, 24))
    expected = (crops.double() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[
        :, None, None
    ]
    torch.testing.assert_close(tensor, expected.float(), rtol=0, atol=1e-6)
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    torch.testing.assert_close(tensor[0, :, 5, 5], black, rtol=0, atol=1e-6)


def _cfg(task: Any, **input_args: Any) -> PretrainedCfg:
    decode = DecodeCfg(codec="regression") if task == "pose" else None
    return PretrainedCfg(task=task, dataset="coco", input=InputCfg(**input_args), decode=decode)


def test_pose_configuration_gives_a_top_down_crop() -> None:
    transform = build_transform(_cfg("pose", size=(256, 192)))
    assert isinstance(transform, TopDownCrop)
    assert (transform.size, transform.mean, transform.std) == ((256, 192), MEAN, STD)


def test_classifier_configuration_gives_the_stored_imagenet_crop(photos: Path) -> None:
    cfg = _cfg("classification", size=(224, 224), interpolation="bicubic", crop_pct=0.875)
    image = Image.fromarray(load_image(photos / "coco" / STORED["photo"]))
    tensor: Tensor = build_transform(cfg)(image)  # type: ignore[call-arg, arg-type]
    stored = STORED["imagenet"]
    pixels = tensor * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    crop = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0)
    assert _sha256(crop.numpy()) == stored["crop_sha256"]
    torch.testing.assert_close(tensor.mean((1, 2)).tolist(), stored["normalised_mean"], rtol=0,
                               atol=1e-5)  # fmt: skip
    torch.testing.assert_close(tensor.std((1, 2)).tolist(), stored["normalised_std"], rtol=0,
                               atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("name", STORED["decoded_rgb_sha256"])
def test_photos_decode_to_the_stored_bytes(name: str, photos: Path) -> None:
    assert _sha256(load_image(photos / "coco" / name)) == STORED["decoded_rgb_sha256"][name]


def test_path_string_pillow_image_and_array_are_the_same(tmp_path: Path) -> None:
    array = NOISE.numpy()
    path = tmp_path / "noise.png"
    Image.fromarray(array).save(path)
    for source in (path, str(path), Image.open(path), array):
        loaded = load_image(source)
        assert loaded.dtype == np.uint8 and (loaded == array).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 255  # white corner, top left
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's Transpose that stores it so
    stored = Image.fromarray(upright)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    assert (load_image(tmp_path / "turned.png") == upright).all()


def test_grey_images_and_arrays_become_rgb() -> None:
    grey = NOISE[:, :, 0].numpy()
    for source in (grey, Image.fromarray(grey)):
        loaded = load_image(source)
        assert loaded.shape == (*grey.shape, 3) and (loaded == grey[:, :, None]).all()


def test_16_bit_grey_is_scaled_to_8_bit(tmp_path: Path) -> None:
    grey = np.array([[0, 128, 129, 257], [258 * 100, 32896, 65406, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    expected = np.rint(grey / 257).astype(np.uint8)
    assert (load_image(tmp_path / "deep.png") == expected[:, :, None]).all()
    assert (load_image(Image.fromarray(grey.astype(np.int32))) == expected[:, :, None]).all()


def test_transparent_pixels_lie_over_black() -> None:
    pixels = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], np.uint8)
    loaded = load_image(Image.fromarray(pixels, "RGBA"))
    assert loaded.tolist() == [[[200, 100, 50], [0, 0, 0], [40, 20, 10]]]
    grey = Image.merge("LA", [Image.new("L", (1, 1), 200), Image.new("L", (1, 1), 0)])
    assert load_image(grey).tolist() == [[[0, 0, 0]]]


def test_palette_with_transparent_colour_and_cmyk_become_rgb(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    palette.save(tmp_path / "p.png", transparency=1)
    assert load_image(tmp_path / "p.png").tolist() == [[[10, 20, 30], [0, 0, 0]]]
    assert load_image(Image.new("CMYK", (1, 1), (0, 255, 255, 0))).tolist() == [[[255, 0, 0]]]
    assert load_image(Image.new("1", (1, 1), 1)).tolist() == [[[255, 255, 255]]]


@pytest.mark.filterwarnings("error")  # torch only warns about read-only arrays
def test_reversed_and_read_only_arrays_can_become_tensors() -> None:
    reversed_channels = NOISE.numpy()[:, :, ::-1]
    read_only = NOISE.numpy().copy()
    read_only.flags.writeable = False
    for array in (reversed_channels, read_only, NOISE.numpy()[::2, ::2]):
        assert (torch.from_numpy(load_image(array)).numpy() == array).all()


def test_a_fitting_array_is_not_copied() -> None:
    array = NOISE.numpy().copy()
    assert load_image(array) is array


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"dtype float32.*multiply by 255"),
        (np.zeros((4, 4, 3), np.int64), r"dtype int64.*astype\(np.uint8\)"),
        (np.zeros((4, 4), np.uint16), "dtype uint16"),
        (np.zeros((3, 4, 5), np.uint8), r"\(3, 4, 5\).*transpose\(1, 2, 0\)"),
        (np.zeros((6, 4, 4), np.uint8), r"\(6, 4, 4\).*\[:, :, :3\]"),
        (np.zeros((6, 4, 1), np.uint8), r"\(6, 4, 1\).*\[:, :, 0\]"),
        (np.zeros((2, 6, 4, 3), np.uint8), r"one image at a time"),
        (np.zeros((0, 4, 3), np.uint8), r"empty: shape \(0, 4, 3\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (7, "image is a int"),
        (torch.zeros(4, 4, 3), "image is a Tensor"),
        ("no/such/file.jpg", "no image file at no/such/file.jpg"),
        (Image.new("F", (2, 2)), "floating-point"),
        (Image.new("I", (2, 2), 70000), "values 70000 to 70000"),
    ],
)
def test_other_sources_are_refused_with_advice(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_image(source)


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    good = tmp_path / "good.jpg"
    Image.fromarray(NOISE.numpy()).save(good)
    content = good.read_bytes()
    for name, data in {
        "empty.jpg": b"",
        "text.jpg": b"not an image at all",
        "truncated.jpg": content[: len(content) // 2],
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=rf"cannot read .*{name}|{name} is empty"):
            load_image(tmp_path / name)
    with pytest.raises(InputError, match="cannot read"):
        load_image(tmp_path)


@pytest.mark.filterwarnings("ignore")  # Pillow warns about some of the damage
@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "webp", "tiff", "bmp"])
def test_random_damage_never_raises_anything_else(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / f"image.{kind}"
    Image.fromarray(NOISE[:40, :40].numpy()).save(path)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(40):
        damaged = content.copy()
        where = rng.integers(0, min(len(content), 400), size=6)
        damaged[where] = rng.integers(0, 256, size=6)
        path.write_bytes(damaged.tobytes())
        try:
            assert load_image(path).shape[2] == 3
        except InputError:
            pass


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_over_pillows_pixel_limit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (40, 30)).save(tmp_path / "large.png")
    for limit in (1000, 100):  # Pillow only warns up to twice its limit, then raises
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(InputError, match="large.png"):
            load_image(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert load_image(tmp_path / "large.png").shape == (30, 40, 3)
