"""Networks that have learnt a few rendered people by heart, so that their maxima mean something.

What half_precision.py does with one architecture. Dropout is off while it learns, the statistics of
BatchNorms are measured afterwards, over all that was learnt.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import posezoo
from posezoo.codecs import build_codec
from posezoo.device import autocast, has_fast_bfloat16
from posezoo.geometry import get_convention
from posezoo.skeletons import COCO_17
from posezoo.synthetic.scene import render_scene
from posezoo.training import RECIPES
from posezoo.training.class_data import ClassBatch
from posezoo.training.data import TrainingBatch
from posezoo.training.objectives import Objective, TokenClassifierObjective, objective_of
from posezoo.training.start import fill
from posezoo.transforms import TopDownCrop
from posezoo.zoo.catalog import build_model
from posezoo.zoo.config import PretrainedCfg
from posezoo.zoo.wrapped import unwrap

TOKENIZER = "pct_tokenizer_swin_base_woimgguide.rendered"
PEOPLE = 8
SHIFT, NOISE = 0.06, 0.1  # of a box, and of the spread of pixels
RATE = 1e-3
FOUND = 5.0  # input pixels from the truth
NEAR = {"pose": 2.0, "tokenizer": 2.0, "classification": 0.5}  # input pixels; share of classes
Row = dict[str, Any]


def crops(
    cfg: PretrainedCfg, moves: tuple[float, ...], seed: int, device: torch.device
) -> TrainingBatch:
    """Return each person in a crop per entry of `moves`, a share of the largest shift and noise."""
    skeleton = COCO_17 if cfg.task == "classification" else cfg.skeleton
    convention, size = get_convention(cfg.input.geometry or "mmpose0"), cfg.input.size
    crop = TopDownCrop(size, cfg.input.mean, cfg.input.std)
    rng = np.random.default_rng(seed)
    images, points = [], []
    for number in range(PEOPLE):
        scene = render_scene(number, (256, 256), people=1, skeleton=skeleton)
        center, box = convention.center_size(scene.bboxes, size, cfg.input.bbox_padding or 1.25)
        shifts = rng.uniform(-SHIFT, SHIFT, (len(moves), 2)) * np.array(moves)[:, None]
        boxes = box.repeat(len(moves), 0)
        matrices = convention.crop_matrices(center + shifts * boxes, boxes, size)
        images.append(crop(torch.from_numpy(scene.image), matrices))
        person = scene.keypoints[0]  # (K, 3)
        mapped = (
            np.einsum("cij,kj->cki", matrices[:, :, :2], person[:, :2]) + matrices[:, None, :, 2]
        )
        points.append(np.dstack([mapped, np.tile(person[:, 2] > 0, (len(moves), 1))]))
    stacked = torch.cat(images)  # (B, 3, H, W)
    noise = torch.randn(stacked.shape, generator=torch.Generator().manual_seed(seed))
    stacked += NOISE * torch.tensor(moves).repeat(PEOPLE)[:, None, None, None] * noise
    truth = torch.from_numpy(np.concatenate(points)).float()  # (B, K, 3)
    batch = TrainingBatch(images=stacked, keypoints=truth[..., :2], labelled=truth[..., 2] > 0)
    return batch.to(device)


def objective_for(name: str, dtype: Any, device: torch.device) -> Objective:
    """Return what trains a model with random weights, on the device."""
    torch.manual_seed(0)
    with device:  # random weights are made there
        model: Any = build_model(name).to(device)
    recipe = replace(RECIPES[name], dtype=dtype, loss_factor=1000.0)
    if recipe.objective == "token_classes":
        model.image_guided = False  # of no effect but on which tokenizer fits
        tokenizer: Any = posezoo.create_model(TOKENIZER, pretrained=True)
        return TokenClassifierObjective(recipe, model, tokenizer).to(device)
    if recipe.objective == "tokens":
        fill(model, recipe, TOKENIZER)
    return objective_of(recipe, model)


def outputs(network: nn.Module, batch: TrainingBatch, dtype: str) -> tuple[Tensor, Tensor | None]:
    """Return keypoints or logits, and the class of each token or image, if there are classes."""
    model: Any = unwrap(network)
    cfg = model.pretrained_cfg
    if cfg.task == "tokenizer":
        with autocast(batch.images.device, getattr(torch, dtype)):
            features = model.forward_features(batch.images)
        found = network(batch.keypoints, batch.labelled.float(), features)
        return found.keypoints, found.ids
    output = network(batch.images)
    if cfg.task == "classification":
        return output.float(), output.argmax(-1)
    keypoints, _ = build_codec(cfg).decode(output)
    return keypoints, output.logits.argmax(-1) if cfg.decode.codec == "regression" else None


def errors(values: Tensor, batch: TrainingBatch, task: str) -> Tensor:
    """Return how far labelled keypoints are off, input pixels; of classes 0 where right, else 1."""
    if task == "classification":
        copies = len(batch) // PEOPLE
        return (values.argmax(-1) != torch.arange(len(batch)).to(values.device) // copies).float()
    return (values - batch.keypoints).norm(dim=-1)[batch.labelled]


def prepare(objective: Objective) -> list[nn.BatchNorm2d]:
    """Switch off what is random in training; return the BatchNorms, which alone are in it."""
    norms = [m for m in objective.train().modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    objective.eval()
    for norm in norms:
        norm.train()
    return norms


def learn(objective: Objective, batch: TrainingBatch, steps: int, end: float) -> tuple[int, str]:
    """Learn a batch by heart; return the steps and why no more were done."""
    model, task, device = objective.model, objective.cfg.task, batch.images.device
    norms = prepare(objective)
    if task == "tokenizer":
        objective.train()  # moves the codebook
    samples: Any = batch
    if task == "classification":
        classes = torch.eye(model.num_classes, device=device)  # type: ignore[call-overload]
        samples = ClassBatch(
            images=batch.images,
            targets=classes[torch.arange(len(batch)).to(device) // (len(batch) // PEOPLE)],
        )
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, RATE, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps, pct_start=0.1
    )
    rng = np.random.default_rng(0)
    orders = np.stack([rng.permutation(len(batch))[:PEOPLE] for _ in range(steps)])
    step, why = 0, "steps"
    for step, order in enumerate(torch.from_numpy(orders).to(device), 1):
        part = {name: getattr(samples, name)[order] for name in vars(samples)}
        objective(replace(samples, **part)).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 20 == 0:
            with torch.no_grad(), objective.autocast(device):
                found, _ = outputs(model, batch, "float32")
            if errors(found, batch, task).quantile(0.95) < NEAR[task]:
                why = "learnt"
            elif time.monotonic() > end:
                why = "time"
            if why != "steps":
                break
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all that is seen
    with torch.no_grad():
        outputs(model, batch, "float32")
    objective.eval()
    return step, why


def compare(model: Any, batch: TrainingBatch) -> Row:
    """Return how far float32 is from the truth, and bfloat16 from float32."""
    task = model.pretrained_cfg.task
    fast = posezoo.optimize(model, dtype="bfloat16")
    with torch.inference_mode():
        exact, labels = outputs(model, batch, "float32")
        half, half_labels = outputs(fast, batch, "bfloat16")
    row: Row = {"far": round(float(errors(exact, batch, task).quantile(0.95)), 2)}
    if labels is not None and half_labels is not None:
        row["changed"] = round(float((labels != half_labels).float().mean()), 4)
    if task == "classification":
        return row | {"of spread": round(float((exact - half).abs().max() / exact.std()), 4)}
    moves = (exact - half).norm(dim=-1)[batch.labelled]
    found = moves[errors(exact, batch, task) < FOUND]
    points = torch.tensor([0.5, 0.95, 1.0], device=moves.device)
    values = [*moves.quantile(points).tolist(), float(found.max()) if len(found) else math.nan]
    return row | {"moves": [round(value, 3) for value in values]}


def spread(name: str, device: torch.device) -> Row:
    """Return how much of its spread the output of a model with random weights changes."""
    start = time.monotonic()
    torch.manual_seed(0)
    model: Any = build_model(name).to(device).eval()
    inputs = [x.to(device) for x in model.example_inputs(2, torch.Generator().manual_seed(0))]
    with torch.inference_mode():
        found = model(*inputs), posezoo.optimize(model, dtype="bfloat16")(*inputs)
    exact, half = (x if isinstance(x, Tensor) else x[0] for x in found)
    change = (exact - half).abs().float() / exact.std()
    row = {"model": name, "largest": float(change.max()), "mean": float(change.mean())}
    return row | {"seconds": round(time.monotonic() - start, 1)}


def measure(name: str, device: torch.device, steps: int, seconds: float) -> Row:
    """Let a model learn, then compare on what it has learnt and on what it has not."""
    if steps == 0:
        return spread(name, device)
    start = time.monotonic()
    dtype = "bfloat16" if has_fast_bfloat16(device) else "float32"
    objective = objective_for(name, dtype, device)
    learnt = crops(objective.cfg, (0.0, 1.0), 0, device)
    done, why = learn(objective, learnt, steps, start + 0.6 * seconds)
    copies = crops(objective.cfg, (1.0, 1.0), 1, device)
    row: Row = {"model": name, "task": objective.cfg.task, "steps": done, "end": why}
    row |= {"learnt": compare(objective.model, learnt), "copies": compare(objective.model, copies)}
    return row | {"seconds": round(time.monotonic() - start, 1)}
