"""TCFormer against the outputs of the published implementation."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from goldens.compare import Golden, check_conversion
from goldens.fill import make_input, make_state, manifests
from torch import Tensor

import posezoo

MANIFESTS = manifests("tcformer")
# manifest -> our name; the rest are called the same
NAMES = {"tcformer_coco_wholebody_256x192": "tcformer_mta_256x192.coco_wholebody_mmpose"}
POSE = "tcformer_mta_256x192"
PADDED = f"{POSE}.padded"
GOLDENS = ["tcformer_light", "tcformer", POSE, PADDED]
# what the reference files keep of each tensor
CUTS = {
    "stage1.map": (2, 4),
    "stage2.map": (2, 2),
    "stage3.map": (2, 1),
    "neck0.map": (8, 2),
    "neck1.map": (8, 1),
    "neck2.map": (4, 1),
    "heatmap": (1, 2),
}
PRECISIONS = [(torch.float64, 1e-6), (torch.float32, 1e-4)]


def _model(variant: str) -> torch.nn.Module:
    model = posezoo.create_model(NAMES.get(variant, variant))
    posezoo.load_checkpoint(model, make_state(MANIFESTS[variant]))
    return model


def _image(variant: str) -> Tensor:
    name = variant.removesuffix(".padded")
    image = make_input("image", (1, 3, *posezoo.get_pretrained_cfg(name).input.size))
    if variant == PADDED:
        fill = torch.tensor([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])[:, None, None]
        image[..., :64] = image[..., 208:, :] = fill
    return image


def _map(tokens) -> Tensor:
    return tokens.regions.token2map(tokens.x).permute(0, 3, 1, 2)


def _renumber(cell_token: Tensor) -> Tensor:
    """Number clusters by first occurrence in raster order."""
    number: dict[int, int] = {}
    flat = [number.setdefault(token, len(number)) for token in cell_token.flatten().tolist()]
    return torch.tensor(flat).view(cell_token.shape)


@cache
def _run(variant: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every stored tensor, uncut, under its name in the golden file."""
    model = _model(variant.removesuffix(".padded")).to(dtype)
    found: dict[str, Tensor] = {}
    for i, stage in enumerate(model.backbone.stages[1:], 1):

        def keep(module, args, output, i=i):
            merged, source = output
            old = args[0].regions
            score = source.score[..., 0].gather(1, old.cell_token)
            found[f"ctm{i}.score"] = score.unflatten(1, old.grid_size)
            partition = merged.regions.cell_token.unflatten(1, old.grid_size)
            found[f"ctm{i}.partition"] = _renumber(partition)

        stage.merge.register_forward_hook(keep)

    def keep_stages(module, args, output):
        found.update({f"stage{i}.map": _map(tokens) for i, tokens in enumerate(output, 1)})

    model.backbone.register_forward_hook(keep_stages)
    if hasattr(model, "neck"):

        def keep_levels(module, args, output):
            found.update({f"neck{i}.map": _map(tokens) for i, tokens in enumerate(output[:3])})

        model.neck.register_forward_hook(keep_levels)
    with torch.inference_mode():
        output = model(_image(variant).to(dtype))
    return found | {"heatmap" if hasattr(model, "neck") else "logits": output}


def _cut(name: str, tensor: Tensor) -> Tensor:
    channels, pixels = CUTS.get(name, (1, 1))
    return tensor[:, ::channels, ::pixels, ::pixels] if name in CUTS else tensor


@pytest.mark.parametrize("dtype, tolerance", PRECISIONS, ids=["float64", "float32"])
@pytest.mark.parametrize("variant", GOLDENS)
def test_every_stored_tensor_is_reproduced(variant, dtype, tolerance):
    golden, found = Golden("tcformer", variant), _run(variant, dtype)
    assert golden.names <= set(found)
    far = {n: d for n in golden.names if (d := golden.distance(n, _cut(n, found[n]))) > tolerance}
    assert not far
    for name in golden.names:
        if f"{name}.mean" in golden.tensors:
            mean, std = (float(golden.tensors[f"{name}.{what}"]) for what in ("mean", "std"))
            assert abs(float(found[name].double().mean()) - mean) < 2 * tolerance * std, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("variant", GOLDENS)
def test_no_cell_is_in_another_cluster(variant, dtype):
    golden, found = Golden("tcformer", variant), _run(variant, dtype)
    for i in (1, 2, 3):
        stored = golden.tensors[f"ctm{i}.partition"]
        assert torch.equal(found[f"ctm{i}.partition"].flatten(), stored.long()), i


@pytest.mark.parametrize("variant", sorted(MANIFESTS))
def test_keys_and_shapes_of_the_checkpoint_fit_both_ways(variant):
    check_conversion(NAMES.get(variant, variant), MANIFESTS[variant])


@pytest.mark.parametrize("wrapper", ["bare", "model", "state_dict"])
def test_either_name_of_the_patch_embedding_loads(tmp_path, wrapper):
    manifest = MANIFESTS["tcformer_coco_wholebody_256x192"]
    state = make_state({key: spec for key, spec in manifest.items() if "patch_embed" in key})
    other = {key.replace("projection", "proj"): value for key, value in state.items()}
    model = posezoo.create_model(POSE)
    for source in (state, other):
        path = tmp_path / "weights.pth"
        torch.save(source if wrapper == "bare" else {wrapper: source, "meta": {}}, path)
        report = posezoo.load_checkpoint(model, path, strict=False)
        assert len(report.loaded) == 4 and not report.unexpected


def test_tags_of_the_whole_body_model_differ_by_one_epsilon():
    """5e-5 in the heatmaps, says the reference; exactly the patch norm's epsilon."""
    models = {
        tag: posezoo.create_model(f"{POSE}.{tag}")
        for tag in ("coco_wholebody", "coco_wholebody_mmpose")
    }
    eps = {
        tag: {name: m.eps for name, m in model.named_modules() if hasattr(m, "eps")}
        for tag, model in models.items()
    }
    ours, mmpose = eps["coco_wholebody"], eps["coco_wholebody_mmpose"]
    differ = {name for name in ours if ours[name] != mmpose[name]}
    assert differ == {"backbone.patch_embed.norm"}
    assert [ours["backbone.patch_embed.norm"], mmpose["backbone.patch_embed.norm"]] == [1e-5, 1e-6]
    assert {e for n, e in mmpose.items() if n.startswith("neck.")} == {1e-5}
    assert {e for n, e in mmpose.items() if "merge.norm" in n or "attn.norm" in n} == {1e-5}
    assert {e for n, e in mmpose.items() if "backbone" in n and "norm1" in n} == {1e-6}
