"""Code that a run has brought along from elsewhere: it runs only if the user has asked for exactly that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.json_types import Json, JsonObject
from mmtui.errors import MmtuiError, RefusedError
from mmtui.paths import Home
from mmtui.services import code as frozen
from mmtui.services import runs

VERBS = ("resume", "retry", "release")
"""What lets a run start again with the code that it has."""


@dataclass(frozen=True)
class Brought:
    """Code from elsewhere; ``digest``: what it is now, every file of it."""

    folder: Path
    digest: str


class UntrustedCodeError(RefusedError):
    """A run would start code from elsewhere, and nobody has asked for that."""

    def __init__(self, run_id: str, found: Brought, verb: str) -> None:
        self.run_id, self.digest = run_id, found.digest
        super().__init__(
            f"run {run_id} came with code of its own (SHA-256 {found.digest}), which could do anything that you can do",
            f"look at it in {found.folder}; to run it nevertheless: mmtui {verb} {run_id} --trust-code {found.digest};"
            f" to go on with your own code: mmtui run --from {run_id}",
        )


def is_imported(home: Home, run_id: str) -> bool:
    """Whether a run came from elsewhere."""
    return home.run(run_id).imported.exists()


def brought(home: Home, run_id: str, code: Mapping[str, Json]) -> Brought | None:
    """The code that a run has brought along; None if it runs code of this installation, or has none."""
    if not is_imported(home, run_id) or frozen.is_own(home, code):
        return None
    full, short = str(code.get("sha256", "")), str(code.get("digest", ""))
    if frozen.FULL.fullmatch(full):
        folder = home.imported_code / full
    elif frozen.SHORT.fullmatch(short):
        folder = home.code / short  # taken in by a version that kept it beside one's own
    else:
        return None
    return Brought(folder, frozen.digest_of(frozen.files_of(folder))) if folder.is_dir() else None


def demand(
    home: Home, run_id: str, code: Mapping[str, Json], digest: str = "", verb: str = "retry"
) -> Mapping[str, Json]:
    """What a run's row is to say of its code once the user has asked for it.

    Args:
        digest: the code that was asked for.
        verb: what was asked of the run.

    Raises:
        UntrustedCodeError: it is from elsewhere, and not that one.
    """
    found = brought(home, run_id, code)
    if found is None or code.get("trusted") == found.digest:
        return code
    if digest != found.digest:
        raise UntrustedCodeError(run_id, found, verb)
    return {**code, "trusted": found.digest}


def untrusted(home: Home, run_ids: Sequence[str]) -> dict[str, str]:
    """SHA-256 of the code from elsewhere that runs would start with unasked, by run."""
    found = {}
    for run_id in run_ids:
        if is_imported(home, run_id):
            try:
                demand(home, run_id, runs.get_run(home, run_id).code)
            except UntrustedCodeError as error:
                found[run_id] = error.digest
    return found


def startable(home: Home, run_id: str, code: Mapping[str, Json]) -> frozen.FrozenCode:
    """The code that a run's trainer may load.

    Code that an earlier version has named by 16 characters is checked by them; its whole digest is what lies there now.

    Raises:
        UntrustedCodeError: it is from elsewhere, and nobody has asked for it.
        MmtuiError: it is gone or was changed.
    """
    found = brought(home, run_id, code)
    if found is None:
        folder = frozen.own_folder(home, code)
        return frozen.FrozenCode(folder, str(code.get("sha256") or frozen.digest_of(frozen.files_of(folder))))
    demand(home, run_id, code)
    if found.folder.name not in (found.digest, code.get("digest")):
        raise MmtuiError(f"the imported code {found.folder} was changed", "import the capsule again")
    # Whatever is compiled there did not come with the digest.
    frozen.without_bytecode(found.folder)
    return frozen.FrozenCode(found.folder, found.digest)


def told_by(manifest: Mapping[str, Json], imported: Path) -> JsonObject:
    """A run's ``code`` as its folder tells it; of one from elsewhere nothing is believed but what was seen here."""
    told = manifest.get("code")
    told = told if isinstance(told, dict) else {}
    patterns = {"digest": frozen.SHORT, "sha256": frozen.FULL, "commit": frozen.COMMIT}
    found = {name: told[name] for name, right in patterns.items() if right.fullmatch(str(told.get(name)))}
    if isinstance(told.get("dirty"), bool):
        found["dirty"] = told["dirty"]
    if isinstance(told.get("diff"), str) and not imported.exists():
        found["diff"] = told["diff"]
    if imported.exists():
        seen = json.loads(imported.read_text()).get("code")
        found.pop("sha256", None)
        if isinstance(seen, str) and frozen.FULL.fullmatch(seen):
            # Its short name stays, which taking it in has checked.
            found = {"digest": seen[: frozen.DIGEST_CHARACTERS]} | found | {"sha256": seen}
    return found
