"""Interleaved timing of models, in milliseconds and in units of a matrix product.

Every round runs each case once, with a matrix product before and after, so that whatever else the
machine does hits all alike. One unit is the time of that product (1024^3 on a CPU, 8192^3 on CUDA,
same precision); units carry from machine to machine, milliseconds do not. The floor is every
multiply-add at the speed of the product, the share floor / measured. Used by speed.py and
mask_curve.py.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from load import peak_mib
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import posezoo


def timed(run: Callable[[], Any], device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else int
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


@functools.cache
def network(name: str, device: torch.device, **model_args: Any) -> Any:
    return posezoo.create_model(name, **model_args).to(device)


def forward_of(model: Any, batch: int, device: torch.device) -> Callable[[], Any]:
    """Return a function that runs the model once on random images; a tokenizer on poses, too."""
    image = torch.randn(batch, 3, *model.pretrained_cfg.input.size, device=device)
    if model.pretrained_cfg.task != "tokenizer":
        return lambda: model(image)
    pose = 256 * torch.rand(batch, 17, 2, device=device), torch.ones(batch, 17, device=device)
    guide = model.forward_features if model.image_guided else lambda image: None
    return lambda: model(*pose, guide(image))


def multiply_adds(name: str, **model_args: Any) -> int:
    """Multiply-adds of one image: convolutions, matrix products and attention."""
    meta = torch.device("meta")
    run = forward_of(posezoo.create_model(name, **model_args).to(meta), 1, meta)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        run()
    return counter.get_total_flops() // 2


def make_case(
    name: str, batch: int, dtype: str, compiled: bool, device: Any, plain=False, **model_args: Any
) -> dict[str, Any]:
    model = network(name, device, **model_args)
    forward, backbone = forward_of(model, batch, device), getattr(model, "backbone", None)
    forward = torch.compile(forward) if compiled else forward

    def run() -> Any:
        if backbone is not None:
            backbone.plain = plain  # of no effect but on Swin
        with torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32"):
            return forward()

    case = {"model": name, "batch": batch, "dtype": dtype, "compiled": compiled, "plain": plain}
    return case | {"run": run, "params": sum(p.numel() for p in model.parameters())}


def measure(cases: list[dict], device: torch.device, *, rounds: int, warmup: int) -> None:
    """Interleave all cases; add the seconds of each round, and of its product, to each."""
    side = 8192 if device.type == "cuda" else 1024
    dtypes = {case["dtype"] for case in cases}
    squares = {d: torch.randn(side, side, device=device).to(getattr(torch, d)) for d in dtypes}
    for round_ in range(warmup + rounds):
        for case in cases:
            product = functools.partial(torch.mm, *[squares[case["dtype"]]] * 2)
            before = timed(product, device)
            seconds = timed(case["run"], device)
            gemm = min(before, timed(product, device))
            if round_ >= warmup:
                case.setdefault("samples", []).append((seconds, gemm))


def memory_of(name: str, batch: int, **model_args: Any) -> dict[str, float]:
    """Return the peak MiB of one forward beyond the imports; for a fresh process."""
    import timm  # noqa: F401  the models import it when they are built

    imported = peak_mib()
    run = forward_of(posezoo.create_model(name, **model_args), batch, torch.device("cpu"))
    with torch.inference_mode():
        run()
    return {"peak_mib": round(peak_mib() - imported, 1)}


def summarise(case: dict, macs: int, side: int) -> dict[str, Any]:
    seconds, gemm = (sorted(values) for values in zip(*case["samples"]))
    units = statistics.median(s / g for s, g in case["samples"])
    median, floor = statistics.median(seconds), macs * case["batch"] / side**3
    return {
        **{k: case[k] for k in ("model", "batch", "dtype", "compiled", "plain", "params")},
        "macs": macs,
        "median_ms": round(median * 1e3, 2),
        "p95_ms": round(seconds[int(0.95 * len(seconds))] * 1e3, 2),
        "images_per_s": round(case["batch"] / median, 1),
        "units": round(units, 2),
        "floor_units": round(floor, 2),
        "share": round(floor / units, 3),
        "gemm_tflops": round(2 * side**3 / statistics.median(gemm) / 1e12, 3),
        **{k: case[k] for k in ("peak_mib",) if k in case},
    }
