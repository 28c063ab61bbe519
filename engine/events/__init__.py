"""The event file: one JSON object a line, schema version 1 (docs/events.md). No torch in here.

The writer is the trainer, alone; readers are a supervisor and anybody who wants to look. ``records`` says what each
kind of event holds, ``reader`` is the only parser.
"""

from engine.events.layout import OUTPUT, attempt_folder, attempt_numbers, output_descriptor
from engine.events.lines import LONGEST_LINE, cut_torn_line, last_seq, whole_lines
from engine.events.numbers import LARGEST_STEP
from engine.events.reader import Event, parse_line, read_events
from engine.events.records import KINDS, RECORDS, SUPERVISION, Record
from engine.events.writer import VERSION, EventWriter, Heartbeat, SilentWriter, finite_values, resident_bytes

__all__ = [
    "KINDS",
    "LARGEST_STEP",
    "LONGEST_LINE",
    "OUTPUT",
    "RECORDS",
    "SUPERVISION",
    "VERSION",
    "Event",
    "EventWriter",
    "Heartbeat",
    "Record",
    "SilentWriter",
    "attempt_folder",
    "attempt_numbers",
    "cut_torn_line",
    "finite_values",
    "last_seq",
    "output_descriptor",
    "parse_line",
    "read_events",
    "resident_bytes",
    "whole_lines",
]
