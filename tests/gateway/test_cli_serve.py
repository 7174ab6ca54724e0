"""What `dormouse serve` makes of its file and its words, and what `check` says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway import cli
from gateway.commands.serve import config_source
from gateway.config import NEVER, Config, Size
from gateway.config_file import ConfigError

FILE = """
[server]
port = 9000
api_keys = ["from-the-file"]

[models.filed]
path = "here"
idle_timeout = "1m"
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configured(*words: str) -> Config:
    return config_source(cli.parser().parse_args(["serve", *words])).read()


def refused(*words: str) -> str:
    with pytest.raises(ConfigError) as raised:
        configured(*words)
    return str(raised.value)


def test_a_named_model_needs_no_file_and_is_woken_at_start(home: Path) -> None:
    config = configured("./here", "owner/name", "--enable-sleep-mode", "--port", "8001")
    assert [(m.name, m.path, m.preload) for m in config.models] == [
        ("./here", str(home / "here"), True),
        ("owner/name", "owner/name", True),
    ]
    assert config.server.port == 8001


def test_a_named_model_leaves_the_file_here_alone(home: Path) -> None:
    (home / "config.toml").write_text(FILE)
    assert [m.name for m in configured("owner/name").models] == ["owner/name"]


def test_without_a_word_the_file_here_is_served(home: Path) -> None:
    (home / "config.toml").write_text(FILE)
    assert [m.name for m in configured().models] == ["filed"]


def test_the_command_line_has_the_last_word(home: Path) -> None:
    (home / "other.toml").write_text(FILE)
    config = configured(
        *("--config", "other.toml", "--host", "::1", "--port", "1", "--idle-timeout", "never"),
        *("--max-model-len", "64", "--max-num-seqs", "2", "--dtype", "float32"),
        *("--api-key", "a", "--api-key", "b", "--gpu-memory-utilization", "0.5", "here"),
    )
    assert (config.server.host, config.server.port, config.server.api_keys) == ("::1", 1, ("a", "b"))
    assert config.memory.device_limit == Size(share=0.5)
    assert [m.name for m in config.models] == ["filed", "here"]
    for model in config.models:
        assert model.idle_timeout == NEVER
        assert (model.max_model_len, model.max_running, model.dtype) == (64, 2, "float32")


def test_what_the_command_line_does_not_say_is_the_file_s(home: Path) -> None:
    (home / "config.toml").write_text(FILE)
    config = configured()
    assert (config.server.port, config.server.api_keys) == (9000, ("from-the-file",))
    assert config.models[0].idle_timeout == 60


def test_served_names_are_a_name_and_its_aliases() -> None:
    model = configured("here", "--served-model-name", "n", "--served-model-name", "m").models[0]
    assert (model.name, model.aliases) == ("n", ("m",))


def test_what_cannot_be_served_is_refused_in_one_line(home: Path) -> None:
    assert "nothing to serve" in refused() and "dormouse init" in refused()
    assert refused("./none").startswith("./none: no such directory: ")
    assert refused("here", "--served-model-name", "a\x1b[31m") == (
        r"models.a\x1b[31m: 'a\x1b[31m' contains a character that cannot be shown; choose another name"
    )
    assert "exactly one MODEL" in refused("here", "owner/name", "--served-model-name", "n")
    assert "two models of this name" in refused("here", "here")
    assert refused("--config", "none.toml") == "none.toml: no such file; `dormouse init` writes one"
    (home / "config.toml").write_text("[server]\nport = 9000")
    assert refused() == "config.toml: models: none; add a [models.NAME] section with a path"


def test_what_cannot_be_served_is_said_and_leaves_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["serve", "--config", "none.toml"])
    assert left.value.code == 2
    assert capsys.readouterr().err == "none.toml: no such file; `dormouse init` writes one\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--port", "70000"],
        ["--port", "x"],
        ["--idle-timeout", "soon"],
        ["--max-model-len", "0"],
        ["--gpu-memory-utilization", "1.5"],
        ["--dtype", "int8"],
    ],
)
def test_wrong_words_are_usage_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["serve", *words])
    assert left.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_check_names_the_mistake_and_leaves_with_2(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "config.toml").write_text("[models.demo]\npath = 'here'\nlevl = 1")
    with pytest.raises(SystemExit) as left:
        cli.main(["check"])
    assert left.value.code == 2
    assert capsys.readouterr().err == "config.toml: models.demo.levl: unknown key; did you mean level?\n"


def test_check_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["check", "--schema"])
    assert left.value.code == 0
    assert json.loads(capsys.readouterr().out)["$ref"] == "#/$defs/File"


def test_a_config_without_models_is_no_config_to_serve(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "config.toml").write_text("")
    with pytest.raises(SystemExit) as left:
        cli.main(["check"])
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("config.toml: models: none")


def test_a_misspelt_verb_names_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    for word, told in (("pss", "no verb 'pss'; did you mean 'ps'?"), ("xyzzy", "no verb 'xyzzy'")):
        with pytest.raises(SystemExit) as left:
            cli.main([word])
        assert left.value.code == 2
        assert capsys.readouterr().err.endswith(f"error: {told}\n")
