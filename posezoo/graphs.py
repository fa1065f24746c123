"""Parts of a network that run as one graph or one program, on x86 processors.

Called one by one, each of oneDNN's operators is described anew, which takes 25 to 100 microseconds:
most of the time of a small HRNet. TorchScript's fuser hands oneDNN rows of them and keeps what it
compiled. It has faults: sums of branches came out wrong, windows of attention crashed the process,
and each shape has its own copy of the weights. So only modules are fused that say that they can.

For others TorchScript records what ran, and runs that without Python: a tenth of the time of a
ViT in bfloat16. Both are used only where they give the same bits.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .memory import give_back_freed_memory
from .onednn import is_fused, is_tracing, recording
from .packing import PackedConv2d, PackedLinear
from .zoo.model import HasGraph

__all__ = ["Graph", "make_graphs"]

_CALLS = 3  # the call of a shape that makes its graph: a shape that comes once is not worth it
_SHAPES = 4, 16  # of which a network has fused graphs, at least and at most; others run as usual
_BYTES = 64 << 20  # what their copies of the weights may take where there are more than four
_PROGRAMS = 8  # shapes that a network has programs for; those of a PCT take 30 MiB each
_COUNTED = 256  # of which calls are counted
_lock = threading.Lock()

Run = Callable[[Tensor], Tensor]


class Graph(nn.Module):
    """A module for inference that runs as one graph from the third input of a shape on.

    Making it takes 0.05 seconds for a block and 0.2 to 3 for a fused trunk. Where TorchScript or
    oneDNN cannot, or where one bit of the result differs, the module itself runs.

    Attributes:
        module: what is run, tensor -> tensor.
        shapes: of how many there are graphs; inputs of others run as usual.
    """

    def __init__(self, module: nn.Module, shapes: int = _SHAPES[1]) -> None:
        super().__init__()
        self.module, self.shapes = module, shapes
        self.forget()

    def forget(self) -> None:
        """Make graphs anew, after a change of what the module does."""
        self._calls: dict[Any, int] = {}
        self._graphs: dict[Any, Run | None] = {}

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the module inside, so that its parts are found where they were."""
        found = self.__dict__.get("_modules", {})
        return found[name] if name in found else getattr(found.get("module"), name)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_calls": {}, "_graphs": {}}  # copies make their own

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self.forget()  # on another device or in another type
        apply: Any = super()._apply
        return apply(*args, **kwargs)

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        """Return what the module does; with more arguments than `x` it runs as usual."""
        y: Tensor
        is_part = torch.compiler.is_compiling() or is_tracing()  # of a larger graph
        if not (any(others) or is_part) and x.is_cpu and x.numel():
            graph = self._graph(x)
            if graph is not None:
                return _run(graph, x)
        y = self.module(x, *others)
        return y

    def _graph(self, x: Tensor) -> Run | None:
        """Return the graph for inputs like `x`, which may be made now; None where there is none."""
        half = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        key = (x.shape, x.stride(), x.dtype, half, torch.get_num_threads())
        if key in self._graphs:
            return self._graphs[key]
        if len(self._graphs) >= self.shapes or len(self._calls) >= _COUNTED:
            return None
        self._calls[key] = self._calls.get(key, 0) + 1
        if self._calls[key] < _CALLS:
            return None
        with _lock:
            if key not in self._graphs and len(self._graphs) < self.shapes:
                self._graphs[key] = _make(self.module, x, self.graph_is_fused)
                if self.graph_is_fused:  # what is compiled is between what was computed
                    give_back_freed_memory()
            return self._graphs.get(key)


def _run(graph: Run, x: Tensor) -> Tensor:
    if not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")):
        return graph(x)
    was_half = torch.is_autocast_enabled("cpu")
    torch.set_autocast_enabled("cpu", False)  # a third of the time of the context manager
    try:
        with torch.no_grad():
            return graph(x)
    finally:
        torch.set_autocast_enabled("cpu", was_half)


def _traced(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[..., Tensor]:
    """Return TorchScript's program of what a function calls; other tensors are constants in it.

    `torch.jit.trace` does the same, but keeps every program, and those tensors, for ever.
    """
    c: Any = torch._C
    graph, _ = c._create_graph_by_tracing(function, inputs, lambda _: "", True, False)
    program: Callable[..., Tensor] = c._create_function_from_graph("program", graph)
    return program


def _record(module: nn.Module, x: Tensor) -> Run:
    """Return the program of the operators that a module calls for inputs like `x`."""
    layers = [m for m in module.modules() if isinstance(m, (PackedConv2d, PackedLinear))]
    # TorchScript has no constants of this type, but knows inputs again when the layers use them
    packed = [layer.packed for layer in layers if layer.packed is not None]
    with recording():
        program = _traced(lambda x, *_: module(x), x, *packed)
    return lambda x: program(x, *packed)


@contextmanager
def _fuser() -> Iterator[None]:
    """Let TorchScript hand what it runs inside to oneDNN."""
    fuses = torch._C._jit_llga_enabled()
    torch._C._jit_set_llga_enabled(True)
    try:
        yield
    finally:
        torch._C._jit_set_llga_enabled(fuses)


def _fuse(module: nn.Module, x: Tensor) -> Run:
    """Return the graph that oneDNN makes of a module for inputs like `x`."""
    with _fuser(), torch.autocast("cpu", enabled=False):
        run = _traced(module, x)
        for _ in range(2):  # the first is watched, the second compiled
            run(x)
    return run


def _make(module: nn.Module, x: Tensor, is_fused: bool) -> Run | None:
    """Return the graph of a module for inputs like `x`, or None where it does not do the same."""
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is not developed any more
        first, second = x.clone(), x.clone().copy_(x.flip(0, -1))
        inputs = [first, second] if is_fused else [second]  # a program does what it did for `first`
        expected = [module(given) for given in inputs]
        try:
            run = (_fuse if is_fused else _record)(module, first)
            with torch.autocast("cpu", enabled=False):
                found = [run(given) for given in inputs]
        except Exception:  # whatever TorchScript cannot do: the module can
            return None
        is_kept = torch.equal(first, x)
        return run if is_kept and all(map(torch.equal, found, expected)) else None


def make_graphs(network: nn.Module) -> None:
    """Let the modules inside that have graphs run as such."""
    found = [
        (module, name, child)
        for module in network.modules()
        for name, child in module.named_children()
        if isinstance(child, HasGraph) and not isinstance(child, Graph)
        if not isinstance(module, Graph)
    ]
    fused = [child for *_, child in found if child.graph_is_fused]
    size = sum(p.numel() * p.element_size() for m in fused for p in m.parameters())
    shapes = min(max(_BYTES // max(size, 1), _SHAPES[0]), _SHAPES[1])
    for module, name, child in found:
        setattr(module, name, Graph(child, shapes if child in fused else _PROGRAMS))
    for child in fused:
        _keep_norms_apart(child)


class _Norm(nn.LayerNorm):
    """LayerNorm by an operator that the fuser does not know: oneDNN's gives other last bits."""

    def forward(self, x: Tensor) -> Tensor:
        if not is_fused():
            return super().forward(x)
        shape = list(self.normalized_shape)
        return torch.native_layer_norm(x, shape, self.weight, self.bias, self.eps)[0]


def _keep_norms_apart(network: nn.Module) -> None:
    for module in network.modules():
        if type(module) is nn.LayerNorm:
            module.__class__ = _Norm
