"""``python -m mmtui.supervisor``: serve the data directory that MMTUI_HOME names until SIGTERM."""

from __future__ import annotations

import logging
import os
import signal
import sys

from engine.utf8_mode import begin_in_utf8_mode
from mmtui.errors import ExitCode, MmtuiError
from mmtui.paths import Home


def main() -> int:
    """Exit code 0 after SIGTERM, or when the data directory is gone; 3 when its database was deleted or replaced, so
    that a service manager starts the next one; 5 if another supervisor serves the directory."""
    os.umask(0o077)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # Alembic announces every context it makes; only its warnings are news here.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    home = Home.from_environment()
    from mmtui.supervisor.lock import SupervisorLock

    try:
        lock = SupervisorLock(home)
    except MmtuiError as error:
        sys.stderr.write(f"error: {error.message}{'; ' + error.hint if error.hint else ''}\n")
        return int(error.exit_code)
    from mmtui.supervisor.loop import Supervisor

    try:
        supervisor = Supervisor(home, lock.inode)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, supervisor.stop)
        lock.ready()
        supervisor.serve()
        if supervisor.lost and not supervisor.served.gone:
            lock.leave(supervisor.lost)
            return int(ExitCode.UNREACHABLE)
    except MmtuiError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return int(error.exit_code)
    finally:
        lock.release()
    return 0


if __name__ == "__main__":
    begin_in_utf8_mode()
    sys.exit(main())
