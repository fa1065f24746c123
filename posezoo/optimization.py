"""`optimize`: the fast version of a model, for inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .device import autocast, choose_device, choose_dtype, weight_dtype
from .engines.network import ExportedNetwork
from .engines.opening import open_network
from .errors import InputError
from .graphs import make_graphs
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
    The model and its state dict stay as they are. Later changes of its weights do not reach the
    copy, which cannot be trained or saved.

    With glibc, a process that runs such copies on the CPU keeps up to 1 GiB of the memory that
    forwards free, see `posezoo.memory`; a setting of malloc in its environment, such as
    `MALLOC_ARENA_MAX=8`, keeps it from that. On x86 CPUs some parts run as graphs or as recorded
    programs from the third batch of a size on, with the same bits, see `posezoo.graphs`; hooks
    inside of them do not run, and changes of their attributes are not seen.

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
    if isinstance(fast, ZooModel):
        with torch.no_grad():
            for module in list(fast.modules()):
                if isinstance(module, Foldable):
                    module.fold()
            if dtype in _HALF:
                _store_in(dtype, fast)
        fast = fast.to(memory_format=torch.channels_last)
        if can_pack(chosen, dtype) and not compile:
            pack_layers(fast, dtype)
            make_graphs(fast)
    fast.eval()  # with what was put in
    return FastNetwork(fast, chosen, dtype, compile) if compile or dtype in _HALF else fast


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


def _store_in(dtype: torch.dtype, network: ZooModel) -> None:
    """Store the weights that autocast would convert at every forward."""
    if isinstance(network, Tokenizer):
        return  # poses need float32 in most of it
    kept = set(network.without_autocast)
    for name, module in network.named_modules():
        if isinstance(module, _LAYERS) and not kept & set(name.split(".")):
            for key, weight in list(module.named_parameters(recurse=False)):
                setattr(module, key, nn.Parameter(weight.to(dtype), requires_grad=False))


class FastNetwork(nn.Module):
    """A network that enters its precision by itself, and may be compiled.

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

    def forward(self, *inputs: Tensor) -> object:
        """Return what the network does; of a compiled one the batch size is free from the start."""
        for x in inputs if self.compiled and len(inputs[0]) > 1 else ():
            torch._dynamo.maybe_mark_dynamic(x, 0)
        with autocast(self.device, self.dtype):
            return self.module(*inputs)
