"""TCFormer's own mechanics: clustering, token maps, merging, and what the models promise."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from goldens.fill import make_input, make_state, manifests
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import posezoo
from posezoo.errors import InputError
from posezoo.geometry import crop_matrices
from posezoo.models.tcformer import network as tc
from posezoo.models.tcformer import tokens
from posezoo.models.tcformer.mta import TCFormerPose, move_down
from posezoo.transforms import build_transform, load_image

NAMES = ["tcformer_light", "tcformer", "tcformer_large", "tcformer_mta_256x192",
         "tcformer_large_mta_384x288"]  # fmt: skip


@pytest.fixture(scope="module")
def classifier() -> tc.TCFormerClassifier:
    torch.manual_seed(0)
    return tc.TCFormerClassifier(tc.TCFormerBackbone((1, 1, 1, 1)), 1000).eval()


@pytest.fixture(scope="module")
def pose() -> TCFormerPose:
    """The pose model with one block per stage, at a size that takes three row blocks."""
    torch.manual_seed(0)
    return TCFormerPose(tc.TCFormerBackbone((1, 1, 1, 1)), 133, (128, 96)).eval()


def _images(size: tuple[int, int], count: int = 2) -> Tensor:
    return make_input("image", (count, 3, *size))


def _renumber(cell_token: Tensor) -> list[np.ndarray]:
    """Number the tokens of each image by first occurrence."""
    out = []
    for row in cell_token.flatten(1).numpy():
        _, first, inverse = np.unique(row, return_index=True, return_inverse=True)
        out.append(np.argsort(np.argsort(first))[inverse.reshape(-1)])
    return out


def _partitions(model, x: Tensor) -> list[list[np.ndarray]]:
    stages = model.forward_intermediates(x, tokens=True)
    return [_renumber(stage.cell_token) for stage in stages]


# ------------------------------------------------------------------------------- clustering


def _cluster_by_the_book(x: Tensor, num_clusters: int) -> Tensor:
    """DPC-KNN of one image, straight from the formulas, ties by index."""
    distance = (x[:, None] - x[None]).square().sum(-1).sqrt() / math.sqrt(x.shape[-1])
    n = len(x)
    nearest = distance.sort(dim=1).values[:, :5]
    density = torch.exp(-nearest.square().mean(1)).tolist()
    delta = []
    for i in range(n):
        denser = [j for j in range(n) if (density[j], -j) > (density[i], -i)]
        delta.append(min((float(distance[i, j]) for j in denser), default=float(distance.max())))
    by_score = sorted(range(n), key=lambda i: (-delta[i] * density[i], i))
    centres = by_score[:num_clusters]
    cluster = distance[:, centres].argmin(1)
    cluster[torch.tensor(centres)] = torch.arange(num_clusters)
    return cluster


@given(
    n=st.integers(1, 60),
    copies=st.sampled_from([1, 5, 6]),  # fewer would leave mutual neighbours tied up to rounding
    ratio=st.sampled_from([0.05, 0.25, 0.6, 1.0]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_clusters_are_those_of_the_formulas(n, copies, ratio, seed):
    x = torch.randn(n, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x.repeat(copies, 1)  # copies are exact ties
    num_clusters = max(math.ceil(len(x) * ratio), 1)
    ours = tokens.cluster_tokens(x[None], num_clusters)[0]
    assert torch.equal(ours, _cluster_by_the_book(x, num_clusters))


@pytest.mark.parametrize("n", [255, 256, 257, 770, 784, 832])
def test_clusters_do_not_depend_on_how_rows_are_blocked(n, monkeypatch):
    x = torch.randn(2, n, 16, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    found = tokens.cluster_tokens(x, n // 4)
    monkeypatch.setattr(tokens, "_BLOCK_ROWS", 1000)
    assert torch.equal(found, tokens.cluster_tokens(x, n // 4))
    assert torch.equal(found[0], _cluster_by_the_book(x[0], n // 4))


@pytest.mark.parametrize("n", [1, 4, 320, 641, 704, 784, 3072])
def test_five_largest_are_the_five_largest(n):
    x = torch.randn(2, 3, n, generator=torch.Generator().manual_seed(n)).round(decimals=1)
    assert torch.equal(tokens._largest(x), x.sort(dim=-1, descending=True).values[..., :5])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equal_tokens_spend_one_centre(dtype):
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(400, 128, generator=g).to(dtype)
    rows[100:300] = rows[100]
    cluster = tokens.cluster_tokens(rows[None], 50)[0]
    assert len(set(cluster[100:300].tolist())) == 1
    assert len(set(cluster.tolist())) == 50


def test_all_tokens_equal_take_the_first_as_centres():
    cluster = tokens.cluster_tokens(torch.full((1, 64, 8), 0.1), 16)[0]
    assert cluster.tolist() == [*range(16)] + [0] * 48


def test_every_cluster_has_its_centre():
    x = torch.randn(3, 100, 8, generator=torch.Generator().manual_seed(1))
    for num_clusters in (1, 25, 100):
        for row in tokens.cluster_tokens(x, num_clusters):
            assert sorted(set(row.tolist())) == list(range(num_clusters))


def test_half_precision_tokens_are_clustered_in_float32():
    x = torch.randn(2, 300, 64, generator=torch.Generator().manual_seed(2))
    for dtype in (torch.bfloat16, torch.float16):
        exact = tokens.cluster_tokens(x.to(dtype).double(), 75)
        assert torch.equal(tokens.cluster_tokens(x.to(dtype), 75), exact)
        with torch.autocast("cpu", dtype):
            assert torch.equal(tokens.cluster_tokens(x.to(dtype).float(), 75), exact)


def test_noise_comes_from_the_generator_and_only_where_asked():
    x = torch.zeros(1, 64, 8)  # with ties everywhere, noise decides
    torch.manual_seed(0)
    first = tokens.cluster_tokens(x, 16, 1e-6)
    assert not torch.equal(first, tokens.cluster_tokens(x, 16, 1e-6))
    torch.manual_seed(0)
    assert torch.equal(first, tokens.cluster_tokens(x, 16, 1e-6))
    state = torch.get_rng_state()
    tokens.cluster_tokens(x, 16)
    assert torch.equal(state, torch.get_rng_state())


def test_training_draws_noise_and_evaluation_does_not(pose):
    model, x = copy.deepcopy(pose), torch.zeros(1, 3, 128, 96)
    state = torch.get_rng_state()
    model(x)
    assert torch.equal(state, torch.get_rng_state())
    model.train()(x)
    assert not torch.equal(state, torch.get_rng_state())


def test_density_noise_is_the_upstream_mode():
    model = posezoo.create_model("tcformer_light", density_noise=1e-6)
    state = torch.get_rng_state()
    model(torch.zeros(1, 3, 64, 64))
    assert not torch.equal(state, torch.get_rng_state())


# -------------------------------------------------------------------------------- token maps


@pytest.mark.parametrize(
    "grid, map_size", [((8, 12), (4, 6)), ((9, 13), (5, 7)), ((9, 13), (3, 4))]
)
def test_tokens_and_maps_average_over_cells(grid, map_size):
    g = torch.Generator().manual_seed(0)
    batch, num_tokens, cells = 3, 10, grid[0] * grid[1]
    cell_token = torch.cat(
        [torch.arange(num_tokens).expand(batch, -1),
         torch.randint(num_tokens, (batch, cells - num_tokens), generator=g)], 1)  # fmt: skip
    regions = tokens.locate_tokens(cell_token, num_tokens, grid, map_size, torch.float64)
    x = torch.randn(batch, num_tokens, 5, generator=g, dtype=torch.float64)
    map = torch.randn(batch, *map_size, 5, generator=g, dtype=torch.float64)
    token2map, map2token = regions.token2map(x), regions.map2token(map)
    for b in range(batch):
        sums, counts = torch.zeros_like(map[b]), torch.zeros(map_size)
        back, sizes = torch.zeros_like(x[b]), torch.zeros(num_tokens)
        for cell, token in enumerate(cell_token[b].tolist()):
            i = (cell // grid[1]) * map_size[0] // grid[0]
            j = (cell % grid[1]) * map_size[1] // grid[1]
            sums[i, j] += x[b, token]
            counts[i, j] += 1
            back[token] += map[b, i, j]
            sizes[token] += 1
        close = dict(rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            token2map[b], sums / (counts.double() + 1e-6)[..., None], **close
        )
        torch.testing.assert_close(map2token[b], back / (sizes.double() + 1e-6)[:, None], **close)


def test_the_untouched_grid_is_a_reshape():
    regions = tokens.grid_regions(2, (3, 4), torch.device("cpu"))
    x = torch.randn(2, 12, 5)
    assert torch.equal(regions.token2map(x), x.view(2, 3, 4, 5))
    assert torch.equal(regions.map2token(x.view(2, 3, 4, 5)), x)


def test_half_precision_maps_are_averaged_in_float32():
    """1/15 rounded to bfloat16, times 15, is not 1."""
    cells = torch.zeros(1, 15, dtype=torch.long)
    regions = tokens.locate_tokens(cells, 1, (3, 5), (3, 5), torch.float32)
    for value in (1.25, 1.5, 1.75):
        map = torch.full((1, 3, 5, 1), value, dtype=torch.bfloat16)
        assert regions.map2token(map).item() == value


def test_merging_weighs_tokens_by_their_scores():
    g = torch.Generator().manual_seed(0)
    x, score, mass = (torch.randn(2, 9, d, generator=g, dtype=torch.float64) for d in (4, 1, 1))
    cluster = torch.tensor([[0, 1, 2, 0, 1, 2, 0, 0, 0], [2, 2, 2, 2, 2, 2, 2, 0, 1]])
    merged, merged_mass = tokens.merge_tokens(x, score, mass[..., 0], cluster, 3)
    for b in range(2):
        for c in range(3):
            mine = cluster[b] == c
            weight = score[b, mine].exp()
            weight = weight / (weight.sum() + 1e-6)
            torch.testing.assert_close(merged[b, c], (weight * x[b, mine]).sum(0))
            torch.testing.assert_close(merged_mass[b, c], (weight * mass[b, mine]).sum())


def test_mass_and_the_way_down_are_the_sums_over_cells(pose):
    """The reference carries a weight per cell and averages over cells; we carry sums per token."""
    x = _images((128, 96)).double()
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
    stages = classifier.forward_intermediates(_images((96, 64)), tokens=True)
    maps = classifier.forward_intermediates(_images((96, 64)))
    sizes = [(24, 16), (12, 8), (6, 4), (3, 2)]
    before = None
    for stage, map, size, width in zip(stages, maps, sizes, tc.WIDTHS):
        assert isinstance(stage, tc.StageMap) and torch.equal(stage.map, map)
        assert stage.map.shape == (2, width, *size)
        assert stage.cell_token.shape == (2, 24, 16) and stage.cell_token.dtype == torch.int64
        for b in range(2):
            assert stage.cell_token[b].unique().tolist() == list(range(size[0] * size[1]))
            if before is not None:
                pairs = torch.stack([before[b].flatten(), stage.cell_token[b].flatten()]).unique(
                    dim=1
                )
                assert pairs.shape[1] == before[b].max() + 1  # a token goes to one token
        before = stage.cell_token
    assert torch.equal(stages[0].cell_token[0].flatten(), torch.arange(24 * 16))


# ------------------------------------------------------------------------------------ models


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_as_many_as_published(name):
    with torch.device("meta"):
        model = posezoo.create_model(name)
    assert sum(p.numel() for p in model.parameters()) == model.pretrained_cfg.params
    assert not list(model.buffers())


def test_model_arguments_reach_the_model():
    model = posezoo.create_model(
        "tcformer_mta_256x192", num_keypoints=17, in_chans=1, drop_path_rate=0.3, sample_ratio=0.5
    )
    rates = [b.drop_path_rate for s in model.backbone.stages for b in s.blocks]
    assert rates == pytest.approx(np.linspace(0, 0.3, 16).tolist())
    with torch.inference_mode():
        assert model(torch.zeros(1, 1, 256, 192)).shape == (1, 17, 64, 48)
        stages = model.backbone(torch.zeros(1, 1, 256, 192))
    assert [s.x.shape[1] for s in stages] == [3072, 1536, 768, 384]


@pytest.mark.parametrize("ratio", [0.0, -0.25, 1.01, math.nan])
def test_sample_ratio_outside_0_1_is_refused(ratio):
    with pytest.raises(InputError, match=r"sample_ratio must lie in \(0, 1\]"):
        posezoo.create_model("tcformer_light", sample_ratio=ratio)


@pytest.mark.parametrize("noise", [-1e-6, 1.0, math.nan])
def test_density_noise_outside_0_1_is_refused(noise):
    with pytest.raises(InputError, match="density_noise must lie in"):
        posezoo.create_model("tcformer_light", density_noise=noise)


def test_smallest_sample_ratio_keeps_one_token():
    model = posezoo.create_model("tcformer_light", sample_ratio=1e-6)
    with torch.inference_mode():
        assert model(_images((64, 64))).isfinite().all()
        assert [s.x.shape[1] for s in model.backbone(_images((64, 64)))] == [256, 1, 1, 1]


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


@pytest.mark.parametrize("size", [(96, 128), (128, 95), (256, 192)])
def test_pose_model_takes_its_own_size_alone(pose, size):
    with pytest.raises(InputError, match=r"must have shape \(B, 3, 128, 96\)"):
        pose(torch.zeros(1, 3, *size))


@pytest.mark.parametrize("bad", [torch.zeros(3, 128, 96), torch.zeros(1, 1, 128, 96),
                                 torch.zeros(1, 3, 128, 96, dtype=torch.uint8)])  # fmt: skip
def test_what_is_not_a_batch_of_images_is_refused(pose, bad):
    for call in (pose, pose.forward_features, pose.forward_intermediates):
        with pytest.raises(InputError):
            call(bad)


def test_empty_batch_gives_empty_results(pose, classifier):
    with torch.inference_mode():
        assert pose(torch.zeros(0, 3, 128, 96)).shape == (0, 133, 32, 24)
        assert classifier(torch.zeros(0, 3, 64, 64)).shape == (0, 1000)
        stages = pose.forward_intermediates(torch.zeros(0, 3, 128, 96), tokens=True)
    assert [tuple(s.cell_token.shape) for s in stages] == [(0, 32, 24)] * 4


@pytest.mark.parametrize("value", [0.0, -2.1, 1e4])
def test_constant_images_work_and_are_deterministic(pose, value):
    x = torch.full((3, 3, 128, 96), value)
    with torch.inference_mode():
        out = pose(x)
        assert out.isfinite().all()
        torch.testing.assert_close(out[:1], pose(x[:1]), rtol=1e-4, atol=1e-6)
        for stage in _partitions(pose, x):
            assert all(np.array_equal(stage[0], other) for other in stage[1:])


def test_nan_stays_in_its_own_image(pose):
    x = _images((128, 96), 3)
    with torch.inference_mode():
        clean = pose(x)
        x[1, 0, 5, 5] = math.nan
        out = pose(x)
    assert out[1].isnan().all()
    torch.testing.assert_close(out[::2], clean[::2], rtol=1e-5, atol=1e-6)


def test_forward_runs_without_memory_to_count_operations():
    """The speed benchmark counts multiply-adds on the meta device."""
    with torch.device("meta"), torch.no_grad():
        model = posezoo.create_model("tcformer_large_mta_384x288")
        assert model(torch.empty(2, 3, 384, 288)).shape == (2, 133, 96, 72)


def test_features_and_head_make_the_forward(pose, classifier):
    with torch.inference_mode():
        x = _images((128, 96))
        features = pose.forward_features(x)
        assert features.shape == (2, 256, 32, 24)
        assert torch.equal(pose.forward_head(features), pose(x))
        features = classifier.forward_features(x)
        assert features.shape == (2, 12, 512)
        assert torch.equal(classifier.forward_head(features), classifier(x))
        pooled = classifier.forward_head(features, pre_logits=True)
        torch.testing.assert_close(pooled, features.mean(1))


def test_reset_head_changes_the_number_of_outputs(pose, classifier):
    pose, classifier = copy.deepcopy(pose), copy.deepcopy(classifier)
    pose.reset_head(17)
    classifier.reset_head(10)
    with torch.inference_mode():
        assert pose(_images((128, 96))).shape == (2, 17, 32, 24) and pose.num_keypoints == 17
        assert classifier(_images((64, 64))).shape == (2, 10) and classifier.num_classes == 10
        classifier.reset_head(0)
        assert classifier(_images((64, 64))).shape == (2, 512)


# ------------------------------------------------------------------------------- determinism


@pytest.fixture(scope="module")
def whole_body() -> TCFormerPose:
    model = posezoo.create_model("tcformer_mta_256x192")
    posezoo.load_checkpoint(model, make_state(manifests("tcformer")["tcformer_mta_256x192"]))
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


def _check_no_flips(model: TCFormerPose, x: Tensor) -> None:
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
    _check_no_flips(whole_body, crops[[0, 1, 4, 5]])


def test_float32_flips_no_cluster_on_photos(whole_body, photos):
    """Annotated persons. Crops without texture do flip: float32 cannot order their tokens."""
    truth = json.loads((photos / "coco" / "test_coco.json").read_text())
    crop = build_transform(whole_body.pretrained_cfg)
    predictor = posezoo.PosePredictor(whole_body, detector=None)
    for image in truth["images"]:
        pixels = load_image(photos / "coco" / image["file_name"])
        boxes = [a["bbox"] for a in truth["annotations"] if a["image_id"] == image["id"]][:2]
        corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes])
        request = predictor.request(pixels, corners)
        matrices = crop_matrices(request.centers, request.box_sizes, (256, 192), "mmpose0")
        _check_no_flips(whole_body, crop(torch.from_numpy(pixels.copy()), matrices))


def test_same_input_twice_gives_the_same_bits(whole_body, crops):
    with torch.inference_mode():
        assert torch.equal(whole_body(crops[:2]), whole_body(crops[:2]))


def test_results_do_not_depend_on_the_batch(whole_body, crops):
    with torch.inference_mode():
        together, parts = whole_body(crops), _partitions(whole_body, crops)
        for i in (0, 3, 4, 7):
            alone = crops[i : i + 1]
            torch.testing.assert_close(together[i : i + 1], whole_body(alone), rtol=0, atol=1e-4)
            for stage, part in enumerate(_partitions(whole_body, alone)):
                assert np.array_equal(part[0], parts[stage][i]), (stage, i)


def test_results_do_not_depend_on_the_number_of_threads(whole_body, crops):
    before, x, found = torch.get_num_threads(), crops[[2, 4]], []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.inference_mode():
                found.append((whole_body(x), _partitions(whole_body, x)))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-4)
    for one, two in zip(found[0][1], found[1][1]):
        assert all(np.array_equal(a, b) for a, b in zip(one, two))


# ------------------------------------------------------------------ precision, compile, export


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.15), (torch.float16, 0.03)])
def test_autocast_stays_close(pose, classifier, dtype, tolerance):
    for model in (pose, classifier):
        x = _images((128, 96))
        with torch.inference_mode():
            exact = model(x)
            with torch.autocast("cpu", dtype):
                found = model(x)
        assert found.dtype == dtype
        assert float((found.float() - exact).abs().max() / exact.std()) < tolerance


def test_half_precision_weights_work(pose, classifier):
    for model in (pose, classifier):
        with torch.inference_mode():
            out = copy.deepcopy(model).bfloat16()(_images((128, 96)).bfloat16())
        assert out.dtype == torch.bfloat16 and out.isfinite().all()


@pytest.mark.parametrize("kind", ["pose", "classifier"])
def test_compiles_as_one_graph(kind, request):
    model, x = request.getfixturevalue(kind), _images((128, 96))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["pose", "classifier"])
def test_exported_program_gives_the_same_numbers_for_any_batch(kind, request):
    model = request.getfixturevalue(kind)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (_images((128, 96)),), dynamic_shapes=({0: batch},))
    with torch.no_grad():
        for count in (1, 2, 3):
            x = _images((128, 96), count)
            torch.testing.assert_close(program.module()(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tcformer_light", "tcformer_mta_256x192"])
def test_compiles_with_inductor_at_full_size(name):
    model = posezoo.create_model(name)
    x = _images(model.pretrained_cfg.input.size)
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-3, atol=1e-4)


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["tcformer_light", "tcformer_mta_256x192"])
def test_cuda_gives_the_same_clusters_and_numbers(name):
    model = posezoo.create_model(name).double()
    x = _images(model.pretrained_cfg.input.size).double()
    with torch.inference_mode():
        here, there = model(x), model.cuda()(x.cuda()).cpu()
    torch.testing.assert_close(here, there, rtol=1e-6, atol=1e-8)


# ---------------------------------------------------------------------------------- training


@pytest.mark.parametrize("kind", ["pose", "classifier"])
def test_training_reaches_every_parameter_with_and_without_checkpointing(kind, request):
    grads = []
    for checkpointing in (False, True):
        model = copy.deepcopy(request.getfixturevalue(kind)).train()
        model.set_grad_checkpointing(checkpointing)
        for stage in model.backbone.stages:
            for block in stage.blocks:
                block.drop_path_rate = 0.2
        torch.manual_seed(3)
        model(_images((128, 96), 3)).square().mean().backward()
        missing = [n for n, p in model.named_parameters() if p.grad is None]
        assert not missing
        grads.append([p.grad for p in model.parameters()])
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b)


def test_gradients_are_those_of_differences(pose):
    """Along a random direction of the score and skip weights, which only tokens see."""
    model = copy.deepcopy(pose).double()
    x = _images((128, 96), 1).double()
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


def test_attention_adds_the_score_to_the_logits():
    torch.manual_seed(0)
    attention = tc.ReducedAttention(128, 1).double()
    regions = tokens.grid_regions(2, (3, 4), torch.device("cpu"))
    x, source = torch.randn(2, 5, 128).double(), torch.randn(2, 12, 128).double()
    score = torch.randn(2, 12, 1).double()
    q = F.linear(x, attention.q.weight, attention.q.bias).view(2, 5, 2, 64)
    kv = F.linear(source, attention.kv.weight, attention.kv.bias)
    k, v = (part.view(2, 12, 2, 64) for part in kv.split(128, -1))
    logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / 8 + score.mT[:, None]
    out = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v).flatten(2)
    out = F.linear(out, attention.proj.weight, attention.proj.bias)
    torch.testing.assert_close(attention(x, source, regions, score), out)
