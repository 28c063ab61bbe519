"""python -m engine as a program: exit codes, what goes to stdout and stderr, two trainers in one directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from engine.__main__ import main
from engine.config import Recipe, dump_recipe
from tests.waiting import until

Make = Callable[..., Recipe]
ROOT = Path(__file__).resolve().parents[3]


class Runner(Protocol):
    run_dir: Path

    def start(self, recipe: Recipe, *options: str) -> subprocess.Popen[str]: ...
    def finish(self, recipe: Recipe, *options: str) -> tuple[int, str, str]: ...
    def events(self, attempt: int | None = None) -> list[dict[str, Any]]: ...


def test_main_check_recipe_prints_the_resolved_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-recipe", "shapes_smoke", "--set", "seed=5"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 5


def test_main_bad_recipe_exits_2_with_one_sentence_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from engine.__main__ import main;"
        "c = main(['train', 'shapes_smoke', '--run-dir', sys.argv[1], '--set', 'segment.stepz=1']);"
        "sys.exit(c if 'torch' not in sys.modules else 99)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    told = "error: override 'segment.stepz=1': no key 'segment.stepz'; did you mean segment.steps?\n"
    assert (done.stdout, done.stderr) == ("", told)


def test_main_without_a_recipe_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["check-recipe"])
    assert caught.value.code == 2 and "give a recipe" in capsys.readouterr().err


def test_main_train_that_fails_tells_stderr_and_the_event_file(
    runner: Runner, make_recipe: Make, tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere"
    code, out, err = runner.finish(make_recipe(data={"kind": "folder", "root": str(nowhere)}))
    assert code == 1 and out == ""
    assert err.startswith(f"error: data.root {nowhere}") and err.count("\n") == 1
    assert [e["kind"] for e in runner.events()][-2:] == ["error", "run_finished"]
    error, finished = runner.events()[-2:]
    assert f"error: {error['values']['text']}\n" == err and error["values"]["type"] == "DataError"
    assert finished["values"] == {"status": "failed"}


def test_main_second_trainer_in_a_directory_leaves_without_a_trace(runner: Runner, make_recipe: Make) -> None:
    first = runner.start(make_recipe(match__steps=100_000, runtime__log_every=100_000))
    try:
        until(lambda: first.poll() is not None or (runner.run_dir / "attempts/001/events.jsonl").exists())
        assert first.poll() is None
        code, out, err = runner.finish(make_recipe())
        assert (code, out) == (1, "")
        assert err.startswith("error: another process is training in")
        assert not (runner.run_dir / "attempts/002").exists()
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()


def test_main_progress_goes_to_stdout_and_quiet_silences_it(tmp_path: Path, make_recipe: Make) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_recipe(make_recipe(proxy=None, evaluate=None)))
    command = [sys.executable, "-m", "engine", "train", "--recipe", "recipe.yaml", "--run-dir"]
    for name, options in (("told", []), ("quiet", ["--quiet"])):
        done = subprocess.run(
            [*command, name, *options],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        first = done.stdout.splitlines()[:1]
        assert first == [] if options else first[0].startswith("match 1/4  loss ")


def test_main_trains_without_loading_what_compiles(tmp_path: Path, make_recipe: Make) -> None:
    """It takes longer than the rest of PyTorch, and nothing here is compiled."""
    (tmp_path / "recipe.yaml").write_text(dump_recipe(make_recipe()))
    command = [sys.executable, "-X", "importtime", "-m", "engine", "train", "--recipe", "recipe.yaml", "--run-dir", "."]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0 and "torch.optim" in loaded
    assert not loaded & {"torch._dynamo", "torch._inductor", "sympy"}


@pytest.mark.parametrize("root", ["/dev/null/x", "/proc/x"])
def test_main_run_directory_that_cannot_be_made_is_told(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "shapes_smoke", "--run-dir", root]) == 1
    assert "could not be written" in capsys.readouterr().err
