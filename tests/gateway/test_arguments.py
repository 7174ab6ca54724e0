"""What the command line takes, in whatever order it comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.cli import _parse


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["chat", "m", "--url", "u", "a question"], {"model": "m", "question": "a question", "url": "u"}),
        (["chat", "--json", "m", "a question"], {"model": "m", "question": "a question", "json": True}),
        (["chat", "m", "--", "-a question"], {"model": "m", "question": "-a question"}),
        (["chat"], {"model": None, "question": None}),
        (["serve", "A", "--port", "8001", "B"], {"models": ["A", "B"], "port": 8001}),
        (["init", "a", "--output", "f", "b"], {"directories": [Path("a"), Path("b")], "output": Path("f")}),
        (["bench", "switch", "a", "--rounds", "3", "b"], {"out": "a", "into": "b", "rounds": 3}),
    ],
)
def test_options_stand_anywhere(words: list[str], expected: dict[str, Any]) -> None:
    args = vars(_parse(words))
    assert args["verb"] == words[0]
    assert {name: args[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ps", "--wach"], "unrecognized arguments: --wach; did you mean '--watch'?"),
        (["chat", "a", "b", "c"], "unrecognized arguments: c\n"),
        (["sleep"], "the following arguments are required: MODEL"),
    ],
)
def test_what_is_not_known_is_told_with_what_was_meant(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        _parse(words)
    assert told in capsys.readouterr().err
