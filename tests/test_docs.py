"""What docs/ says is so: its links lead somewhere, its configurations are ones, its commands run."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

from gateway import errors
from gateway.cli import parser
from gateway.commands.chat import HELP
from gateway.commands.chat_input import QUOTES
from gateway.config import ReasoningParser, ToolParser
from gateway.config_file import load_config
from tests.docs import configuration, pictures
from tests.e2e.server import DORMOUSE, Server, serving_the_demo

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
NAMES = [page.name for page in PAGES]


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def verbs(declared: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Of the command: each, and those of one that has verbs of its own, as people type them."""
    for action in declared._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, verb in action.choices.items():
                yield name, verb
                yield from ((f"{name} {inner}", found) for inner, found in verbs(verb))


def test_the_configuration_page_is_what_the_types_say() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == configuration.page()


def test_the_pictures_are_what_was_measured() -> None:
    drawn = {picture.name: picture.read_text() for picture in (ROOT / "docs").glob("*.svg")}
    assert drawn == pictures.pictures()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_that_are_named_are_there(page: Path) -> None:
    for name in re.findall(r"`((?:docker|engine|gateway|tests)/[\w/.-]+)`", page.read_text()):
        assert (ROOT / name).exists(), name
    for module in re.findall(r"`python -m (tests[\w.]+)", page.read_text()):
        assert find_spec(module), module


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_are_ones(page: Path) -> None:
    """Those that are not run, too."""
    for text in blocks(page, "sh"):
        subprocess.run(["bash", "-n", "-c", text], check=True)
    named = re.findall(r"(?:^|`)dormouse (\w+)", page.read_text(), re.MULTILINE)
    assert set(named) <= {name for name, _ in verbs(parser())}


def test_every_page_is_listed() -> None:
    listed = re.findall(r"\]\((\w[\w-]*\.md)\)", (ROOT / "docs" / "README.md").read_text())
    assert sorted([*listed, "README.md"]) == NAMES


def test_every_verb_and_option_is_told_of() -> None:
    page = (ROOT / "docs" / "terminal.md").read_text()
    declared = dict(verbs(parser()))
    assert not {name for name in declared if f"dormouse {name}" not in page}
    options = {option for verb in declared.values() for option in verb._option_string_actions}
    assert not {
        option for option in options - {"-h", "--help"} if not re.search(rf"`.*{option}(?![\w-])", page)
    }


def test_every_command_of_the_chat_is_told_of() -> None:
    page = (ROOT / "docs" / "terminal.md").read_text()
    assert not {command for command in (*HELP, QUOTES) if f"`{command}`" not in page}


def test_every_section_and_button_of_the_dashboard_is_told_of() -> None:
    html = (ROOT / "gateway" / "dashboard" / "index.html").read_text()
    html = re.sub(r"<dialog.*?</dialog>", "", html, flags=re.DOTALL)
    told = set(re.findall(r"<(?:h2|button) [^>]+>([^<]+)<", html))
    assert {"Memory", "Deep sleep"} <= told
    page = (ROOT / "docs" / "dashboard.md").read_text()
    assert not {name for name in told if f"**{name}**" not in page}


def test_every_error_is_told_of() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    raised = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.code for kind in raised if issubclass(kind, errors.ApiError)}
    assert not {code for code in codes if code and f"`{code}`" not in page}


def test_every_parser_is_told_of() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    assert not {
        name for name in (*get_args(ToolParser), *get_args(ReasoningParser)) if f"`{name}`" not in page
    }


def test_every_metric_is_told_of(server: Server) -> None:
    told = set(re.findall(r"`(dormouse_\w+)`", (ROOT / "docs" / "operations.md").read_text()))
    exposed = re.findall(r"^# TYPE (dormouse_\w+)", server.http.get("/metrics").text, re.MULTILINE)
    assert told == set(exposed)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_configurations_are_read(page: Path, tmp_path: Path) -> None:
    for number, text in enumerate(blocks(page, "toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(text)
        load_config(file)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Of the demo models, as `make serve` has it."""
    with serving_the_demo(tmp_path_factory.mktemp("docs")) as server:
        yield server


COMMANDS = [
    pytest.param(text, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, text in enumerate(blocks(page, "sh run"))
]


@pytest.mark.parametrize("commands", COMMANDS)
def test_commands_run(commands: str, server: Server) -> None:
    path = f"{Path(DORMOUSE).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands.replace("http://127.0.0.1:8000", server.url)],
        env={**os.environ, "PATH": path, "DORMOUSE_URL": server.url},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
