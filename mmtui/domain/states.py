"""The one transition table of a run: ``(state, event) -> state``.

Applied by compare-and-set in ``mmtui.store.runs.transition`` and nowhere else; every pair that is not in the
table is illegal and raises.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType

from mmtui.errors import RefusedError


class RunState(StrEnum):
    """Where a run is. The last four are final, though failed, cancelled and interrupted runs can be retried."""

    QUEUED = "queued"
    HELD = "held"
    STARTING = "starting"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class RunEvent(StrEnum):
    """What can happen to a run."""

    HOLD = "hold"
    RELEASE = "release"
    START = "start"  # the supervisor claims it and spawns a trainer
    STARTED = "started"  # the trainer's first event was read that is no heartbeat
    REJECT = "reject"  # it could not be started at all
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    EXIT_OK = "exit_ok"  # the trainer said run_finished: succeeded
    EXIT_STOPPED = "exit_stopped"  # the trainer checkpointed and left on request
    EXIT_ERROR = "exit_error"  # the trainer reported an error, or left with one
    VANISHED = "vanished"  # the trainer is gone and said nothing
    REQUEUE = "requeue"  # policy puts an interrupted run back
    RETRY = "retry"  # a person puts a finished run back


FINAL_STATES = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.INTERRUPTED})
ACTIVE_STATES = frozenset({RunState.STARTING, RunState.RUNNING, RunState.PAUSING, RunState.STOPPING})
TOLD_FIRST = (
    *(RunState.RUNNING, RunState.STARTING, RunState.PAUSING, RunState.STOPPING),
    *(RunState.QUEUED, RunState.HELD, RunState.PAUSED),
    *(RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.INTERRUPTED),
)
"""The order in which people are told how many runs are in each state: what goes on, what waits, what has ended."""

_S, _E = RunState, RunEvent
TRANSITIONS: MappingProxyType[tuple[RunState, RunEvent], RunState] = MappingProxyType(
    {
        (_S.QUEUED, _E.HOLD): _S.HELD,
        (_S.QUEUED, _E.START): _S.STARTING,
        (_S.QUEUED, _E.CANCEL): _S.CANCELLED,
        (_S.QUEUED, _E.REJECT): _S.FAILED,
        (_S.HELD, _E.RELEASE): _S.QUEUED,
        (_S.HELD, _E.CANCEL): _S.CANCELLED,
        (_S.STARTING, _E.STARTED): _S.RUNNING,
        (_S.STARTING, _E.REJECT): _S.FAILED,
        (_S.STARTING, _E.PAUSE): _S.PAUSING,
        (_S.STARTING, _E.CANCEL): _S.STOPPING,
        (_S.STARTING, _E.EXIT_OK): _S.SUCCEEDED,
        (_S.STARTING, _E.EXIT_STOPPED): _S.INTERRUPTED,
        (_S.STARTING, _E.EXIT_ERROR): _S.FAILED,
        (_S.STARTING, _E.VANISHED): _S.INTERRUPTED,
        (_S.RUNNING, _E.PAUSE): _S.PAUSING,
        (_S.RUNNING, _E.CANCEL): _S.STOPPING,
        (_S.RUNNING, _E.EXIT_OK): _S.SUCCEEDED,
        (_S.RUNNING, _E.EXIT_STOPPED): _S.INTERRUPTED,
        (_S.RUNNING, _E.EXIT_ERROR): _S.FAILED,
        (_S.RUNNING, _E.VANISHED): _S.INTERRUPTED,
        (_S.PAUSING, _E.CANCEL): _S.STOPPING,
        (_S.PAUSING, _E.EXIT_OK): _S.SUCCEEDED,
        (_S.PAUSING, _E.EXIT_STOPPED): _S.PAUSED,
        (_S.PAUSING, _E.EXIT_ERROR): _S.FAILED,
        (_S.PAUSING, _E.VANISHED): _S.PAUSED,
        (_S.PAUSED, _E.RESUME): _S.QUEUED,
        (_S.PAUSED, _E.CANCEL): _S.CANCELLED,
        (_S.STOPPING, _E.EXIT_OK): _S.SUCCEEDED,
        (_S.STOPPING, _E.EXIT_STOPPED): _S.CANCELLED,
        (_S.STOPPING, _E.EXIT_ERROR): _S.CANCELLED,
        (_S.STOPPING, _E.VANISHED): _S.CANCELLED,
        (_S.FAILED, _E.RETRY): _S.QUEUED,
        (_S.CANCELLED, _E.RETRY): _S.QUEUED,
        (_S.INTERRUPTED, _E.RETRY): _S.QUEUED,
        (_S.INTERRUPTED, _E.REQUEUE): _S.QUEUED,
        (_S.INTERRUPTED, _E.CANCEL): _S.CANCELLED,
    }
)


class IllegalTransitionError(RefusedError):
    """The event is not possible in this state."""

    def __init__(self, state: RunState, event: RunEvent) -> None:
        super().__init__(f"a run that is {state.value} cannot take '{event.value}'")
        self.state, self.event = state, event


def next_state(state: RunState, event: RunEvent) -> RunState:
    """State after ``event``; raises ``IllegalTransitionError`` if the table has no such pair."""
    try:
        return TRANSITIONS[(state, event)]
    except KeyError:
        raise IllegalTransitionError(state, event) from None


def is_legal(state: RunState, event: RunEvent) -> bool:
    """Whether ``event`` can happen in ``state``."""
    return (state, event) in TRANSITIONS
