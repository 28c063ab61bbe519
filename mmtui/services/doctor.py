"""Is everything as it should be, and if not, what to do."""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mmtui.access import remedy
from mmtui.domain.text import size
from mmtui.errors import MmtuiError
from mmtui.paths import Home
from mmtui.services import devices, leftovers, pending_edits, recipes, replacement, supervisors, unfinished
from mmtui.settings import SettingsError, load
from mmtui.store.queries import damaged, known
from mmtui.store.schema import damage, lost, schema_revision, sqlite_version
from mmtui.store.session import reading

LOW_DISK = 2 * 2**30
_RESTORE = "mmtui doctor --fix (the newest sound backup, and what came after it from the run folders)"
_WHOLE = "mmtui doctor --fix, or take a backup: mmtui backup --restore FILE"
_FINISH = "mmtui doctor --fix (what only the old one tells: notes, tags, limits)"
_REBUILD = "mmtui doctor --fix (from the run folders)"
_NO_DAMAGE = "nothing shows that it is damaged: end what holds it, or make it readable, then look again"
_SETTLED = 10.0
_FEW = 10
_SAFE_SQLITE = (3, 51, 3)
_BACKPORTS = ((3, 44, 6), (3, 50, 7))
_NETWORK_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "lustre", "gpfs"})


@dataclass(frozen=True)
class Check:
    """One finding. ``ok`` is None for what is worth knowing but no fault."""

    name: str
    ok: bool | None
    text: str
    fix: str = ""


def checks(home: Home) -> list[Check]:
    """Every check, in the order worth reading; of a home that is closed to us no more than that."""
    first = [_python(), _packages(), _home(home)]
    if first[-1].ok is False and not os.access(home.root, os.R_OK | os.X_OK):
        return first
    found = [*first, _settings(home), _filesystem(home), _disk(home), _sqlite(), _database(home)]
    for name, check in _OF_FILES:
        try:
            found += check(home)
        except PermissionError as error:
            closed = error.filename or home.root
            found.append(Check(name, False, f"{closed}: {error.strerror}", remedy(closed)))
    return [*found, _gpu(home), _linger(), _recipes(home)]


def _python() -> Check:
    version = platform.python_version()
    return Check("python", sys.version_info >= (3, 11), f"{version} at {sys.executable}", "use Python 3.11 or newer")


def _packages() -> Check:
    found = []
    for name in ("torch", "textual", "sqlmodel", "nvidia-ml-py"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            return Check("packages", False, f"{name} is not installed", f"pip install {name}")
    return Check("packages", True, ", ".join(found))


def _home(home: Home) -> Check:
    if not os.access(home.root, os.R_OK | os.X_OK) and home.root.is_dir():
        return Check("home", False, f"{home.root} is closed to you", remedy(home.root))
    if not home.root.exists():
        return Check("home", None, f"{home.root} does not exist yet; the first run makes it")
    if not os.access(home.root, os.W_OK):
        return Check("home", False, f"{home.root} cannot be written", remedy(home.root))
    mode = stat.S_IMODE(home.root.stat().st_mode)
    if mode & 0o077:
        return Check("home", False, f"{home.root} is open to others ({mode:o})", f"chmod 700 {home.root}")
    return Check("home", True, f"{home.root}, private to you")


def _settings(home: Home) -> Check:
    try:
        load(home.config)
    except SettingsError as error:
        return Check("settings", False, str(error), f"mend or remove {home.config}")
    return Check("settings", True, str(home.config) if home.config.exists() else "defaults")


def _filesystem(home: Home) -> Check:
    kind = _filesystem_kind(home.root)
    if kind in _NETWORK_FILESYSTEMS:
        text = f"{home.root} is on {kind}; SQLite's WAL needs a local disk"
        return Check("file system", False, text, "set MMTUI_HOME to a local folder")
    return Check("file system", True, kind or "unknown")


def _filesystem_kind(path: Path) -> str:
    best = ("", "")
    path = path.resolve()
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    for mount in mounts:
        _, point, kind, *_ = mount.split()
        if (str(path) + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def _disk(home: Home) -> Check:
    folder = home.root
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return Check("disk", free >= LOW_DISK, f"{size(free)} free", f"free at least {size(LOW_DISK)} for checkpoints")


def _sqlite() -> Check:
    text, version = sqlite_version()
    safe = version >= _SAFE_SQLITE or version[:2] in [b[:2] for b in _BACKPORTS if version >= b]
    if not safe:
        text += " (has the WAL-reset fault; mmtui avoids it: only the supervisor checkpoints)"
    return Check("sqlite", True if safe else None, text)


def _database(home: Home) -> Check:
    try:
        if schema_revision(home.database) is None:
            sentence = lost(home)
            return Check("database", False if sentence else None, sentence or "none yet", _REBUILD)
        with reading(home) as reader:
            problem = damaged.quick_check(reader)
            missing = _missing(home)
            if problem == "ok" and missing:
                return Check("database", False, missing, _WHOLE)
            if begun := replacement.unfinished(home):
                return Check(
                    "database", False, f"its replacement was interrupted; the old one is {begun.kept}", _FINISH
                )
            runs = len(reader.ids())
    except MmtuiError as error:
        if damage(home.database):
            return Check("database", False, error.message, _RESTORE)
        return Check("database", False, error.message, error.hint or _NO_DAMAGE)
    return Check("database", problem == "ok", f"{runs} run{'' if runs == 1 else 's'}, {problem}", _RESTORE)


def _missing(home: Home) -> str:
    """What the database lacks of its schema, in a sentence; "" if nothing."""
    from mmtui.store import wholeness  # loads SQLAlchemy

    return wholeness.sentence(home.database, wholeness.lacking(home.database))


def _run_folders(home: Home) -> list[Check]:
    """Folders that no row speaks of, and rows whose folder is gone."""
    try:
        if schema_revision(home.database) is None:
            rows, shown = set[int](), set[int]()
        else:
            with reading(home) as reader:
                reasons = known.reasons(reader)
                rows = {run_id for run_id, text in reasons.items() if not unfinished.is_abandoned(text)}
                shown = set(reader.ids())
    except MmtuiError:
        return []  # the database itself is the fault, and told already
    there = _numbered(home.runs)
    # Whoever queues a run right now makes the one before the other. Ages are below 0 when the clock was set back.
    lost = sorted(number for number, age in there.items() if number not in rows and abs(age) > _SETTLED)
    gone = sorted(shown - there.keys())
    in_trash = [number for number in gone if (home.trash / str(number)).exists()]
    return [
        Check("folders", not lost, _listed(lost, "run folder", "not in the database"), "mmtui doctor --fix"),
        Check("files", not gone, _listed(gone, "run", "without its folder"), _cure_of_files(gone, in_trash)),
    ]


def _cure_of_files(gone: Sequence[int], in_trash: Sequence[int]) -> str:
    if in_trash:
        return "mmtui doctor --fix (their files are in the trash)"
    return f"mmtui rm {' '.join(map(str, gone))}"


def _edits(home: Home) -> Check:
    """Edits of waiting runs that ended between the row and the files."""
    ids = pending_edits.unsettled(home)
    text = f"edits of {_listed([int(i) for i in ids], 'run', 'half done')}" if ids else "every edit is whole"
    return Check("edits", not ids, text, "mmtui doctor --fix")


def _leftovers(home: Home) -> Check:
    """What interrupted commands have left: it takes room and does no harm."""
    found, halves = leftovers.look(home), _never_whole(home)
    if not found and not halves:
        return Check("leftovers", True, "interrupted commands have left nothing")
    free, texts = [one for one in found if one.free], list[str]()
    if halves:
        texts.append(f"{_listed(halves, 'run', 'never became whole')}; to remove what is there: mmtui purge --yes")
    if free:
        kinds = ", ".join(dict.fromkeys(one.what for one in free[:_FEW]))
        room = size(sum(leftovers.bytes_of(one.path) for one in free))
        texts.append(f"{room} of {kinds}; to free it: mmtui purge --yes")
    if len(free) < len(found):
        texts.append(leftovers.may_go_on(found))
    return Check("leftovers", None, ". ".join(texts))


def _never_whole(home: Home) -> list[int]:
    try:
        return unfinished.abandoned(home)
    except MmtuiError:
        return []  # the database itself is the fault, and told already


def _rows(home: Home) -> list[Check]:
    """Rows of runs with cells that are not what they should be."""
    try:
        with reading(home) as reader:
            found = damaged.runs(reader)
    except MmtuiError:
        return []  # the database itself is the fault, and told already
    text = "; ".join(f"run {one.run_id} has a damaged {', '.join(one.columns)}" for one in found[:_FEW])
    return [Check("rows", not found, text or "every run can be read", _REBUILD)]


def _numbered(folder: Path) -> dict[int, float]:
    """Folders with a number for a name, and their ages in seconds."""
    now = time.time()
    found: dict[int, float] = {}
    entries: list[Path] = []
    with suppress(FileNotFoundError, NotADirectoryError):
        entries = list(folder.iterdir())
    for entry in entries:
        with suppress(FileNotFoundError):  # a run that is just removed
            known = entry.stat()
            if re.fullmatch("[0-9]{1,15}", entry.name) and stat.S_ISDIR(known.st_mode):
                found[int(entry.name)] = now - known.st_ctime
    return found


def _listed(numbers: Sequence[int], noun: str, what: str) -> str:
    if not numbers:
        return f"every {noun} is accounted for"
    shown = ", ".join(map(str, numbers[:_FEW])) + (", ..." if len(numbers) > _FEW else "")
    return f"{len(numbers)} {noun}{'' if len(numbers) == 1 else 's'} {what}: {shown}"


def _supervisor(home: Home) -> Check:
    found = supervisors.status(home)
    if found.running:
        text = f"runs (pid {found.pid}), {found.active_runs} active, {found.queued_runs} queued"
        return Check("supervisor", True, text)
    if found.note:
        reason, _, cure = found.note.rpartition("; run: ")
        return Check("supervisor", False, reason, cure)
    waiting = found.active_runs + found.queued_runs
    text = f"does not run; {waiting or 'no'} run{'' if waiting == 1 else 's'} waiting for it"
    return Check("supervisor", False if waiting else None, text, "mmtui daemon start")


def _gpu(home: Home) -> Check:
    found = devices.snapshot(home)
    if not found.gpus:
        return Check("gpu", None, f"{found.gpu_note}; runs train on the CPU ({found.cpu_count} cores)")
    lost = [gpu for gpu in found.gpus if gpu.lost]
    label = " (simulated)" if found.simulated else ""
    text = ", ".join(gpu.name for gpu in found.gpus) + label
    return Check("gpu", not lost, text, "a GPU is lost: see dmesg, reboot")


def _linger() -> Check:
    if not Path("/run/systemd/system").is_dir():
        return Check("logout", None, "no systemd here; runs outlive the terminal")
    user = os.environ.get("USER", "")
    if Path(f"/var/lib/systemd/linger/{user}").exists() or os.geteuid() == 0:
        return Check("logout", True, "runs outlive your logout")
    return Check(
        "logout", None, "systemd may end your processes at logout (KillUserProcesses)", "loginctl enable-linger"
    )


def _recipes(home: Home) -> Check:
    found = recipes.list_recipes(home)
    broken = [view for view in found if view.error]
    if broken:
        return Check("recipes", False, broken[0].error, "mend or remove the file")
    return Check("recipes", bool(found), f"{len(found)} recipes load", "install mmtui again: its recipes are missing")


_OF_FILES: tuple[tuple[str, Callable[[Home], list[Check]]], ...] = (
    ("folders", _run_folders),
    ("rows", _rows),
    ("edits", lambda home: [_edits(home)]),
    ("leftovers", lambda home: [_leftovers(home)]),
    ("supervisor", lambda home: [_supervisor(home)]),
)
"""Checks that look into folders of the home, any of which may be closed to us."""
