"""Arguments of architectures as data: default, type, range and meaning, checked in one place."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from ..errors import InputError

__all__ = ["DROP_PATH_RATE", "IN_CHANS", "NUM_CLASSES", "NUM_KEYPOINTS", "Argument"]


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One argument that a user of an architecture may change.

    Attributes:
        default: what it is without being given; its type is the type of the argument.
        help: what it does, in a few words.
        low, high: smallest and largest value, both allowed.
        above: a bound that is not allowed itself, in place of `low`.
        choices: the valid words, for an argument that is one of several. None means the word
            "none" where that is one of them.
    """

    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> Any:
        """Return a valid value as the type of the default; numbers of numpy are numbers.

        Raises:
            InputError: another type, out of range, or no valid word.
        """
        kind = type(self.default)
        if value is None and "none" in self.choices:
            value = "none"
        if self.choices:
            fits = isinstance(value, str) and value in self.choices
        elif kind is bool:
            fits = isinstance(value, bool)
        elif kind is int:
            fits = isinstance(value, Integral) and not isinstance(value, bool)
        else:
            fits = isinstance(value, Real) and not isinstance(value, bool)
        if fits and not self.choices and kind is not bool:
            fits = (
                (self.low is None or value >= self.low)
                and (self.above is None or value > self.above)
                and (self.high is None or value <= self.high)
            )
        if not fits:
            raise InputError(f"{name} is {value!r}, expected {self.valid} ({self.help})")
        return value if self.choices else kind(value)

    @property
    def valid(self) -> str:
        """What values are valid, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        kind = {bool: "True or False", int: "an integer", float: "a number"}[type(self.default)]
        if self.above is not None:
            most = "" if self.high is None else f", at most {self.high:g}"
            return f"{kind} above {self.above:g}{most}"
        if self.low is not None and self.high is not None:
            return f"{kind} from {self.low:g} to {self.high:g}"
        return kind if self.low is None else f"{kind} from {self.low:g}"


NUM_KEYPOINTS = Argument(default=17, low=1, high=10_000, help="keypoints of the head")
NUM_CLASSES = Argument(default=1000, low=0, high=1_000_000, help="classes; 0 removes the head")
IN_CHANS = Argument(default=3, low=1, high=1_000, help="channels of the input")
DROP_PATH_RATE = Argument(
    default=0.0, low=0.0, high=0.99, help="stochastic depth in training, of the last block"
)
