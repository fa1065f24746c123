"""PCT's two training stages: losses, the codebook, many processes, learning, resuming."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from families.pct import TINY
from goldens.fill import golden_path, make_input, make_tensor, manifests
from safetensors.torch import load_file
from standins.processes import run
from torch import nn

import posezoo
from posezoo.errors import InputError
from posezoo.models.pct.network import PCTPose, TokenClassifier
from posezoo.models.pct.swin import SwinBackbone
from posezoo.models.pct.tokenizer import PCTTokenizer
from posezoo.models.pct.tokens import TokenDecoder
from posezoo.synthetic import write_coco
from posezoo.training import get_recipe, loop
from posezoo.training.data import PersonDataset, TrainingBatch
from posezoo.training.objectives import objective_of, pct
from posezoo.zoo.registry import ARCHITECTURES, register
from training.left import are_equal, log_of, losses_of, weights_of

NAME = "pct_tokenizer_swin_base_woimgguide"
RECIPE = dataclasses.replace(
    get_recipe(NAME), epochs=4, batch_size=4, lr=1e-3, warmup_steps=2, eval_every=100
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    write_coco(folder, 6, seed=1, size=(128, 128), split="train2017")
    write_coco(folder, 3, seed=2, size=(128, 128))
    return folder


@pytest.fixture
def tiny() -> PCTTokenizer:
    """Both stages around a tiny Swin, registered; a tokenizer of the kind."""
    for name, builder in (("pct_tokenizer_swin", "build_tokenizer"), ("pct_swin", "build_pose")):
        cfg = dataclasses.replace(posezoo.get_pretrained_cfg(f"{name}_base"), params=None)
        register(
            f"{name}_tiny", summary="", build=f"{__name__}:{builder}", fixed={}, args={},
            cfgs={"coco": cfg},
        )  # fmt: skip
    torch.manual_seed(3)
    yield posezoo.create_model("pct_tokenizer_swin_tiny")
    for name in ("pct_tokenizer_swin_tiny", "pct_swin_tiny"):
        del ARCHITECTURES[name]


def build_tokenizer() -> PCTTokenizer:
    return PCTTokenizer(SwinBackbone(**TINY, drop_path_rate=0.0))


def build_pose() -> PCTPose:
    head = TokenClassifier(256)
    head.to_tokens[0] = nn.Sequential(nn.Linear(16384, 16), nn.Linear(16, 2176))
    backbone = SwinBackbone(**TINY, drop_path_rate=0.0)
    return PCTPose(backbone, head, TokenDecoder(), image_guided=True)


def _stage_two(tokenizer: PCTTokenizer | None, /, **changes) -> pct.TokenClassifierObjective:
    recipe = dataclasses.replace(get_recipe("pct_swin_base"), model="pct_swin_tiny", **changes)
    return pct.TokenClassifierObjective(recipe, posezoo.create_model(recipe.model), tokenizer)


def _batch(count: int, *, images: bool) -> TrainingBatch:
    generator = torch.Generator().manual_seed(5)
    labelled = torch.rand(count, 17, generator=generator) > 0.1
    size = (count, 3, 256, 256) if images else (count, 0)
    return TrainingBatch(
        images=torch.randn(size, generator=generator),
        keypoints=60 + 140 * torch.rand(count, 17, 2, generator=generator),
        labelled=labelled,
    )


def test_keypoint_loss_and_its_gradient_are_the_formula():
    torch.manual_seed(0)
    targets = torch.rand(2, 3, 2, dtype=torch.float64) * 255
    offsets = torch.tensor(
        [[[0.02, -0.049], [0.051, -7], [3, 0.01]], [[-0.03, 0], [90, -0.2], [0.05, 0.07]]],
        dtype=torch.float64,
    )
    keypoints = (targets + offsets).requires_grad_()
    labelled = torch.tensor([[True, True, False], [True, False, True]])
    loss = pct.keypoint_smooth_l1(keypoints, targets, labelled)
    loss.backward()
    value, gradient = 0.0, np.zeros((2, 3, 2))
    for index, d in np.ndenumerate((keypoints - targets).detach().numpy()):
        if labelled[index[:2]]:
            small = abs(d) < 0.05
            value += (0.5 * d * d / 0.05 if small else abs(d) - 0.025) / 12
            gradient[index] = (d / 0.05 if small else np.sign(d)) / 12
    assert loss.item() == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(keypoints.grad.numpy(), gradient, rtol=1e-9, atol=1e-15)


def test_unlabelled_keypoints_may_be_anything():
    keypoints = torch.full((1, 2, 2), torch.nan)
    keypoints[0, 0] = 1.0
    labelled = torch.tensor([[True, False]])
    loss = pct.keypoint_smooth_l1(keypoints, torch.ones(1, 2, 2), labelled)
    assert loss.item() == 0


def test_commitment_and_its_gradient_are_the_formula():
    torch.manual_seed(0)
    embeddings = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    codes = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    loss = pct.commitment(embeddings, codes)
    loss.backward()
    difference = (embeddings - codes).detach()
    assert loss.item() == pytest.approx(float((difference.numpy() ** 2).sum() / 24), rel=1e-12)
    torch.testing.assert_close(embeddings.grad, 2 * difference / 24, rtol=1e-12, atol=0)
    assert codes.grad is None


def test_codebook_follows_the_written_out_formula():
    torch.manual_seed(0)
    tokenizer = PCTTokenizer(None).double()
    tokenizer.ema_cluster_size.uniform_(0, 3)
    n, w = tokenizer.ema_cluster_size.numpy().copy(), tokenizer.ema_w.numpy().copy()
    for _ in range(3):
        z = torch.randn(5, 34, 512, dtype=torch.float64)
        ids = torch.randint(0, 2048, (5, 34)) % 40  # many rows get none, some several
        pct.update_codebook(tokenizer, z, ids)
        assigned = np.eye(2048)[ids.flatten().numpy()]  # (170, 2048)
        n = 0.9 * n + 0.1 * assigned.sum(0)
        total = n.sum()
        n = (n + 1e-5) / (total + 2048e-5) * total
        w = 0.9 * w + 0.1 * assigned.T @ z.flatten(0, 1).numpy()
        np.testing.assert_allclose(tokenizer.ema_cluster_size.numpy(), n, rtol=1e-12)
        np.testing.assert_allclose(tokenizer.ema_w.numpy(), w, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(
            tokenizer.decoder.codebook.numpy(), w / n[:, None], rtol=1e-10, atol=1e-12
        )


def test_each_process_updates_by_the_samples_of_all(monkeypatch):
    torch.manual_seed(0)
    whole, half = PCTTokenizer(None), PCTTokenizer(None)
    half.load_state_dict(whole.state_dict())
    z, ids = torch.randn(4, 34, 512), torch.randint(0, 2048, (4, 34))
    pct.update_codebook(whole, z, ids)
    theirs = [
        torch.bincount(ids[2:].flatten(), minlength=2048).float(),
        torch.zeros(2048, 512).index_add_(0, ids[2:].flatten(), z[2:].flatten(0, 1)),
    ]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda t: t.add_(theirs.pop(0)))
    pct.update_codebook(half, z[:2], ids[:2])
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(half.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def _filled(name: str, variant: str) -> torch.nn.Module:
    """A model with stand-in weights under the authors' keys."""
    model = posezoo.create_model(name)
    state = {
        key: make_tensor(key, tuple(spec["shape"]))
        for key, spec in manifests("pct")[variant].items()
        if spec["dtype"].startswith("float") and "derived" not in spec
    }
    posezoo.load_checkpoint(model, state)
    return model.double()


def _golden_batch() -> TrainingBatch:
    return TrainingBatch(
        images=make_input("image", (1, 3, 256, 256)).double(),
        keypoints=(128 + 48 * make_input("joints", (1, 17, 2))).double(),
        labelled=make_input("visible", (1, 17)) > -0.8,
    )


def _golden(variant: str) -> dict[str, torch.Tensor]:
    state = load_file(golden_path("pct", "training.safetensors"))
    mine = {k.split(".train_")[1]: v for k, v in state.items() if k.startswith(f"{variant}.")}
    return {k: v.double() for k, v in mine.items()}


def test_step_of_stage_one_equals_the_published_one():
    """Losses, and the codebook with its sums after one update; nothing is dropped."""
    model = _filled(NAME, NAME)
    model.ema_cluster_size.abs_().add_(1)
    objective = objective_of(RECIPE, model).train()
    objective.drop = -1.0
    loss = objective(_golden_batch())
    golden = _golden(NAME)
    expected = float(golden["joint_loss"] + golden["e_latent_loss"])
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    for name, found in (
        ("ema_cluster_size", model.ema_cluster_size),
        ("ema_w", model.ema_w[::8, ::16][::8]),
        ("codebook", model.decoder.codebook[::8, ::16][::8]),
    ):
        torch.testing.assert_close(found, golden[name], rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.slow
def test_losses_of_stage_two_equal_the_published_ones():
    """In evaluation mode, as the reference was computed."""
    model = _filled("pct_swin_base_woimgguide", "pct_swin_base_woimgguide")
    tokenizer = _filled(NAME, NAME)
    recipe = get_recipe("pct_swin_base_woimgguide")
    objective = pct.TokenClassifierObjective(recipe, model, tokenizer).eval()
    with torch.no_grad():
        loss = objective(_golden_batch()).item()
    golden = _golden("pct_swin_base_woimgguide")
    assert loss == pytest.approx(float(golden["joint_loss"] + golden["token_loss"]), rel=1e-6)


def _learn(objective, batch, *, lr: float, steps: int) -> list[float]:
    learning = [p for p in objective.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=lr)
    losses = []
    for _ in range(steps):
        loss = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_tokenizer_learns_one_batch_by_heart():
    torch.manual_seed(0)
    objective = objective_of(RECIPE, posezoo.create_model(NAME)).train()
    objective.drop = -1.0
    batch = _batch(2, images=False)
    before = objective.model.decoder.codebook.clone()
    losses = _learn(objective, batch, lr=2e-2, steps=60)
    assert losses[-1] < 0.5 * losses[0]
    assert not torch.equal(objective.model.decoder.codebook, before)
    # hidden keypoints have no effect, unlabelled ones no target
    moved = dataclasses.replace(
        batch, keypoints=batch.keypoints.masked_fill(~batch.labelled[..., None], 1e4)
    )
    with torch.no_grad():
        objective.eval()
        assert objective(moved).item() == objective(batch).item()


def test_dropped_keypoints_are_hidden_from_the_encoder_and_asked_of_the_decoder():
    batch = _batch(2, images=False)
    moved = dataclasses.replace(batch, keypoints=batch.keypoints + 10)
    labelled = float(batch.labelled.float().mean())
    losses = []
    for given in (moved, batch):
        torch.manual_seed(0)
        objective = objective_of(RECIPE, posezoo.create_model(NAME)).train()
        objective.drop = 2.0
        with torch.no_grad():
            losses.append(objective(given))
    # all poses start near 0
    assert (losses[0] - losses[1]).item() == pytest.approx(10 * labelled, rel=1e-4)


def test_classifier_learns_one_batch_by_heart_and_nothing_else_moves(tiny):
    torch.manual_seed(0)
    objective = _stage_two(tiny, batch_size=2).train()
    fixed = {k: v.clone() for k, v in objective.state_dict().items() if "head." not in k}
    losses = _learn(objective, _batch(2, images=True), lr=3e-3, steps=25)
    assert losses[-1] < losses[0] - 5  # of log 2048 = 7.6 for the tokens; the decoder is random
    assert all(torch.equal(objective.state_dict()[key], value) for key, value in fixed.items())
    head = [name for name, p in objective.named_parameters() if p.requires_grad]
    assert head and all(name.startswith("model.head.") for name in head)


def test_share_of_right_tokens_is_logged(tiny, data, tmp_path):
    objective = _stage_two(
        tiny, batch_size=4, epochs=2, accumulate=2, lr=1e-3, warmup_steps=0, eval_every=100
    )
    loop.fit(objective, data, tmp_path / "run", device="cpu")
    row = next(row for row in log_of(tmp_path / "run") if "top1" in row)
    assert 0 <= row["top1"] <= row["top2"] <= row["top5"] <= 1


def test_top_k_counts_labels_among_the_k_largest_logits(tiny, monkeypatch):
    objective = _stage_two(tiny)
    batch = _batch(1, images=True)
    with torch.no_grad():
        features = objective.model.forward_features(batch.images)
        z = objective.encoder(batch.keypoints, batch.labelled, features)
        ids = objective.model.decoder.nearest_ids(z)[0]  # (34,)
        output = objective.model.forward_head(features)
    # the label comes first in 3 tokens, second in 4, fourth in 5, and last in the rest
    rank = torch.tensor([0] * 3 + [1] * 4 + [3] * 5 + [2047] * 22)
    logits = torch.full((1, 34, 2048), 0.5)
    for t in range(34):
        logits[0, t, (ids[t] + 1 + torch.arange(int(rank[t]))) % 2048] = 1.0
    logits[0, torch.arange(34), ids] = 0.75
    monkeypatch.setattr(objective.model, "forward_head", lambda _: output._replace(logits=logits))
    objective(batch)
    shares = {name: round(float(value) * 34) for name, value in objective.monitor.items()}
    assert shares == {"top1": 3, "top2": 7, "top5": 12}


def test_classifier_takes_over_backbone_codebook_and_decoder(tiny):
    objective, tokenizer = _stage_two(tiny), tiny.eval()
    batch = _batch(2, images=True)
    with torch.inference_mode():
        features = tokenizer.forward_features(batch.images)
        ids = tokenizer.encode(batch.keypoints, batch.labelled, features)
        assert torch.equal(objective.model.forward_features(batch.images), features)
        assert torch.equal(objective.model.decoder.decode(ids), tokenizer.decode(ids))
        embeddings = objective.encoder(batch.keypoints, batch.labelled, features)
        assert torch.equal(objective.model.decoder.nearest_ids(embeddings), ids)


def test_fixed_parts_stay_in_evaluation_mode(tiny):
    stage_one = objective_of(
        dataclasses.replace(get_recipe("pct_tokenizer_swin_base"), model="pct_tokenizer_swin_tiny"),
        tiny,
    )
    for objective in (stage_one, _stage_two(tiny)):
        objective.eval().train()
        assert objective.model.training and not objective.model.backbone.training
        assert not any(p.requires_grad for p in objective.model.backbone.parameters())


def test_unfit_tokenizer_is_refused(tiny, tmp_path):
    with pytest.raises(InputError, match="names no tokenizer"):
        _stage_two(None, tokenizer=None)
    with pytest.raises(InputError, match="guided by images"):
        _stage_two(posezoo.create_model(NAME))
    folder = posezoo.save_pretrained(posezoo.create_model(NAME), tmp_path)
    recipe = dataclasses.replace(
        get_recipe("pct_swin_base_woimgguide"), tokenizer=str(folder / "model.safetensors")
    )
    assert not pct._load_tokenizer(recipe).image_guided


def test_poses_without_pictures_are_those_of_the_crops(data):
    objective = objective_of(RECIPE, posezoo.create_model(NAME))
    poses = objective.dataset(data)
    crops = PersonDataset(poses.people, poses.cfg, poses.skeleton, poses.augmentation, poses.seed)
    assert type(poses) is pct.PoseDataset and poses.cfg.input.bbox_padding == 1.25
    for key in ((0, 0), (1, 0), (1, 2), (2, 3)):
        assert torch.equal(poses[key][1], crops[key][1])
    batch = poses.collate([poses[0, 0], poses[0, 1]])
    assert len(batch) == 2 and batch.keypoints.shape == (2, 17, 2)


def test_killed_and_resumed_tokenizer_ends_bit_equal(data, tmp_path):
    whole = loop.train(RECIPE, data, tmp_path / "whole", device="cpu")
    parts = loop.train(RECIPE, data, tmp_path / "parts", device="cpu", stop_after=1)
    while parts.step < parts.steps:
        parts = loop.train(RECIPE, data, tmp_path / "parts", device="cpu", stop_after=2)
    assert parts.loss == whole.loss and whole.steps > 3
    assert are_equal(weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts"))


@pytest.mark.slow
def test_two_processes_train_the_codebook_that_one_does(data, tmp_path):
    """The same global batch, nothing dropped: the same losses, weights, codebook and sums."""
    script = (
        "import sys; from pathlib import Path\n"
        "from posezoo.training import loop\n"
        "from posezoo.training.objectives import objective_of\n"
        "from training.test_pct_training import RECIPE\n"
        "import posezoo, torch; torch.manual_seed(0)\n"
        "objective = objective_of(RECIPE, posezoo.create_model(RECIPE.model))\n"
        "objective.drop = -1.0\n"
        "loop.fit(objective, Path(sys.argv[1]), Path(sys.argv[2]), device='cpu', log_every=1)\n"
    )
    (tmp_path / "run.py").write_text(script)
    for count in (1, 2):
        run(count, tmp_path / "run.py", data, tmp_path / str(count))
    losses, others = (losses_of(tmp_path / name) for name in "12")
    one, two = (weights_of(tmp_path / name) for name in "12")
    assert len(losses) > 3 and losses == pytest.approx(others, rel=1e-4)
    assert one["model.ema_cluster_size"].sum() > 40
    for name in ("ema_cluster_size", "ema_w", "decoder.codebook", "decoder.recover.bias"):
        first, second = one[f"model.{name}"], two[f"model.{name}"]
        used = one["model.ema_cluster_size"] > 1e-2 if first.ndim == 2 else slice(None)
        torch.testing.assert_close(first[used], second[used], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("size", ["base", "large", "huge", "base_woimgguide"])
def test_recipes_have_the_published_numbers(size):
    first, second = get_recipe(f"pct_tokenizer_swin_{size}"), get_recipe(f"pct_swin_{size}")
    assert (first.epochs, first.batch_size, first.lr, first.weight_decay) == (50, 512, 1e-2, 0.15)
    assert (second.epochs, second.batch_size, second.lr, second.weight_decay) == (
        210, 256, 8e-4, 0.05,
    )  # fmt: skip
    for recipe in (first, second):
        assert recipe.warmup_steps == 500 and recipe.final_lr == 1e-5 and not recipe.decay_all
        assert recipe.optimizer == "adamw" and recipe.dtype == "float32"
    guided = "woimgguide" not in size
    assert first.start == (f"hmp_swin_{size}" if guided else "scratch")
    assert second.tokenizer == first.model
