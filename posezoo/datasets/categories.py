"""Which category of a file in the form of COCO is the person."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from ..errors import DataError
from .tables import Table

__all__ = ["PERSON", "only_category", "person_category"]

_LOGGER = logging.getLogger(__name__)

PERSON = 1  # category id of COCO


def person_category(listed: Any, rows: Table, name: str, wanted: str | None = None) -> int:
    """Return the id of the category that holds the people.

    It is the one that is asked for by name or id, else the one named "person", else the only one.
    Where a file names no categories: COCO's id 1, else the only id that its rows have.

    Args:
        listed: the file's list of categories; None where it has none.
        rows: of people, perhaps among others.
        name: the file.
        wanted: name or id of a category.

    Raises:
        DataError: there is no such category, or none of several is named "person".
    """
    table = Table([] if listed is None else listed, f"{name}: categories")
    names: dict[int, str] = {}
    for row, number in zip(table.rows, table.integers("id", minimum=0).tolist()):
        if number in names:
            raise DataError(f"{name}: categories has the id {number} twice")
        names[number] = str(row.get("name", ""))
    if not names:
        ids = rows.integers("category_id", minimum=0, default=PERSON)
        names = dict.fromkeys(np.unique(ids).tolist() or [PERSON], "")
        if PERSON in names and wanted is None:
            return PERSON
    fitting = [i for i, text in names.items() if wanted in (text, str(i))]
    if wanted is None:
        people = [i for i, text in names.items() if text.strip().lower() == "person"]
        fitting = people or list(names)
    if len(fitting) != 1:
        what = "a category 'person'" if wanted is None else f"the category {wanted!r}"
        there = ", ".join(f"{i} {text}".strip() for i, text in list(names.items())[:10])
        raise DataError(
            f"{name} does not have {what} once; its categories: {there}; name one with --category"
        )
    return fitting[0]


def only_category(table: Table, category: int, default: int | None = None) -> Table:
    """Return the rows of a category; how many others there are is logged.

    Args:
        table: the rows.
        category: id.
        default: the category of rows that have none.

    Raises:
        DataError: there are rows, and none is of the category.
    """
    chosen = table.integers("category_id", minimum=0, default=default) == category
    others = len(table) - int(chosen.sum())
    if others and others == len(table):
        raise DataError(f"{table.name} holds no person (category_id {category}) in {others} rows")
    if others:
        _LOGGER.warning("%s: %d rows of other categories are left out", table.name, others)
    return table.select(chosen) if others else table
