"""How the files beside this one were made, by the code of commit cce7257 and nothing else.

    git worktree add --detach /tmp/old cce7257
    python3 -m venv /tmp/old/.venv
    /tmp/old/.venv/bin/python -m pip install -c constraints.txt torch && /tmp/old/.venv/bin/python -m pip install -c \
        constraints.txt -e /tmp/old
    unshare --uts sh -c 'hostname box; exec /tmp/old/.venv/bin/python tests/compat/make_fixtures.py'

It takes two minutes. What it makes is not the same to the byte each time (clocks, process ids), so answers and data
belong together: both are always written.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from asking import (
    COMMIT,
    FINISHED,
    KILLED,
    MADE_AT,
    PAUSED,
    QUESTIONS,
    RESUMED,
    TAKEN_IN,
    TRASHED,
    lost,
    masked,
    name_of,
)

FOLDER = Path(__file__).resolve().parent / COMMIT
ROOT = Path(MADE_AT)
BIN = Path(sys.executable).parent
TINY = (
    "data.height=32",
    "data.width=32",
    "data.train=8",
    "data.val=4",
    "model.width=0.125",
    "model.head_channels=8",
    "segment.batch_size=4",
    "segment.crop=32",
    "segment.pixels=32",
    "runtime.threads=1",
    "runtime.keep_checkpoints=1",
)
MATCH = ("match.images=4", "match.crop=32", "match.patch_size=[8,16]", "match.output_size=16")
PROXY = ("proxy.crop=32", "proxy.head_channels=8")
HOSTILE = "[bold red]mark[/] \x1b[31mred\x07 \u202eback ../../etc 中文 'q\" %s {x} emoji \U0001f680"
CONFIG = """\
color = "never"
ascii = true
mouse = false
theme = "colorblind"
notify = "osc9"
pictures = "sixel"
on_finish = ["/bin/sh", "-c", "echo $MMTUI_STATE $MMTUI_RUN_ID $MMTUI_MIOU"]
on_failure = ["/bin/sh", "-c", "echo $MMTUI_STATE $MMTUI_RUN_ID $MMTUI_REASON"]
keys = ["queue=Q,f4", "filter=?", "help=f1", "cancel=X", "new=N,insert"]
rows = 7
"""
MINE = """\
description: "my own, from nothing"
seed: 3
data: {kind: shapes, height: 48, width: 48, train: 8, val: 4}
model: {backbone: tiny_vgg, head_channels: 32, fc_channels: 0, extra_channels: 0}
match: {steps: 40, images: 4, patches_per_image: 5, crop: 48, patch_size: [16, 32], output_size: 32, optim: {lr: 0.02}}
segment: {steps: 20, batch_size: 4, crop: 48, pixels: 64, optim: {milestones: [0.5, 0.75]}}
evaluate: {batch_size: 2}
runtime: {halve_on_oom: false, log_every: 2}
reference: {miou: 42.5, per_class: {disc: 60.0}, source: "nowhere"}
"""
WIDE = """\
base: mine
description: "the same, wide, with a base of my own"
model: {width: 0.5}
segment: {steps: 30, scale_jitter: [0.8, 1.25], colour_jitter: 0.1}
runtime: {halve_on_oom: true, data_cache: "", memory_budget_gib: 2}
"""
SHIPPED = """\
base: shapes_baseline
description: "with a base that is shipped"
segment: {steps: 12}
"""


def mmtui(*words: str) -> str:
    """Run one command line; its output."""
    done = command(*words)
    if done.returncode:
        raise SystemExit(f"{words} left with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def command(*words: str, home: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run one command line, in an environment that has nothing of whoever runs this."""
    names = {"MMTUI_HOME": str(home), "MMTUI_CPU_SLOTS": "2", "LANG": "C.UTF-8", "TZ": "UTC"}
    environment = {"PATH": os.environ["PATH"], **names}
    line = [str(BIN / "mmtui"), *words]
    return subprocess.run(line, env=environment, cwd="/", capture_output=True, text=True, check=False)


def run(*words: str) -> str:
    """Queue a run; its ids."""
    return mmtui("run", *words, "-q").split()[-1]


def state(run_id: str) -> dict[str, Any]:
    return dict(json.loads(mmtui("show", run_id, "--json")))


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not happen")
        time.sleep(0.05)


def wait(*ids: str) -> None:
    until(lambda: all(state(i)["ended_at"] for i in ids), f"the end of {ids}")


def settings() -> None:
    """The user's own files."""
    shutil.rmtree(ROOT, ignore_errors=True)
    (ROOT / "recipes").mkdir(parents=True)
    ROOT.chmod(0o700)
    (ROOT / "config.toml").write_text(CONFIG)
    (ROOT / "recipes" / "mine.yaml").write_text(MINE)
    (ROOT / "recipes" / "mine_wide.yaml").write_text(WIDE)
    (ROOT / "recipes" / "mine_shipped.yaml").write_text(SHIPPED)


def trained() -> None:
    """Runs 1 to 6: all stages, a sweep that shares them, a fork, a failure, two attempts."""
    smoke = ("shapes_smoke", *TINY, *PROXY, *MATCH, "runtime.keep_every=5", "runtime.graph_every=5")
    wait(run(*smoke, "--name", "first", "--tag", "paper table 1", "--tag", "pinned", "--group", "study", "--seed", "4"))
    mixed = ("shapes_mixmatch", *TINY, *MATCH, "runtime.log_every=2", "runtime.graph_every=4")
    short = ("match.steps=8", "segment.steps=60", "segment.eval_every=20")
    wait("2", run(*mixed, *short, "segment.optim.lr=0.1,0.01", "--budget", "20h", "--tag", "lr"))
    wait(run("--from", f"{FINISHED}@25", "segment.optim.lr=0.02", "--name", "child of first"))
    wait(run("shapes_baseline", *TINY, "segment.steps=20", "segment.optim.lr=1e30", "--name", "too fast"))
    assert state("5")["state"] == "failed", state("5")
    resumed(run(*mixed, "match.steps=200", "segment.steps=60", "--name", "two attempts", "--priority", "2"))


def resumed(run_id: str) -> None:
    """Pause and resume a run."""
    assert run_id == RESUMED, run_id
    paused(run_id)
    mmtui("resume", run_id)
    wait(run_id)


def paused(run_id: str) -> None:
    until(lambda: state(run_id)["progress"] > 0.1, "a tenth of the run")
    mmtui("pause", run_id)
    until(lambda: state(run_id)["state"] == "paused", "the pause")


def stopped() -> None:
    """Runs 7 to 10: paused, killed and cancelled, out of time, in the trash."""
    mixed = ("shapes_mixmatch", *TINY, *MATCH, "runtime.log_every=10", "runtime.graph_every=100")
    last = run(
        *mixed, "match.steps=300", "segment.steps=60", "--seed", "5", "--name", "paused", "runtime.reuse_stages=false"
    )
    assert last == PAUSED, last
    paused(last)
    killed(run("shapes_baseline", *TINY, "segment.steps=400", "runtime.checkpoint_every=80", "--name", "killed"))
    interrupted(
        run("shapes_baseline", *TINY, "segment.steps=2000", "runtime.checkpoint_every=20", "--name", "given up")
    )
    gone = run("shapes_baseline", *TINY, "segment.steps=4", "--name", "thrown away")
    assert gone == TRASHED, gone
    wait(gone)
    mmtui("rm", gone)


def interrupted(run_id: str) -> None:
    """A trainer that dies again and again, until it is given up."""
    steps = ROOT / "runs" / run_id / "checkpoints" / "segment"
    until(lambda: any(steps.glob("step_*")), "a checkpoint")
    until(lambda: gone(run_id), "the interruption")


def gone(run_id: str) -> bool:
    """Whether a run has been given up; kills its trainer if it has one."""
    with closing(sqlite3.connect(ROOT / "mmtui.db")) as connection:
        sql = "SELECT pid FROM attempts WHERE run_id = ? AND ended_at IS NULL AND pid IS NOT NULL"
        for (pid,) in connection.execute(sql, [run_id]).fetchall():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return bool(state(run_id)["state"] == "interrupted")


def killed(run_id: str) -> None:
    """A trainer dies between two checkpoints, and its run is cancelled before it goes on."""
    assert run_id == KILLED, run_id
    folder = ROOT / "runs" / run_id
    steps = folder / "checkpoints" / "segment"
    until(lambda: (steps / "step_00000160").is_dir(), "two checkpoints")
    mmtui("queue", "drain")
    with closing(sqlite3.connect(ROOT / "mmtui.db")) as connection:
        (pid,) = connection.execute("SELECT pid FROM attempts WHERE run_id = ?", [run_id]).fetchone()
    os.kill(pid, signal.SIGKILL)
    until(lambda: state(run_id)["state"] == "queued", "the kill")
    mmtui("cancel", run_id)
    mmtui("queue", "open")


def waiting() -> None:
    """Runs 11 to 16: held, queued in a closed queue, imported, forked of a fork."""
    mmtui("queue", "drain")
    run("shapes_baseline", *TINY, "--hold", "--name", HOSTILE, "--tag", "ünï cödé", "--gpus", "0.5")
    run("shapes_smoke", "--after", "11", "--if-failed", "cancel", "--delay", "36500d", "--priority", "5")
    run("shapes_mixmatch", "--group", "study", "--name", "x" * 200, "--time-limit", "2h", "seed=1")
    mmtui("edit", "13", "segment.steps=11", "seed=2")
    (ROOT / "foreign").mkdir()
    shutil.copy(ROOT / "runs/1/attempts/001/events.jsonl", ROOT / "foreign/events.jsonl")
    mmtui("import", str(ROOT / "foreign/events.jsonl"), "--name", "from elsewhere")
    shutil.rmtree(ROOT / "foreign")
    run("mine_wide", "--fail-fast", "--group", "mine", "--tag", "own")
    run("--from", "4", "evaluate.batch_size=2", "--hold")
    mmtui("mv", "15", "--top")


def words() -> None:
    """Notes, views, limits."""
    mmtui("note", FINISHED, "the best yet: margin 2.1\nsecond line, 中文")
    mmtui("tag", "2", "--add", "keep", "--remove", "lr")
    mmtui("view", "lost", "-F", "state = failed or state = cancelled", "-c", "reason,ended")
    mmtui("view", "by-lr", "--sort=-miou", "-c", "segment.optim.lr,miou", "--group", "sweep")
    mmtui("queue", "--limit", "study=1", "--limit", "mine=3", "--budget", "study=12.5")


def answer(question: tuple[str, ...]) -> dict[str, Any]:
    """What is printed, as JSON where it is, and how the command leaves."""
    done = command(*question)
    text = done.stdout
    return {"code": done.returncode, "answer": json.loads(text) if question[-1] == "--json" else text}


def answers() -> dict[str, Any]:
    """Asked twice: what differs of itself is no answer to keep."""
    first, second = ({name_of(q): masked(answer(q), str(ROOT)) for q in QUESTIONS} for _ in range(2))
    unsteady = lost(first, second)
    if unsteady:
        raise SystemExit("\n".join(unsteady))
    return first


def recipes() -> dict[str, Any]:
    """The user's recipes, resolved by the queue's own code."""
    from mmtui.paths import Home
    from mmtui.services.recipes import resolve

    names = ("mine", "mine_wide", "mine_shipped")
    return {name: resolve(name, (), Home(ROOT)).model_dump(mode="json") for name in names}


def continued(run_id: str) -> dict[str, Any]:
    """What the old engine makes of a run that was stopped: losses and the last evaluation."""
    copy = Path("/tmp/continued")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT / "runs" / run_id, copy)
    command = [sys.executable, "-m", "engine", "train", str(copy / "recipe.yaml"), "--run-dir", str(copy), "--quiet"]
    subprocess.run(command, cwd="/", check=True)
    attempts = sorted((copy / "attempts").iterdir())
    events = [json.loads(line) for line in (attempts[-1] / "events.jsonl").read_text().splitlines()]
    losses = {e["global_step"]: e["values"]["loss"] for e in events if e["kind"] == "metrics" and "loss" in e["values"]}
    (evaluation,) = [e["values"] for e in events if e["kind"] == "confusion" and e["stage"] == "evaluate"]
    shutil.rmtree(copy)
    return {"losses": losses, "matrix": evaluation["matrix"], "kinds": sorted({e["kind"] for e in events})}


def older(revision: str) -> None:
    """The database as it would have been under an older schema: the columns that it had."""
    from alembic import command
    from alembic.config import Config

    from mmtui.store import migrations

    target = ROOT.parent / "older" / f"{revision}.db"
    target.parent.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["database"] = target
    command.upgrade(config, revision)
    with closing(sqlite3.connect(target)) as copy:
        copy.execute("ATTACH ? AS whole", [str(ROOT / "mmtui.db")])
        for (table,) in copy.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall():
            if table not in ("alembic_version", "sqlite_sequence"):
                columns = ", ".join(f'"{row[1]}"' for row in copy.execute(f"PRAGMA main.table_info({table})"))
                copy.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM whole.{table}")
        copy.commit()
        copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def kept(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Names of this machine's users and processes are nobody's business; the reserve is empty space."""
    path = Path(info.name)
    if (
        path.name in ("reserve", "supervisor.lock", "migrate.lock", "mmtui.db-shm", "pid", "__pycache__")
        or path.suffix == ".sock"
    ):
        return None
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info if info.isreg() or info.isdir() or info.islnk() else None


def pack(target: Path, entries: Iterable[Path], root: Path) -> None:
    """An archive in the order of names."""
    with tarfile.open(target, "w:xz", preset=9) as archive:
        for entry in sorted(entries):
            archive.add(entry, str(entry.relative_to(root)), filter=kept)


def capsule() -> None:
    """A finished run in one file, made small, and what is told of it where it is taken in."""
    file = FOLDER / "capsule.tar"
    mmtui("export", FINISHED, "--to", "capsule", "-o", str(file))
    fresh = ROOT.with_name("fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    command("import", str(file), home=fresh)
    told = {name_of(words): json.loads(command(*words, home=fresh).stdout) for words in TAKEN_IN}
    write("taken_in.json", masked(told, str(fresh)))
    (FOLDER / "capsule.tar.xz").write_bytes(lzma.compress(file.read_bytes(), preset=9))
    file.unlink()


def write(name: str, value: Any) -> None:
    (FOLDER / name).write_text(json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def check() -> None:
    """The code is that of the commit, and the machine has no name."""
    import engine

    where = Path(engine.__file__).parent
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=where, capture_output=True, text=True, check=True).stdout
    if not head.startswith(COMMIT) or socket.gethostname() != "box":
        raise SystemExit(f"{where} is {head.strip()} on {socket.gethostname()}: see the first lines of this file")


def main() -> None:
    check()
    FOLDER.mkdir(exist_ok=True)
    for step in (settings, trained, stopped, waiting, words):
        step()
        print(step.__name__, flush=True)
    mmtui("daemon", "stop")
    capsule()
    write("answers.json", answers())
    write("recipes.json", recipes())
    write("continued.json", {run_id: continued(run_id) for run_id in (PAUSED, KILLED)})
    for revision in ("0001", "0002", "0003", "0004"):
        older(revision)
    pack(FOLDER / "home.tar.xz", ROOT.iterdir(), ROOT)
    pack(FOLDER / "older.tar.xz", (ROOT.parent / "older").iterdir(), ROOT.parent / "older")
    mmtui("restore", TRASHED)
    write("restored.json", masked(answer(("show", TRASHED, "--json")), str(ROOT)))


if __name__ == "__main__":
    main()
