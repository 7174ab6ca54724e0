"""Reading the configuration again while serving by it: on SIGHUP, and when ``server.watch_config`` is set
also when its file has changed.

A file that is wrong changes nothing; what is wrong is logged, a line for each mistake,
as `dormouse check` tells it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from gateway.api.access import warn_if_open
from gateway.config import Config, ServerConfig
from gateway.config_file import ConfigError
from gateway.fleet import Fleet

logger = logging.getLogger(__name__)

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at a watched file."""
NEEDS_RESTART: Final = ("host", "port", "max_body")
"""Keys of [server] that are used once, at the start."""

Stamp = tuple[int, int, int]


class ConfigSource:
    """Where the configuration comes from: a file, if there is one, and the command line."""

    def __init__(self, file: Path | None, load: Callable[[], Config]) -> None:
        self.file = file
        self._load = load
        self._read = self._seen = self._stamp()

    def read(self) -> Config:
        """The configuration as it is now. Raises ConfigError."""
        self._read = self._stamp()
        return self._load()

    def changed(self) -> bool:
        """Whether the file is another one than was read last and, so as not to read a half-written one,
        the same as at the last look."""
        before, self._seen = self._seen, self._stamp()
        return self._seen == before and self._seen != self._read

    def _stamp(self) -> Stamp | None:
        """Of whatever file bears the name now; None: there is none."""
        if self.file is None:
            return None
        try:
            stat = self.file.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_size, stat.st_mtime_ns


class Reloader:
    """Brings what the source says to a fleet that is running."""

    def __init__(self, fleet: Fleet, source: ConfigSource) -> None:
        self._fleet = fleet
        self._source = source
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Read it again, soon: the handler of SIGHUP."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever there is a reason to."""
        while True:
            watching = self._fleet.config.server.watch_config
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY if watching else None):
                    await self._asked.wait()
            if self._asked.is_set() or await asyncio.to_thread(self._source.changed):
                self._asked.clear()
                await self.reload()

    async def reload(self) -> None:
        """Serve by the configuration as it is now. What is wrong with it is logged."""
        if self._source.file is None:
            logger.warning("SIGHUP: there is no config file to read again")
            return
        try:
            config = await asyncio.to_thread(self._source.read)
        except ConfigError as error:
            for mistake in str(error).split("\n"):
                logger.error("not reloaded: %s", mistake)
            return
        except Exception:
            logger.exception("not reloaded")
            return
        if self._fleet.draining:
            return
        server = self._taken_over(config.server)
        changes = self._fleet.reconfigure(replace(config, server=server))
        logger.info("%s: reloaded: %s", self._source.file, changes)
        warn_if_open(server)

    def _taken_over(self, server: ServerConfig) -> ServerConfig:
        """``server``, with what is used only at the start as it was."""
        used = self._fleet.config.server
        kept = {key: getattr(used, key) for key in NEEDS_RESTART}
        if late := [f"server.{key}" for key in NEEDS_RESTART if getattr(server, key) != kept[key]]:
            logger.warning("%s: %s: changed, which needs a restart", self._source.file, ", ".join(late))
        return replace(server, **kept)
