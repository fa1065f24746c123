"""Compare outputs with a stored golden."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor


class Golden:
    """One golden file, cut down by slim.py."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, "pt") as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}
            self.metadata = dict(file.metadata() or {})

    @property
    def names(self) -> set[str]:
        return {n for n in self.tensors if not n.endswith((".mean", ".std"))}

    def distance(self, name: str, ours: Tensor) -> float:
        """Largest difference to the stored values, relative to the tensor's spread.

        Integers must be equal: any difference is infinite.
        """
        stored, ours = self.tensors[name], self._cut(name, ours.detach())
        if not stored.is_floating_point():
            return 0.0 if (ours == stored).all() else float("inf")
        spread = float(self.tensors.get(f"{name}.std", stored.double().std()))
        return float((ours.double() - stored.double()).abs().max()) / spread

    def _cut(self, name: str, ours: Tensor) -> Tensor:
        """Slice like the reference file, every k-th of each axis, then like slim.py."""
        shape = tuple(json.loads(self.metadata[f"shape:{name}"]))
        if ours.ndim == len(shape):
            steps = [-(-size // max(kept, 1)) for size, kept in zip(ours.shape, shape)]
            ours = ours[tuple(slice(None, None, step) for step in steps)]
        assert tuple(ours.shape) == shape, f"{name}: {tuple(ours.shape)}, stored {shape}"
        return ours.reshape(-1)[:: int(self.metadata[f"stride:{name}"])]

    def check(
        self, found: Mapping[str, Tensor], tolerance: float, ignored: Collection[str] = ()
    ) -> None:
        """Demand every stored tensor, each within `tolerance` of its spread."""
        names = {n for n in self.names if not any(part in n for part in ignored)}
        assert names <= set(found), f"missing: {names - set(found)}"
        far = {n: d for n in names if (d := self.distance(n, found[n])) > tolerance}
        assert not far, far
        for name in names:
            if f"{name}.mean" in self.tensors:
                mean, std = float(self.tensors[f"{name}.mean"]), float(self.tensors[f"{name}.std"])
                assert abs(float(found[name].double().mean()) - mean) < 0.5 * tolerance * std, name
