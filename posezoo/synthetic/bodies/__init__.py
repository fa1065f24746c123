"""Rendered photographs of people with a real body (anny), as training crops and as data sets."""

from .album import write_people
from .photographer import Photographer, Shots

__all__ = ["Photographer", "Shots", "write_people"]
