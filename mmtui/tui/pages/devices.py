"""Devices now, and how they were used in the last hours."""

from __future__ import annotations

from mmtui.domain.views import DeviceSnapshot
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.tui.widgets.panels import Line
from mmtui.tui.widgets.panels import devices as panel
from mmtui.tui.widgets.plot import spark

_HISTORY = """
SELECT device, max(t), avg(utilisation), max(memory_used), max(memory_total), avg(power_watts), max(temperature),
    CAST((t - :first) / :each AS INTEGER) AS place
FROM device_samples WHERE t > :first GROUP BY device, place ORDER BY device, place
"""


def devices(home: Home, now: DeviceSnapshot, width: int, ascii_only: bool) -> list[Line]:
    """Gauges and processes, then a history of what the supervisor recorded while runs trained."""
    lines = [*panel(now, width, ascii_only), [], [("recorded while runs trained", "title")]]
    room = max(width - 30, 20)
    header, rows = runs.sql(home, "SELECT min(t), max(t) FROM device_samples WHERE t > strftime('%s', 'now') - 86400")
    first, last = rows[0] if rows else (None, None)
    if first is None or last is None:
        return [*lines, [("nothing in the last day", "dim")]]
    each = max((float(last) - float(first)) / room, 1.0)
    text = _HISTORY.replace(":first", repr(float(first) - 1e-6)).replace(":each", repr(each))
    header, rows = runs.sql(home, text)
    found: dict[str, list[dict[str, float | None]]] = {}
    for row in rows:
        found.setdefault(str(row[0]), []).append(dict(zip(header[1:], row[1:], strict=True)))
    for device, samples in found.items():
        lines.append([(device, "title")])
        for name, column, top in (
            ("use", "avg(utilisation)", 100.0),
            ("memory", "max(memory_used)", max((s["max(memory_total)"] or 0.0) for s in samples) or None),
            ("power", "avg(power_watts)", None),
            ("heat", "max(temperature)", 100.0),
        ):
            values: list[float | None] = [None] * (room + 2)
            for sample in samples:
                values[min(int(sample["place"] or 0), room + 1)] = sample[column]
            if any(value is not None for value in values):
                lines.append([(f"  {name:7}", "dim"), (spark(values, ascii_only, top=top), "cyan")])
    return lines
