"""`optimize`: the fast version of a model, for inference."""

from __future__ import annotations

import functools
import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod

from .device import autocast, choose_device, choose_dtype, weight_dtype
from .engines.network import ExportedNetwork
from .engines.opening import open_network
from .errors import InputError
from .graphs import make_graphs
from .guard import Guard, shared_tensors
from .memory import keep_freed_memory
from .packing import can_pack, pack_layers
from .zoo.model import Foldable, Tokenizer, ZooModel
from .zoo.wrapped import copy_sharing_weights, unwrap

__all__ = ["FastNetwork", "optimize", "ready"]

_HALF = (torch.bfloat16, torch.float16)
_LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def optimize(
    model: nn.Module,
    *,
    device: str | int | torch.device | None = None,
    dtype: str | torch.dtype = torch.float32,
    compile: bool = False,
    engine: str | None = None,
) -> nn.Module:
    """Return a copy of a model that gives the same output faster, in evaluation.

    What does not depend on the input is computed once (BatchNorm becomes part of the convolutions,
    factors part of the layers before them), weights are stored in the memory format and the
    precision in which they are used, and that precision is part of the copy: call it as it is.
    The model and its state dict stay as they are. The copy cannot be trained or saved. It shares
    weights with the model; once those have changed, it refuses to run, see `posezoo.guard`.

    With glibc, a process that runs such copies on the CPU keeps up to 1 GiB of the memory that
    forwards free, see `posezoo.memory`; a setting of malloc in its environment, such as
    `MALLOC_ARENA_MAX=8`, keeps it from that. On x86 CPUs some parts run as graphs or as recorded
    programs from the third batch of a size on, with the same bits, see `posezoo.graphs`; hooks
    inside of them do not run, nor do those of layers that became part of others, and changes of
    their attributes are not seen. There ReLU makes 0 of NaN, and images get no gradients.

    Args:
        model: a model or a network of one's own, in whatever wrapper.
        device: where the copy will run; None is where the model is.
        dtype: float32 and float64 run as such; with bfloat16 and float16 the copy runs under
            autocast, and layers that do so have their weights in that type.
        compile: run the copy through torch.compile, for any batch size at once. The first forward
            takes minutes; a batch of one image may compile again.
        engine: as in `PosePredictor`: the copy is exported and runs there.

    Raises:
        InputError: a device, type or engine that is not available, or a combination.
    """
    dtype = choose_dtype(dtype)
    network = unwrap(model)
    if engine not in (None, "torch"):
        return open_network(network, engine=engine, dtype=dtype, compile=compile)
    if not isinstance(network, nn.Module):
        raise InputError(f"model is a {type(network).__name__}; give a network")
    if isinstance(network, ExportedNetwork):
        return network
    weights = next(network.parameters(), torch.empty(0))
    chosen = weights.device if device is None else choose_device(device)
    if chosen.type == "cpu":
        keep_freed_memory()
    fast = copy_sharing_weights(network).to(chosen, weight_dtype(dtype))
    is_packed = False
    if isinstance(fast, ZooModel):
        _fold(fast, dtype)
        is_packed = can_pack(chosen, dtype) and not compile and _is_finite(fast)
        if is_packed:
            pack_layers(fast, dtype)
            make_graphs(fast)
    fast.eval()  # with what was put in
    whole = FastNetwork(fast, chosen, dtype, compile) if compile or dtype in _HALF else fast
    guard = Guard(shared_tensors(fast, network), is_packed)
    whole.register_forward_pre_hook(guard, with_kwargs=True)
    return whole


def ready(
    model: nn.Module, *, device: torch.device, dtype: torch.dtype, compile: bool = False
) -> nn.Module:
    """Return a model that can run as it is, or its fast copy where device or type differ."""
    network = unwrap(model)
    weights = next(network.parameters(), torch.empty(0, dtype=weight_dtype(dtype), device=device))
    runs = (weights.device, weights.dtype) == (device, dtype)
    if runs and not compile:
        return model
    return optimize(network, device=device, dtype=dtype, compile=compile)


@torch.no_grad()
def _fold(network: ZooModel, dtype: torch.dtype) -> None:
    """Make part of the weights what does not depend on the input, and the type if it is a half."""
    _make_plain(network)
    for module in list(network.modules()):
        if isinstance(module, Foldable):
            module.fold()
    if dtype in _HALF:
        _store_in(dtype, network)
    network.to(memory_format=torch.channels_last)


def _make_plain(network: nn.Module) -> None:
    """Make weights of what hooks and parametrizations compute at every call, as in pruning."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            names = list(cast("nn.ModuleDict", module.parametrizations))
            weights = {name: getattr(module, name).detach() for name in names}
            # torch's own way would change the class, which the model's layer has, too
            module.__class__ = type(module).__bases__[0]
            del module.parametrizations
            for name, weight in weights.items():
                setattr(module, name, nn.Parameter(weight, requires_grad=False))
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, BasePruningMethod):
                hook.remove(module)
                del module._forward_pre_hooks[key]


def _is_finite(network: nn.Module) -> bool:
    """Whether all weights are numbers: a packed layer would hide it where they are not."""
    return all(bool(tensor.sum().isfinite()) for tensor in network.parameters())


def _store_in(dtype: torch.dtype, network: ZooModel) -> None:
    """Store the weights that autocast would convert at every forward."""
    if isinstance(network, Tokenizer):
        return  # poses need float32 in most of it
    kept = set(network.without_autocast)
    for name, module in network.named_modules():
        if module._forward_pre_hooks:
            continue  # which may make weights of others
        if isinstance(module, _LAYERS) and not kept & set(name.split(".")):
            for key, weight in list(module.named_parameters(recurse=False)):
                setattr(module, key, nn.Parameter(weight.to(dtype), requires_grad=False))


class FastNetwork(nn.Module):
    """A network that enters its precision by itself, as its methods do, and may be compiled.

    Attributes:
        module: the network inside.
        device, dtype: where and in which precision it runs.
        compiled: whether it is.
    """

    def __init__(
        self, module: nn.Module, device: torch.device, dtype: torch.dtype, compile: bool
    ) -> None:
        super().__init__()
        self.module, self.device, self.dtype = module, device, dtype
        self.compiled = compile
        if compile:
            module.compile()
        self.eval()

    def __getattr__(self, name: str) -> Any:
        """Return a part, or a method of the network inside that runs in its precision."""
        if name.startswith("_") or name in self.__dict__["_modules"]:
            return super().__getattr__(name)
        method = getattr(self.module, name)
        if not inspect.ismethod(method):
            return super().__getattr__(name)
        return functools.partial(self._run, method)

    def _run(self, method: Any, *args: Any, **options: Any) -> Any:
        with autocast(self.device, self.dtype):
            return method(*args, **options)

    def forward(self, *inputs: Tensor, **options: Any) -> object:
        """Return what the network does; of a compiled one the batch size is free from the start."""
        for x in inputs if self.compiled and len(inputs[0]) > 1 else ():
            torch._dynamo.maybe_mark_dynamic(x, 0)
        return self._run(self.module, *inputs, **options)
