"""TokenPose and TMPose against the outputs of the published implementations."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from goldens.compare import Golden, check_conversion
from goldens.fill import make_input, make_state, manifests
from torch import Tensor, nn

import posezoo
from posezoo.models.tokenpose.masks import TokenMask, sine_positions
from posezoo.models.tokenpose.network import TokenPose
from posezoo.zoo.catalog import build_model

MANIFESTS = manifests("tmpose")
STORED = [
    "tokenpose_t_coco_256x192", "tokenpose_s_v1_coco_256x192", "tokenpose_l_d24_coco_384x288",
    "tmpose_b_coco_256x192", "tmpose_l_d24_coco_256x192", "tmpose_l_d6_mpii_256x256",
]  # fmt: skip
# stored heatmaps -> mask (type, ratio, positions), and whether stored indices are handed in
MASKS: dict[str, tuple[str, float, str, bool]] = {
    "heatmaps.none": ("none", 1.0, "token", False),
    "heatmaps.uniform": ("uniform", 0.6, "slot", False),
    "heatmaps.uniform.r0.4": ("uniform", 0.4, "slot", False),
    "heatmaps.uniform.tokenpos": ("uniform", 0.6, "token", False),
    "heatmaps.block": ("block", 0.6, "slot", False),
    "heatmaps.random": ("random", 0.6, "slot", True),
    "heatmaps.random.tokenpos": ("random", 0.6, "token", True),
}


def name_of(variant: str) -> str:
    """`tmpose_l_d6_mpii_256x256` -> `tmpose_l_d6_256x256.mpii`."""
    family, dataset, size = variant.rsplit("_", 2)
    return f"{family}_{size}.{dataset}"


@functools.lru_cache(maxsize=1)
def _model(variant: str, name: str | None = None) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model_best.pth"
        torch.save(make_state(MANIFESTS[variant]), weights)
        return posezoo.create_model(name or name_of(variant), checkpoint=weights)


class _Stored(nn.Module):
    """Stands for the trunk where its output is known, as most of the time goes there."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        return self.output


def _run(variant: str, golden: Golden, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every stored tensor, under the names of the golden file."""
    model = _model(variant).to(dtype)
    image = make_input("image", (1, 3, *model.input_size)).to(dtype)
    trunk = model.trunk
    found = {"trunk": image if trunk is None else trunk(image)}
    found["tokens"] = model._visual_tokens(found["trunk"], None)[:, ::8]
    model.trunk = trunk and _Stored(found["trunk"])
    for name in golden.names & set(MASKS):
        kind, ratio, pos, is_given = MASKS[name]
        model.set_mask(kind, ratio, pos)
        found[name] = model(image, golden.tensors["indices.random"] if is_given else None)
    # files of TMPose hold the keypoint tokens of the uniform run
    model.set_mask(*MASKS["heatmaps.uniform" if "tmpose" in variant else "heatmaps.none"][:3])
    found["kpt_tokens"] = model.forward_features(image)
    model.trunk = trunk
    return found


@pytest.mark.parametrize("variant", STORED)
@torch.inference_mode()
def test_every_stage_equals_the_published_implementation(variant):
    golden = Golden("tmpose", variant)
    skipped = ("indices.", "override:")
    names = {n for n in golden.names if not n.startswith(skipped) and not n.endswith(".fillpos")}
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 2e-5)):
        found = _run(variant, golden, dtype)
        assert names <= set(found), names - set(found)
        far = {n: d for n in names if (d := golden.distance(n, found[n])) > tolerance}
        assert not far, (dtype, far)
        for name in names & set(MASKS):
            mean = float(golden.tensors[f"{name}.mean"])
            assert abs(float(found[name].double().mean()) - mean) < tolerance


@pytest.mark.parametrize("variant", STORED)
def test_positions_and_masks_equal_the_published_ones_exactly(variant):
    golden = Golden("tmpose", variant)
    with torch.device("meta"):
        grid = build_model(name_of(variant)).grid
    key = next(n for n in golden.names if n.startswith("override:"))
    stored, stride = golden.tensors[key], int(golden.metadata[f"stride:{key}"])
    assert torch.equal(sine_positions(grid, 192).reshape(-1)[::stride], stored)
    for name in golden.names & {"indices.uniform", "indices.uniform.r0.4", "indices.block"}:
        kind, ratio, _, _ = MASKS[name.replace("indices", "heatmaps")]
        kept = TokenMask(type=kind, ratio=ratio).kept(grid[0] * grid[1])
        assert kept == golden.tensors[name].tolist()


@pytest.mark.parametrize("variant", MANIFESTS)
def test_manifest_converts_key_by_key_and_back(variant):
    check_conversion(name_of(variant), MANIFESTS[variant])


def test_all_twelve_variants_have_a_manifest():
    ours = posezoo.list_models(["tokenpose*.coco", "tmpose*.coco", "t*pose*.mpii"], tags=True)
    assert sorted(map(name_of, MANIFESTS)) == sorted(ours) and len(ours) == 12


@torch.inference_mode()
def test_ratio_one_equals_tokenpose_bit_for_bit():
    image = make_input("image", (2, 3, 256, 192))
    variant = "tmpose_b_coco_256x192"
    expected = _model(variant, "tokenpose_b_256x192").float()(image)
    model = _model(variant).float()
    model.trunk = _Stored(model.trunk(image))
    for kind in ("none", "uniform", "random", "zone", "block"):
        for pos in ("token", "slot"):
            model.set_mask(kind, 1.0, pos)
            assert torch.equal(model(image), expected), (kind, pos)


# ------------------------------------------------------------------------------- file forms


def _as_ppt(key: str) -> str:
    """Keys of PPT: one wrapper less around attention."""
    for old, new in ((".0.fn.norm.", ".0.norm."), (".0.fn.fn.", ".0.fn.")):
        key = key.replace(old, new)
    return key


@pytest.mark.parametrize("variant", ["tokenpose_b_coco_256x192", "tokenpose_s_v1_coco_256x192"])
def test_files_of_ppt_convert_to_the_same_weights(variant):
    manifest = MANIFESTS[variant]
    state = {key: torch.empty(spec["shape"], device="meta") for key, spec in manifest.items()}
    ppt = {_as_ppt(key): value for key, value in state.items()}
    assert sum(key not in state for key in ppt) == 12 * 5
    check_conversion(name_of(variant), {_as_ppt(key): spec for key, spec in manifest.items()})
    ours, theirs = TokenPose.convert_state_dict(state), TokenPose.convert_state_dict(ppt)
    assert all(theirs.state[key] is value for key, value in ours.state.items())


def test_training_checkpoint_with_all_its_fields_loads(tmp_path):
    variant = "tokenpose_t_coco_256x192"
    state = make_state(MANIFESTS[variant])
    content = {
        "epoch": 12,
        "model": "pose_tokenpose_t",
        "state_dict": {f"module.{key}": value for key, value in state.items()},
        "best_state_dict": state,
        "perf": np.float64(0.65),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
    }
    torch.save(content, tmp_path / "checkpoint.pth")
    model = posezoo.create_model("tokenpose_t_256x192", checkpoint=tmp_path / "checkpoint.pth")
    key = "transformer.transformer.layers.3.0.fn.fn.to_qkv.weight"
    assert torch.equal(model.stacks[0][3].attn.qkv.weight, state[key])
    report = posezoo.load_checkpoint(model, state)
    assert list(report.ignored) == ["transformer.pos_embedding"]
