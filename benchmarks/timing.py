"""Interleaved timing of models, in milliseconds and in units of a matrix product.

Every round runs each case once, with a matrix product before and after, so that whatever else the
machine does hits all alike. One unit is the time of that product (1024^3 on a CPU, 8192^3 on CUDA,
same precision); units carry from machine to machine, milliseconds do not. The floor is every
multiply-add at the speed of the product, the share floor / measured. CPU ms, the least
that the process used in a round, is what to read on a busy machine. Used by speed.py and
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
from posezoo.errors import InputError


def timed(run: Callable[[], Any], device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else int
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


@functools.cache
def network(name: str, device: torch.device, **model_args: Any) -> Any:
    torch.manual_seed(0)
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


@functools.cache
def on(engine: str, name: str, dtype: str, device: torch.device) -> Any:
    """Return what runs a model: itself, a fast form of it, or a peer with the same architecture.

    Raises:
        PoseZooError, ImportError: an engine that lacks the type or is not installed.
    """
    model = network(name, device)
    if engine == "transformers":
        return transformers_vitpose(model).to(device).eval()
    if engine in ("optimised", "compiled"):
        return posezoo.optimize(model, dtype=dtype, compile=engine == "compiled")
    return posezoo.optimize(model, dtype=dtype, engine=engine)


def transformers_vitpose(model: Any) -> Any:
    """Return the ViTPose of `transformers` that has the sizes of ours, with random weights.

    Raises:
        InputError: another architecture.
    """
    if type(model).__name__ != "ViTPose" or model.experts:
        raise InputError(f"transformers has no {model.pretrained_cfg.name}")
    from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

    dim, depth = model.pos_embed.shape[-1], len(model.blocks)
    backbone = VitPoseBackboneConfig(
        image_size=list(model.input_size), hidden_size=dim, num_hidden_layers=depth,
        num_attention_heads=model.blocks[0].attn.num_heads, out_indices=[depth],
    )  # fmt: skip
    simple = type(model.head).__name__ == "SimpleHead"
    config = VitPoseConfig(backbone_config=backbone, use_simple_decoder=simple, num_labels=17)
    return VitPoseForPoseEstimation(config)


def make_case(
    name: str, batch: int, dtype: str, engine: str, device: Any, plain=False, **model_args: Any
) -> dict[str, Any]:
    model = network(name, device, **model_args)
    backbone, half = getattr(model, "backbone", None), dtype != "float32"
    if engine == "torch":
        forward = forward_of(model, batch, device)
    else:
        fast, images = on(engine, name, dtype, device), model.example_inputs(batch)[0].to(device)
        half = half and engine == "transformers"

        def forward() -> Any:
            return fast(images)

    def run() -> Any:
        if backbone is not None and engine == "torch":
            backbone.plain = plain  # of no effect but on Swin
        with torch.autocast(device.type, getattr(torch, dtype), enabled=half):
            return forward()

    case = {"model": name, "batch": batch, "dtype": dtype, "engine": engine, "plain": plain}
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
            cpu = time.process_time()
            seconds = timed(case["run"], device)
            cpu = time.process_time() - cpu
            gemm = min(before, timed(product, device))
            if round_ >= warmup:
                case.setdefault("samples", []).append((seconds, gemm))
                case["cpu"] = min(cpu, case.get("cpu", cpu))


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
        **{k: case[k] for k in ("model", "batch", "dtype", "engine", "plain", "params")},
        "macs": macs,
        "median_ms": round(median * 1e3, 2),
        "p95_ms": round(seconds[int(0.95 * len(seconds))] * 1e3, 2),
        "images_per_s": round(case["batch"] / median, 1),
        "cpu_ms": round(case["cpu"] * 1e3, 2),
        "units": round(units, 2),
        "floor_units": round(floor, 2),
        "share": round(floor / units, 3),
        "gemm_tflops": round(2 * side**3 / statistics.median(gemm) / 1e12, 3),
        **{k: case[k] for k in ("peak_mib",) if k in case},
    }
