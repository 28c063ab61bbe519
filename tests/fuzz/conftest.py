"""Command lines in the test's process, and a watch over what inputs make the process do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.watch import Watch
from tests.unit.cli.conftest import capsule, colours_kept, elsewhere, mmtui_, whole

__all__ = ["capsule", "colours_kept", "elsewhere", "mmtui_", "watch", "whole"]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Says what an input has made the process do that no input may."""
    watch = Watch()
    yield watch
    watch.end()
