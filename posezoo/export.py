"""Write a model as one file that runs without posezoo: `.pt2` (torch.export) or `.onnx`.

A file is kept only if the program in it gives the model's own numbers, for another batch size
than the one it was traced with.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .errors import ExportError, InputError
from .weights.files import replacing
from .zoo.wrapped import zoo_model

__all__ = ["export_model"]

_MAX_BATCH = 1024
_TOLERANCE = 1e-3  # of the spread of an output, float32 against float32


def export_model(model: nn.Module, path: str | Path) -> float:
    """Write a pose model or classifier whose input is a batch of images, of any size up to 1024.

    The program takes normalised images (B, 3, H, W), float32, at the size of the model's recipe,
    and returns what the model returns, as a tuple if those are several tensors.

    Args:
        model: any model of posezoo that takes images, in whatever wrapper; it is exported in
            evaluation mode.
        path: ends in `.pt2`, for `torch.export.load(path).module()`, or in `.onnx`.

    Returns:
        The largest difference to the model on random images, as a share of the spread (standard
        deviation) of the output it is in.

    Raises:
        InputError: another ending; a model that takes no images; `.onnx` without the extra
            `export`, or with an operator that ONNX does not have.
        ExportError: the program does not give the model's numbers; no file is left.
    """
    model = zoo_model(model)
    path = Path(path)
    writers = {".pt2": _write_pt2, ".onnx": _write_onnx}
    if path.suffix not in writers:
        raise InputError(f"export writes .pt2 or .onnx, got {path.name!r}")
    cfg = model.pretrained_cfg
    if cfg.task == "tokenizer":
        raise InputError(f"{cfg.name} takes poses, not images alone; export works on images")
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(
        3, 3, *cfg.input.size, generator=generator, dtype=torch.float32, device="cpu"
    )
    was_training = model.training
    model.eval()
    try:
        with replacing(path) as temporary, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            run = writers[path.suffix](model, images[:2].to(device), temporary)
            return _difference(model, run, images.to(device), path)
    finally:
        model.train(was_training)


Program = Callable[[Tensor], tuple[Tensor, ...]]


def _write_pt2(model: nn.Module, images: Tensor, path: Path) -> Program:
    program = _trace(model, images)
    with path.open("wb") as file:
        torch.export.save(program, file)
    with path.open("rb") as file:
        module = torch.export.load(file).module()
    return lambda x: _tensors(module(x))


def _write_onnx(model: nn.Module, images: Tensor, path: Path) -> Program:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ImportError as error:
        raise InputError("ONNX needs more packages: pip install 'posezoo[export]'") from error
    try:
        program = torch.onnx.export(
            _trace(model, images), dynamo=True, verbose=False, input_names=["images"]
        )
    except torch.onnx.OnnxExporterError as error:
        raise InputError(
            f"{model.pretrained_cfg.name} cannot be written as ONNX "  # type: ignore[union-attr]
            f"({_operator(error)}); .pt2 works"
        ) from error
    program.save(path, external_data=False)  # type: ignore[union-attr]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x: tuple(
        torch.from_numpy(values).to(x.device)
        for values in session.run(None, {"images": x.cpu().numpy()})
    )


def _trace(model: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=_MAX_BATCH)
    return torch.export.export(_Plain(model), (images,), dynamic_shapes=({0: batch},))


class _Plain(nn.Module):
    """A model without its named tuples, which a file cannot name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        output = self.model(images)
        return output if isinstance(output, Tensor) else tuple(output)


def _operator(error: BaseException) -> str:
    """Return the operator that ONNX lacks, from the chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0][:160]


def _tensors(output: Any) -> tuple[Tensor, ...]:
    return (output,) if isinstance(output, Tensor) else tuple(output)


def _difference(model: nn.Module, run: Program, images: Tensor, path: Path) -> float:
    pairs = list(zip(_tensors(model(images)), run(images), strict=True))
    worst = max(float((ours - theirs).abs().max() / ours.std()) for ours, theirs in pairs)
    if not worst < _TOLERANCE:
        raise ExportError(
            f"{path.name} was not written: its program differs from the model by {worst:.1e} of "
            f"the output's spread, more than {_TOLERANCE:.0e}"
        )
    return worst
