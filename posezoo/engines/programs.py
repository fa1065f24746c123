"""The engines, and how each opens an exported file.

torch        .pt2   float32
onnxruntime  .onnx  float32
openvino     .onnx  float32, bfloat16 inside the network
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..device import choose_dtype
from ..errors import CheckpointError, InputError
from .card import CARD_KEY, read_card
from .network import ExportedNetwork, Run

__all__ = ["ENGINES", "SUFFIXES", "Engine", "find_engine", "open_exported"]

SUFFIXES = (".pt2", ".onnx")


@dataclass(frozen=True, kw_only=True)
class Program:
    """What an engine makes of a file.

    Attributes:
        run: the program.
        card: the text of the card, None if there is none.
        size: (H, W) of its input.
        outputs: how many it has.
    """

    run: Run
    card: str | None
    size: tuple[int, int]
    outputs: int


Open = Callable[[Path, torch.dtype], Program]
"""A file and the precision to the program."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Something that runs exported files.

    Attributes:
        package: what must be installed.
        suffix: of the files it takes.
        dtypes: in which it can compute.
        open: opens a file.
    """

    package: str
    suffix: str
    dtypes: tuple[torch.dtype, ...]
    open: Open


def find_engine(name: str, dtype: str | torch.dtype) -> Engine:
    """Return an engine that computes in `dtype`.

    Raises:
        InputError: no such engine, or it lacks the type or is not installed.
    """
    if name not in ENGINES:
        raise InputError(f"engine is {name!r}; valid: {', '.join(ENGINES)}")
    engine, dtype = ENGINES[name], choose_dtype(dtype)
    if dtype not in engine.dtypes:
        valid = ", ".join(str(d).removeprefix("torch.") for d in engine.dtypes)
        what = "an exported network in torch" if name == "torch" else f"the engine {name}"
        raise InputError(
            f"{what} does not compute in {str(dtype).removeprefix('torch.')}; valid: {valid}"
        )
    if importlib.util.find_spec(engine.package) is None:
        raise InputError(
            f"the engine {name} needs more packages: pip install 'posezoo[{engine.package}]'"
        )
    return engine


def open_exported(
    path: str | Path, *, engine: str | None = None, dtype: str | torch.dtype = torch.float32
) -> ExportedNetwork:
    """Open a file that `export_model` wrote.

    Args:
        path: `.pt2` or `.onnx`.
        engine: one of `ENGINES`; None takes torch for `.pt2` and onnxruntime for `.onnx`.
        dtype: precision inside the network.

    Raises:
        InputError: another ending; an engine that does not take it, lacks the type, or is not
            installed.
        CheckpointError: the file is missing or damaged, or posezoo did not write it.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path.name!r} is no exported file; valid: {', '.join(SUFFIXES)}")
    name = engine or ("torch" if path.suffix == ".pt2" else "onnxruntime")
    chosen = find_engine(name, dtype)
    if path.suffix != chosen.suffix:
        raise InputError(f"the engine {name} takes {chosen.suffix} files, got {path.name!r}")
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    try:
        program = chosen.open(path, choose_dtype(dtype))
    except Exception as error:  # each engine has errors of its own for damaged files
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{name} cannot open {path}: {reason[0][:200]}") from error
    card = read_card(program.card, path)
    if (program.size, program.outputs) != (card.cfg.input.size, len(card.outputs)):
        raise CheckpointError(
            f"{path}: its program takes images of {program.size} and has {program.outputs} "
            f"outputs, its metadata name {card.cfg.input.size} and {', '.join(card.outputs)}; "
            "export the model again"
        )
    return ExportedNetwork(card, program.run, name, choose_dtype(dtype))


def _open_torch(path: Path, dtype: torch.dtype) -> Program:
    files = {CARD_KEY: ""}
    with path.open("rb") as file:
        program = torch.export.load(file, extra_files=files)
    signature = program.graph_signature
    images = next(n for n in program.graph.nodes if n.name == signature.user_inputs[0])
    module = program.module()

    def run(images: Tensor) -> tuple[Tensor, ...]:
        output = module(images)
        return (output,) if isinstance(output, Tensor) else tuple(output)

    return Program(
        run=run,
        card=files[CARD_KEY] or None,
        size=tuple(images.meta["val"].shape[2:]),
        outputs=len(signature.user_outputs),
    )


def _open_onnxruntime(path: Path, dtype: torch.dtype) -> Program:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    images = session.get_inputs()[0]

    def run(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.from_numpy, session.run(None, {images.name: x.numpy()})))

    return Program(
        run=run,
        card=session.get_modelmeta().custom_metadata_map.get(CARD_KEY),
        size=tuple(images.shape[2:]),
        outputs=len(session.get_outputs()),
    )


def _open_openvino(path: Path, dtype: torch.dtype) -> Program:
    import openvino

    model = openvino.Core().read_model(path)
    entry = ["framework", CARD_KEY]  # where OpenVINO keeps the metadata of ONNX
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.compile_model(model, "CPU", options).create_infer_request()

    def run(x: Tensor) -> tuple[Tensor, ...]:
        found = request.infer([x.numpy()], share_inputs=True)
        return tuple(torch.from_numpy(values) for values in found.to_tuple())

    return Program(
        run=run,
        card=model.get_rt_info(entry).astype(str) if model.has_rt_info(entry) else None,
        size=tuple(d.get_length() for d in model.input(0).partial_shape[2:]),
        outputs=len(model.outputs),
    )


ENGINES = {
    "torch": Engine(
        package="torch", suffix=".pt2", dtypes=(torch.float32,), open=_open_torch,
    ),
    "onnxruntime": Engine(
        package="onnxruntime", suffix=".onnx", dtypes=(torch.float32,), open=_open_onnxruntime,
    ),
    "openvino": Engine(
        package="openvino", suffix=".onnx", dtypes=(torch.float32, torch.bfloat16),
        open=_open_openvino,
    ),
}  # fmt: skip
