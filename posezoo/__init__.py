"""Accurate human-pose models with verified weights."""

__version__ = "0.1.0"
