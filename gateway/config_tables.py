"""The tables of config.toml: keys, types and what they mean, for the reader and for the JSON schema.

A key that the file leaves out stays unset, so that each default is written once, in ``gateway.config``.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from engine import DType
from gateway.config import Level, LogFormat, ReasoningParser, ToolParser


class Duration(float):
    """Seconds."""


class Bytes(int):
    """An absolute size."""


class SizeText(str):
    """An absolute size or a percentage, known to be well-formed."""

    __slots__ = ()


class Device(str):
    __slots__ = ()


Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]

WATCH_HELP = "read this file again whenever it has changed, as SIGHUP does"


class Table(Struct, forbid_unknown_fields=True):
    def given(self) -> dict[str, Any]:
        """What the file sets."""
        return {key: value for key, value in msgspec.structs.asdict(self).items() if value is not UNSET}


class Server(Table):
    """The socket, who may use it, and the end."""

    host: Annotated[Text, Meta(description="the address to listen on")] | UnsetType = UNSET
    port: Annotated[Port, Meta(description="the port; 0 takes a free one")] | UnsetType = UNSET
    api_keys: (
        Annotated[tuple[Text, ...], Meta(description="any of them opens the API; none: it is open")]
        | UnsetType
    ) = UNSET
    admin_keys: (
        Annotated[
            tuple[Text, ...],
            Meta(description="if set, admin routes need one of these; they open the API too"),
        ]
        | UnsetType
    ) = UNSET
    cors_origins: (
        Annotated[tuple[Text, ...], Meta(description='foreign web pages that may ask; "*": all')] | UnsetType
    ) = UNSET
    max_body: Annotated[Bytes, Meta(description="a larger request gets 413")] | UnsetType = UNSET
    drain_timeout: (
        Annotated[Duration, Meta(description="how long what is in flight may go on after SIGTERM")]
        | UnsetType
    ) = UNSET
    stall_timeout: (
        Annotated[Duration, Meta(description="a stream whose client takes no byte for so long is aborted")]
        | UnsetType
    ) = UNSET
    log_format: (
        Annotated[LogFormat, Meta(description="of standard error: lines for people, or JSON")] | UnsetType
    ) = UNSET
    watch_config: Annotated[bool, Meta(description=WATCH_HELP)] | UnsetType = UNSET


class Sleep(Table):
    """When and how deeply models sleep."""

    idle_timeout: (
        Annotated[Duration, Meta(description="asleep after so long since the last byte of the last request")]
        | UnsetType
    ) = UNSET
    level: (
        Annotated[
            Level,
            Meta(description='1 keeps the weights in RAM, 2 gives them back; "auto": 1 when RAM allows'),
        ]
        | UnsetType
    ) = UNSET
    deepen_after: (
        Annotated[Duration, Meta(description="a sleeper at level 1 goes to level 2 after so long")]
        | UnsetType
    ) = UNSET


class Memory(Table):
    """How much of the machine may be used."""

    device_limit: (
        Annotated[
            SizeText,
            Meta(
                description="of the device's memory; on a CPU: of the RAM that this process may use, its"
                " cgroup included, where it bounds everything"
            ),
        ]
        | UnsetType
    ) = UNSET
    host_limit: (
        Annotated[SizeText, Meta(description="RAM that the weights of sleepers at level 1 may take")]
        | UnsetType
    ) = UNSET


class Turns(Table):
    min_awake: (
        Annotated[
            Duration,
            Meta(description="a model just woken serves at least so long before it goes for another"),
        ]
        | UnsetType
    ) = UNSET
    turn: (
        Annotated[
            Duration,
            Meta(description="while another waits for room, a busy model goes on so long, then is suspended"),
        ]
        | UnsetType
    ) = UNSET


class Queue(Turns):
    """Requests that wait, and turns of models that do not fit together."""

    max_waiting: (
        Annotated[Count, Meta(description="requests that may wait for one model; past it 429")] | UnsetType
    ) = UNSET
    max_wait: (
        Annotated[
            Duration,
            Meta(description="for a wake or a turn; past it 503, and a download from the hub goes on"),
        ]
        | UnsetType
    ) = UNSET


class Sampling(Table):
    """Of requests that say nothing else; above generation_config.json's."""

    temperature: (
        Annotated[float, Meta(ge=0, le=2, description="0: always the likeliest token")] | UnsetType
    ) = UNSET
    top_p: (
        Annotated[float, Meta(gt=0, le=1, description="only the likeliest tokens of this share together")]
        | UnsetType
    ) = UNSET
    top_k: (
        Annotated[int, Meta(ge=0, description="only so many of the likeliest tokens; 0: all")] | UnsetType
    ) = UNSET
    min_p: (
        Annotated[float, Meta(ge=0, le=1, description="only tokens of this share of the likeliest one's")]
        | UnsetType
    ) = UNSET
    repetition_penalty: (
        Annotated[float, Meta(gt=0, description="above 1 makes tokens that were there less likely")]
        | UnsetType
    ) = UNSET


class Model(Sleep, kw_only=True):
    """A model, under the name that clients send as `model`."""

    path: Annotated[
        Text,
        Meta(
            description="a directory, relative to this file; else owner/name: a hub id, fetched on first use"
        ),
    ]
    revision: Annotated[Text, Meta(description="branch, tag or commit of a hub id")] | UnsetType = UNSET
    aliases: Annotated[tuple[Text, ...], Meta(description="other names that clients may use")] | UnsetType = (
        UNSET
    )
    preload: Annotated[bool, Meta(description="wake at start")] | UnsetType = UNSET
    pinned: (
        Annotated[bool, Meta(description="never put to sleep for idleness or for another model")] | UnsetType
    ) = UNSET
    max_waiting: Annotated[Count, Meta(description="as in [queue]")] | UnsetType = UNSET
    max_wait: Annotated[Duration, Meta(description="as in [queue]")] | UnsetType = UNSET
    dtype: (
        Annotated[DType, Meta(description='what the weights are computed in; "auto": as the checkpoint says')]
        | UnsetType
    ) = UNSET
    device: Annotated[Device, Meta(description='"auto", "cpu", "cuda" or "cuda:N"')] | UnsetType = UNSET
    max_model_len: (
        Annotated[Count, Meta(description="tokens of prompt and answer; not set: as the checkpoint says")]
        | UnsetType
    ) = UNSET
    max_running: Annotated[Count, Meta(description="sequences decoded together")] | UnsetType = UNSET
    prefix_cache: (
        Annotated[bool, Meta(description="keep the KV of prompts for those that begin the same")] | UnsetType
    ) = UNSET
    chat_template: (
        Annotated[Text, Meta(description="a Jinja file, relative to this one; not set: the checkpoint's own")]
        | UnsetType
    ) = UNSET
    tool_parser: (
        Annotated[
            ToolParser, Meta(description="how the model writes tool calls; not set: as its template shows")
        ]
        | UnsetType
    ) = UNSET
    reasoning_parser: (
        Annotated[
            ReasoningParser, Meta(description="how it marks its reasoning; not set: as its template shows")
        ]
        | UnsetType
    ) = UNSET
    sampling: Sampling = field(default_factory=Sampling)


class File(Table):
    """Dormouse's config.toml."""

    server: Server = field(default_factory=Server)
    sleep: Sleep = field(default_factory=Sleep)
    memory: Memory = field(default_factory=Memory)
    queue: Queue = field(default_factory=Queue)
    models: dict[str, Model] = field(default_factory=dict)
