"""All measurements of the engine in one run: draws and patches beside loops, steps beside bare loops.

    python benchmarks/engine.py [options of bench_engine.py]

On a CPU, and on a GPU with ``--device cuda``. See ``bench_graph.py`` and ``bench_engine.py``, which this runs.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def main() -> None:
    # This file must not stand in for the package ``engine``.
    sys.path[0] = str(FOLDER.parent)
    options = sys.argv[1:]
    for name, given in (("bench_graph.py", []), ("bench_engine.py", options)):
        sys.argv = [name, *given]
        print(f"== {name} {' '.join(given)}".rstrip(), flush=True)
        runpy.run_path(str(FOLDER / name), run_name="__main__")
        print()


if __name__ == "__main__":
    main()
