"""Under which terms runs are queued. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.json_types import Json


@dataclass(frozen=True)
class Terms:
    """Under which terms runs are queued.

    Attributes:
        name: name of the runs, "" = the recipe's; in a sweep followed by what sets each apart.
        group: group they belong to, "" = none (a sweep makes one of its own).
        priority: higher starts earlier.
        not_before: Unix time before which they do not start.
        after: ids of runs that must succeed first.
        if_failed: what happens to them if one of those does not: ``hold``, ``cancel`` or ``run``.
        wanted: GPUs (or CPU slots) for each, 1 or more; below 1 the share of one that suffices.
        time_limit: seconds that each may train, 0 = no limit.
        budget: device hours that the runs of the group may take together, 0 = no limit.
        fail_fast: whether runs of the group that still wait are held when one of them fails.
        launcher: {} = this machine; else what SLURM is told (``mmtui.domain.slurm``).
    """

    name: str = ""
    tags: Sequence[str] = ()
    hold: bool = False
    group: str = ""
    priority: int = 0
    not_before: float = 0.0
    after: Sequence[str] = ()
    if_failed: str = "hold"
    wanted: float = 1.0
    time_limit: float = 0.0
    budget: float = 0.0
    launcher: Mapping[str, Json] = field(default_factory=dict)
    fail_fast: bool = False

    @property
    def comes_later(self) -> bool:
        """Whether what the runs read may be missing here and now: they start elsewhere, or after something else."""
        return bool(self.launcher or self.after or self.not_before)
