"""The verbs by name, and where each is written. A module is imported only when one of its verbs runs."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

Verb = Callable[..., int | None]
"""Takes what its parameters declare; returns an exit code, None for 0."""

VERBS: dict[str, str] = {
    "run": "writing:run",
    "ls": "finding:ls",
    "show": "reading:show",
    "news": "reading:news",
    "logs": "follow:logs",
    "watch": "follow:watch",
    "wait": "follow:wait",
    "cancel": "writing:cancel",
    "pause": "writing:pause",
    "resume": "writing:resume",
    "retry": "writing:retry",
    "edit": "ordering:edit",
    "mv": "ordering:mv",
    "priority": "ordering:priority",
    "hold": "writing:hold",
    "release": "writing:release",
    "classes": "reading:classes",
    "metrics": "reading:metrics",
    "view": "finding:view",
    "best": "finding:best",
    "compare": "finding:compare",
    "diff": "finding:diff",
    "query": "finding:query",
    "report": "reporting:report",
    "figures": "reporting:figures",
    "export": "exchanging:export",
    "import": "exchanging:import_",
    "tag": "keeping:tag",
    "note": "keeping:note",
    "rm": "keeping:rm",
    "restore": "keeping:restore",
    "purge": "keeping:purge",
    "cache": "keeping:cache",
    "recipes": "machine:recipes",
    "gpu": "machine:gpu",
    "queue": "ordering:queue",
    "daemon start": "daemon:start",
    "daemon stop": "daemon:stop",
    "daemon status": "daemon:status",
    "daemon install-service": "daemon:install_service",
    "config": "configuring:config",
    "doctor": "machine:doctor",
    "backup": "keeping:backup",
    "demo": "follow:demo",
    "completion": "completion:completion",
}
"""In the order of the help."""

ALIASES: dict[str, str] = {"list": "ls", "ps": "ls", "status": "queue", "tail": "logs", "kill": "cancel"}
"""What fingers type out of habit; not shown in the help."""

GROUPS: dict[str, str] = {"daemon": "The supervisor that starts and watches runs."}


def load(name: str) -> Verb:
    """The function of a verb or an alias. Raises KeyError if there is none."""
    module, _, function = VERBS[ALIASES.get(name, name)].partition(":")
    found: Any = getattr(import_module(f"mmtui.cli.{module}"), function)
    return found  # type: ignore[no-any-return]
