"""The entry point of the command. It imports within ``main``, so that Ctrl-C is quiet from the beginning."""

from __future__ import annotations

import sys


def main() -> None:
    try:
        from gateway import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
