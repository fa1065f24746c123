"""Accurate human-pose models with verified weights."""

from ._factory import create_model

__version__ = "0.1.0"
__all__ = ["create_model"]
