"""Planted faults between the engine's tokens and the client's chunks, and the test that must catch each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from gateway.api import chat_prompt, dialect
from gateway.api.answer import Answer
from gateway.api.client import Client
from gateway.api.tools import OfferedTools
from gateway.chat import (
    forced_parameters,
    past_calls,
    splitter,
    template,
    template_style,
)
from gateway.chat.forced import LarkWriter
from gateway.chat.formats import deepseek, json_calls
from gateway.chat.reader import Reader, _ValueScan
from gateway.chat.schemas import closing, formats, patterns, plain, tightening
from gateway.chat.schemas.closing import closed
from gateway.chat.schemas.overlap import Overlap
from gateway.chat.schemas.tightening import _Tightening
from gateway.chat.splitter import Splitter
from gateway.chat.thinking import Thinking
from gateway.fleet.lease import Lease
from tests.gateway.api import caller

Fault = Callable[[pytest.MonkeyPatch], None]
FAULTS: dict[str, tuple[Fault, str]] = {}


def caught_by(test: str) -> Callable[[Fault], Fault]:
    """``test``: file and name below tests/gateway."""

    def plant(fault: Fault) -> Fault:
        FAULTS[fault.__name__] = (fault, f"tests/gateway/{test}")
        return fault

    return plant


# Telling an answer's text apart


@caught_by("chat/test_splitter.py::test_where_it_is_cut_makes_no_difference")
def half_a_mark_is_given_out_as_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reader, "_certain", lambda self, markers, trim: len(self._text))


@caught_by("chat/test_splitter.py::test_every_format")
def the_space_before_a_call_is_content(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Reader.until
    monkeypatch.setattr(Reader, "until", lambda self, markers, wrap, trim=False: real(self, markers, wrap))


@caught_by("chat/test_splitter.py::test_every_format")
def a_quoted_quote_ends_a_string(monkeypatch: pytest.MonkeyPatch) -> None:
    def string(self: Any, char: str) -> None:
        if char == self._quote:
            self._quote = ""

    monkeypatch.setattr(_ValueScan, "_string", string)


@caught_by("chat/test_splitter.py::test_of_a_call_cut_off_anywhere_nothing_is_content")
def what_is_left_of_a_call_that_was_cut_off_is_content(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Splitter.end
    monkeypatch.setattr(Splitter, "end", lambda self, cut=False: real(self))


@caught_by("chat/test_thinking.py::test_reasoning_that_the_prompt_has_begun")
def reasoning_begins_with_its_mark_always(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Thinking.read
    monkeypatch.setattr(
        Thinking, "read", lambda self, reader, opened, continued: real(self, reader, opened=False)
    )


@caught_by("chat/test_thinking.py::test_reasoning_that_goes_on_keeps_its_space")
def reasoning_that_goes_on_is_stripped(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Thinking.read
    monkeypatch.setattr(
        Thinking, "read", lambda self, reader, opened, continued: real(self, reader, opened=opened)
    )


@caught_by("api/test_reasoning.py::test_reasoning_goes_on_where_the_final_message_is_within_it")
def only_the_templates_mark_begins_reasoning(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Thinking.opened_by
    monkeypatch.setattr(Thinking, "opened_by", lambda self, prompt, continued: real(self, prompt))


@caught_by("api/test_tools.py::test_of_a_forced_call_that_the_length_cuts_off_nothing_is_content")
def half_a_forced_call_is_content(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Answer.__init__

    def init(self: Answer, style: Any, **options: Any) -> None:
        real(self, style, **{**options, "calls_only": False})

    monkeypatch.setattr(Answer, "__init__", init)


@caught_by("api/test_tools.py::test_one_call_where_clients_want_no_more")
def all_calls_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Answer.__init__

    def init(self: Answer, style: Any, **options: Any) -> None:
        real(self, style, **{**options, "parallel": True})

    monkeypatch.setattr(Answer, "__init__", init)


@caught_by("api/test_tools.py::test_a_call")
def calls_end_with_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answer, "finish_reason", lambda self, reason: reason)


@caught_by("chat/test_thinking.py::test_a_call_of_a_model_that_has_forgotten_to_end_its_reasoning")
def calls_within_reasoning_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitter, "_calls_within", lambda text, tools, schemas: iter(()))


@caught_by("chat/test_splitter.py::test_every_format")
def arguments_that_are_no_object_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    real = json_calls.as_object

    def as_object(value: str | None) -> str:
        found = real(value)
        return found if found.startswith("{") else "{}"

    monkeypatch.setattr(json_calls, "as_object", as_object)


@caught_by("chat/test_splitter.py::test_every_format")
def what_is_no_call_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepseek, "give_back", lambda reader, mark: iter(()))


# What the model is told and held to


@caught_by("chat/test_past_calls.py::test_such_a_template_is_told_of_calls_that_come_with_a_text")
def templates_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_style._Trial, "keeps_calls_apart", lambda self: False)


@caught_by("chat/test_past_calls.py::test_templates_that_take_tools_for_granted_go_without")
def what_a_template_takes_for_granted_it_does_not_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "_variants", lambda context: iter(()))


@caught_by("api/test_reasoning.py::test_a_variable_that_the_template_refuses_is_named")
def it_is_always_the_messages_that_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_prompt, "_renders", lambda render, variables: False)


@caught_by("chat/test_forced.py::test_calls")
def marks_are_written_as_text_in_grammars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LarkWriter, "text", lambda self, text: json.dumps(text) if text else "")


@caught_by("chat/test_forced.py::test_after_the_reasoning_a_call_or_the_form")
def reasoning_is_forbidden_where_the_prompt_has_begun_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = LarkWriter.frame

    def frame(self: LarkWriter, *, body: Any, thinking: Any, opened: bool, content: str = "") -> str:
        return real(self, body=body, thinking=None, opened=opened, content=content)

    monkeypatch.setattr(LarkWriter, "frame", frame)


@caught_by("chat/test_schemas.py::test_walks_end_and_are_valid")
def every_object_is_closed_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Tightening, "_part", lambda self, schema, shared: closed(dict(schema), [schema]))


@caught_by("chat/test_tightening.py::test_numbers_are_those_that_every_reader_holds")
def numbers_have_no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tightening, "number_limits", lambda places, always: {})


@caught_by("chat/test_schemas.py::test_walks_end_and_are_valid")
def alternatives_are_held_to_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Overlap, "disjoint", lambda *arguments: True)


@caught_by("chat/test_patterns.py::test_spaces_and_ends_of_lines_are_those_of_all_readers")
def spaces_are_all_that_unicode_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_portable", lambda pattern: pattern)


@caught_by("chat/test_schemas.py::test_formats_are_what_validators_take_for_them")
def formats_are_left_to_the_grammar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "_KEPT", plain._KEPT | {"format"})
    monkeypatch.setattr(formats, "as_pattern", lambda name: [])


@caught_by("chat/test_schemas.py::test_walks_end_and_are_valid")
def what_is_unknown_to_grammars_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "_REWRITES", {})


@caught_by("chat/test_schemas.py::test_walks_end_and_are_valid")
def names_are_as_long_as_models_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "NAME", "")


@caught_by("api/test_reasoning.py::test_whether_it_is_told_to")
def who_is_held_to_a_form_reasons_first(monkeypatch: pytest.MonkeyPatch) -> None:
    real = chat_prompt.template_variables

    def variables(request: Any, *, constrained: bool) -> dict[str, Any]:
        return real(request, constrained=False)

    monkeypatch.setattr(chat_prompt, "template_variables", variables)


@caught_by("api/test_tools.py::test_one_that_knows_none_is_told_in_words")
def who_knows_no_tools_is_told_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "tools_in_words", lambda messages, tools, layout: messages)


@caught_by("chat/test_past_calls.py::test_ids_of_any_length_are_made_short_for_templates_that_want_them_so")
def ids_are_cut_to_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past_calls, "_short", lambda id: id[:9])


@caught_by("chat/test_past_calls.py::test_where_a_template_takes_one_call_a_message_each_has_its_own")
def results_stay_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    def each(message: Any, calls: Any, results: Any) -> list[Any]:
        return [*({**message, "tool_calls": [call]} for call in calls), *results]

    monkeypatch.setattr(past_calls, "_each_call", each)


@caught_by("chat/test_past_calls.py::test_in_words_results_in_a_row_are_one_text_of_the_user")
def each_result_is_a_message_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    real = template.calls_in_words
    monkeypatch.setattr(
        template,
        "calls_in_words",
        lambda messages, layout: [told for message in messages for told in real([message], layout)],
    )


@caught_by("api/test_reasoning.py::test_the_configuration_may_name_the_marks")
def the_configured_marks_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialect, "_thinking", lambda model, template, tools: template.thinking)


@caught_by("api/test_tools.py::test_calls_that_must_be_are_no_more_than_there_is_room_for")
def calls_are_cut_off_rather_than_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OfferedTools, "most_calls", 16)


@caught_by("chat/test_forced.py::test_calls")
def any_string_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forced_parameters, "_is_free", lambda schema: True)


@caught_by("chat/test_forced.py::test_any_text_with_calls_that_are_valid")
def a_text_may_have_no_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        LarkWriter, "text_and_calls", lambda self, several: "text_and_calls: TEXT\nTEXT: /(?s:.*)/\n"
    )


@caught_by("api/test_tools.py::test_a_strict_tool_is_held_to_its_schema_though_it_need_not_be_called")
def strict_tools_are_as_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OfferedTools, "strict", False)


# Clients that leave and stall


@caught_by("api/test_streaming.py::test_a_stream_that_stalls_in_the_middle_is_cut")
def nobody_watches_for_clients_that_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stalled(self: Client) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(Client, "_stalled", stalled)
    monkeypatch.setattr(caller, "PATIENCE", 1.0)


@caught_by("fleet/test_lease.py::test_cut_twice_it_ends_with_the_error")
def a_wait_is_cancelled_each_time_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks: dict[Any, asyncio.Task[Any]] = {}

    def cut(self: Lease) -> None:
        for stream, task in self._waiting.items():
            tasks[stream] = task or tasks[stream]
            self._waiting[stream] = None
            tasks[stream].cancel()

    monkeypatch.setattr(Lease, "cut", cut)
