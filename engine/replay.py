"""Proof that a resumed run goes on exactly: its losses are compared with those logged before it was cut off."""

from __future__ import annotations

from pathlib import Path

from engine.events import attempt_folder, attempt_numbers, read_events


class Replay:
    """Losses that the attempt before this one logged for steps which this one computes again.

    Attributes:
        compared: how many losses both attempts have logged.
        equal: how many of them are equal to the last bit.
        worst: largest difference, relative to the earlier loss.
    """

    def __init__(self, run_dir: Path, attempt: int, stage: str, start: int) -> None:
        self.compared, self.equal, self.worst = 0, 0, 0.0
        self._before: dict[int, float | None] = {}
        earlier = [number for number in attempt_numbers(run_dir) if number < attempt]
        path = attempt_folder(run_dir, earlier[-1]) / "events.jsonl" if earlier else None
        if path is None or not path.is_file():
            return
        for _, event in read_events(path):
            if event is None or event["kind"] != "metrics" or event.get("stage") != stage:
                continue
            if event["step"] > start and "loss" in event["values"]:
                self._before[event["step"]] = event["values"]["loss"]

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
            f"the loss of step {step} is {loss:.9g}, the attempt before had {before:.9g}: it is not repeated exactly"
            " (another device, number of threads or library version?)"
        )
