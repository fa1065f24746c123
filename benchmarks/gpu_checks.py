"""What gpu.py checks: that the device computes what the CPU and the published code do."""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import posezoo

HERE = Path(__file__).parent
Row = dict[str, Any]


def exact_float32() -> None:
    """Leave TF32 off, which torch leaves on for convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


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
    plain = ["-o", "addopts=", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", *plain, "tests"]
    if args.quick:
        command[-1] = "tests/test_device.py"
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]]
    wrong = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    passed = done.returncode in (0, 5)
    return {"item": "pytest -m cuda", "note": "; ".join([lines[-1], *wrong]), "passed": passed}


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
