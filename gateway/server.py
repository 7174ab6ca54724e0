"""The process that serves: its socket, its signals, its drain and its exit code.

uvicorn speaks HTTP; whether and how to stop is decided here. The first SIGTERM or SIGINT drains (still
listening, so that clients are told to go elsewhere), the second one exits at once. SIGHUP reads the
configuration again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence

import uvicorn
import uvloop
from litestar import Litestar

from gateway.api.access import warn_if_open
from gateway.app import create_app
from gateway.config import Config, ServerConfig
from gateway.fleet import Fleet, ModelStatus, SchedulerTimers
from gateway.http_protocol import HttpProtocol
from gateway.logs import log_to_stderr
from gateway.port_owner import port_owner
from gateway.reload import ConfigSource, Reloader

logger = logging.getLogger(__name__)

EXIT_NOT_LISTENING = 1
EXIT_DEVICE_LOST = 70
SEND_BUFFER = 64 * 1024
"""Small, so that a client that has stopped reading is noticed before a whole answer is buffered for it."""
KEEP_ALIVE = 75
"""Longer than the idle timeout of common proxies, which else reuse a connection as it is being closed."""
BACKLOG = 2048
POLL = 0.1
GRACE = 2
"""Seconds for the last bytes of answers to leave, and as many for the engines to close."""

Starting = Callable[[Sequence[ModelStatus]], None]
"""Is told the status while the fleet gets ready, and at the end nothing."""


def serve(config: Config, source: ConfigSource, starting: Starting) -> int:
    """Serve until told to stop; the exit code for the process, which must end now."""
    server = config.server
    log_to_stderr(server.log_format)
    try:
        listener = _listen(server)
    except OSError as error:
        logger.error("%s", _not_listening(server, error))
        return EXIT_NOT_LISTENING
    warn_if_open(server)
    # Never closed: that would wait for threads, and one of them may be in the middle of a download.
    return uvloop.new_event_loop().run_until_complete(_run(config, source, listener, starting))


async def _run(config: Config, source: ConfigSource, listener: socket.socket, starting: Starting) -> int:
    exit_code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    fleet = Fleet(config, SchedulerTimers())
    reloader = Reloader(fleet, source)
    _handle_signals(exit_code, reloader)
    http = _Http(_http_config(create_app(fleet)))
    serving = asyncio.create_task(http.serve(sockets=[listener]))
    serving.add_done_callback(lambda _: _settle(exit_code, EXIT_NOT_LISTENING))
    invitation = _invitation(config, listener.getsockname()[1])
    background = [
        asyncio.create_task(_watch(fleet, invitation, starting, exit_code)),
        asyncio.create_task(reloader.run()),
    ]
    reason = await exit_code
    starting(())
    if reason == os.EX_OK:
        await _drain(fleet, fleet.config.server.drain_timeout)
    for task in background:
        task.cancel()
    http.should_exit = True
    await asyncio.wait({serving}, timeout=2 * GRACE)
    return exit_code.result()


class _Http(uvicorn.Server):
    """uvicorn without its own signal handling."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _http_config(app: Litestar) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=HttpProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )


def _listen(server: ServerConfig) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(
        server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.create_server(
        address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=server.host == "::"
    )
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return listener


def _not_listening(server: ServerConfig, error: OSError) -> str:
    """Why, and what to do about it."""
    if error.errno != errno.EADDRINUSE:
        return f"cannot listen on {server.host} port {server.port}: {error.strerror or error}"
    owner = port_owner(server.port) or "a process that is not ours to see"
    return f"port {server.port} is in use by {owner}: stop it, or use --port"


def _handle_signals(exit_code: asyncio.Future[int], reloader: Reloader) -> None:
    def stop(signum: signal.Signals) -> None:
        if exit_code.done():
            logger.warning("%s again: exiting at once", signum.name)
            os._exit(128 + signum)
        logger.info("%s: finishing what is in flight; once more exits at once", signum.name)
        exit_code.set_result(os.EX_OK)

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop, signum)
    loop.add_signal_handler(signal.SIGHUP, reloader.ask)


def _settle(exit_code: asyncio.Future[int], value: int) -> None:
    if not exit_code.done():
        exit_code.set_result(value)


async def _drain(fleet: Fleet, longest: float) -> None:
    try:
        await asyncio.wait_for(fleet.drain(), longest)
    except TimeoutError:
        logger.warning("drain_timeout is over: cutting off what is in flight")
        fleet.abort()


async def _watch(fleet: Fleet, invitation: str, starting: Starting, exit_code: asyncio.Future[int]) -> None:
    """Invites once the fleet is ready, and tells till then how far it is. After a device error nothing on the
    device can go on in this process; a supervisor starts another."""
    invited = False
    while not exit_code.done():
        await asyncio.sleep(POLL)
        if not invited:
            starting(() if fleet.ready else fleet.status())
        if fleet.ready and not invited:
            invited = True
            sys.stdout.write(invitation)
            sys.stdout.flush()
        if reason := fleet.device_lost:
            logger.critical("the device has failed (%s): exiting, for a supervisor to restart", reason)
            _settle(exit_code, EXIT_DEVICE_LOST)


def _invitation(config: Config, port: int) -> str:
    host = config.server.host
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    body = {
        "model": config.models[0].name,
        "messages": [{"role": "user", "content": "What is Dormouse?"}],
    }
    key = '-H "Authorization: Bearer $DORMOUSE_API_KEY" ' if config.server.api_keys else ""
    return (
        f"Dormouse is listening on {_url(host, port)}\n"
        f"curl {_url(reachable, port)}/v1/chat/completions {key}"
        f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}\n"
    )


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
