"""Which machine this is: run apart, so that who asks takes nothing of the card. Prints JSON, or why there is
no GPU and exits with 1."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "triton", "safetensors", "tokenizers", "numpy", "cuda-bindings", "transformers")


def commit() -> str:
    """Of this checkout; COMMIT says it where there is no git."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("COMMIT", "unknown")
    return done.stdout.strip()


def facts() -> dict[str, Any]:
    import torch

    driver = Path("/proc/driver/nvidia/version")
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "gpu_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "driver": _driver_version(driver),
        "cuda": torch.version.cuda,
        "cpus": len(os.sched_getaffinity(0)),
        "ram_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _driver_version(path: Path) -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return path.read_text().splitlines()[0] if path.exists() else "unknown"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main() -> None:
    import engine

    try:
        engine.memory_state("cuda")  # the driver and its bindings, before the seconds that torch takes
        import torch

        if not torch.cuda.is_available():
            raise engine.EngineError("this torch is not made for CUDA")
    except (engine.EngineError, ImportError) as error:
        sys.exit(str(error))
    print(json.dumps(facts()))


if __name__ == "__main__":
    main()
