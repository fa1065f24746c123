"""What gpu.py measures, one generator of rows per step."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
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

FAMILIES = (  # what takes longest to compile first
    "tcformer_mta_256x192", "pct_swin_base", "tmpose_b_256x192", "uniformer_s_256x192",
    "vitpose_b_simple_256x192", "tokenpose_t_256x192", "hrnet_xs_192x144",
)  # fmt: skip
EVALUATED = ("vitpose_b_simple_256x192", "pct_swin_base")
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
    for name in names:
        for dtype in ("bfloat16", "float32"):
            cases = Forwards(args, name, dtype, (4, 1) if args.quick else (64, 1))
            cases.start(("eager", "optimised"))
            yield from cases.rows()


def compiled(args: argparse.Namespace, names: list[str]) -> Iterator[Row | None]:
    """Eager, optimised and compiled forwards in one process."""
    for item in names:
        name, dtype, batch = item.split()
        cases = Forwards(args, name, dtype, (int(batch),))
        cases.start(("eager", "optimised", "compiled"))
        yield None
        yield from cases.rows()


class Forwards:
    """Forms of a model, started, and then timed, with the shares of the limits that they reach."""

    def __init__(
        self, args: argparse.Namespace, name: str, dtype: str, batches: tuple[int, ...]
    ) -> None:
        exact_float32()
        torch.manual_seed(0)
        self.args, self.name, self.dtype, self.batches = args, name, dtype, batches
        self.device = torch.device(args.device)
        self.model = posezoo.create_model(name).to(self.device)
        self.macs = multiply_adds(name)
        self.cases: list[tuple[str, Callable[[], Any], int, float]] = []

    def start(self, modes: tuple[str, ...]) -> None:
        """Run each form once on each batch, and compile it."""
        size = self.model.pretrained_cfg.input.size
        for mode in modes:
            fast = self.model
            if mode != "eager":
                fast = posezoo.optimize(self.model, dtype=self.dtype, compile=mode == "compiled")
            for batch in self.batches:
                images = torch.randn(batch, 3, *size, device=self.device)
                run, start = functools.partial(fast, images), time.perf_counter()
                with torch.inference_mode(), self.autocast(mode):
                    run()
                    synchronise(self.args.device)
                self.cases.append((mode, run, batch, time.perf_counter() - start))
            if self.device.type == "cuda":
                torch.cuda.empty_cache()  # for those beside

    def rows(self) -> Iterator[Row]:
        """Time each."""
        weights = sum(p.numel() for p in self.model.parameters())
        product, copy = limits(self.args, self.dtype)
        for mode, run, batch, first in self.cases:
            with torch.inference_mode(), self.autocast(mode):
                seconds = seconds_of(run, self.args.device, 0.3)
            size = 4 if self.dtype == "float32" else 2
            traffic = weights * size + batch * 12 * math.prod(self.model.pretrained_cfg.input.size)
            yield {
                "item": self.name, "mode": mode, "dtype": self.dtype, "batch": batch,
                "ms": round(1e3 * seconds, 3), "images/s": round(batch / seconds, 1),
                "of product": round(self.macs * batch / seconds / product, 3),
                "of copy": round(traffic / seconds / copy, 3), "first s": round(first, 2),
            }  # fmt: skip

    def autocast(self, mode: str) -> torch.autocast:
        enabled = mode == "eager" and self.dtype == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


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
    for item in names:
        name, dtype = item.split()
        images = 8 if args.quick else 2000
        options = ["--images", images, "--boxes", 4, "--device", args.device, "--dtype", dtype]
        options += ["--workers", min(16, os.cpu_count() or 4), "--loop", 10]
        result = last_line([sys.executable, HERE / "harness.py", name, *options])
        spent = result["seconds_per_box"]
        ms = {f"{stage}, ms per box": round(1e3 * s, 3) for stage, s in spent.items()}
        yield {
            "item": name, "dtype": dtype, "boxes/s": round(1 / spent["all of a run"], 1),
            "network busy": round(1 - result["outside_network"], 3), **ms,
            "waited for images, s": result["seconds"]["wait for images"],
        }  # fmt: skip


def training(args: argparse.Namespace, names: list[str]) -> Iterator[Row | None]:
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

        step()
        if device.type == "cuda":
            torch.cuda.empty_cache()  # for those beside
        yield None
        seconds = seconds_of(step, args.device, 0 if args.quick else 1.0)
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


STEPS: dict[str, Callable[[argparse.Namespace, list[str]], Iterator[Row | None]]] = {
    "compiled": compiled, "training": training, "tests": tests, "parity": parity,
    "machine": machine, "forward": forward, "detectors": detectors, "harness": harness,
}  # fmt: skip
"""None among the rows is for what follows to be measured alone."""


def items_of(step: str, quick: bool, only: list[str] | None = None) -> list[str]:
    """Return what a step goes through.

    Args:
        only: of that, items or all with such a first word.
    """
    small = ("hrnet_xs_128x96", "uniformer_s_256x192", "tcformer_mta_256x192", "pct_swin_base",
             "tokenpose_t_256x192", "vitpose_b_simple_256x192")  # fmt: skip
    stored = ("tokenpose", "uniformer", "tcformer", "pct", "vitpose")
    models, dtypes = QUICK if quick else FAMILIES, ("bfloat16", "float32")
    items = {
        "machine": ("this machine",), "tests": ("pytest", *(small[:1] if quick else small)),
        "parity": stored[:1] if quick else stored, "forward": models,
        "compiled": [f"{n} {d} {b}" for n in models for d in dtypes for b in (64, 1)],
        "detectors": ("ssdlite",) if quick else ("fasterrcnn", "fasterrcnn_mobilenet", "ssdlite"),
        "harness": [f"{n} {d}" for n in (QUICK[:1] if quick else EVALUATED) for d in dtypes],
        "training": QUICK[:1] if quick else RECIPES,
    }  # fmt: skip
    if quick and step == "compiled":
        return [f"{QUICK[0]} bfloat16 4"]
    chosen = list(items[step])
    return [i for i in chosen if not only or i in only or i.split()[0] in only]
