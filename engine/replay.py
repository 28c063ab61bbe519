"""Proof that a resumed run goes on exactly: its losses are compared with those logged before it was cut off."""

from __future__ import annotations

from pathlib import Path

from engine.events import attempt_folder, attempt_numbers, read_events
from engine.events.records import Metrics


class Replay:
    """Losses that earlier attempts logged for steps which this one computes again.

    Of several for a step the last counts, and where it differs from the one before, the attempts before are another
    training: nothing that they logged of later steps counts, nor what was repeated of them. What earlier attempts have
    repeated is counted, too: one that was stopped could tell it nowhere.

    Attributes:
        compared: how many losses have been computed again, in this attempt and in earlier ones.
        equal: how many of them are equal to the last bit.
        worst: largest difference, relative to the earlier loss.
    """

    def __init__(self, run_dir: Path, attempt: int, stage: str, start: int) -> None:
        self.compared, self.equal, self.worst = 0, 0, 0.0
        self._before: dict[int, float] = {}
        for number in attempt_numbers(run_dir):
            path = attempt_folder(run_dir, number) / "events.jsonl"
            if number < attempt and path.is_file():
                self._read(path, stage)
        self._before = {step: loss for step, loss in self._before.items() if step > start}

    def _read(self, path: Path, stage: str) -> None:
        earlier = dict(self._before)
        for _, event in read_events(path, kinds={Metrics.KIND}):
            if event is None or not isinstance(event.record, Metrics) or event.stage != stage:
                continue
            step, loss = event.step, event.record.numbers.get("loss")
            if loss is None:
                continue
            if self._before.setdefault(step, loss) == loss:
                self.compared += step in earlier
                self.equal += step in earlier
            else:
                self.compared = self.equal = 0
                self._before = {known: value for known, value in self._before.items() if known < step} | {step: loss}

    def compare(self, step: int, loss: float) -> str:
        """A sentence at the first loss that differs from the earlier one, else ""."""
        before = self._before.pop(step, None)
        if before is None:
            return ""
        self.compared += 1
        self.equal += before == loss
        self.worst = max(self.worst, abs(before - loss) / max(abs(before), 1e-12))
        if self.equal != self.compared - 1 or before == loss:
            return ""
        return (
            f"the loss of step {step} is {loss:.9g}, an earlier attempt had {before:.9g}: it is not repeated exactly"
            " (another device, number of threads or library version?)"
        )
