"""Which visual tokens TokenPose and TMPose keep, and what that changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from goldens.compare import Golden
from goldens.fill import golden_path, make_input
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounter

import posezoo
from families import on_meta, registered, small, smaller
from families.tokenpose import GOLDENS, MASKS, SMALL, Stored, name_of
from posezoo.errors import InputError
from posezoo.models.tokenpose.masks import TokenMask, sine_positions

NAME = "tokenpose_t_256x192"  # every mask, no trunk; the small one has 16 tokens
SIZES = [256, 288, 768]


@pytest.fixture
def model():
    return small(NAME)


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return make_input("image", (1, 3, 64, 48))


@pytest.mark.parametrize("golden", GOLDENS)
def test_positions_and_masks_equal_the_published_ones_exactly(golden):
    stored = Golden(golden_path("tokenpose", f"{golden}.safetensors"))
    grid = on_meta(name_of(golden)).grid
    key = next(n for n in stored.names if n.startswith("override:"))
    positions = sine_positions(grid, 192).reshape(-1)[:: int(stored.metadata[f"stride:{key}"])]
    assert torch.equal(positions, stored.tensors[key])
    for name in stored.names & {"indices.uniform", "indices.uniform.r0.4", "indices.block"}:
        kind, ratio, _, _ = MASKS[name.replace("indices", "heatmaps")]
        kept = TokenMask(type=kind, ratio=ratio).kept(grid[0] * grid[1])
        assert kept == stored.tensors[name].tolist()


@given(st.sampled_from(SIZES), st.integers(1, 768))
def test_uniform_tokens_are_those_of_linspace(size, count):
    count = min(count, size)
    mask = TokenMask(type="uniform", ratio=min((count + 0.5) / size, 1.0))
    assert mask.kept(size) == np.linspace(0, size - 1, count, dtype=int).tolist()


@given(
    st.sampled_from(SIZES), st.sampled_from(["uniform", "random", "zone", "block"]),
    st.floats(0.02, 1.0), st.sampled_from(["token", "slot"]),
)  # fmt: skip
@settings(deadline=None)
def test_every_mask_keeps_the_promised_number_of_different_tokens(size, kind, ratio, pos):
    mask = TokenMask(type=kind, ratio=ratio, pos=pos)
    kept = mask.kept(size)
    assert len(kept) == len(set(kept)) == mask.count(size)
    assert set(kept) <= set(range(size))
    assert ratio * size - 4 < len(kept) <= ratio * size
    assert kept == sorted(kept) or (kind == "random" and pos == "slot")


@pytest.mark.parametrize(
    ("kind", "size", "ratio", "expected"),
    [
        ("block", 256, 0.6, list(range(152))),
        ("block", 288, 0.5, list(range(144))),
        ("zone", 256, 0.6, [64 * zone + i for zone in range(4) for i in range(38)]),
        ("zone", 288, 0.25, [72 * zone + i for zone in range(4) for i in range(18)]),
        ("uniform", 256, 0.005, [0]),
        ("none", 256, 0.5, list(range(256))),
    ],
)
def test_masks_by_hand(kind, size, ratio, expected):
    assert TokenMask(type=kind, ratio=ratio).kept(size) == expected


def test_random_list_is_fixed_and_grows_with_the_ratio():
    kept = [set(TokenMask(type="random", ratio=r).kept(256)) for r in (0.2, 0.4, 0.6, 1.0)]
    assert kept[0] < kept[1] < kept[2] < kept[3]
    drawn = TokenMask(type="random", ratio=0.6, pos="slot").kept(256)
    assert drawn != sorted(drawn) and set(drawn) == kept[2]


TINY = small(NAME)  # hypothesis takes no fixtures of a test function


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(16)), st.integers(1, 16))
def test_order_of_kept_tokens_is_free_and_matters_only_with_slots(order, count):
    image, keep = make_input("image", (1, 3, 64, 48)), torch.tensor(order[:count])
    in_order = keep.sort().values
    TINY.set_mask("uniform", 0.6, "token")
    with torch.inference_mode():
        assert torch.equal(TINY(image, keep), TINY(image, in_order))
        TINY.set_mask("uniform", 0.6, "slot")
        if not torch.equal(keep, in_order):
            assert not torch.equal(TINY(image, keep), TINY(image, in_order))


@pytest.mark.parametrize("kind", ["uniform", "random", "zone", "block"])
def test_mask_in_evaluation_gives_the_same_heatmaps_every_time(model, image, kind):
    full = model(image)
    model.set_mask(kind, 0.6)
    masked = model(image)
    assert torch.equal(masked, model(image)) and not torch.equal(masked, full)
    assert torch.equal(masked, small(NAME, mask_type=kind, mask_ratio=0.6)(image))
    model.set_mask(kind, mask_eval=False)
    assert torch.equal(model(image), full)


@torch.inference_mode()
def test_ratio_one_equals_tokenpose_bit_for_bit():
    """The trunk is the same, so its output stands in for it."""
    name = "tmpose_b_256x192"
    model = small(name)
    image = model.example_inputs(2)[0]
    model.trunk = Stored(model.trunk(image))
    model.set_mask(None)
    expected = model(image)
    for kind in ("none", "uniform", "random", "zone", "block"):
        for pos in ("token", "slot"):
            model.set_mask(kind, 1.0, pos)
            assert torch.equal(model(image), expected), (kind, pos)


@pytest.mark.parametrize("pos", ["token", "slot"])
def test_given_tokens_override_the_mask_per_batch_or_per_sample(model, image, pos):
    images = torch.cat([image, image.flip(-1)])
    keep = torch.tensor([[3, 9, 1, 12, 15], [0, 7, 2, 14, 5]])
    with torch.inference_mode():
        model.set_mask("block", 0.5, pos)
        both = model(images, keep)
        for i in range(2):
            torch.testing.assert_close(both[i], model(images[i : i + 1], keep[i])[0])
        assert not torch.equal(both[0], model(images, keep[1])[0])


def test_ratio_can_be_changed_and_changed_back(model, image):
    with torch.inference_mode():
        full = model(image)
        outputs = []
        for ratio in (0.4, 0.8, 1.0):
            model.set_mask_ratio(ratio)
            outputs.append(model(image))
    assert torch.equal(outputs[2], full)
    assert (outputs[0] - full).abs().mean() > (outputs[1] - full).abs().mean() > 0


def test_training_draws_per_sample_from_torchs_generator(model):
    model.set_mask("random", 0.6)
    model.train()
    torch.manual_seed(3)
    keep = model.tokens_to_keep(4, None)
    assert keep.shape == (4, 9) and torch.equal(keep, keep.sort(1).values)
    assert len({tuple(row.tolist()) for row in keep}) == 4
    assert not torch.equal(keep, model.tokens_to_keep(4, None))
    torch.manual_seed(3)
    assert torch.equal(keep, model.tokens_to_keep(4, None))
    counts = torch.bincount(model.tokens_to_keep(256, None).flatten())
    assert counts.min() > 100 and counts.max() < 190  # 256 draws with probability 9 / 16


def test_fixed_masks_apply_in_training_too(model):
    model.set_mask("zone", 0.6, mask_eval=False)
    assert model.tokens_to_keep(2, None) is None
    assert torch.equal(model.train().tokens_to_keep(2, None), model.kept)


@pytest.mark.parametrize("is_training", [False, True], ids=["eval", "train"])
def test_compiled_model_is_compiled_once_for_a_ratio(is_training, image):
    torch._dynamo.reset()
    model = small(NAME, mask_type="random", mask_ratio=0.3).train(is_training)
    counter = CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    with torch.no_grad():
        for _ in range(3):
            compiled(image)
        assert counter.frame_count == 1
        if not is_training:
            torch.testing.assert_close(compiled(image), model(image))
            keep = torch.arange(9)
            torch.testing.assert_close(compiled(image, keep), model(image, keep))


def test_mask_of_a_saved_model_comes_back(tmp_path):
    with registered(smaller(NAME, **SMALL[NAME])):
        made = small(NAME, mask_type="zone", mask_ratio=0.5)
        for i in range(2):
            again = posezoo.create_model(
                f"local-dir:{posezoo.save_pretrained(made, tmp_path / str(i))}"
            )
            assert again.mask == made.mask and torch.equal(again.kept, made.kept)
            assert torch.equal(again.positions, made.positions)
            made.set_mask("random", 0.25, "slot", False)
        assert posezoo.create_model(f"small_{NAME}", mask_type=None).mask.type == "none"


@pytest.mark.parametrize("ratio", [0, -0.5, 1.01, float("nan"), "0.6", None, True])
def test_ratio_outside_zero_to_one_is_refused(model, ratio):
    with pytest.raises(InputError, match="above 0, at most 1 .share of the visual tokens"):
        model.set_mask_ratio(ratio)
    assert model.mask.ratio == 1.0


def test_unknown_words_are_refused_with_the_valid_ones(model):
    for kind in ("grid", "", False):
        with pytest.raises(InputError, match="expected one of none, uniform, random, zone, block"):
            model.set_mask(kind, 0.5)
    with pytest.raises(InputError, match="'slots', expected one of token, slot"):
        model.set_mask("zone", 0.5, "slots")
    with pytest.raises(InputError, match="mask_eval is 'no', expected True or False"):
        model.set_mask("zone", mask_eval="no")
    with pytest.raises(InputError, match="keeps none of 16 tokens"):
        model.set_mask("zone", 0.1)
    model.set_mask(None)
    with pytest.raises(InputError, match="without a mask; choose one"):
        model.set_mask_ratio(0.5)
    with pytest.raises(InputError, match="without a mask; choose one"):
        model.set_mask("none", 0.5)


def test_numbers_of_numpy_are_ratios_too(model):
    model.set_mask_ratio(np.float32(0.5))
    assert type(model.mask.ratio) is float and len(model.kept) == 8


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (torch.tensor([0, 16]), "0 to 15, got 0 to 16"),
        (torch.tensor([-1, 5]), "0 to 15, got -1 to 5"),
        (torch.tensor([7, 3, 7]), "names a token twice"),
        (torch.tensor([[1, 2], [3, 3]]), "names a token twice"),
        (torch.tensor([1.0, 2.0]), "int64 tensor, got torch.float32"),
        (torch.tensor([True, False]), "int64 tensor, got torch.bool"),
        ([1, 2], "int64 tensor, got list"),
        (torch.tensor(3), r"\(n,\) or \(B, n\), got shape \(\)"),
        (torch.zeros(2, 0, dtype=torch.int64), r"got shape \(2, 0\)"),
        (torch.tensor([[1, 2]] * 3), "3 rows for a batch of 2"),
    ],
)
def test_given_tokens_that_cannot_be_are_refused(model, image, keep, words):
    with pytest.raises(InputError, match=words):
        model(image.expand(2, -1, -1, -1), keep)
