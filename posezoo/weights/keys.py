"""What a family says about a foreign checkpoint: `Conversion`, and the renaming it needs.

Each model class carries `convert_state_dict(state) -> Conversion` as a static method. It must
leave our own keys as they are, so that it can be applied to every file without asking first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

__all__ = ["Conversion", "rename_keys"]


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A checkpoint under our keys.

    `sources` maps each of our keys to the key it came from, `ignored` each unused key of the
    file to the reason.
    """

    state: Mapping[str, Tensor]
    sources: Mapping[str, str]
    ignored: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_foreign(self) -> bool:
        """Whether any key had to be renamed or ignored."""
        return bool(self.ignored) or any(ours != theirs for ours, theirs in self.sources.items())


def rename_keys(
    state: Mapping[str, Tensor],
    rules: Sequence[tuple[str, str]],
    ignore: Mapping[str, str] | None = None,
) -> Conversion:
    """Rename dotted keys by whole segments.

    A rule `("a.b", "c")` replaces the segments `a.b` wherever they stand between dots; rules
    apply one after the other, each at most once per key. A rule whose left side starts with
    `^` applies at the beginning only. `ignore` maps segments of *source* keys to the reason for
    which such keys are left out.

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
