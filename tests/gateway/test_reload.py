"""Reading the file again: when, and what comes of it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway import cli
from gateway.commands.serve import config_source
from gateway.fleet import Fleet, VirtualTimers
from gateway.reload import ConfigSource, Reloader
from tests.fake_engine import FakeBackend, FakeSpec
from tests.gateway.api.caller import until

ONE = '[models.one]\npath = "fake/one"\n'
TWO = '[models.two]\npath = "fake/two"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(ONE)
    return path


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "gateway")
    return caplog


def source_of(*words: str) -> ConfigSource:
    return config_source(cli.parser().parse_args(["serve", *words]))


def write(file: Path, text: str) -> None:
    file.write_text(text)


def remove(file: Path) -> None:
    file.unlink()


class Running:
    """A fleet that is served from a source."""

    def __init__(self, source: ConfigSource) -> None:
        timers = VirtualTimers()
        specs = {"fake/one": FakeSpec(), "fake/two": FakeSpec()}
        self.fleet = Fleet(source.read(), timers, backend=FakeBackend(specs, sleep=timers.sleep))
        self.reloader = Reloader(self.fleet, source)

    @property
    def names(self) -> list[str]:
        return [status.name for status in self.fleet.status()]


@pytest.fixture
async def running(file: Path) -> AsyncIterator[Running]:
    it = Running(source_of("--config", str(file)))
    yield it
    await it.fleet.close()


async def test_the_file_is_read_again(running: Running, file: Path, told: pytest.LogCaptureFixture) -> None:
    write(file, TWO)
    await running.reloader.reload()
    assert running.names == ["two"]
    assert told.messages == [f"{file}: reloaded: added two; removed one"]
    told.clear()
    await running.reloader.reload()
    assert told.messages == [f"{file}: reloaded: all models as they were"]


@pytest.mark.parametrize(
    "text",
    ["", "[models.two", '[models.one]\npath = "fake/one"\nlevl = 1\n', "[sever]\n[models.one]\npth = 'x'\n"],
)
async def test_a_wrong_file_changes_nothing_and_is_told_as_check_tells_it(
    running: Running,
    file: Path,
    told: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    text: str,
) -> None:
    before = running.fleet.config
    write(file, text)
    with pytest.raises(SystemExit):
        cli.main(["check", "--config", str(file)])
    await running.reloader.reload()
    assert told.messages == [f"not reloaded: {line}" for line in capsys.readouterr().err.splitlines()]
    assert running.fleet.config is before
    assert running.names == ["one"]


async def test_a_file_that_is_gone_changes_nothing(
    running: Running, file: Path, told: pytest.LogCaptureFixture
) -> None:
    remove(file)
    await running.reloader.reload()
    assert told.messages == [f"not reloaded: {file}: no such file; `dormouse init` writes one"]
    assert running.names == ["one"]


async def test_what_needs_a_restart_is_named_and_the_rest_is_taken(
    running: Running, file: Path, told: pytest.LogCaptureFixture
) -> None:
    write(file, '[server]\nport = 9\nhost = "::1"\nmax_body = "1MiB"\napi_keys = ["k"]\n' + TWO)
    await running.reloader.reload()
    server = running.fleet.config.server
    assert (server.port, server.host, server.max_body) == (8000, "127.0.0.1", 32 * 2**20)
    assert server.api_keys == ("k",)
    assert running.names == ["two"]
    assert told.messages[0] == (
        f"{file}: server.host, server.port, server.max_body: changed, which needs a restart"
    )


async def test_taking_the_keys_away_beyond_loopback_is_warned_about(
    file: Path, told: pytest.LogCaptureFixture
) -> None:
    write(file, '[server]\nhost = "0.0.0.0"\napi_keys = ["k"]\n' + ONE)
    running = Running(source_of("--config", str(file)))
    write(file, '[server]\nhost = "0.0.0.0"\n' + ONE)
    await running.reloader.reload()
    assert "ANYONE WHO CAN REACH 0.0.0.0 CAN USE THIS GATEWAY" in told.messages[-1]
    await running.fleet.close()


async def test_the_command_line_keeps_the_last_word(file: Path) -> None:
    running = Running(source_of("fake/two", "--config", str(file), "--idle-timeout", "7s", "--port", "5"))
    write(file, "[server]\nport = 9\n[sleep]\nidle_timeout = 1\nlevel = 2\n" + ONE)
    await running.reloader.reload()
    assert running.names == ["one", "fake/two"]
    assert running.fleet.config.server.port == 5
    assert (running.fleet.resolve("one").idle_timeout, running.fleet.resolve("one").level) == (7.0, 2)
    await running.fleet.close()


async def test_without_a_file_there_is_nothing_to_read(told: pytest.LogCaptureFixture) -> None:
    running = Running(source_of("fake/one"))
    before = running.fleet.config
    await running.reloader.reload()
    assert running.fleet.config is before
    assert told.messages == ["SIGHUP: there is no config file to read again"]
    await running.fleet.close()


async def test_a_gateway_that_drains_is_left_alone(running: Running, file: Path) -> None:
    await running.fleet.drain()
    write(file, TWO)
    await running.reloader.reload()
    assert running.names == ["one"]


def test_a_change_is_seen_once_it_has_been_left_alone(file: Path) -> None:
    source = source_of("--config", str(file))
    source.read()
    assert not source.changed()
    write(file, ONE + TWO)
    assert not source.changed(), "it may be half-written"
    write(file, ONE + TWO + "\n")
    assert not source.changed()
    assert source.changed()
    source.read()
    assert not source.changed()


def test_a_file_put_in_place_of_the_old_one_is_a_change(file: Path) -> None:
    source = source_of("--config", str(file))
    source.read()
    stat = file.stat()
    other = file.with_suffix(".new")
    other.write_text(ONE)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    file.unlink()
    assert [source.changed(), source.changed()] == [False, True], "it is gone"
    other.rename(file)
    assert [source.changed(), source.changed()] == [False, True]


async def test_a_watched_file_is_read_when_it_changes(
    running: Running, file: Path, told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.reload.LOOK_EVERY", 0.001)
    watching = asyncio.create_task(running.reloader.run())
    write(file, "[server]\nwatch_config = true\n" + ONE)
    running.reloader.ask()
    await until(lambda: running.fleet.config.server.watch_config)
    write(file, "[server]\nwatch_config = true\n" + TWO)
    await until(lambda: running.names == ["two"])
    write(file, "[models.wrong")
    await until(lambda: any("not TOML" in message for message in told.messages))
    assert running.names == ["two"]
    write(file, ONE + TWO)
    await until(lambda: running.names == ["one", "two"])
    assert not running.fleet.config.server.watch_config
    watching.cancel()
