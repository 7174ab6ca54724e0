"""Planted faults of the engine, and the test that must catch each.

A fault is a function that breaks the engine by monkeypatching; its name says what it does wrong.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine import engine as engine_module
from engine import reader, sampler
from engine.attention import plan
from engine.checkpoint import Fingerprint
from engine.device import Device
from engine.engine import TorchEngine
from engine.kv_cache import KVCache
from engine.memory.cpu import CpuArena
from engine.memory.system import SystemMemory
from engine.runner import Runner
from engine.scheduler import Scheduler
from engine.sequence import Sequence
from engine.tokenizer import IncrementalDecoder, StopMatcher
from engine.weights import Weights

Fault = Callable[[pytest.MonkeyPatch], None]
FAULTS: dict[str, tuple[Fault, str]] = {}


def caught_by(test: str) -> Callable[[Fault], Fault]:
    """``test``: file and name below tests/engine."""

    def plant(fault: Fault) -> Fault:
        FAULTS[fault.__name__] = (fault, f"tests/engine/{test}")
        return fault

    return plant


def change_result(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, change: Callable[[Any], Any]
) -> None:
    real = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **kwargs: change(real(*args, **kwargs)))


# Numbers


@caught_by("test_parity.py::test_prompts_around_the_borders_of_blocks_and_chunks[400]")
def later_chunks_look_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(span: plan.PrefillSpan) -> plan.PrefillSpan:
        return span if span.mask is None else dataclasses.replace(span, mask=torch.ones_like(span.mask))

    change_result(monkeypatch, plan, "_prefill", blind)


@caught_by("test_parity.py::test_prefill_and_decode_of_every_shape[llama-llama3-rope]")
def a_rope_scaling_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        engine_module.build_model.__globals__["rope_table"].__globals__["_SCALINGS"], "llama3", _same
    )


def _same(base: torch.Tensor, parameters: Any) -> torch.Tensor:
    return base


@caught_by("test_scheduler.py::test_preempted_sequences_say_the_same[llama-float32-6]")
def a_preempted_sequence_is_not_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    def release(self: Scheduler, sequence: Sequence) -> None:
        self._kv.free(sequence.blocks)
        sequence.blocks = []

    real = Scheduler._allocate

    def allocate(self: Scheduler, sequence: Sequence, tokens: int) -> None:
        real(self, sequence, max(tokens, sequence.computed + 1))

    monkeypatch.setattr(Scheduler, "_release", release)
    monkeypatch.setattr(Scheduler, "_allocate", allocate)


@caught_by("test_wake_failures.py::test_reads_that_come_up_short_are_gone_on_with[auto]")
def a_short_read_is_taken_for_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def scatter(shard: Any, fd: int, read: reader._Read, buffer: memoryview) -> int:
        views = [buffer[start : start + length] for start, length in read.targets]
        return os.preadv(fd, views, read.offset)

    monkeypatch.setattr(reader, "_scatter", scatter)


# Sleep and memory


@caught_by("test_sleep.py::test_deep_sleep_empties_the_range")
def deep_sleep_keeps_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Weights, "release", lambda self: setattr(self, "resident", False))


@caught_by("test_sleep.py::test_light_sleep_keeps_the_weights_and_drops_the_rest")
def light_sleep_is_deep(monkeypatch: pytest.MonkeyPatch) -> None:
    real = TorchEngine._release
    monkeypatch.setattr(TorchEngine, "_release", lambda self, level: real(self, 2))


@caught_by("test_sleep.py::test_light_sleep_keeps_the_weights_and_drops_the_rest")
def sleep_keeps_the_kv_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KVCache, "trim", lambda self, keep=0: 0)


@caught_by("test_wake_failures.py::test_an_error_in_reading_and_a_good_wake_after_it")
def a_failed_wake_keeps_what_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    def release(self: CpuArena, offset: int, length: int) -> None:
        """Nothing."""

    monkeypatch.setattr(CpuArena, "release", release)


@caught_by("test_wake_failures.py::test_a_changed_file_fails_the_wake_and_nothing_else")
def a_changed_file_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_check", lambda shard, fd: None)


@caught_by("test_wake_failures.py::test_a_file_that_changes_while_it_is_read_fails_the_wake")
def a_file_is_checked_before_reading_only(monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = reader._check, set()

    def check(shard: Any, fd: int) -> None:
        if (shard.path, fd) not in seen:
            seen.add((shard.path, fd))
            real(shard, fd)
        else:
            seen.clear()

    monkeypatch.setattr(reader, "_check", check)


@caught_by("test_wake_failures.py::test_a_changed_file_fails_the_wake_and_nothing_else[replace]")
def another_file_in_its_place_is_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    change_result(monkeypatch, Fingerprint, "of", lambda found: dataclasses.replace(found, inode=0))


@caught_by("test_wake_failures.py::test_a_changed_file_fails_the_wake_and_nothing_else[change_a_byte]")
def times_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    change_result(monkeypatch, Fingerprint, "of", lambda found: dataclasses.replace(found, mtime_ns=0))


@caught_by("test_wake_failures.py::test_reload_of_another_shape_or_of_nothing_keeps_what_is_there")
def a_reload_lets_go_of_the_old_first(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Weights.adopt

    def adopt(self: Weights, layout: Any) -> None:
        self.release()
        real(self, layout)

    monkeypatch.setattr(Weights, "adopt", adopt)


@caught_by("memory/test_system.py::test_file_cache_is_not_use")
def file_cache_counts_as_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SystemMemory, "_reclaimable", lambda self, directory, version: 0)


@caught_by("memory/test_system.py::test_the_tightest_of_the_parents_counts")
def parents_limits_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    change_result(monkeypatch, SystemMemory, "_cgroups", lambda found: list(found)[:1])


# Scheduling


@caught_by("test_scheduler.py::test_no_more_than_max_running_run")
def any_number_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Scheduler.__init__
    monkeypatch.setattr(Scheduler, "__init__", lambda self, kv, most, chunk: real(self, kv, 10**6, chunk))


@caught_by("test_scheduler.py::test_a_long_prompt_beside_decoding_sequences_goes_in_chunks")
def a_prompt_is_computed_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Scheduler.__init__
    monkeypatch.setattr(Scheduler, "__init__", lambda self, kv, most, chunk: real(self, kv, most, 10**6))


@caught_by("test_kv_cache.py::TestManyBlocks")
def a_block_is_handed_out_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    real = KVCache.free
    monkeypatch.setattr(KVCache, "free", lambda self, blocks: real(self, blocks + blocks[:1]))


@caught_by("test_generate.py::test_leaving_in_mid_stream_frees_the_blocks_within_a_step")
def those_who_left_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Sequence, "aborted", property(lambda self: False, lambda self, value: None), raising=False
    )


@caught_by("test_generate.py::test_an_answer_ends_at_the_models_length[1000]")
def answers_outgrow_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TorchEngine, "_within_reach", lambda self, request: request)


@caught_by("test_generate.py::test_a_failing_step_ends_its_sequences_and_the_next_one_works")
def a_failed_sequence_keeps_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    def finish(self: Scheduler, sequence: Sequence) -> None:
        self.running = [other for other in self.running if other is not sequence]

    monkeypatch.setattr(Scheduler, "finish", finish)


@caught_by("test_device.py::test_two_engines_interleave")
def the_first_engine_always_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def first(self: Device) -> Any:
        return next((stepper for stepper in self._steppers if stepper.has_work), None)

    monkeypatch.setattr(Device, "_next", first)


@caught_by("test_device.py::test_a_deep_wake_does_not_stall_anothers_stream")
def a_wake_reads_on_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "beside_steps", Device.between_steps)


# Choosing and writing


@caught_by("test_sampler.py::test_draws_follow_the_distribution[top-p]")
def top_p_leaves_out_the_token_that_crosses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    change_result(
        monkeypatch,
        torch.Tensor,
        "cumsum",
        lambda found: found * 1.3 if found.dtype == torch.float else found,
    )


@caught_by("test_sampler.py::test_a_seed_says_the_same_with_neighbours_and_after_sleeps")
def a_draw_depends_on_what_was_drawn_before(monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = sampler.uniform, iter(range(10**9))
    monkeypatch.setattr(sampler, "uniform", lambda seed, position: real(seed, next(count)))


@caught_by("test_sampler.py::test_banned_tokens_never_come")
def banned_tokens_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler.SampleRow, "banned", property(lambda self: ()), raising=False)


@caught_by("test_stopping.py::test_a_stop_string_wherever_its_tokens_border")
def the_beginning_of_a_stop_string_is_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StopMatcher, "_overlap", lambda self, stop: 0)


@caught_by("test_tokenizer.py::test_half_a_character_is_held_back_and_given_out_at_the_end")
def half_a_character_is_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def push(self: IncrementalDecoder, token_id: int) -> str:
        self._window.append(token_id)
        return self.flush()

    monkeypatch.setattr(IncrementalDecoder, "push", push)


@caught_by("test_generate.py::test_the_worker_says_what_the_parts_say")
def a_token_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    change_result(
        monkeypatch, Runner, "step", lambda tokens: [*tokens[:-1], None] if len(tokens) > 1 else tokens
    )
