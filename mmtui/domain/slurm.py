"""What a run may ask of SLURM, and what the states of its jobs mean. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from engine.json_types import JsonObject
from mmtui.errors import UsageError

OPTIONS: dict[str, type] = {
    "partition": str,
    "account": str,
    "qos": str,
    "constraint": str,
    "comment": str,
    "nodes": int,
    "time": int,  # minutes
    "cpus_per_task": int,
    "mem_gb": int,
}
BEYOND = 10**6
"""No cluster has so many of anything."""
LIVE = frozenset({"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STAGE_OUT", "SIGNALING", "RESIZING"})
"""States in which a job is not over. SLURM names many more in which it is."""
NOT_BEGUN = frozenset({"PENDING", "CONFIGURING"})


def launcher(texts: Sequence[str], gpus: float, on_gpus: bool) -> JsonObject:
    """What is stored with a run that SLURM shall start.

    Args:
        texts: ``key=value`` as typed.
        gpus: processes on each node, one GPU each.
        on_gpus: whether GPUs are asked for; else the processes train on CPUs.

    Raises:
        UsageError: an unknown key, or a value of the wrong type.
    """
    if gpus < 1:
        raise UsageError(f"--gpus {gpus:g}: SLURM gives whole GPUs", "write --gpus 1")
    if gpus >= BEYOND:
        raise UsageError(f"--gpus {gpus:g}: write a number below {BEYOND:,}")
    found: JsonObject = {"kind": "slurm", "nodes": 1, "processes": int(gpus), "gpus": int(gpus) if on_gpus else 0}
    for text in texts:
        key, equals, value = text.partition("=")
        kind = OPTIONS.get(key)
        if kind is None or not equals or not value:
            raise UsageError(f"--slurm {text}: write KEY=VALUE with one of {', '.join(OPTIONS)}")
        if kind is int and not (re.fullmatch("[0-9]{1,18}", value) and _is_count(int(value), 1)):
            raise UsageError(f"--slurm {text}: {key} is a whole number of at least 1 and below {BEYOND:,}")
        found[key] = kind(value)
    return found


def restored(told: object) -> JsonObject:
    """A launcher as the folder of a run tells it; {}, which is this machine, where that is none of ``launcher``."""
    if not isinstance(told, Mapping) or told.get("kind") != "slurm":
        return {}
    numbers = {"nodes": 1, "processes": 1, "gpus": 0}
    if any(not _is_count(told.get(key), least) for key, least in numbers.items()):
        return {}
    options = {key: told[key] for key in OPTIONS if key in told}
    right = all(
        _is_count(value, 1) if OPTIONS[key] is int else isinstance(value, str) and value
        for key, value in options.items()
    )
    return {"kind": "slurm", **{key: told[key] for key in numbers}, **options} if right else {}


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < BEYOND


def parameters(asked: Mapping[str, object], name: str) -> dict[str, object]:
    """The same as submitit calls it."""
    given = {
        f"slurm_{key}": asked[key] for key in ("partition", "account", "qos", "constraint", "comment") if key in asked
    }
    given |= {key: asked[key] for key in ("nodes", "cpus_per_task", "mem_gb") if key in asked}
    if "time" in asked:
        given["timeout_min"] = asked["time"]
    if asked.get("gpus"):
        given["gpus_per_node"] = asked["gpus"]
    # One task a node: it starts the node's processes. SLURM must not start the job again by itself: the next job of
    # the run is another attempt, with an event file of its own.
    return given | {"slurm_job_name": name, "tasks_per_node": 1, "slurm_additional_parameters": {"no_requeue": True}}


def parse_queue(text: str) -> dict[str, tuple[str, str, str]]:
    """{job: (name, state, reason)} from ``squeue --noheader --format %i|%j|%T|%r``."""
    found = {}
    for line in text.splitlines():
        parts = line.strip().split("|", 3)
        if len(parts) == 4:
            found[parts[0]] = (parts[1], parts[2].split()[0] if parts[2] else "", parts[3])
    return found


def waiting_words(job: str, state: str, reason: str) -> str:
    """Why a job has not begun."""
    return f"SLURM job {job} is {state.lower()}" + (f" ({reason})" if reason not in ("", "None") else "")
