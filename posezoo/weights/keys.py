"""A checkpoint under foreign keys becomes one under ours: `Conversion`, and renaming by rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

__all__ = ["Conversion", "Convertible", "rename_keys"]


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A checkpoint under our keys.

    Attributes:
        state: the tensors.
        sources: for each of our keys the key of the file that it came from.
        ignored: for each unused key of the file the reason.
    """

    state: Mapping[str, Tensor]
    sources: Mapping[str, str]
    ignored: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_foreign(self) -> bool:
        """Whether any key had to be renamed or ignored."""
        return bool(self.ignored) or any(ours != theirs for ours, theirs in self.sources.items())


@runtime_checkable
class Convertible(Protocol):
    """A module that knows the keys under which others publish its weights.

    Every model is one, and so is a backbone that has files of its own.
    """

    def convert_state_dict(self, state: Mapping[str, Tensor]) -> Conversion:
        """Bring a checkpoint under our keys; ours stay as they are, so any file may be given."""
        ...


def rename_keys(
    state: Mapping[str, Tensor],
    rules: Sequence[tuple[str, str]],
    ignore: Mapping[str, str] | None = None,
) -> Conversion:
    """Rename dotted keys by whole segments.

    Args:
        state: the checkpoint.
        rules: `("a.b", "c")` replaces the first `a.b` between dots by `c`; with `^a.b` only at
            the beginning of the key. They apply one after the other, each once per key.
        ignore: for segments of the file's keys the reason why such keys are left out.

    Raises:
        ValueError: two source keys get the same name.
    """
    out: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    ignored: dict[str, str] = {}
    for key, value in state.items():
        dotted = f".{key}."
        reason = next((why for part, why in (ignore or {}).items() if f".{part}." in dotted), None)
        if reason is not None:
            ignored[key] = reason
            continue
        for old, new in rules:
            target = f".{new}." if new else "."
            if not old.startswith("^"):
                dotted = dotted.replace(f".{old}.", target, 1)
            elif dotted.startswith(f".{old[1:]}."):
                dotted = dotted.replace(f".{old[1:]}.", target, 1)
        name = dotted[1:-1]
        if name in out:
            raise ValueError(f"{key!r} and {sources[name]!r} both become {name!r}")
        out[name], sources[name] = value, key
    return Conversion(state=out, sources=sources, ignored=ignored)
