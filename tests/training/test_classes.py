"""Classifiers: the published augmentation, seeded per image, soft targets, exact resuming."""

from __future__ import annotations

import dataclasses
import os
import random
from collections import Counter

import families
import numpy as np
import pytest
import torch
from families import registered, smaller
from PIL import Image
from safetensors.torch import load_file
from timm.data import ImageNetInfo
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import posezoo
from posezoo.datasets import ClassSample
from posezoo.errors import DataError, InputError
from posezoo.evaluation import RunOptions, evaluate_model
from posezoo.training import RECIPES, ClassAugmentation, get_recipe, loop
from posezoo.training.class_data import ClassBatch, ClassDataset, seeded
from posezoo.training.data import EpochSampler
from posezoo.training.objectives import ClassObjective, objective_of
from posezoo.zoo.arguments import NUM_CLASSES
from posezoo.zoo.model import Classifier
from posezoo.zoo.registry import register
from training.left import are_equal, log_of, weights_of

CFG = posezoo.get_pretrained_cfg("uniformer_small")
SMALL = dataclasses.replace(CFG, input=dataclasses.replace(CFG.input, size=(32, 32)))


class Tiny(Classifier):
    """Takes any image, has a BatchNorm and dropout."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.num_classes, self.num_features, self.pretrained_cfg = num_classes, 512, SMALL
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(), nn.Dropout(0.3),
            nn.Linear(512, num_classes),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def build_tiny(*, num_classes: int) -> Tiny:
    return Tiny(num_classes)


@pytest.fixture
def tiny():
    """The tiny network as an architecture, so that it can be saved."""
    with registered():
        register(
            "tiny_classes", summary="Tiny.", build=f"{__name__}:build_tiny", fixed={},
            args={"num_classes": NUM_CLASSES}, cfgs={"in1k": SMALL},
        )  # fmt: skip
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(6):
        array = rng.integers(0, 255, (40, 48, 3)).astype(np.uint8)
        Image.fromarray(array).save(folder / f"{i}.png")
    return [ClassSample(path=folder / f"{i}.png", label=i) for i in range(6)]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory, pictures):
    """Both halves of an ImageNet with one picture per class."""
    root = tmp_path_factory.mktemp("imagenet")
    for split in ("train", "val"):
        for i, name in enumerate(ImageNetInfo("imagenet-1k").label_names()):
            (root / split / name).mkdir(parents=True)
            os.link(pictures[i % 6].path, root / split / name / "1.png")
    return root


class Few(ClassObjective):
    """24 pictures for the tiny network; remembers the weights that it evaluates."""

    def __init__(self, recipe, pictures):
        super().__init__(recipe, posezoo.create_model("tiny_classes"))
        self.pictures, self.seen = pictures * 4, []

    def dataset(self, data):
        return ClassDataset(self.pictures, SMALL, 1000, self.augmentation, self.recipe.seed)

    def check(self, data, device):
        return "nothing"

    def evaluate(self, data, out, device, stop):
        assert not self.model.training
        self.seen.append({k: v.clone() for k, v in self.model.state_dict().items()})
        return 0.25


def _dataset(pictures, **changes):
    return ClassDataset(pictures, SMALL, 6, ClassAugmentation(**changes), seed=5)


def test_augmentation_depends_on_epoch_and_image_only(pictures):
    first, second = _dataset(pictures), _dataset(pictures)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    image = first[3, 2][0]
    second[3, 1], random.random(), np.random.rand(), torch.rand(1)
    assert torch.equal(image, second[3, 2][0])
    assert not torch.equal(image, second[4, 2][0]) and image.shape == (3, 32, 32)


def test_mixing_depends_on_the_first_image_of_the_batch_only(pictures):
    sets = _dataset(pictures), _dataset(pictures)
    batches = []
    for i, dataset in enumerate(sets):
        np.random.seed(i)
        batches.append(dataset.collate([dataset[1, k] for k in (4, 0, 3, 5)]))
    assert torch.equal(batches[0].images, batches[1].images)
    assert torch.equal(batches[0].targets, batches[1].targets)


def test_global_generators_are_left_as_they_were(pictures):
    def state():
        return random.random(), np.random.rand(), torch.rand(1).item()

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    untouched = state()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    dataset = _dataset(pictures)
    dataset.collate([dataset[0, 0], dataset[0, 1]])
    assert state() == untouched


def test_generators_come_back_after_an_error():
    random.seed(3)
    expected = random.Random(3).random()
    with pytest.raises(KeyError), seeded(1):
        raise KeyError
    assert random.random() == expected


def test_targets_are_shares_of_both_mixed_classes(pictures):
    dataset = _dataset(pictures, mixup=0.0)  # CutMix alone
    batch = dataset.collate([dataset[0, i] for i in range(4)])
    torch.testing.assert_close(batch.targets.sum(1), torch.ones(4))
    off = 0.1 / 6
    for row, (own, other) in enumerate(((0, 3), (1, 2), (2, 1), (3, 0))):
        share = (batch.targets[row, own].item() - off) / 0.9
        assert batch.targets[row, other].item() == pytest.approx((1 - share) * 0.9 + off, abs=1e-6)
    rest = batch.targets[0, [1, 2, 4, 5]]
    torch.testing.assert_close(rest, torch.full((4,), off))


def test_without_mixing_only_labels_are_smoothed(pictures):
    dataset = _dataset(pictures, mixup=0.0, cutmix=0.0, label_smoothing=0.3)
    samples = [dataset[0, i] for i in range(2)]
    expected = torch.stack([image for image, _, _ in samples])
    batch = dataset.collate(samples)
    assert torch.equal(batch.images, expected)
    assert batch.targets[1].tolist() == pytest.approx([0.05, 0.75, *[0.05] * 4])


def test_policy_may_keep_no_bit_of_a_picture(pictures):
    image = Image.open(pictures[0].path)
    dataset = _dataset(pictures)
    policy = next(step for step in dataset.transform.transforms if hasattr(step, "ops"))
    (op,) = (op for op in policy.ops if op.name.startswith("Posterize"))
    assert np.asarray(op.aug_fn(image, 0)).max() == 0
    assert np.array_equal(np.asarray(op.aug_fn(image, 3)), np.asarray(image) & 0b11100000)


def test_odd_batch_is_refused_with_the_way_out(pictures):
    dataset = _dataset(pictures)
    with pytest.raises(InputError, match="even number per process"):
        dataset.collate([dataset[0, 0]])


def test_loss_and_its_gradient_are_the_formula(pictures):
    torch.manual_seed(0)
    model = Tiny(6).double()
    objective = ClassObjective(get_recipe("uniformer_small"), model).eval()
    batch = ClassBatch(
        images=torch.randn(3, 3, 32, 32, dtype=torch.float64),
        targets=torch.rand(3, 6, dtype=torch.float64).softmax(1),
    )
    logits = model(batch.images).detach()
    probabilities = logits.exp() / logits.exp().sum(1, keepdim=True)
    objective(batch).backward()
    value = -(batch.targets * probabilities.log()).sum() / 3
    assert objective(batch).item() == pytest.approx(value.item(), rel=1e-12)
    expected = ((probabilities - batch.targets) / 3).sum(0)  # of the last bias
    torch.testing.assert_close(model.net[-1].bias.grad, expected, rtol=1e-10, atol=1e-14)


def test_repeated_augmentation_gives_each_image_three_times_differently():
    sampler = EpochSampler(12, 6, seed=1, repeats=3)
    sampler.last_step = 4
    batches = list(sampler)
    for epoch in (0, 1):
        places = [place for batch in batches[2 * epoch : 2 * epoch + 2] for place in batch]
        counts = Counter(index for _, index in places)
        assert len(places) == len(set(places)) == 12 and set(counts.values()) == {3}
        assert {copy for copy, _ in places} == set(range(3 * epoch, 3 * epoch + 3))
    first = {index for _, index in batches[0] + batches[1]}
    assert first != {index for _, index in batches[2] + batches[3]}


def test_copies_of_an_image_go_to_different_processes():
    parts = [next(iter(EpochSampler(30, 9, seed=1, index=i, count=3, repeats=3))) for i in range(3)]
    assert [index for _, index in parts[0]] == [index for _, index in parts[2]]
    assert parts[0][0][0] != parts[2][0][0]


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"repeats": 3, "clip_norm": 0.1}])
def test_killed_and_resumed_run_ends_bit_equal(tiny, pictures, tmp_path, changes):
    recipe = dataclasses.replace(get_recipe("uniformer_small"), epochs=2, batch_size=12, **changes)

    def run(name, stop_after=None):
        torch.manual_seed(recipe.seed)
        objective = Few(recipe, pictures)
        return loop.fit(objective, tmp_path, tmp_path / name, device="cpu", stop_after=stop_after)

    whole = run("whole")
    for stop in (1, 1, 9):
        parts = run("parts", stop)
    assert parts.step == whole.step == 4 and parts.loss == whole.loss
    for kind in ("objective", "average") if "ema" in changes else ("objective",):
        assert are_equal(*(weights_of(tmp_path / name, kind) for name in ("whole", "parts")))


def test_moving_average_is_what_is_evaluated_and_kept(tiny, pictures, tmp_path):
    recipe = dataclasses.replace(get_recipe("uniformer_small"), epochs=1, batch_size=12, ema=0.5)
    objective = Few(recipe, pictures)
    end = loop.fit(objective, tmp_path, tmp_path / "run", device="cpu")
    average = weights_of(tmp_path / "run", "average")
    kept = load_file(tmp_path / "run" / "best" / "model.safetensors")
    assert are_equal(average, objective.seen[0]) and are_equal(average, kept)
    last = weights_of(tmp_path / "run")["model.net.0.weight"]
    assert not torch.equal(kept["net.0.weight"], last)
    assert (end.metric, end.best) == ("top1", 0.25)
    assert log_of(tmp_path / "run")[-1]["top1"] == 0.25


def test_gradient_is_clipped_to_the_norm(tiny, pictures, tmp_path):
    recipe = dataclasses.replace(
        get_recipe("tcformer_large"), epochs=1, batch_size=12, clip_norm=1e-3
    )
    objective, norms = Few(recipe, pictures), []

    def note(optimizer, *_):
        grads = [p.grad for g in optimizer.param_groups for p in g["params"]]
        norms.append(nn.utils.get_total_norm(grads).item())

    handle = register_optimizer_step_pre_hook(note)
    try:
        loop.fit(objective, tmp_path, tmp_path / "run", device="cpu")
    finally:
        handle.remove()
    assert norms and max(norms) <= 1e-3 * (1 + 1e-4)


def test_every_classifier_has_a_recipe_and_no_pose_model_has_one_of_classes():
    kinds = {name: posezoo.get_pretrained_cfg(name).task for name in posezoo.list_models()}
    wanted = {name for name, task in kinds.items() if task == "classification"}
    assert {n for n, r in RECIPES.items() if r.objective == "classes"} == wanted


def test_pose_model_cannot_learn_classes():
    recipe = dataclasses.replace(get_recipe("uniformer_small"), model="hrnet_xs_128x96")
    with pytest.raises(InputError, match="hrnet_xs_128x96 is a pose model"):
        objective_of(recipe, posezoo.create_model("hrnet_xs_128x96"))


def test_folder_without_the_classes_is_refused(tmp_path):
    (tmp_path / "train" / "cats").mkdir(parents=True)
    objective = objective_of(get_recipe("uniformer_small"), Tiny())
    with pytest.raises(DataError, match="not the 1000 of ImageNet-1k"):
        objective.dataset(tmp_path)


def test_classes_of_ones_own_are_learnt_kept_and_scored(pictures, tmp_path):
    data, out = tmp_path / "data", tmp_path / "run"
    for split in ("train", "val"):
        for i, name in enumerate(("lie", "sit", "stand")):
            (data / split / name).mkdir(parents=True)
            os.link(pictures[i].path, data / split / name / "1.png")
    name = "uniformer_small_plus"
    recipe = dataclasses.replace(
        get_recipe(name), model=f"small_{name}", epochs=1, batch_size=2, warmup_epochs=0, repeats=1
    )
    with registered(smaller(name, **families.SMALL[name])):
        end = loop.train(recipe, data, out, device="cpu", log_every=1)
        model = posezoo.create_model(f"local-dir:{out / 'best'}")
        assert end.is_done and model.num_classes == 3
        record = evaluate_model(model, data, run=RunOptions(device="cpu"))
        (data / "val/sit").rename(data / "val/run")
        with pytest.raises(DataError, match="hold different classes"):
            loop.train(recipe, data, tmp_path / "other", device="cpu")
    assert record.statistics["top1"] == pytest.approx(end.value) and record.statistics["top5"] == 1
    assert record.labels == ["weights of your own: there is no published row"]


def test_validation_set_is_scored_by_the_harness(imagenet, tmp_path):
    """A classifier that knows the label of one picture in two has that accuracy."""
    recipe = get_recipe("uniformer_small")
    value = objective_of(recipe, Tiny().eval()).evaluate(imagenet, tmp_path / "eval", "cpu")
    assert value is not None and 0 <= value < 0.05
    assert (tmp_path / "eval").is_dir()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("uniformer_small"),
        pytest.param("tcformer_light"),
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n, r in RECIPES.items()
            if r.objective == "classes" and n not in ("uniformer_small", "tcformer_light")
        ),
    ],
)
def test_one_batch_is_learnt_by_heart(name, pictures):
    recipe = get_recipe(name)
    torch.manual_seed(0)
    with registered(smaller(name, size=(64, 64), depths=(1, 1, 1, 1))):
        model = posezoo.create_model(f"small_{name}", num_classes=6)
    cfg = model.pretrained_cfg
    plain = ClassAugmentation(mixup=0.0, cutmix=0.0, label_smoothing=0.0)
    dataset = ClassDataset(pictures, cfg, 6, plain, seed=0)
    batch = dataset.collate([dataset[0, i] for i in range(4)])
    objective = objective_of(recipe, model).train()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=5e-4)
    losses = []
    for _ in range(8):
        loss = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    unused = [n for n, p in objective.named_parameters() if p.grad is None]
    assert losses[-1] < 0.5 * losses[0] and unused == []
