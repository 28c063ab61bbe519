"""Steps on data that are larger than memory, mapped from the data cache, against the same steps on data held there.

    python benchmarks/bench_data.py [--limit MIB] [--steps 200] [--rounds 3] [--crop 96]

The engine trains ``shapes_baseline`` on 800 images of 1024 x 512 (1.6 GB decoded). The floor holds them in memory.
"mapped": they fit the page cache. "short": the process and its page cache have ``--limit`` MiB (a control group of its
own, for which one has to be root), so that most images of a step have to come from the disk. The arms take turns; each
begins without a page of the file in memory. Seconds a step are the median of a run, ratios the median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

DATA = ("data.height=512", "data.width=1024", "data.train=800", "data.val=1")
GROUPS = Path("/sys/fs/cgroup")


def group_of_memory() -> tuple[Path, str]:
    """A new control group below this process's, and the name of its limit, for either version of groups."""
    own = {line.split(":")[1]: line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    name = next((names for names in own if "memory" in names.split(",")), "")
    root = GROUPS / ("memory" if name else "")
    folder = root / own[name].lstrip("/") / f"mmtui-bench-{os.getpid()}"
    if not folder.parent.is_dir():
        folder = root / folder.name
    folder.mkdir()
    return folder, "memory.limit_in_bytes" if name else "memory.max"


def forget(folder: Path) -> None:
    """Have the kernel drop the pages of all decoded data."""
    for file in folder.glob("*.bin"):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def seconds_per_step(arm: str, cache: Path, options: argparse.Namespace) -> float:
    """The median over the steps of one run."""
    forget(cache)
    keys = [
        *DATA,
        f"segment.steps={options.steps}",
        f"segment.crop={options.crop}",
        "segment.eval_every=0",
        "evaluate=null",
        "runtime.log_every=1",
        "runtime.checkpoint_seconds=100000",
        f"runtime.memory_budget_gib={8 if arm == 'held' else 0.1}",
        f"runtime.data_cache={cache}",
    ]
    group, limit = group_of_memory() if arm == "short" else (None, "")
    if group is not None:
        (group / limit).write_text(str(options.limit << 20))

    def enter() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "engine", "train", "shapes_baseline", "--quiet", "--run-dir", folder]
        command += [word for key in keys for word in ("--set", key)]
        try:
            subprocess.run(command, preexec_fn=enter, check=True)
        finally:
            if group is not None:
                group.rmdir()
        lines = (Path(folder) / "attempts" / "001" / "events.jsonl").read_text().splitlines()
    values = [json.loads(line)["values"] for line in lines]
    return statistics.median(one["seconds_per_step"] for one in values if "seconds_per_step" in one)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--limit", type=int, default=600)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--crop", type=int, default=96)
    options = parser.parse_args()
    arms = ("held", "mapped", "short") if os.geteuid() == 0 else ("held", "mapped")
    with tempfile.TemporaryDirectory() as folder:
        seconds_per_step("mapped", Path(folder), options)  # decodes
        rounds = [{arm: seconds_per_step(arm, Path(folder), options) for arm in arms} for _ in range(options.rounds)]
    for arm in arms:
        seconds = statistics.median(one[arm] for one in rounds)
        speed = statistics.median(one["held"] / one[arm] for one in rounds)
        note = f", {options.limit} MiB for the process and its page cache" if arm == "short" else ""
        sys.stdout.write(f"{arm:7} {seconds * 1e3:7.1f} ms a step, {speed:.2f} x the speed of held data{note}\n")


if __name__ == "__main__":
    main()
