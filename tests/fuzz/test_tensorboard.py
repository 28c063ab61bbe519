"""TensorBoard files that are broken: what can be read is taken in, the rest is counted."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter

from mmtui.paths import Home
from tests.fuzz.mutations import ODD_TEXTS, changed, each, seeds
from tests.fuzz.watch import Watch

Invoke = Callable[..., Any]
NUMBERS = (0, 1, -1, 2**31, 2**63 - 1, -(2**63))
VALUES = (0.5, -1e38, float("nan"), float("inf"), 1e-45)


def event(chosen: random.Random) -> Message:
    tag = chosen.choice(("loss", "IoU/a", "x" * 2000, *(text for text in ODD_TEXTS if text.isprintable())))
    value = Summary.Value(tag=tag[:3000], simple_value=chosen.choice(VALUES))
    step, when = chosen.choice((*range(5), *NUMBERS)), chosen.choice((1.7e9, 0.0, -1.0, 1e300, float("nan")))
    return Event(wall_time=when, step=step, summary=Summary(value=[value] * chosen.randint(1, 3)))


def sound(chosen: random.Random) -> bytes:
    """Records of a few events, as TensorBoard writes them."""
    records = []
    for _ in range(chosen.randint(1, 6)):
        body = event(chosen).SerializeToString()
        length = struct.pack("<Q", len(body))
        sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, body)]
        records.append(length + sums[0] + body + sums[1])
    return b"".join(records)


def rightly_summed(body: bytes) -> bytes:
    """One record of any bytes whose sums are right: what is wrong is within."""
    length = struct.pack("<Q", len(body))
    return length + struct.pack("<I", masked_crc32c(length)) + body + struct.pack("<I", masked_crc32c(body))


def test_our_records_are_tensorboards_own(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        RecordWriter(file).write(b"abc")
    assert (tmp_path / "x").read_bytes() == rightly_summed(b"abc")


def test_broken_files_are_taken_in_as_far_as_they_can_be_read(
    home: Home, mmtui_: Invoke, tmp_path: Path, watch: Watch
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    codes = set()
    for seed, chosen in each(seeds(40)):
        content = changed(sound(chosen), chosen)
        if chosen.random() < 0.4:
            content = sound(chosen) + rightly_summed(changed(event(chosen).SerializeToString(), chosen)) + sound(chosen)
        (folder / "events.out.tfevents.1.box").write_bytes(content)
        with watch.input(home.root):
            found = mmtui_("import", str(folder))
        assert found.code in (0, 2), (seed, found)
        assert found.code == 0 or "error: " in found.err, (seed, found)
        codes.add(found.code)
        if found.code == 0:
            for run_id in found.out.split():
                json.loads(mmtui_("show", run_id, "--json").out)
                assert mmtui_("metrics", run_id).code == 0, seed
    assert 0 in codes
