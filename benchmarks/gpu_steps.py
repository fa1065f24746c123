"""What gpu.py measures, one generator of rows per step."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_checks import Row, exact_float32, parity, tests
from timing import multiply_adds
from torch.utils.data import DataLoader

import posezoo
from posezoo.detectors import DETECTORS
from posezoo.detectors.torchvision_models import TorchvisionDetector
from posezoo.training import RECIPES as ALL_RECIPES
from posezoo.training.data import EpochSampler, Guarded
from posezoo.training.objectives import objective_of
from posezoo.training.optimizers import make_optimizer

HERE = Path(__file__).parent

FAMILIES = (
    "vitpose_b_simple_256x192", "uniformer_s_256x192", "tcformer_mta_256x192", "pct_swin_base",
    "tmpose_b_256x192", "tokenpose_t_256x192", "hrnet_xs_192x144",
)  # fmt: skip
RECIPES = ("uniformer_s_256x192", "tcformer_mta_256x192", "tmpose_b_256x192", "pct_swin_base")
QUICK = ("hrnet_xs_128x96", "tokenpose_xs_128x96")


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds_of(run: Callable[[], Any], device: str, budget: float = 0.5) -> float:
    """Return the median time of a call after two that do not count."""
    samples: list[float] = []
    for _ in range(2):
        run()
    synchronise(device)
    end = time.perf_counter() + budget
    while len(samples) < 3 or (time.perf_counter() < end and len(samples) < 200):
        start = time.perf_counter()
        run()
        synchronise(device)
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


def limits(args: argparse.Namespace, dtype: str) -> tuple[float, float]:
    """Return multiply-adds per second of a product, and bytes per second of a copy."""
    exact_float32()
    side = 256 if args.quick else 8192
    a = torch.randn(side, side, device=args.device, dtype=getattr(torch, dtype))
    product = seconds_of(lambda: a @ a, args.device, 0.2)
    size = (1 << 22) if args.quick else (1 << 30)
    source = torch.empty(size, dtype=torch.uint8, device=args.device)
    target = torch.empty_like(source)
    copy = seconds_of(lambda: target.copy_(source), args.device, 0.1)
    return side**3 / product, 2 * source.numel() / copy


def machine(args: argparse.Namespace, names: list[str]) -> Iterator[Row]:
    """What this machine is, and what it can do."""
    row: Row = {"item": names[0], "torch": torch.__version__, "CPUs": os.cpu_count()}
    row["device"] = platform.machine()
    if args.device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info()
        row["device"] = torch.cuda.get_device_name()
        row |= {"CUDA": torch.version.cuda, "cuDNN": torch.backends.cudnn.version()}
        row |= {"memory GiB": round(total / 2**30, 1), "free GiB": round(free / 2**30, 1)}
    for dtype in ("float32", "bfloat16"):
        product, copy = limits(args, dtype)
        row[f"{dtype} product TFLOP/s"] = round(2 * product / 1e12, 3)
        row["copy GB/s"] = round(copy / 1e9, 1)
    yield row


def forward(args: argparse.Namespace, names: list[str]) -> Iterator[Row]:
    """Eager and optimised forwards."""
    yield from forwards(args, names, ("eager", "optimised"))


def prepare(args: argparse.Namespace, names: list[str]) -> Iterator[Row]:
    """Compile models for the first time; what comes later finds torch's cache."""
    for item in names:
        name, dtype = item.split()
        for row in forwards(args, [name], ("compiled",), (dtype,), budget=0.0):
            yield {"item": item, "batch": row["batch"], "first s": row["first s"]}


def compiled(args: argparse.Namespace, names: list[str]) -> Iterator[Row]:
    """Compiled forwards of the optimised model."""
    yield from forwards(args, names, ("compiled",))


def forwards(
    args: argparse.Namespace, names: list[str], modes: tuple[str, ...],
    dtypes: tuple[str, ...] = ("bfloat16", "float32"), budget: float = 0.3,
) -> Iterator[Row]:  # fmt: skip
    """Time per forward, with the shares of the limits that it reaches."""
    exact_float32()
    device = torch.device(args.device)
    for name in names:
        torch.manual_seed(0)
        model = posezoo.create_model(name).to(device)
        macs, weights = multiply_adds(name), sum(p.numel() for p in model.parameters())
        for dtype in dtypes:
            product, copy = limits(args, dtype) if budget else (1.0, 1.0)
            for mode in modes:
                run = model
                if mode != "eager":
                    run = posezoo.optimize(model, dtype=dtype, compile=mode == "compiled")
                is_half = mode == "eager" and dtype == "bfloat16"
                for batch in (4, 1) if args.quick else (64, 1):
                    images = torch.randn(batch, 3, *model.pretrained_cfg.input.size, device=device)
                    start = time.perf_counter()
                    half = torch.autocast(device.type, torch.bfloat16, enabled=is_half)
                    with torch.inference_mode(), half:
                        run(images)
                        synchronise(args.device)
                        ready = time.perf_counter() - start
                        seconds = seconds_of(functools.partial(run, images), args.device, budget)
                    size = 4 if dtype == "float32" else 2
                    traffic = weights * size + images.nbytes
                    yield {
                        "item": name, "mode": mode, "dtype": dtype, "batch": batch,
                        "ms": round(1e3 * seconds, 3), "images/s": round(batch / seconds, 1),
                        "of product": round(macs * batch / seconds / product, 3),
                        "of copy": round(traffic / seconds / copy, 3), "first s": round(ready, 2),
                    }  # fmt: skip


def detectors(args: argparse.Namespace, names: list[str]) -> Iterator[Row]:
    """The detectors of torchvision with random weights, photos of 480 x 640."""
    from torchvision.models import get_model

    for name in names:
        model = get_model(DETECTORS[name], weights=None, weights_backbone=None)
        detector = TorchvisionDetector(model, args.device, 0.5)
        for batch in dict.fromkeys((1, detector.batch_size)):
            photos = list(np.random.default_rng(0).integers(0, 255, (batch, 480, 640, 3), np.uint8))
            seconds = seconds_of(functools.partial(detector.detect, photos), args.device)
            yield {"item": name, "batch": batch, "ms per photo": round(1e3 * seconds / batch, 2)}


def harness(args: argparse.Namespace, names: list[str]) -> Iterator[Row]:
    """A run of `posezoo eval` on made photos: boxes per second, and the network's share."""
    for name in names:
        images = 8 if args.quick else 2000
        for dtype in ("float32", "bfloat16"):
            options = ["--images", images, "--boxes", 4, "--device", args.device, "--dtype", dtype]
            options += ["--workers", min(16, os.cpu_count() or 4), "--loop", 20]
            result = last_line([sys.executable, HERE / "harness.py", name, *options])
            whole = result["seconds_per_box"]["all of a run"]
            yield {
                "item": name, "dtype": dtype, "boxes/s": round(1 / whole, 1),
                "network busy": round(1 - result["outside_network"], 3),
            }  # fmt: skip


def training(args: argparse.Namespace, names: list[str]) -> Iterator[Row]:
    """Steps of recipes in bfloat16, at their own batch per GPU, on one batch that is there."""
    from training import data_for, tokenizer_for  # not of tests/, where this may be imported

    device = torch.device(args.device)
    for name in names:
        recipe = dataclasses.replace(ALL_RECIPES[name], dtype="bfloat16")
        batch_size = 2 if args.quick else max(1, recipe.batch_size // 8)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            data = data_for(name, folder / "data", batch_size)
            if recipe.tokenizer:
                tokenizer = tokenizer_for(recipe.tokenizer, folder / "tokenizer")
                recipe = dataclasses.replace(recipe, tokenizer=tokenizer)
            objective = objective_of(recipe, posezoo.create_model(name)).to(device).train()
            people = objective.dataset(data)
            samples, sampler = Guarded(people), EpochSampler(len(people), batch_size, 0)
            loader = DataLoader(samples, batch_sampler=sampler, collate_fn=samples.collate)
            batch = next(iter(loader)).to(device)
        optimizer = make_optimizer(recipe, objective.model)

        def step(objective=objective, optimizer=optimizer, batch=batch) -> None:
            objective(batch).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        seconds = seconds_of(step, args.device, 0 if args.quick else 1.5)
        row = {"item": name, "batch": batch_size, "images/s": round(batch_size / seconds, 1)}
        if device.type == "cuda":
            row["peak MiB"] = round(torch.cuda.max_memory_allocated() / 2**20)
        yield row


def last_line(command: list[Any]) -> Any:
    """Run a script and return the JSON that it prints last."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1][:200])
    return json.loads(done.stdout.strip().splitlines()[-1])


STEPS: dict[str, Callable[[argparse.Namespace, list[str]], Iterator[Row]]] = {
    "tests": tests, "parity": parity, "prepare": prepare, "machine": machine, "forward": forward,
    "detectors": detectors, "harness": harness, "training": training, "compiled": compiled,
}  # fmt: skip


def items_of(step: str, quick: bool) -> list[str]:
    """Return what a step goes through."""
    small = ("hrnet_xs_128x96", "uniformer_s_256x192", "tcformer_mta_256x192", "pct_swin_base",
             "tokenpose_t_256x192", "vitpose_b_simple_256x192")  # fmt: skip
    stored = ("tokenpose", "uniformer", "tcformer", "pct", "vitpose")
    models = QUICK if quick else FAMILIES
    items = {
        "machine": ("this machine",), "tests": (*(small[:1] if quick else small), "pytest"),
        "parity": stored[:1] if quick else stored, "forward": models, "compiled": models,
        "prepare": [f"{name} {dtype}" for name in models for dtype in ("bfloat16", "float32")],
        "detectors": ("ssdlite",) if quick else ("fasterrcnn", "fasterrcnn_mobilenet", "ssdlite"),
        "harness": QUICK[:1] if quick else (FAMILIES[0], "pct_swin_base"),
        "training": QUICK[:1] if quick else RECIPES,
    }  # fmt: skip
    if quick and step in ("compiled", "prepare"):
        return list(items[step])[:1]
    return list(items[step])
