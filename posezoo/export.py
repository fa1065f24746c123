"""Write a model as one file that runs without posezoo: `.pt2` (torch.export) or `.onnx`.

A file is kept only if the program in it gives the model's own numbers, for another batch size
than the one it was traced with. It carries what is needed to crop for it and to decode its output
(`posezoo.engines.card`), so that `PosePredictor(file)` needs nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .engines.card import CARD_KEY, ProgramCard
from .engines.network import Run
from .engines.operators import translations
from .engines.programs import ENGINES, SUFFIXES
from .errors import ExportError, InputError
from .files import replacing
from .zoo.model import Classifier, PoseModel, ZooModel
from .zoo.wrapped import zoo_model

__all__ = ["export_model"]

_MAX_BATCH = 1024
_MAX_ONNX = 2**31 - 2**20  # bytes of weights: a file of ONNX ends at 2 GiB
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
            `export`, with an operator that ONNX does not have, or of 2 GiB and more.
        ExportError: the program does not give the model's numbers; no file is left.
    """
    model = zoo_model(model)
    path = Path(path)
    writers = {".pt2": _write_pt2, ".onnx": _write_onnx}
    if path.suffix not in writers:
        raise InputError(f"export writes {' or '.join(SUFFIXES)}, got {path.name!r}")
    cfg = model.pretrained_cfg
    if not isinstance(model, (PoseModel, Classifier)):
        raise InputError(f"{cfg.name} takes poses, not images alone; export works on images")
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(
        3, 3, *cfg.input.size, generator=generator, dtype=torch.float32, device="cpu"
    ).to(device)
    was_training = model.training
    model.eval()
    try:
        with replacing(path) as temporary, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            expected = model(images)
            card = _card(model, expected)
            run = writers[path.suffix](model, images[:2], temporary, card)
            return _difference(_tensors(expected), run(images), path)
    finally:
        model.train(was_training)


def _card(model: PoseModel | Classifier, output: Any) -> ProgramCard:
    is_pose = isinstance(model, PoseModel)
    alone = "heatmaps" if is_pose else "logits"
    return ProgramCard(
        cfg=model.pretrained_cfg,
        size=model.num_keypoints if isinstance(model, PoseModel) else model.num_classes,
        outputs=(alone,) if isinstance(output, Tensor) else output._fields,
        settings=model.settings(),
        origin=model.origin,
    )


def _write_pt2(model: ZooModel, images: Tensor, path: Path, card: ProgramCard) -> Run:
    program = torch.export.export(_Plain(model), (images,), dynamic_shapes=_any_batch())
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={CARD_KEY: card.to_text()})
    return ENGINES["torch"].open(path, torch.float32).run


def _write_onnx(model: ZooModel, images: Tensor, path: Path, card: ProgramCard) -> Run:
    try:
        import onnxruntime  # noqa: F401  the file is tried in it
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ImportError as error:
        raise InputError("ONNX needs more packages: pip install 'posezoo[export]'") from error
    size = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    if size > _MAX_ONNX:
        raise InputError(
            f"{model.pretrained_cfg.name} has {size / 2**30:.1f} GiB of weights, and one file of "
            "ONNX holds less than 2 GiB; .pt2 works"
        )
    try:
        program = torch.onnx.export(
            _Plain(model), (images,), dynamic_shapes=_any_batch(), dynamo=True, verbose=False,
            input_names=["images"], output_names=list(card.outputs),
            custom_translation_table=translations(),
        )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        raise InputError(
            f"{model.pretrained_cfg.name} cannot be written as ONNX ({_operator(error)}); "
            ".pt2 works"
        ) from error
    assert program is not None
    program.model.metadata_props[CARD_KEY] = card.to_text()
    program.save(path, external_data=False)
    run = ENGINES["onnxruntime"].open(path, torch.float32).run
    return lambda x: tuple(output.to(x.device) for output in run(x.cpu()))


def _any_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch", min=1, max=_MAX_BATCH)},)


class _Plain(nn.Module):
    """A model without its named tuples, which a file cannot name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

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


def _difference(expected: Sequence[Tensor], found: Sequence[Tensor], path: Path) -> float:
    pairs = list(zip(expected, found, strict=True))
    worst = max(float((ours - theirs).abs().max() / ours.std()) for ours, theirs in pairs)
    if not worst < _TOLERANCE:
        raise ExportError(
            f"{path.name} was not written: its program differs from the model by {worst:.1e} of "
            f"the output's spread, more than {_TOLERANCE:.0e}"
        )
    return worst
