"""The program ``mmtui``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; returns the exit code."""
    from mmtui.cli.app import app
    from mmtui.cli.diagnostics import guarded

    return guarded(app)


if __name__ == "__main__":
    sys.exit(main())
