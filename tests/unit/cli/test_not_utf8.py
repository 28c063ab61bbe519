"""Bytes that are no UTF-8, in arguments, names of files, the home and the folder one is in: kept and shown spelled out.

docs/architecture.md has no row for it, because there is one place for each half: ``engine.text.as_text`` for what is
stored, ``engine.config.file_names`` for paths in recipes.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.text import as_text
from mmtui.domain.text import printable, stored_text
from mmtui.paths import Home
from mmtui.store.reader import Reader
from tests.unit.cli.conftest import Invoke

ROOT = Path(__file__).resolve().parents[3]
NAME = os.fsdecode(b"caf\xe9")
SPELLED = "caf\\xe9"
ODD = (NAME, os.fsdecode(b"\xff\xfe=\x80"))
VERBS: tuple[tuple[str, ...], ...] = (
    ("run", "shapes_mixmatch", "--hold", "--name", "@", "--tag", "@", "--group", "@"),
    ("run", "shapes_mixmatch", "--hold", "name=@"),
    ("run", "shapes_mixmatch", "--hold", "data.root=@"),
    ("run", "shapes_mixmatch", "--hold", "runtime.data_cache=@"),
    ("run", "shapes_mixmatch", "--hold", "name=@,b"),
    ("run", "shapes_mixmatch", "--hold", "@=1"),
    ("run", "shapes_mixmatch", "--hold", "--launcher", "slurm", "--slurm", "partition=@"),
    *(("run", "shapes_mixmatch", option, "@") for option in ("--if-failed", "--launcher", "--delay", "--after")),
    *(("run", option) for option in ("@", "@.yaml", "--from=@")),
    ("tag", "1", "--add", "@"),
    ("tag", "1", "--remove", "@"),
    ("note", "1", "@"),
    *(("ls", "-F", text) for text in ("tag = @", 'tag ~ "@"', "name ~/@/", "@ = 1", 'note = "@"')),
    *(("ls", option, "@") for option in ("--sort", "--columns", "--state", "--view", "--group")),
    *(("ls", "-a", "-c", "tag,name,note,group", *form) for form in ((), ("--csv",), ("--md",), ("--json",))),
    ("view", "@", "-F", "name = @", "-c", "@", "--sort", "@"),
    ("view",),
    ("view", "@"),
    ("view", "@", "-r"),
    *(("query", "SELECT name, tags, note, '@' FROM runs WHERE name = '@'", *form) for form in ((), ("--csv",))),
    ("query", 'SELECT name AS "@" FROM runs', "--json"),
    ("best", "--max", "@"),
    ("compare", "1", "2", "--columns", "tag,name,@"),
    *(
        (verb, "@")
        for verb in [
            "show",
            "logs",
            "classes",
            "metrics",
            "wait",
            "cancel",
            "watch",
            "recipes",
            "cache",
            "config",
            "completion",
            "gpu",
        ]
    ),
    *(
        (verb, "@")
        for verb in [
            "pause",
            "resume",
            "retry",
            "hold",
            "release",
            "rm",
            "restore",
            "edit",
            "export",
            "import",
            "backup",
            "report",
        ]
    ),
    ("show", "1", "--json"),
    ("metrics", "1", "-m", "@"),
    ("queue", "--limit", "@=2"),
    ("queue", "--budget", "@=20h"),
    ("queue", "drain", "@"),
    ("queue",),
    ("mv", "1", "@"),
    ("priority", "@", "1"),
    ("diff", "1", "@"),
    ("report", "1", "--html", "@.html"),
    ("figures", "1", "-o", "drawn @"),
    ("export", "1", "--to", "csv", "-o", "@.csv"),
    ("export", "1", "--to", "jsonl", "-o", "@.jsonl"),
    ("export", "1", "--to", "@", "-o", "x"),
    ("backup", "@.db"),
    ("purge", "--unused", "@"),
    ("daemon", "@"),
    ("--color", "@", "ls"),
    ("@",),
    ("ls", "--@"),
)


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_every_verb_answers_with_a_sentence_or_with_what_was_asked(
    odd: str, populated: Home, mmtui_: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for argv in VERBS:
        outcome = mmtui_(*(word.replace("@", odd) for word in argv))
        assert outcome.code in (0, 2, 4, 5), (argv, outcome)
        (outcome.out + outcome.err).encode()
        assert "surrogate" not in outcome.err and "codec" not in outcome.err, (argv, outcome)


def test_names_tags_and_notes_are_kept_and_found_again(populated: Home, mmtui_: Invoke) -> None:
    run_id = mmtui_("run", "shapes_mixmatch", "--hold", "--name", NAME, "--tag", NAME, "-q").out.strip()
    assert mmtui_("note", run_id, NAME).code == 0
    for text in (f'name = "{NAME}"', f'tag = "{NAME}"', f'note ~ "{NAME}"'):
        (found,) = mmtui_("ls", "-F", text, "--json", "-c", "name,tag,note").json()["runs"]
        assert (found["id"], found["columns"]) == (run_id, {"name": SPELLED, "tag": SPELLED, "note": SPELLED})
    assert mmtui_("query", f"SELECT id FROM runs WHERE name = '{NAME}'", "--csv").out == f"id\n{run_id}\n"
    assert mmtui_("tag", run_id, "--remove", NAME).err.endswith("no tags\n")


@pytest.mark.parametrize(
    ("verb", "made"),
    [
        (("export", "1", "--to", "csv", "-o", f"{NAME}.csv"), b"caf\xe9.csv"),
        (("backup", f"{NAME}.db"), b"caf\xe9.db"),
        (("report", "1", "--html", f"{NAME}.html"), b"caf\xe9.html"),
    ],
)
def test_files_have_the_name_that_was_given(
    verb: tuple[str, ...], made: bytes, populated: Home, mmtui_: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = mmtui_(*verb)
    assert outcome.code == 0, outcome.err
    assert os.fsdecode(made) in {file.name for file in tmp_path.iterdir()}
    assert SPELLED in outcome.out


def test_a_tag_that_an_older_version_kept_hides_no_run(populated: Home, mmtui_: Invoke) -> None:
    with sqlite3.connect(populated.database) as connection:
        connection.execute("UPDATE runs SET tags = ? WHERE id = 1", [json.dumps([NAME])])
        connection.execute("UPDATE runs SET note = CAST(x'636166e9' AS TEXT) WHERE id = 2")
    outcome = mmtui_("ls", "-c", "tag,note", "--json")
    assert [run["id"] for run in outcome.json()["runs"]] == ["3", "2", "1"], outcome.err
    assert [run["columns"]["note"] for run in outcome.json()["runs"]] == [None, SPELLED, None]
    assert outcome.json()["runs"][2]["columns"]["tag"] == SPELLED
    with Reader(populated) as reader:
        assert reader.rows([1])[0].tags == (SPELLED,)


def test_a_cell_that_is_no_utf8_ends_no_export(populated: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    with sqlite3.connect(populated.database) as connection:
        connection.execute(
            "INSERT INTO metrics (run_id, name, attempt, stage, step, global_step, t, value)"
            " VALUES (1, 'odd', 1, CAST(x'636166e9' AS TEXT), 1, 1, 0, 0.5)"
        )
    outcome = mmtui_("export", "1", "--to", "csv", "-o", str(tmp_path / "points.csv"))
    assert outcome.code == 0, outcome.err
    lines = (tmp_path / "points.csv").read_text().splitlines()
    assert [line.split(",")[2:5] for line in lines if ",odd," in line] == [["odd", SPELLED, "1"]]


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8:strict"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["C", "strict", "ascii"],
)
def test_home_and_folder_may_be_no_utf8_in_any_locale(locale: dict[str, str], populated: Home, tmp_path: Path) -> None:
    home, folder = (tmp_path / os.fsdecode(name) for name in (b"h\xe9me", b"w\xe9rk"))
    populated.root.rename(home)
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}

    def ask(*argv: bytes, err: bool = False) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "mmtui", *argv],
            env={**environment, **locale, "MMTUI_HOME": str(home), "PYTHONPATH": str(ROOT)},
            cwd=folder,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, (argv, done.stderr)
        return (done.stderr if err else done.stdout).decode("utf-8")

    assert ask(b"run", b"shapes_mixmatch", b"--hold", b"--name", b"caf\xe9 \xc3\xa9", b"-q") == "4\n"
    assert json.loads(ask(b"ls", b"-n", b"1", b"--json"))["runs"][0]["name"] == f"{SPELLED} é"
    assert "h\\xe9me" in ask(b"show", b"4")
    assert "w\\xe9rk/caf\\xe9.csv" in ask(b"export", b"1", b"--to", b"csv", b"-o", b"caf\xe9.csv")
    assert ask(b"ls", b"--csv", b"-c", b"tag", b"-F", b"name ~ \xc3\xa9").startswith("id,state,name,tag\n4,held,")


def test_in_a_locale_without_utf8_names_stay_apart_and_name_their_files(populated: Home, tmp_path: Path) -> None:
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    data = tmp_path / "dàta"
    for split in ("train", "val"):
        for folder, shape in (("images", (32, 32, 3)), ("labels", (32, 32))):
            (data / folder / split).mkdir(parents=True)
            pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape) % (2 if folder == "labels" else 251)
            Image.fromarray(pixels + (split == "val" and folder == "images")).save(data / folder / split / "a.png")
    (data / "classes.txt").write_text("left\nright\n")
    (tmp_path / "small.yaml").write_text(f"data: {{kind: folder, root: {data}}}\nsegment: {{steps: 1}}\n")

    def ask(*argv: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "mmtui", *argv],
            env={**os.environ, **locale, "MMTUI_HOME": str(populated.root), "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            check=True,
        )
        return done.stdout.decode("ascii")

    assert ask("run", "small.yaml", "--hold", "--name", "日本", "-q") == "4\n"
    assert ask("run", "small.yaml", "--hold", "--name", "日木", "-q") == "5\n"
    listed = ask("ls", "-n", "2")
    assert "\\u65e5\\u672c" in listed and "\\u65e5\\u6728" in listed
    assert json.loads(ask("show", "4", "--json"))["config"]["data"]["root"] == str(data)


def test_completion_survives_such_words_and_such_recipes(populated: Home, tmp_path: Path) -> None:
    (populated.root / "recipes").mkdir()
    (populated.root / "recipes" / f"{NAME}.yaml").write_text("{}")
    for words, at in ((b"mmtui run ", b"2"), (b"mmtui run caf\xe9", b"2"), (b"mmtui show caf\xe9", b"2")):
        environment = {**os.environb, b"_MMTUI_COMPLETE": b"complete_bash", b"COMP_WORDS": words, b"COMP_CWORD": at}
        done = subprocess.run(
            [sys.executable, "-m", "mmtui"], env=environment, cwd=tmp_path, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"caf" not in done.stdout


def test_recipes_of_such_a_name_are_listed_and_run(populated: Home, mmtui_: Invoke) -> None:
    (populated.root / "recipes").mkdir()
    (populated.root / "recipes" / f"{NAME}.yaml").write_text("base: shapes_smoke\n")
    assert SPELLED in mmtui_("recipes").out
    assert any(recipe["name"] == NAME for recipe in mmtui_("recipes", "--json").json()["recipes"])
    run_id = mmtui_("run", NAME, "--hold", "-q").out.strip()
    assert mmtui_("show", run_id, "--json").json()["recipe"] == SPELLED


def test_one_form_for_all_of_it() -> None:
    assert as_text(NAME) == printable(NAME) == stored_text(b"caf\xe9") == SPELLED
    assert as_text("é – 漢") == "é – 漢"
    assert stored_text(NAME.encode("utf-8", "surrogatepass")) == SPELLED
    assert as_text("\ud83d") == printable("\ud83d") == "\\ud83d"
