"""TCFormer's own: regions, sizes, precision, and results that depend on nothing else."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from goldens.fill import make_input, make_state, manifests
from torch import Tensor

import posezoo
from families import on_meta, registered, small, smaller
from families.tcformer import renumber
from posezoo.errors import InputError
from posezoo.models.tcformer.backbone import WIDTHS
from posezoo.models.tcformer.neck import move_down
from posezoo.transforms import load_image

POSE, SIZE = "tcformer_mta_256x192", (128, 96)


@pytest.fixture(scope="module")
def classifier():
    return small("tcformer_light")


@pytest.fixture(scope="module")
def pose():
    """One block per stage, at a size that takes three row blocks."""
    larger = smaller(POSE, size=SIZE, depths=(1, 1, 1, 1))
    with registered(larger):
        torch.manual_seed(0)
        return posezoo.create_model(larger.name)


def _images(size: tuple[int, int], count: int = 2) -> Tensor:
    return make_input("image", (count, 3, *size))


def _partitions(model: Any, x: Tensor) -> list[list[Tensor]]:
    """The regions of every stage and image, numbered by first occurrence."""
    stages = model.forward_intermediates(x, tokens=True)
    return [[renumber(cells) for cells in stage.cell_token] for stage in stages]


def _same(ours: list[list[Tensor]], others: list[list[Tensor]]) -> bool:
    return all(torch.equal(a, b) for x, y in zip(ours, others) for a, b in zip(x, y, strict=True))


def test_training_draws_noise_and_evaluation_only_where_asked(pose):
    for model, draws in (
        (pose, False),
        (small("tcformer_light", density_noise=1e-6), True),  # as the original
        (copy.deepcopy(pose).train(), True),
    ):
        state = torch.get_rng_state()
        model(torch.zeros(1, 3, *SIZE))
        assert torch.equal(state, torch.get_rng_state()) != draws


def test_mass_and_the_way_down_are_the_sums_over_cells(pose):
    """The reference carries a weight per cell and averages over cells; we carry sums per token."""
    x = _images(SIZE).double()
    model = copy.deepcopy(pose).double()
    scores: list[Tensor] = []
    for stage in model.backbone.stages[1:]:
        stage.merge.register_forward_hook(lambda m, a, out: scores.append(out[1].score))
    with torch.inference_mode():
        stages = model.backbone(x)
    agg = torch.ones_like(stages[0].mass)
    for fine, coarse, score in zip(stages, stages[1:], scores):
        idx = fine.regions.cell_token
        zeros = torch.zeros_like(fine.mass)
        total = zeros.scatter_add(1, idx, agg) + 1e-6
        cells = coarse.x.gather(
            1, coarse.regions.cell_token[..., None].expand(-1, -1, coarse.x.shape[-1])
        )
        sums = torch.zeros(*fine.mass.shape, coarse.x.shape[-1], dtype=torch.float64)
        sums.scatter_add_(1, idx[..., None].expand_as(cells), agg[..., None] * cells)
        blank = fine._replace(x=torch.zeros_like(sums))
        torch.testing.assert_close(
            move_down(coarse, blank), sums / total[..., None], rtol=1e-9, atol=1e-9
        )
        weight = score[..., 0].exp()
        norm = torch.zeros_like(coarse.mass).scatter_add(1, coarse.cluster, weight) + 1e-6
        agg = agg * (weight / norm.gather(1, coarse.cluster)).gather(1, idx)


def test_regions_are_nested_and_complete(classifier):
    x = _images((96, 64))
    stages = classifier.forward_intermediates(x, tokens=True)
    maps = classifier.forward_intermediates(x)
    sizes = [(24, 16), (12, 8), (6, 4), (3, 2)]
    before = None
    for stage, map, size, width in zip(stages, maps, sizes, WIDTHS):
        assert torch.equal(stage.map, map) and map.shape == (2, width, *size)
        assert stage.cell_token.shape == (2, 24, 16) and stage.cell_token.dtype == torch.int64
        for b in range(2):
            assert stage.cell_token[b].unique().tolist() == list(range(size[0] * size[1]))
            if before is not None:
                pairs = torch.stack([before[b].flatten(), stage.cell_token[b].flatten()])
                # a token goes to one token
                assert pairs.unique(dim=1).shape[1] == before[b].max() + 1
        before = stage.cell_token
    assert torch.equal(stages[0].cell_token[0].flatten(), torch.arange(24 * 16))


def test_model_arguments_reach_the_model():
    model = small("tcformer_light", drop_path_rate=0.3, sample_ratio=0.5)
    rates = [b.drop_path_rate for s in model.backbone.stages for b in s.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    x = _images((64, 64))
    with torch.inference_mode():
        assert [s.x.shape[1] for s in model.backbone(x)] == [256, 128, 64, 32]
        fewest = small("tcformer_light", sample_ratio=1e-6)
        assert fewest(x).isfinite().all()
        assert [s.x.shape[1] for s in fewest.backbone(x)] == [256, 1, 1, 1]


@pytest.mark.parametrize("size", [(32, 32), (33, 50), (97, 61), (100, 164), (228, 32)])
def test_classifier_takes_any_size_and_rounds_up(classifier, size):
    with torch.inference_mode():
        assert classifier(_images(size)).isfinite().all()
        maps = classifier.forward_intermediates(_images(size))
    assert [tuple(m.shape[2:]) for m in maps] == [
        tuple(-(-s // stride) for s in size) for stride in (4, 8, 16, 32)
    ]


@pytest.mark.parametrize("size", [(31, 64), (64, 16), (0, 64)])
def test_classifier_refuses_what_is_too_small(classifier, size):
    with pytest.raises(InputError, match=rf"must be .*\({size[0]}, {size[1]}\)"):
        classifier(torch.zeros(1, 3, *size))


@pytest.mark.parametrize("value", [0.0, -2.1, 1e4])
def test_constant_images_work_and_are_deterministic(pose, value):
    x = torch.full((3, 3, *SIZE), value)
    with torch.inference_mode():
        out = pose(x)
        assert out.isfinite().all()
        torch.testing.assert_close(out[:1], pose(x[:1]), rtol=1e-4, atol=1e-6)
        for stage in _partitions(pose, x):
            assert all(torch.equal(stage[0], other) for other in stage[1:])


def test_nan_stays_in_its_own_image(pose):
    x = _images(SIZE, 3)
    with torch.inference_mode():
        clean = pose(x)
        x[1, 0, 5, 5] = math.nan
        out = pose(x)
    assert out[1].isnan().all()
    torch.testing.assert_close(out[::2], clean[::2], rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def whole_body():
    model = posezoo.create_model(POSE)
    posezoo.load_checkpoint(model, make_state(manifests("tcformer")[POSE]))
    return model


@pytest.fixture(scope="module")
def crops() -> Tensor:
    """Noise, 1/f noise, and both with the black margins of a box that leaves the photo."""
    noise = make_input("crops", (4, 3, 256, 192))
    y, x = np.meshgrid(np.fft.fftfreq(256), np.fft.rfftfreq(192), indexing="ij")
    radius = np.maximum(np.hypot(y, x), 1 / 256)
    pink = np.fft.irfft2(np.fft.rfft2(noise[2:].numpy()) / radius, s=(256, 192))
    out = torch.cat([noise[:2], torch.from_numpy(pink / pink.std()).float()]).repeat(2, 1, 1, 1)
    black = torch.tensor([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])[:, None, None]
    out[4:, :, :, :40] = black
    out[4:, :, 220:] = black
    return out


def _check_no_flips(model: Any, x: Tensor) -> None:
    exact = copy.deepcopy(model).double()
    with torch.inference_mode():
        for i in range(len(x)):
            image = x[i : i + 1]
            flips = [
                int((a[0] != b[0]).sum())
                for a, b in zip(_partitions(model, image), _partitions(exact, image.double()))
            ]
            assert flips == [0, 0, 0, 0], f"image {i}: cells in another cluster, per stage"


def test_float32_flips_no_cluster(whole_body, crops):
    _check_no_flips(whole_body, crops[[0, 5]])


@pytest.mark.slow
def test_float32_flips_no_cluster_on_photos(whole_body, photos):
    """Annotated persons. Crops without texture do flip: float32 cannot order their tokens."""
    truth = json.loads((photos / "coco" / "test_coco.json").read_text())
    predictor = posezoo.PosePredictor(whole_body, detector=None)
    for image in truth["images"]:
        pixels = load_image(photos / "coco" / image["file_name"])
        boxes = [a["bbox"] for a in truth["annotations"] if a["image_id"] == image["id"]][:2]
        corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes])
        crops = predictor.crops(pixels, corners)
        _check_no_flips(whole_body, predictor.crop.normalise(crops))


def test_results_do_not_depend_on_the_batch(whole_body, crops):
    x = crops[[0, 3, 7]]
    with torch.inference_mode():
        together, parts = whole_body(x), _partitions(whole_body, x)
        for i in range(3):
            alone = x[i : i + 1]
            torch.testing.assert_close(together[i : i + 1], whole_body(alone), rtol=0, atol=1e-4)
            assert _same(_partitions(whole_body, alone), [stage[i : i + 1] for stage in parts]), i


def test_results_do_not_depend_on_the_number_of_threads(whole_body, crops):
    before, x, found = torch.get_num_threads(), crops[4:5], []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.inference_mode():
                found.append(whole_body.forward_intermediates(x, tokens=True))
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*found):
        torch.testing.assert_close(one.map, two.map, rtol=0, atol=1e-4)
        assert torch.equal(one.cell_token, two.cell_token)


def test_half_precision_weights_work(pose, classifier):
    for model in (pose, classifier):
        with torch.inference_mode():
            out = copy.deepcopy(model).bfloat16()(_images(SIZE).bfloat16())
        assert out.dtype == torch.bfloat16 and out.isfinite().all()


@pytest.mark.parametrize("name", ["tcformer_light", POSE])
def test_training_reaches_every_parameter(name):
    model = small(name, drop_path_rate=0.2).train()
    model(_images(model.pretrained_cfg.input.size, 3)).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_gradients_are_those_of_differences(pose):
    """Along a random direction of the score and skip weights, which only tokens see."""
    model = copy.deepcopy(pose).double()
    x = _images(SIZE, 1).double()
    names = [n for n, _ in model.named_parameters() if "score.weight" in n or "skip.weight" in n]
    params = dict(model.named_parameters())
    g = torch.Generator().manual_seed(0)
    steps = {n: torch.randn(params[n].shape, generator=g, dtype=torch.float64) for n in names}

    def loss(scale: float) -> Tensor:
        moved = {n: params[n] + scale * steps[n] for n in names}
        return torch.func.functional_call(model, moved, (x,)).square().mean()

    with torch.no_grad():
        slope = (loss(1e-7) - loss(-1e-7)) / 2e-7
    loss(0.0).backward()
    along = sum(float((params[n].grad * steps[n]).sum()) for n in names)
    assert along == pytest.approx(float(slope), rel=1e-4)


@torch.no_grad()
def test_initialisation_follows_the_specification():
    torch.manual_seed(0)
    model = posezoo.create_model("tcformer_mta_256x192")
    block = model.backbone.stages[1].blocks[0]
    assert float(block.mlp.fc1.weight.std()) == pytest.approx(0.02, rel=0.02)
    dwconv = block.mlp.dwconv
    assert float(dwconv.weight.std()) == pytest.approx(math.sqrt(2 / 9), rel=0.02)
    assert 0.9 < float(dwconv.skip.weight.abs().max()) <= 1.0
    patch = model.backbone.patch_embed.proj.weight
    assert float(patch.std()) == pytest.approx(math.sqrt(2 / (49 * 64)), rel=0.03)
    lateral = model.neck.laterals[3].weight
    assert float(lateral.abs().max()) == pytest.approx(math.sqrt(6 / (512 + 256)), rel=0.01)
    assert float(model.head.final_layer.weight.std()) == pytest.approx(0.001, rel=0.02)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name


@pytest.mark.parametrize("wrapper", ["bare", "model", "state_dict"])
def test_either_name_of_the_patch_embedding_loads(tmp_path, wrapper):
    manifest = manifests("tcformer")["tcformer_coco_wholebody_256x192"]
    state = make_state({key: spec for key, spec in manifest.items() if "patch_embed" in key})
    other = {key.replace("projection", "proj"): value for key, value in state.items()}
    model = posezoo.create_model(POSE)
    for source in (state, other):
        path = tmp_path / "weights.pth"
        torch.save(source if wrapper == "bare" else {wrapper: source, "meta": {}}, path)
        report = posezoo.load_checkpoint(model, path, strict=False)
        assert len(report.loaded) == 4 and not report.unexpected


def test_tags_of_the_whole_body_model_differ_by_one_epsilon():
    """5e-5 in the heatmaps; exactly the patch norm's epsilon."""
    ours, mmpose = (
        {name: m.eps for name, m in on_meta(f"{POSE}.{tag}").named_modules() if hasattr(m, "eps")}
        for tag in ("coco_wholebody", "coco_wholebody_mmpose")
    )
    assert {name for name in ours if ours[name] != mmpose[name]} == {"backbone.patch_embed.norm"}
    assert [ours["backbone.patch_embed.norm"], mmpose["backbone.patch_embed.norm"]] == [1e-5, 1e-6]
    assert {e for n, e in mmpose.items() if n.startswith("neck.")} == {1e-5}
    assert {e for n, e in mmpose.items() if "merge.norm" in n or "attn.norm" in n} == {1e-5}
    assert {e for n, e in mmpose.items() if "backbone" in n and "norm1" in n} == {1e-6}
