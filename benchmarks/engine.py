"""All measurements of the engine in one run: draws and patches beside loops, steps beside bare loops.

    python benchmarks/engine.py [options of bench_engine.py]

On a CPU, and on a GPU with ``--device cuda``. See ``bench_graph.py`` and ``bench_engine.py``, which this runs.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent

if __name__ != "__main__":
    # A script of this folder that imports the package ``engine`` finds this file first: hand it the package.
    sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != FOLDER]
    del sys.modules[__name__]
    importlib.import_module(__name__)
    sys.path.append(str(FOLDER))  # its neighbours are found all the same


def main() -> None:
    sys.path[0] = str(FOLDER.parent)
    options = sys.argv[1:]
    for name, given in (("bench_graph.py", []), ("bench_engine.py", options)):
        sys.argv = [name, *given]
        print(f"== {name} {' '.join(given)}".rstrip(), flush=True)
        runpy.run_path(str(FOLDER / name), run_name="__main__")
        print()


if __name__ == "__main__":
    main()
