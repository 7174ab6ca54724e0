from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from gateway import config_tables
from gateway.config import NEVER, Config, MemoryConfig, ModelConfig, ServerConfig, Size, TurnConfig
from gateway.config_file import ConfigError, json_schema, load_config

EVERYTHING = """
[server]
host = "0.0.0.0"
port = 9000
api_keys = ["one", "${SECOND_KEY}"]
admin_keys = ["admin"]
cors_origins = ["http://example.com"]
max_body = "1MiB"
drain_timeout = "5s"
stall_timeout = 20
watch_config = true

[sleep]
idle_timeout = "1m"
level = 2
deepen_after = "never"

[memory]
device_limit = "8GiB"
host_limit = "50%"

[queue]
max_waiting = 3
max_wait = "9s"
min_awake = "1s"
turn = "2s"

[models.plain]
path = "here"

[models."org/full"]
path = "owner/name"
revision = "v1"
aliases = ["other"]
preload = true
pinned = true
idle_timeout = "never"
level = "auto"
deepen_after = "7s"
max_waiting = 4
max_wait = "8s"
dtype = "float32"
device = "cuda:1"
max_model_len = 128
max_running = 2
prefix_cache = false
chat_template = "template.jinja"
tool_parser = "hermes"
reasoning_parser = "qwen3"
sampling = { temperature = 0.5, top_p = 0.9, top_k = 5, min_p = 0.1, repetition_penalty = 1.1 }
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with a model's directory and a template, for configurations to name."""
    (tmp_path / "here").mkdir()
    (tmp_path / "template.jinja").write_text("{{ messages }}")
    return tmp_path


def load(home: Path, text: str) -> Config:
    file = home / "config.toml"
    file.write_text(text)
    return load_config(file)


def mistake(home: Path, text: str) -> str:
    """What is said about ``text``, without the file's name."""
    with pytest.raises(ConfigError) as raised:
        load(home, text)
    line = str(raised.value)
    assert "\n" not in line
    file, _, rest = line.partition(": ")
    assert file == str(home / "config.toml")
    return rest


def model(home: Path, keys: str) -> str:
    return mistake(home, f'[models.demo]\npath = "here"\n{keys}\n')


def test_a_mark_of_byte_order_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('\ufeff[models.a]\npath = "owner/name"\n', encoding="utf-8")
    assert [model.name for model in load_config(file).models] == ["a"]


def test_every_key_reaches_the_configuration(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECOND_KEY", "two")
    assert load(home, EVERYTHING) == Config(
        server=ServerConfig(
            host="0.0.0.0",
            port=9000,
            api_keys=("one", "two"),
            admin_keys=("admin",),
            cors_origins=("http://example.com",),
            max_body=2**20,
            drain_timeout=5.0,
            stall_timeout=20.0,
            watch_config=True,
        ),
        memory=MemoryConfig(device_limit=Size(bytes=8 * 2**30), host_limit=Size(share=0.5)),
        turns=TurnConfig(min_awake=1.0, turn=2.0),
        models=(
            ModelConfig(
                name="plain",
                path=str(home / "here"),
                idle_timeout=60.0,
                level=2,
                deepen_after=NEVER,
                max_waiting=3,
                max_wait=9.0,
            ),
            ModelConfig(
                name="org/full",
                path="owner/name",
                revision="v1",
                aliases=("other",),
                preload=True,
                pinned=True,
                idle_timeout=NEVER,
                level="auto",
                deepen_after=7.0,
                max_waiting=4,
                max_wait=8.0,
                dtype="float32",
                device="cuda:1",
                max_model_len=128,
                max_running=2,
                prefix_cache=False,
                chat_template="{{ messages }}",
                tool_parser="hermes",
                reasoning_parser="qwen3",
                sampling={
                    "temperature": 0.5,
                    "top_p": 0.9,
                    "top_k": 5,
                    "min_p": 0.1,
                    "repetition_penalty": 1.1,
                },
            ),
        ),
    )


def test_what_the_file_leaves_out_has_the_defaults(home: Path) -> None:
    assert load(home, '[models.demo]\npath = "here"') == Config(
        models=(ModelConfig(name="demo", path=str(home / "here")),)
    )


def test_the_file_format_and_the_configuration_know_the_same_keys() -> None:
    def keys(kind: type) -> set[str]:
        return {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]

    def declared(*tables: type[config_tables.Table]) -> set[str]:
        return {key for table in tables for key in table.__struct_fields__}

    assert declared(config_tables.Server) == keys(ServerConfig)
    assert declared(config_tables.Memory) == keys(MemoryConfig)
    assert declared(config_tables.Model) == keys(ModelConfig) - {"name"}
    assert declared(config_tables.Sleep, config_tables.Queue) <= keys(TurnConfig) | keys(ModelConfig)


def test_relative_paths_are_relative_to_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert load(home, '[models.demo]\npath = "./here"').models[0].path == str(home / "here")


def test_a_relative_file_name_gives_absolute_paths(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(home, '[models.demo]\npath = "here"')
    monkeypatch.chdir(home)
    assert load_config(Path("config.toml")).models[0].path == str(home / "here")


def test_a_directory_comes_before_a_hub_id_of_the_same_name(home: Path) -> None:
    (home / "owner" / "name").mkdir(parents=True)
    text = '[models.a]\npath = "owner/name"\n[models.b]\npath = "owner/other"'
    assert [m.path for m in load(home, text).models] == [str(home / "owner/name"), "owner/other"]


def test_a_tilde_is_the_home_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))
    assert load(home, '[models.demo]\npath = "~/here"').models[0].path == str(home / "here")


@pytest.mark.parametrize("path", ["./owner/name", "/no/such", "~/name", "a/b/c", "name"])
def test_what_is_neither_a_directory_nor_a_hub_id_is_missing(home: Path, path: str) -> None:
    assert mistake(home, f'[models.demo]\npath = "{path}"').startswith(
        "models.demo.path: no such directory: /"
    )


def test_variables_with_and_without_defaults(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "here")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    text = '[models.demo]\npath = "./${WHERE}"\naliases = ["${UNSET:-x}-${EMPTY:-y}"]'
    assert load(home, text).models[0].aliases == ("x-y",)
    assert model(home, 'aliases = ["a", "${UNSET}"]').startswith(
        "models.demo.aliases[1]: the variable UNSET is not set"
    )
    assert "malformed variable" in model(home, 'revision = "${"')


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("idle_timout = 5", "models.demo.idle_timout: unknown key; did you mean idle_timeout?"),
        ("sampling = { temprature = 1 }", "models.demo.sampling.temprature: unknown key; did you mean"),
        ("preload = 1", "models.demo.preload: expected true or false, got an integer"),
        ("aliases = 'x'", "models.demo.aliases: expected a list, got a string"),
        ("aliases = ['x', 3]", "models.demo.aliases[1]: expected a string, got an integer"),
        ("aliases = ['']", "models.demo.aliases[0]: expected a string of length >= 1"),
        ("max_running = 0", "models.demo.max_running: expected an integer >= 1"),
        ("level = 3", "models.demo.level: invalid enum value 3, expected one of 'auto', 1, 2"),
        (
            "dtype = 'int8'",
            "models.demo.dtype: invalid enum value 'int8', expected one of 'auto', 'bfloat16'",
        ),
        ("device = 'gpu'", 'models.demo.device: expected "auto", "cpu", "cuda" or "cuda:N", got \'gpu\''),
        ("idle_timeout = '5 min'", "models.demo.idle_timeout: expected a duration like"),
        (
            "sampling = { repetition_penalty = 0 }",
            "models.demo.sampling.repetition_penalty: expected a number > 0",
        ),
        ("sampling = { top_p = 2 }", "models.demo.sampling.top_p: expected a number <= 1"),
        ("tool_parser = 'hermess'", "models.demo.tool_parser: invalid enum value 'hermess', expected one of"),
        ("reasoning_parser = 3", "models.demo.reasoning_parser: expected a string"),
        ("chat_template = 'none.jinja'", "models.demo.chat_template: cannot read "),
        ("aliases = ['demo']", "models.demo.aliases: 'demo' is already the name of a model"),
    ],
)
def test_a_mistake_in_a_model_is_named_with_its_mend(home: Path, keys: str, said: str) -> None:
    assert model(home, keys).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[sever]", "sever: unknown key; did you mean server?"),
        ("[server]\nzzz = 1", "server.zzz: unknown key; known are host, port, "),
        ("[server]\nport = 65536", "server.port: expected an integer <= 65535"),
        ("[server]\nmax_body = '50%'", "server.max_body: expected a size like"),
        ("server = 3", "server: expected a table, got an integer"),
        ("[memory]\ndevice_limit = 0.9", "memory.device_limit: expected a size like"),
        ("[queue]\nmax_waiting = '3'", "queue.max_waiting: expected an integer, got a string"),
        ("models = 3", "models: expected a table for each model"),
        ("[models]\ndemo = 3", "models.demo: expected a table, got an integer"),
        ("[models.demo]", "models.demo.path: missing"),
        ('[models.""]\npath = "here"', "models: a model's name must not be empty"),
        ("[server]\nport = \n", "line 2, column 8: not TOML: "),
        ("[server]\n[server]", "line 2, column 8: not TOML: Cannot declare ('server',) twice"),
    ],
)
def test_any_other_mistake_is_named_with_its_place(home: Path, text: str, said: str) -> None:
    assert mistake(home, text).startswith(said)


def mistakes(home: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(home, text)
    return [line.removeprefix(f"{home / 'config.toml'}: ") for line in str(raised.value).split("\n")]


def test_all_mistakes_are_told_at_once(home: Path) -> None:
    told = mistakes(
        home,
        """
        [sever]
        [server]
        port = "x"
        max_body = 3
        "odd.key" = 1
        [models.one]
        pth = "here"
        [models.two]
        path = "./nowhere"
        aliases = ["x", 3, 4]
        sampling = { top_p = 2, temprature = 1 }
        [models.three]
        path = "here"
        aliases = ["three", "four"]
        level = 3
        [models.four]
        path = "here"
        """,
    )
    assert sorted(line.split(": ")[0] for line in told) == [
        "models.one.path",
        "models.one.pth",
        "models.three.aliases",
        "models.three.aliases",
        "models.three.level",
        "models.two.aliases[1]",
        "models.two.path",
        "models.two.sampling.temprature",
        "models.two.sampling.top_p",
        "server.max_body",
        "server.odd.key",
        "server.port",
        "sever",
    ]


def test_all_variables_that_are_not_set_are_told_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNSET", raising=False)
    text = '[server]\nhost = "${UNSET}"\n[models.demo]\npath = "${UNSET}"\naliases = ["${"]'
    places = [line.split(": ")[0] for line in mistakes(home, text)]
    assert places == ["server.host", "models.demo.path", "models.demo.aliases[0]"]


def test_a_key_that_cannot_be_shown_is_told_of_in_one_line(home: Path) -> None:
    assert mistake(home, '[models."a\\u001b[31m\\nb"]\npath = "here"') == (
        r"models.a\x1b[31m\nb: 'a\x1b[31m\nb' contains a character that cannot be shown; choose another name"
    )
    assert mistake(home, '"\\u001b" = 1').startswith(r"\x1b: unknown key")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    with pytest.raises(ConfigError, match=r"none\.toml: no such file; `dormouse init` writes one$"):
        load_config(missing)
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory$"):
        load_config(tmp_path)
    missing.write_bytes(b'host = "\xff"')
    with pytest.raises(ConfigError, match=r"not UTF-8 at byte 8$"):
        load_config(missing)


def test_the_schema_knows_every_section_and_how_durations_are_written() -> None:
    schema = json.loads(json_schema())
    tables = schema["$defs"]
    assert set(tables["File"]["properties"]) == {"server", "sleep", "memory", "queue", "models"}
    assert tables["Model"]["required"] == ["path"]
    assert tables["Model"]["additionalProperties"] is False
    assert tables["Sleep"]["properties"]["idle_timeout"]["type"] == ["string", "number"]
    port = tables["Server"]["properties"]["port"]
    assert (port["type"], port["minimum"], port["maximum"]) == ("integer", 0, 65535)
