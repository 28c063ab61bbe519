"""The types of what JSON holds, for values whose form is not known before they are checked. No torch in here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""A value of JSON: what ``json.loads`` gives, and what ``json.dumps`` takes."""
JsonObject: TypeAlias = "dict[str, Json]"
"""An object of JSON, of one's own: it may be changed."""
