"""The transition table, every pair of it, against a table written out by hand."""

from __future__ import annotations

import pytest

from mmtui.domain.states import ACTIVE_STATES, FINAL_STATES, IllegalTransitionError, RunEvent, RunState, next_state
from mmtui.errors import ExitCode

# One line per state: what may happen to it, and where that leads. Everything else is illegal.
EXPECTED = {
    "queued": {"hold": "held", "start": "starting", "cancel": "cancelled", "reject": "failed"},
    "held": {"release": "queued", "cancel": "cancelled"},
    "starting": {
        "started": "running",
        "reject": "failed",
        "pause": "pausing",
        "cancel": "stopping",
        "exit_ok": "succeeded",
        "exit_stopped": "interrupted",
        "exit_error": "failed",
        "vanished": "interrupted",
    },
    "running": {
        "pause": "pausing",
        "cancel": "stopping",
        "exit_ok": "succeeded",
        "exit_stopped": "interrupted",
        "exit_error": "failed",
        "vanished": "interrupted",
    },
    "pausing": {
        "cancel": "stopping",
        "exit_ok": "succeeded",
        "exit_stopped": "paused",
        "exit_error": "failed",
        "vanished": "paused",
    },
    "paused": {"resume": "queued", "cancel": "cancelled"},
    "stopping": {
        "exit_ok": "succeeded",
        "exit_stopped": "cancelled",
        "exit_error": "cancelled",
        "vanished": "cancelled",
    },
    "succeeded": {},
    "failed": {"retry": "queued"},
    "cancelled": {"retry": "queued"},
    "interrupted": {"retry": "queued", "requeue": "queued", "cancel": "cancelled"},
}
PAIRS = [(state, event) for state in RunState for event in RunEvent]


@pytest.mark.parametrize(("state", "event"), PAIRS, ids=lambda item: item.value)
def test_next_state_every_pair_is_as_written_or_raises(state: RunState, event: RunEvent) -> None:
    expected = EXPECTED[state.value].get(event.value)
    if expected is None:
        with pytest.raises(IllegalTransitionError, match=f"{state.value}.*{event.value}") as caught:
            next_state(state, event)
        assert caught.value.exit_code == ExitCode.REFUSED
    else:
        assert next_state(state, event) == expected


def test_states_sets_divide_them() -> None:
    assert set(EXPECTED) == {state.value for state in RunState}
    assert not FINAL_STATES & ACTIVE_STATES


def test_active_state_every_way_a_trainer_can_end_is_legal() -> None:
    for state in ACTIVE_STATES:
        for event in (RunEvent.EXIT_OK, RunEvent.EXIT_STOPPED, RunEvent.EXIT_ERROR, RunEvent.VANISHED):
            assert next_state(state, event) not in ACTIVE_STATES
