"""What a supervisor does first: trainers that live are taken over, also those that the database does not know of.

The database may have been deleted, or replaced by an older one, while they trained. A run of which no row can be made
is left alone, and its slots count as in use until its trainer has ended.
"""

from __future__ import annotations

import logging

from mmtui.errors import UnreachableError
from mmtui.paths import Home
from mmtui.services import adoption, register, trainers, unfinished
from mmtui.services.trainers import Living
from mmtui.store.db import Database
from mmtui.store.tables import Run

logger = logging.getLogger(__name__)


def take_over(database: Database, home: Home) -> list[Living]:
    """Bring the database up to every trainer that lives; those of which no row can be made.

    Raises:
        UnreachableError: the database cannot be written.
    """
    strangers = []
    for found in trainers.living(home):
        try:
            if _take(database, home, found):
                logger.warning("run %d: its trainer (pid %d) was alive: taken over", found.run_id, found.trainer.pid)
        except UnreachableError:
            raise
        except Exception as error:
            # Anything may stand in its folder; the others must not wait for it.
            strangers.append(found)
            logger.error(
                "run %d: its trainer (pid %d) lives and no row can be made of its folder (%s); its slots (%s) are in"
                " use until it ends",
                *(found.run_id, found.trainer.pid, error, ", ".join(found.slots)),
            )
    return strangers


def _take(database: Database, home: Home, found: Living) -> bool:
    """Make the row of a run, if there is none, and bring it up to the trainer; whether anything was done."""
    with database.write() as session:
        known = session.get(Run, found.run_id) is not None
    if not known:
        register.register(database, home, home.run(str(found.run_id)).root, unfinished.REBUILD)
        return True
    return adoption.adopt(database, home, found)
