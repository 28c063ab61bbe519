"""A run that the engine has really trained, to fork from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from engine.config import load_recipe
from mmtui.paths import Home
from mmtui.services import queue
from mmtui.services.ingest import ingest_file
from mmtui.store.db import Database
from mmtui.store.runs import add_attempt
from tests.unit.engine_run.conftest import TINY, Runner

KEEPING = ("runtime.keep_every=2", "seed=1")


def trained_parent(root: Path, overrides: Sequence[str] = KEEPING) -> Home:
    """A data directory with run 1 of a recipe "tiny" of its own, trained to its end.

    Args:
        overrides: by default every second checkpoint is kept: proxy ends at step 3, match at 7, segment at 13.
    """
    home = Home(root).create()
    file = home.root / "recipes" / "tiny.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(TINY))
    run_id = queue.enqueue(home, "tiny", list(overrides), hold=True)
    threads, exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        Runner(home.run(run_id).root).train(load_recipe(home.run(run_id).recipe))
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(exact)
    database = Database(home)
    with database.write() as session:
        add_attempt(session, int(run_id), 1, began=1.0, ended=2.0, host="here")
    ingest_file(database, home.run(run_id).events(1), int(run_id), 1, 0)
    database.close()
    return home
