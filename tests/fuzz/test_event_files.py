"""TensorBoard's event files that are broken or hostile: what can be read is read, the rest is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmtui.errors import MmtuiError
from mmtui.services.exchange import tensorboard_reader
from mmtui.services.exchange.tfrecords import Gap, records
from tests.fuzz.mutations import changed, each, seeds
from tests.fuzz.watch import Watch
from tests.unit.cli.test_import_logs import tensorboard

POINTS = [("loss", step, 1.0 / (1 + step)) for step in range(12)]


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return tensorboard(tmp_path / "whole", POINTS).read_bytes()


def test_broken_event_files_are_read_as_far_as_they_can_be(tmp_path: Path, watch: Watch, content: bytes) -> None:
    file = tmp_path / "broken" / "events.out.tfevents.1.host"
    file.parent.mkdir()
    told = 0
    for seed, chosen in each(seeds(300), "TensorBoard files"):
        file.write_bytes(changed(content, chosen))
        try:
            with watch.input():
                (run,) = tensorboard_reader.find(file.parent)
                found = tensorboard_reader.read(run, lambda *_: None)
        except MmtuiError as error:
            assert str(file.parent) in str(error), seed
            continue
        except BaseException as error:
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}")
        told += bool(found.notes)
        with file.open("rb"):
            gaps = [one for one in records(file) if isinstance(one, Gap)]
        assert bool(found.notes) >= bool(gaps), seed
    assert told  # else they were hardly broken
