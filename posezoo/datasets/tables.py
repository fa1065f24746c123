"""Strict reading of the values in data-set files: lists of JSON objects, and arrays.

A value that cannot give a right number ends in one `DataError` that names the file, the row,
the field, the value and what is valid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

__all__ = ["Table", "describe", "real_numbers"]

Array = NDArray[Any]


class Table:
    """The rows of one list, read column by column.

    Args:
        rows: objects of equal form.
        name: file and list, such as `val.json: annotations`; every message starts with it.
        numbers: position of each row in the list of the file, where rows were left out.

    Raises:
        DataError: `rows` is not a list of objects.
    """

    def __init__(self, rows: Any, name: str, numbers: Array | None = None) -> None:
        if not isinstance(rows, Sequence) or isinstance(rows, str):
            raise DataError(f"{name} is {describe(rows)}; valid: a list of objects")
        self.rows = rows
        self.name = name
        self.numbers = np.arange(len(rows)) if numbers is None else numbers
        for index, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise DataError(f"{name}[{index}] is {describe(row)}; valid: an object")

    def __len__(self) -> int:
        return len(self.rows)

    def has(self, field: str) -> bool:
        """Whether every row has `field`."""
        return all(field in row for row in self.rows)

    def select(self, keep: Array) -> Table:
        """Return the rows where `keep (N,)` is set; messages keep naming the original rows."""
        rows = [row for row, chosen in zip(self.rows, keep.tolist()) if chosen]
        return Table(rows, self.name, self.numbers[keep])

    def pick(self, indices: Array) -> Table:
        """Return the rows at positions `indices (N,)`, likewise."""
        return Table([self.rows[i] for i in indices.tolist()], self.name, self.numbers[indices])

    def blame(self, index: int, field: str, valid: str) -> DataError:
        """Return the error for a bad value in row `index` of this table."""
        value = self.rows[index].get(field)
        where = f"{self.name}[{self.numbers[index]}].{field}"
        return DataError(f"{where} is {describe(value)}; valid: {valid}")

    def integers(
        self, field: str, minimum: int, maximum: int = 2**63 - 1, default: int | None = None
    ) -> NDArray[np.int64]:
        """Return a column of integers, `(N,)`; `default` is for rows without one.

        Raises:
            DataError: a value is missing, not an integer, or out of range.
        """

        def is_good(value: Any) -> bool:
            is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            return is_integer and minimum <= value <= maximum

        values = self._column(field, default)
        # the rows are only searched if something is wrong with the whole column
        if set(map(type, values)) == {int} and minimum <= min(values) <= max(values) <= maximum:
            return np.array(values, dtype=np.int64)
        end = "" if maximum == 2**63 - 1 else f" to {maximum}"
        self._check(field, values, is_good, f"an integer from {minimum}{end}")
        return np.array(values, dtype=np.int64)

    def texts(self, field: str) -> list[str]:
        """Return a column of non-empty strings.

        Raises:
            DataError: a value is missing, empty or not a string.
        """
        values = self._column(field)
        self._check(field, values, lambda v: isinstance(v, str) and v != "", "a name")
        return values

    def floats(
        self,
        field: str,
        shape: tuple[int, ...] = (),
        minimum: float | None = None,
        default: float | None = None,
    ) -> NDArray[np.float64]:
        """Return a column of finite numbers, `(N, *shape)`; `default` is for rows without one.

        Raises:
            DataError: a value is missing, not numeric, not finite, below `minimum`, or has
                another shape.
        """
        values = self._column(field, default)
        if not values:
            return np.zeros((0, *shape))

        def is_good(value: Any) -> bool:
            return _are_numbers(_as_array(value), shape, minimum)

        # one conversion for the whole column; the rows are only searched if it fails
        column = _as_array(values)
        if not _are_numbers(column, (len(values), *shape), minimum):
            size = " x ".join(map(str, shape))
            what = f"{size} finite numbers" if shape else "a finite number"
            least = "" if minimum is None else f" of at least {minimum:g}"
            self._check(field, values, is_good, what + least)
        return column.astype(np.float64, copy=False)

    def require_unique(self, field: str, values: Array) -> None:
        """Raise unless the integers of a column differ."""
        first = np.unique(values, return_index=True)[1]
        if len(first) < len(values):
            again = int(np.setdiff1d(np.arange(len(values)), first)[0])
            raise self.blame(again, field, "a value that no other row has; this one is used twice")

    def require_known(self, field: str, values: Array, known: Array, source: str) -> None:
        """Raise unless the integers of a column are among `known`, the ids of `source`."""
        unknown = np.flatnonzero(~np.isin(values, known))
        if len(unknown):
            raise self.blame(
                int(unknown[0]),
                field,
                f"the id of one of the {len(known)} images of {source} "
                f"({len(unknown)} of {len(values)} rows name another image)",
            )

    def _column(self, field: str, default: float | None = None) -> list[Any]:
        if default is not None:
            return [row.get(field, default) for row in self.rows]
        try:
            return [row[field] for row in self.rows]
        except KeyError:
            index = next(i for i, row in enumerate(self.rows) if field not in row)
            raise DataError(
                f"{self.name}[{self.numbers[index]}] has no field {field!r}; every row needs it"
            ) from None

    def _check(
        self, field: str, values: list[Any], is_good: Callable[[Any], bool], valid: str
    ) -> None:
        for index, value in enumerate(values):
            if not is_good(value):
                raise self.blame(index, field, valid)


def _as_array(value: Any) -> Array:
    try:
        return np.asarray(value)
    except ValueError:  # rows of different lengths
        return np.asarray(None)


def _are_numbers(array: Array, shape: tuple[int, ...], minimum: float | None) -> bool:
    if array.dtype.kind not in "iuf" or array.shape != shape or not np.isfinite(array).all():
        return False
    return minimum is None or bool((array >= minimum).all())


def describe(value: Any) -> str:
    """Describe a value in a few words."""
    if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str):
        kind = f"a {type(value).__name__} of length {len(value)}"
        return f"{kind}: {list(value)!r}" if len(value) <= 4 else kind
    if isinstance(value, Mapping):
        return f"an object with the keys {', '.join(map(str, value))[:80]}"
    return repr(value)[:80]


def real_numbers(values: Any, name: str) -> NDArray[np.float64]:
    """Return an array of real numbers as float64.

    Raises:
        DataError: it holds something else.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name}: the type is {array.dtype}, expected real numbers")
    return array.astype(np.float64)
