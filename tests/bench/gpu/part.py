"""One part, in the process that it is killed with: `python -m tests.bench.gpu.part NAME MODULE RESULT WORK
SECONDS`, with what ``machine`` printed as its input."""

from __future__ import annotations

import gc
import importlib
import json
import sys
from pathlib import Path

from tests.bench.gpu.result import Result


def main(name: str, module: str, path: str, work: str, seconds: str) -> None:
    result = Result(Path(path), name, json.load(sys.stdin), float(seconds))
    result.write()
    try:
        measure = importlib.import_module(module).measure
        gc.collect()
        gc.freeze()  # what imports have left makes every collection slow
        measure(result, Path(work))
    except BaseException as error:
        result.failure(name, error)
        result.end("failed")
        sys.exit(1)
    result.end("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
