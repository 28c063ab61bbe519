"""Capsules that are broken or hostile: refused in one sentence, or a run like any other; nothing else is touched."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmtui.paths import Home
from tests.fuzz.mutations import changed, each, seeds, text
from tests.fuzz.watch import Watch
from tests.hostile import mutated
from tests.unit.cli.conftest import FAULT

Invoke = Callable[..., Any]
Members = dict[str, bytes]
REFUSED = (2, 5)
KINDS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE)
NAMES = (
    "run/../../../escaped",
    "/tmp/escaped",
    "run//x",
    "run/./x",
    "run/checkpoints/segment/final/../../../../../x",
    "run/run.json/x",
    "run/attempts/1/events.jsonl",
    "run/attempts/999999999/events.jsonl",
    "code/sitecustomize.py",
    "code/engine/__pycache__/loop.cpython-311.pyc",
    "code/torch/__init__.py",
    "run/trainer.lock",
    "run/imported.json",
    "run/\udcff",
    "run/e\u0301",
    "run/" + "x" * 300,
    "run/" + "y/" * 500 + "z",
    "capsule.json",
)


def members_of(file: Path) -> Members:
    with tarfile.open(file) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive if m.isreg()}  # type: ignore[union-attr]


def packed(members: Members, odd: tarfile.TarInfo | None = None) -> bytes:
    """An archive whose header has the sums of what is in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if odd is not None:
            archive.addfile(odd, io.BytesIO(b"\0" * odd.size))
    return out.getvalue()


def summed(members: Members) -> Members:
    """The members with a header whose sums are right: what is wrong is elsewhere."""
    header = json.loads(members["capsule.json"])
    others = {name: content for name, content in members.items() if name != "capsule.json"}
    header["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in others.items()}
    return {"capsule.json": json.dumps(header).encode(), **others}


def with_header(members: Members, chosen: random.Random) -> bytes:
    header = mutated(json.loads(members["capsule.json"]), chosen.randrange(2**40))
    try:
        return packed({**members, "capsule.json": json.dumps(header).encode("utf-8", "surrogatepass")})
    except (UnicodeEncodeError, ValueError):
        return b""


def with_file(members: Members, chosen: random.Random) -> bytes:
    """A file of the run is another one, and the sums know it."""
    name = chosen.choice([name for name in members if name.startswith("run/")])
    content = changed(members[name], chosen)
    if chosen.random() < 0.5 and name.endswith(".json"):
        content = json.dumps(mutated(json.loads(members[name]), chosen.randrange(2**40))).encode()
    return packed(summed({**members, name: content}))


def with_name(members: Members, chosen: random.Random) -> bytes:
    name = chosen.choice(NAMES) if chosen.random() < 0.7 else f"run/{text(chosen)[:200]}"
    name = name.replace("\0", "").replace("\ud800", "")
    header = json.loads(members["capsule.json"])
    header["files"][name] = hashlib.sha256(b"x").hexdigest()
    return packed({**members, "capsule.json": json.dumps(header).encode(), name: b"x"})


def with_kind(members: Members, chosen: random.Random) -> bytes:
    odd = tarfile.TarInfo(chosen.choice(("run/odd", "run/checkpoints", "code/engine/loop.py", "run/recipe.yaml")))
    odd.type, odd.linkname = chosen.choice(KINDS), chosen.choice(("/etc/passwd", "../../..", "run/run.json"))
    return packed(members, odd)


HARMS: tuple[Callable[[Members, random.Random], bytes], ...] = (
    lambda members, chosen: changed(packed(members), chosen),
    with_header,
    with_file,
    with_name,
    with_kind,
)


def inside(home: Home) -> set[str]:
    """Everything in a data directory but the database and what locks it."""
    return {str(path.relative_to(home.root)) for path in home.root.rglob("*") if not path.name.startswith("mmtui.db")}


@pytest.mark.parametrize("harm", HARMS, ids=["bytes", "header", "file", "name", "kind"])
def test_hostile_capsules_are_refused_or_runs_like_any_other(
    capsule: Path, elsewhere: Home, mmtui_: Invoke, tmp_path: Path, watch: Watch, harm: Callable[..., bytes]
) -> None:
    members = members_of(capsule)
    assert mmtui_("import", str(capsule)).code == 0  # makes the data directory
    here, refused = inside(elsewhere), 0
    for seed, chosen in each(seeds(6), "capsules"):
        content = harm(members, chosen)
        capsule.write_bytes(content)
        with watch.input(elsewhere.root, starts=["git"]):
            found = mmtui_("import", str(capsule))
        assert FAULT not in found.err, seed
        if found.code:
            assert found.code in REFUSED and "\nerror: " in f"\n{found.err}", (seed, found)
            assert inside(elsewhere) == here, seed
            refused += 1
        else:
            for verb in (["show", found.out.strip()], ["ls", "-a", "--json"], ["logs", found.out.strip()]):
                told = mmtui_(*verb)
                # What was added may be an attempt that has printed nothing.
                silent = verb[0] == "logs" and told.code == 4 and "has printed nothing yet" in told.err
                assert told.code == 0 or silent, (seed, verb, told)
            here = inside(elsewhere)
    assert refused
    assert not (tmp_path / "escaped").exists()
