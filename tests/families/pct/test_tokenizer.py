"""The token space of PCT: encode, decode, complete, nearest, and bad input."""

from __future__ import annotations

import pytest
import torch
from goldens.fill import make_input
from torch import Tensor

from families import small
from posezoo.errors import InputError
from posezoo.geometry import crop_matrices, image_to_input, input_to_image
from posezoo.models.pct.tokenizer import PCTTokenizer
from posezoo.models.pct.tokens import TokenDecoder, features_at


@pytest.fixture(scope="module")
def guided() -> PCTTokenizer:
    return small("pct_tokenizer_swin_base")


@pytest.fixture(scope="module")
def tokenizer() -> PCTTokenizer:
    return small("pct_tokenizer_swin_base_woimgguide")


def _poses(count: int = 3) -> tuple[Tensor, Tensor]:
    visible = torch.ones(count, 17)
    visible[:, 9:11] = 0
    return 128 + 48 * make_input("joints", (count, 17, 2)), visible


def test_decode_is_a_function_of_the_ids_alone(tokenizer):
    ids = tokenizer.encode(*_poses())
    assert ids.shape == (3, 34) and ids.dtype == torch.int64
    keypoints = tokenizer.decode(ids)
    assert keypoints.shape == (3, 17, 2)
    torch.testing.assert_close(keypoints, tokenizer(*_poses()).keypoints)
    torch.testing.assert_close(tokenizer.decode(ids.to(torch.int32)), keypoints)
    small = torch.arange(34)[None]  # a byte has no room for the size of the codebook
    assert torch.equal(tokenizer.decode(small.to(torch.uint8)), tokenizer.decode(small))


def test_coordinates_of_hidden_keypoints_have_no_effect(tokenizer):
    keypoints, visible = _poses()
    other = keypoints.clone()
    other[:, 9:11] = float("nan")
    assert torch.equal(tokenizer.encode(other, visible), tokenizer.encode(keypoints, visible))
    shown = tokenizer.encode(keypoints, torch.ones_like(visible))
    assert not torch.equal(shown, tokenizer.encode(keypoints, visible))


def test_complete_fills_hidden_keypoints_and_keeps_the_others(tokenizer):
    keypoints, visible = _poses()
    done = tokenizer.complete(keypoints, visible)
    hidden = visible == 0
    assert torch.equal(done[~hidden], keypoints[~hidden])
    decoded = tokenizer.decode(tokenizer.encode(keypoints, visible))
    torch.testing.assert_close(done[hidden], decoded[hidden])


def test_nearest_is_the_reconstruction_of_the_whole_pose(tokenizer):
    keypoints, _ = _poses()
    ids = tokenizer.encode(keypoints, torch.ones(3, 17, dtype=torch.bool))
    torch.testing.assert_close(tokenizer.nearest(keypoints), tokenizer.decode(ids))


def test_completed_pose_keeps_the_given_precision(tokenizer):
    keypoints, visible = _poses()
    keypoints = keypoints.double() + 1e-9
    done = tokenizer.complete(keypoints, visible)
    assert done.dtype == torch.float64 and torch.equal(done[visible > 0], keypoints[visible > 0])
    assert tokenizer.complete(keypoints.half(), visible).dtype == torch.float32


def test_token_is_the_closest_row_and_ties_take_the_first():
    decoder = TokenDecoder().double()
    decoder.codebook[7] = decoder.codebook[3]
    rows = torch.arange(34)
    found = decoder.nearest_ids(decoder.codebook[rows][None] + 0.01)
    assert found[0].tolist() == [3 if i == 7 else i for i in range(34)]


def test_guided_tokenizer_reads_the_features_under_each_keypoint(guided):
    keypoints, visible = _poses()
    with torch.inference_mode():
        features = guided.forward_features(make_input("image", (3, 3, 256, 256)))
        found, other = (guided(keypoints, visible, f) for f in (features, features.flip(0)))
        assert not torch.equal(found.embeddings, other.embeddings)
        assert torch.equal(found.ids, guided.encode(keypoints, visible, features))
        assert guided.complete(keypoints, visible, features).shape == (3, 17, 2)
        assert guided.nearest(keypoints, features).shape == (3, 17, 2)


@pytest.mark.parametrize(
    ("x", "cell"),
    [(-1e9, 0), (-40.0, 0), (15.9, 0), (16.0, 1), (47.9, 1), (48.0, 2), (207.9, 6), (208.0, 7),
     (255.0, 7), (1e9, 7)],
)  # fmt: skip
def test_guidance_cell_is_the_rounded_one(x, cell):
    features = torch.arange(64.0).reshape(1, 1, 8, 8)
    assert features_at(features, torch.tensor([[[x, 0.0]]])).item() == cell
    assert features_at(features, torch.tensor([[[0.0, x]]])).item() == 8 * cell


def test_empty_batch_gives_empty_answers(tokenizer):
    keypoints, visible = torch.zeros(0, 17, 2), torch.zeros(0, 17)
    assert tokenizer.encode(keypoints, visible).shape == (0, 34)
    assert tokenizer.complete(keypoints, visible).shape == (0, 17, 2)
    assert tokenizer.decode(torch.zeros(0, 34, dtype=torch.int64)).shape == (0, 17, 2)


def test_tokens_are_the_same_under_autocast(tokenizer):
    with torch.autocast("cpu", torch.bfloat16):
        ids = tokenizer.encode(*_poses())
    assert torch.equal(ids, tokenizer.encode(*_poses()))


@pytest.mark.parametrize("geometry", ["mmpose0", "mmpose1", "tokenpose"])
def test_frames_lead_from_the_image_to_the_input_and_back(geometry):
    centers, sizes = torch.tensor([[320.5, 240.25]]), torch.tensor([[300.0, 300.0]])
    points = 320 + 100 * make_input("points", (1, 17, 2)).double()
    frame = (centers, sizes, (256, 256), geometry)
    inside = image_to_input(points, *frame)
    torch.testing.assert_close(input_to_image(inside, *frame), points)
    matrix = torch.from_numpy(crop_matrices(centers.numpy(), sizes.numpy(), *frame[2:])[0])
    expected = points @ matrix[:, :2].T + matrix[:, 2]
    torch.testing.assert_close(inside, expected, rtol=1e-5, atol=1e-3)


def _spoil(keypoints: Tensor, visible: Tensor, how: str) -> tuple[Tensor, Tensor]:
    if how == "nan":
        keypoints[1, 3, 0] = float("nan")
    elif how == "infinite":
        keypoints[2, 0, 1] = float("inf")
    elif how == "hidden":
        visible[1] = 0
    elif how in ("2", "0.5", "-1", "nan flag"):
        visible[0, 0] = float(how.split()[0])
    return keypoints, visible


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("nan", "keypoint 3 of pose 1 is .*nan.*mark it hidden"),
        ("infinite", "keypoint 0 of pose 2 is .*inf"),
        ("hidden", "pose 1 has no visible keypoint"),
        ("2", r"visible must be 0 or 1, got 2.0.*flags > 0"),
        ("0.5", "visible must be 0 or 1, got 0.5"),
        ("-1", "visible must be 0 or 1, got -1"),
        ("nan flag", "visible must be 0 or 1, got nan"),
    ],
)
def test_poses_that_cannot_be_encoded_are_refused(tokenizer, how, words):
    keypoints, visible = _spoil(*_poses(), how)
    for run in (tokenizer.encode, tokenizer.complete):
        with pytest.raises(InputError, match=words):
            run(keypoints, visible)


@pytest.mark.parametrize("shape", [(17, 2), (3, 16, 2), (3, 17, 3), (3, 2, 17), (3, 133, 2)])
def test_keypoints_of_another_shape_are_refused(tokenizer, shape):
    for run in (lambda k: tokenizer.encode(k, torch.ones(shape[:-1])), tokenizer.nearest):
        with pytest.raises(InputError, match=r"keypoints must have shape \(N, 17, 2\)"):
            run(torch.zeros(shape))
    with pytest.raises(InputError, match=r"visible must have shape \(3, 17\)"):
        tokenizer.encode(torch.zeros(3, 17, 2), torch.ones(3, 16))


@pytest.mark.parametrize("make", [Tensor.numpy, Tensor.tolist, lambda t: None])
def test_what_is_no_tensor_is_refused(tokenizer, guided, make):
    keypoints, visible = _poses()
    for run, name in (
        (lambda: tokenizer.encode(make(keypoints), visible), "keypoints"),
        (lambda: tokenizer.complete(keypoints, make(visible)), "visible"),
        (lambda: tokenizer.nearest(make(keypoints)), "keypoints"),
        (lambda: tokenizer(make(keypoints), visible), "keypoints"),
        (lambda: tokenizer.decode(make(torch.zeros(1, 34))), "ids"),
    ):
        with pytest.raises(InputError, match=f"{name} must be a torch tensor, got .*as_tensor"):
            run()
    with pytest.raises(InputError, match="image_features"):
        guided.encode(keypoints, visible, make(torch.zeros(3, 256, 8, 8)))


def test_forward_refuses_shapes_types_and_devices(tokenizer):
    keypoints, visible = _poses()
    for arguments, words in (
        ((keypoints[0], visible[0]), r"keypoints must have shape \(N, 17, 2\)"),
        ((keypoints, visible[:1]), r"visible must have shape \(3, 17\), got \(1, 17\)"),
        ((keypoints.long(), visible), "keypoints must be floating point, got torch.int64"),
        ((keypoints.to("meta"), visible), "keypoints must be on the device .* cpu, got meta"),
        ((keypoints, visible.to("meta")), "visible must be on the device"),
    ):
        with pytest.raises(InputError, match=words):
            tokenizer(*arguments)


def test_features_that_are_not_finite_are_refused(guided):
    features = torch.zeros(3, 256, 8, 8)
    features[1, 5, 2, 2] = float("nan")
    with pytest.raises(InputError, match="image_features hold NaN or infinity"):
        guided.encode(*_poses(), features)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (torch.zeros(34, dtype=torch.int64), r"shape \(N, 34\), got \(34,\)"),
        (torch.zeros(1, 17, dtype=torch.int64), r"shape \(N, 34\), got \(1, 17\)"),
        (torch.zeros(1, 34), "must be integers, got torch.float32"),
        (torch.zeros(1, 34, dtype=torch.bool), "must be integers, got torch.bool"),
        (torch.full((1, 34), 2048), "token id 2048 is outside the codebook; valid: 0 to 2047"),
        (torch.full((1, 34), -1), "token id -1 is outside the codebook"),
    ],
)
def test_ids_that_are_no_tokens_are_refused(tokenizer, ids, words):
    with pytest.raises(InputError, match=words):
        tokenizer.decode(ids)


def test_guidance_that_does_not_fit_is_refused(tokenizer, guided):
    with pytest.raises(
        InputError, match=r"needs image_features of shape \(3, 256, 8, 8\), got none"
    ):
        guided.encode(*_poses())
    with pytest.raises(InputError, match=r"got shape \(1, 256, 8, 8\)"):
        guided.encode(*_poses(), torch.zeros(1, 256, 8, 8))
    with pytest.raises(InputError, match="leave image_features out"):
        tokenizer.encode(*_poses(), torch.zeros(3, 256, 8, 8))
    with pytest.raises(InputError, match="coordinates alone"):
        tokenizer.forward_features(torch.zeros(1, 3, 256, 256))
