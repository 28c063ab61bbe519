"""Errors of the engine that a user can act on.

Each message is one sentence or two that name the file, the key and the value, and say what to write.
"""

from __future__ import annotations


class EngineError(Exception):
    """A user's mistake or a bad input; the program prints the message alone, without a traceback."""

    exit_code = 1


class RecipeError(EngineError):
    """The recipe cannot be run as written."""

    exit_code = 2


class DataError(EngineError):
    """The data set cannot be read as the recipe describes it."""


class CheckpointError(EngineError):
    """A checkpoint or weight file cannot be used."""
