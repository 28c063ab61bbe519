"""Whether runs sit on the GPUs that they were given: what CUDA makes of a UUID is checked, not believed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mmtui.domain.views import GpuView


def misplaced(gpus: Iterable[GpuView], given: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """{run: a sentence} for every run of which a process holds memory of a GPU that another run, or nobody, has.

    Args:
        gpus: the machine's GPUs, processes of our runs carry the run's id.
        given: UUIDs that each active run was given.
    """
    found: dict[str, str] = {}
    for gpu in gpus:
        for process in gpu.processes:
            mine = given.get(process.run)
            if mine is not None and gpu.uuid not in mine and gpu.parent not in mine and process.kind != "graphics":
                was = ", ".join(mine) or "no GPU"
                found[process.run] = (
                    f"its process {process.pid} computes on GPU {gpu.index} ({gpu.uuid}), but it was given {was}"
                )
    return found
