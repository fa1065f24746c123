"""What gpu.py measures, one generator of rows per step."""

from __future__ import annotations

import argparse
import copy
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from timing import multiply_adds

import posezoo

HERE = Path(__file__).parent
Row = dict[str, Any]

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


def exact_float32() -> None:
    """Leave TF32 off, which torch leaves on for convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def limits(args: argparse.Namespace, dtype: str) -> tuple[float, float]:
    """Return multiply-adds per second of a product, and bytes per second of a copy."""
    exact_float32()
    side = 256 if args.quick else 8192
    a = torch.randn(side, side, device=args.device, dtype=getattr(torch, dtype))
    product = seconds_of(lambda: a @ a, args.device)
    size = (1 << 22) if args.quick else (1 << 30)
    source = torch.empty(size, dtype=torch.uint8, device=args.device)
    target = torch.empty_like(source)
    copy = seconds_of(lambda: target.copy_(source), args.device)
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


def tests(args: argparse.Namespace, names: list[str]) -> Iterator[Row]:
    """Small models on the device against the CPU, both in float64, and the CUDA tests."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    for name in names:
        if name == "pytest":
            yield run_pytest(args)
            continue
        from families import small

        model = small(name).double()
        inputs = [x.double() if x.is_floating_point() else x for x in model.example_inputs(2)]
        with torch.no_grad():
            expected = model(*inputs)
            found = copy.deepcopy(model).to(args.device)(*(x.to(args.device) for x in inputs))
        pairs = zip(*([x] if isinstance(x, torch.Tensor) else list(x) for x in (found, expected)))
        worst = max(float((a.cpu().double() - b).abs().max()) for a, b in pairs)
        yield {"item": f"small {name}", "largest difference": worst, "passed": worst < 1e-6}


def run_pytest(args: argparse.Namespace) -> Row:
    """Run the tests marked `cuda`, where there is pytest."""
    if find_spec("pytest") is None:
        return {"item": "pytest -m cuda", "note": "pytest is not installed"}
    plain = ["-o", "addopts=", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", *plain, "tests"]
    if args.quick:
        command[-1] = "tests/test_device.py"
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]]
    return {"item": "pytest -m cuda", "note": lines[-1], "passed": done.returncode in (0, 5)}


def parity(args: argparse.Namespace, names: list[str]) -> Iterator[Row]:
    """A stored output of each family in float32, and how far the fast forms are from it."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    from families import FAMILIES as TESTED
    from families import with_stand_in_weights
    from goldens.compare import Golden
    from goldens.fill import golden_path

    exact_float32()
    for family in names:
        module = TESTED[family]
        golden = next(g for g in module.GOLDENS if "tokenizer" not in g)
        model = with_stand_in_weights(family, golden.removesuffix(".padded")).to(args.device)
        stored = Golden(golden_path(family, f"{golden}.safetensors"))
        (images,) = model.example_inputs(4, torch.Generator().manual_seed(0))
        images = images.to(args.device)
        row: Row = {"item": golden, "allowed": module.FLOAT32}
        with torch.inference_mode():
            try:  # a device in the place of the type: images go there
                found = module.run(model, golden, torch.device(args.device))
                names_ = stored.names & set(found)
                names_ = [n for n in names_ if not any(part in n for part in module.IGNORED)]
                row["to stored"] = max(stored.distance(n, found[n].cpu()) for n in names_)
            except (RuntimeError, TypeError) as error:
                row["to stored"] = f"not compared: {str(error).splitlines()[0][:80]}"
            plain = first(model(images)).float()
            for dtype in ("float32", "bfloat16"):
                fast = first(posezoo.optimize(model, dtype=dtype)(images)).float()
                share = (fast - plain).abs() / plain.std()
                row |= {
                    f"{dtype}, largest": float(share.max()),
                    f"{dtype}, mean": float(share.mean()),
                }
        worst = row["to stored"]
        yield row | {"passed": isinstance(worst, float) and worst < module.FLOAT32}


def first(output: Any) -> Any:
    """Return a tensor, or the first of a named tuple."""
    return output[0] if isinstance(output, tuple) else output


def forward(args: argparse.Namespace, names: list[str]) -> Iterator[Row]:
    """Eager and optimised forwards."""
    yield from forwards(args, names, ("eager", "optimised"))


def compiled(args: argparse.Namespace, names: list[str]) -> Iterator[Row]:
    """Compiled forwards of the optimised model."""
    yield from forwards(args, names, ("compiled",))


def forwards(args: argparse.Namespace, names: list[str], modes: tuple[str, ...]) -> Iterator[Row]:
    """Time per forward, with the shares of the limits that it reaches."""
    exact_float32()
    for name in names:
        torch.manual_seed(0)
        model = posezoo.create_model(name).to(args.device)
        macs, weights = multiply_adds(name), sum(p.numel() for p in model.parameters())
        for dtype in ("bfloat16", "float32"):
            product, copy = limits(args, dtype)
            for mode in modes:
                for batch in (64, 1) if not args.quick else (4, 1):
                    images = torch.randn(batch, 3, *model.pretrained_cfg.input.size).to(args.device)
                    half = torch.autocast(
                        torch.device(args.device).type, torch.bfloat16,
                        enabled=mode == "eager" and dtype == "bfloat16",
                    )  # fmt: skip
                    if batch > 1:
                        run = model
                        if mode != "eager":
                            run = posezoo.optimize(model, dtype=dtype, compile=mode == "compiled")
                    start = time.perf_counter()
                    with torch.inference_mode(), half:
                        run(images)
                        synchronise(args.device)
                        ready = time.perf_counter() - start
                        seconds = seconds_of(functools.partial(run, images), args.device)
                    size = 4 if dtype == "float32" else 2
                    traffic = weights * size + images.nbytes
                    yield {
                        "item": name, "mode": mode, "dtype": dtype, "batch": batch,
                        "ms": round(1e3 * seconds, 3), "images/s": round(batch / seconds, 1),
                        "of product": round(macs * batch / seconds / product, 3),
                        "of copy": round(traffic / seconds / copy, 3), "first s": round(ready, 2),
                    }  # fmt: skip


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
    """The first steps of recipes at their own batch size per GPU."""
    for name in names:
        options = ["--steps", 3 if args.quick else 12, "--batch", 2 if args.quick else 0]
        options += ["--device", args.device, "--dtype", "bfloat16"]
        (row,) = last_line([sys.executable, HERE / "training.py", name, *options])["rows"]
        yield {
            "item": name, "batch": row["batch"], "images/s": row["images_per_s"],
            "peak MiB": row["peak_mib"],
        }  # fmt: skip


def last_line(command: list[Any]) -> Any:
    """Run a script and return the JSON that it prints last."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1][:200])
    return json.loads(done.stdout.strip().splitlines()[-1])


STEPS: dict[str, Callable[[argparse.Namespace, list[str]], Iterator[Row]]] = {
    "machine": machine, "tests": tests, "parity": parity, "forward": forward, "harness": harness,
    "training": training, "compiled": compiled,
}  # fmt: skip


def items_of(step: str, quick: bool) -> list[str]:
    """Return what a step goes through."""
    small = ("hrnet_xs_128x96", "uniformer_s_256x192", "tcformer_mta_256x192", "pct_swin_base",
             "tokenpose_t_256x192", "vitpose_b_simple_256x192")  # fmt: skip
    stored = ("tokenpose", "uniformer", "tcformer", "pct", "vitpose")
    items = {
        "machine": ("this machine",), "tests": (*(small[:1] if quick else small), "pytest"),
        "parity": stored[:1] if quick else stored, "training": QUICK[:1] if quick else RECIPES,
        "harness": QUICK[:1] if quick else (*FAMILIES[:1], "pct_swin_base"),
    }  # fmt: skip
    if step == "compiled" and quick:
        return ["hrnet_xs_128x96"]
    return list(items.get(step, QUICK if quick else FAMILIES))
