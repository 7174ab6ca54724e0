"""Planted faults of the engine, and the test that must catch each.

A fault is a function that breaks the engine by monkeypatching; its name says what it does wrong.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import pytest

from engine import chunk, linear, reader, scheduler, widening
from engine.blocks import BlockPool
from engine.checkpoint import Fingerprint
from engine.chunk import StepBudget
from engine.device import Device
from engine.engine import TorchEngine
from engine.free_ids import FreeIds
from engine.kv_cache import KVCache
from engine.linear import Linear
from engine.memory.cpu import CpuArena
from engine.memory.system import SystemMemory
from engine.prefix_cache import PrefixCache
from engine.runner import Runner
from engine.scheduler import Scheduler
from engine.sequence import Sequence
from engine.stepping import GenerationStepper
from engine.stream import DeltaStream
from engine.tokenizer import IncrementalDecoder, StopMatcher
from engine.types import MemoryState
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


@caught_by("test_scheduler.py::test_preempted_sequences_say_the_same[llama-float32-6]")
def a_preempted_sequence_is_not_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Sequence.begin_with

    def begin_with(self: Sequence, blocks: Any) -> None:
        before = self.computed
        real(self, blocks)
        self.computed = max(before, self.computed)

    monkeypatch.setattr(Sequence, "begin_with", begin_with)


@caught_by("test_wake_failures.py::test_reads_that_come_up_short_are_gone_on_with[auto]")
def a_short_read_is_taken_for_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def scatter(shard: Any, fd: int, stretch: reader.Stretch, buffer: memoryview) -> int:
        views = [buffer[start : start + length] for start, length in stretch.targets]
        return os.preadv(fd, views, stretch.offset)

    monkeypatch.setattr(reader, "scatter", scatter)


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


@caught_by("memory/test_system.py::test_over_the_limit_is_less_than_nothing_and_claims_nothing")
def being_over_the_limit_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def bounded(state: MemoryState) -> MemoryState:
        return dataclasses.replace(state, available=max(0, state.available))

    change_result(monkeypatch, SystemMemory, "state", bounded)


@caught_by("memory/test_system.py::test_what_is_touched_of_a_claim_is_taken_off_once")
def what_is_touched_of_a_claim_is_taken_off_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SystemMemory, "_held", lambda self: 0)


# Scheduling


@caught_by("test_scheduler.py::test_no_more_than_max_running_run")
def any_number_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Scheduler.__init__
    monkeypatch.setattr(Scheduler, "__init__", lambda self, kv, most, *rest: real(self, kv, 10**6, *rest))


@caught_by("test_scheduler.py::test_a_long_prompt_beside_decoding_sequences_goes_in_chunks")
def a_prompt_is_computed_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        scheduler, "_chunk", lambda sequence, budget: max(0, sequence.prompt_length - sequence.computed)
    )


@caught_by("test_chunk.py::test_a_step_with_prompts_takes_little_longer_than_an_ordinary_one")
def chunks_beside_streams_are_as_large_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepBudget, "tokens", lambda self, decoding, prompts=1: chunk.LARGEST)


@caught_by("test_chunk.py::test_more_who_wait_than_run_go_first")
def who_waits_never_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    real = StepBudget.seconds
    monkeypatch.setattr(StepBudget, "seconds", lambda self, decoding, prompts=1: real(self, decoding))


@caught_by("test_chunk.py::test_chunks_shrink_as_a_longer_context_makes_layers_dearer")
def what_a_prompts_token_costs_is_learned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk, "_mean", lambda before, newest: newest if before is None else before)


@caught_by(
    "test_scheduler.py::test_the_blocks_of_a_chunk_in_the_making_stay_its_own_though_its_sequence_leaves"
)
def a_chunk_in_the_making_holds_no_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(self: Scheduler, tokens: int) -> Any:
        self.prefilling = self.prefilling or self._prefills(tokens)
        return self.prefilling

    monkeypatch.setattr(Scheduler, "begin_prefill", begin)


@caught_by("test_scheduler.py::test_a_chunk_ends_when_all_of_its_sequences_have_left")
def a_chunk_goes_on_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scheduler, "end_prefill", lambda self: None)


@caught_by("test_linear.py::test_rows_of_prompts_are_the_products_rounded_once[(192, 96)-packed]")
def panels_are_widened_as_if_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    real = linear.widened_linear
    monkeypatch.setattr(
        linear, "widened_linear", lambda x, matrix, bias, packed: real(x, matrix, bias, packed=False)
    )


@caught_by("test_linear.py::test_rows_of_prompts_are_the_products_rounded_once[(6144, 1024)-packed]")
def few_rows_of_prompts_are_not_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widening, "_LEAST_ROWS", 1)


@caught_by("test_blocks.py::TestPool")
def a_block_is_handed_out_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FreeIds, "take", lambda self, first, stop: None)


@caught_by("test_blocks.py::test_a_shared_block_is_free_when_its_last_holder_has_left")
def a_shared_block_has_one_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlockPool, "hold", lambda self, blocks: None)


@caught_by("test_prefix_cache.py::test_a_block_is_found_when_it_is_full_and_computed")
def blocks_are_known_before_they_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = BlockPool.publish

    def publish(self: BlockPool, blocks: Any, token_ids: Any, indices: range) -> None:
        real(self, blocks, token_ids, range(indices.start, min(indices.stop + 1, len(token_ids) // 16)))

    monkeypatch.setattr(BlockPool, "publish", publish)


@caught_by("test_blocks.py::test_the_same_tokens_behind_others_are_other_blocks")
def tokens_are_looked_up_without_those_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(self: PrefixCache, before: int, tokens: Any) -> int | None:
        return next((block for (_, others), block in self._blocks.items() if others == tokens), None)

    monkeypatch.setattr(PrefixCache, "next", find)


@caught_by("test_blocks.py::test_the_least_recently_used_goes_first_and_ends_before_beginnings")
def the_block_used_last_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    real = BlockPool.evict

    def evict(self: BlockPool) -> int | None:
        if self._idle:
            self._idle.move_to_end(next(reversed(self._idle)), last=False)
        return real(self)

    monkeypatch.setattr(BlockPool, "evict", evict)


@caught_by("test_kv_cache.py::test_accounts_that_do_not_add_up_empty_the_cache")
def accounts_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlockPool, "fault", lambda self: None)


@caught_by("test_kv_cache.py::test_what_is_kept_while_quiet_is_bounded")
def a_quiet_model_keeps_all_that_it_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KVCache, "settle", lambda self: None)


@caught_by("test_kv_cache.py::test_of_all_caches_on_the_device_the_oldest_block_goes_first[own]")
def siblings_give_way_first(monkeypatch: pytest.MonkeyPatch) -> None:
    real = KVCache._reclaim

    def reclaim(self: KVCache) -> KVCache | None:
        for sibling in self._siblings:
            if sibling is not self and sibling.trim(keep=1):
                return sibling
        return real(self)

    monkeypatch.setattr(KVCache, "_reclaim", reclaim)


@caught_by("test_prefix_cache.py::test_sleep_empties_the_cache[1]")
def sleep_keeps_the_prefix_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KVCache, "trim", lambda self, keep=0: 0)


@caught_by("test_prefix_cache.py::test_prompt_logprobs_are_of_all_tokens")
def prompt_logprobs_skip_what_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Scheduler._admit

    def admit(self: Scheduler, sequence: Sequence) -> bool:
        found = self._kv.pool.match(sequence.token_ids[:-1])
        self._kv.pool.hold(found)
        sequence.begin_with(found)
        return real(self, sequence)

    monkeypatch.setattr(Scheduler, "_admit", admit)


@caught_by("test_choices.py::test_the_prompt_is_computed_once[40-False]")
def every_choice_computes_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    def release(self: Scheduler, leader: Sequence) -> None:
        self.waiting.extendleft(reversed(leader.followers))
        leader.followers = []

    monkeypatch.setattr(Scheduler, "_release_followers", release)


@caught_by("test_choices.py::test_choice_i_is_the_answer_with_seed_plus_i[12]")
def all_choices_have_one_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Sequence.__init__

    def init(self: Sequence, request: Any, *args: Any) -> None:
        real(self, request, *args)
        self.seed = request.sampling.seed

    monkeypatch.setattr(Sequence, "__init__", init)


@caught_by("test_choices.py::test_those_who_wait_give_up_what_they_share_when_nobody_can_go_on")
def those_who_wait_keep_what_they_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scheduler, "_take_from_waiting", lambda self, needy: False)


@caught_by("test_generate.py::test_leaving_in_mid_stream_frees_the_blocks_within_a_step")
def those_who_left_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    left = property(lambda self: False, lambda self, value: None)
    monkeypatch.setattr(DeltaStream, "aborted", left, raising=False)


@caught_by("test_slow_readers.py::test_no_more_waits_than_was_asked_for")
def those_who_do_not_read_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeltaStream, "full", False)


@caught_by("test_slow_readers.py::test_an_answer_pauses_and_goes_on_with_the_same_tokens[True]")
def nobody_hears_that_a_reader_has_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeltaStream, "caught_up", False)


@caught_by("test_slow_readers.py::test_one_that_leaves_while_aside_is_forgotten")
def nobody_looks_whether_those_aside_have_left(monkeypatch: pytest.MonkeyPatch) -> None:
    work = property(lambda self: bool(self.waiting or self.running))
    monkeypatch.setattr(Scheduler, "has_work", work)


@caught_by("test_generate.py::test_an_answer_ends_at_the_models_length[1000]")
def answers_outgrow_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.engine.within_reach", lambda info, request: request)


@caught_by("test_generate.py::test_a_failing_step_ends_its_sequences_and_the_next_one_works")
def a_failed_sequence_keeps_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scheduler, "_release", lambda self, sequence: None)


# Suspended answers


@caught_by("test_suspend.py::test_kept_sequences_go_on_bit_by_bit[llama-1]")
def sleep_takes_what_the_suspended_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    def trim(self: KVCache, keep: int = 0) -> int:
        for number in sorted(self.memory.committed):
            self.memory.release(number)
            self.memory.commit(number)
        return 0

    monkeypatch.setattr(KVCache, "trim", trim)


@caught_by("test_suspend.py::test_the_same_is_said_wherever_it_was_suspended[after_8-1-True]")
def sleep_ends_the_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    real = TorchEngine._release

    def release(self: TorchEngine, level: Any) -> int:
        self._end_all("the model was put to sleep")
        return real(self, level)

    monkeypatch.setattr(TorchEngine, "_release", release)


@caught_by("test_suspend.py::test_a_chunk_in_the_making_is_given_up[True]")
def a_chunk_in_the_making_outlives_its_suspension(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Scheduler.suspend

    def suspend(self: Scheduler, *, keep_kv: bool) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Scheduler, "end_prefill", lambda self: None)
            real(self, keep_kv=keep_kv)

    monkeypatch.setattr(Scheduler, "suspend", suspend)


@caught_by("test_suspend.py::test_who_leaves_gives_memory_back_without_a_wake[1-True]")
def who_leaves_while_suspended_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    real = GenerationStepper.has_work
    work = property(lambda self: not self.suspended and real.fget(self))  # type: ignore[misc]
    monkeypatch.setattr(GenerationStepper, "has_work", work)


@caught_by("test_suspend.py::test_who_leaves_gives_memory_back_without_a_wake[1-True]")
def who_left_while_suspended_leaves_memory_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    real = GenerationStepper.step
    step = lambda self: self._collect() if self.suspended else real(self)  # noqa: E731
    monkeypatch.setattr(GenerationStepper, "step", step)


@caught_by("test_suspend.py::test_kept_memory_gives_way_to_another_engine_that_runs")
def the_suspended_never_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KVCache, "_take_from_parked", lambda self: None)


@caught_by("test_suspend.py::test_a_limit_of_its_own_costs_the_suspended_nothing_and_is_not_waited_for")
def the_suspended_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = property(lambda self: any(one.used_blocks for one in self._siblings if one is not self))
    monkeypatch.setattr(KVCache, "waits_for_siblings", waits)


@caught_by("test_suspend.py::test_no_memory_for_a_wake_takes_nothing_and_loses_nothing")
def a_wake_leaves_no_room_for_the_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    real = KVCache.park
    monkeypatch.setattr(KVCache, "park", lambda self, least, give_up: real(self, 1, give_up))


@caught_by("test_device.py::test_a_prompt_lets_another_engine_go_first_behind_any_layer")
def a_chunk_of_prompts_makes_all_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "others_wait", lambda self, stepper: False)


@caught_by("test_device.py::test_two_engines_interleave")
def the_first_engine_always_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def first(self: Device) -> Any:
        return next((stepper for stepper in self._steppers if stepper.has_work), None)

    monkeypatch.setattr(Device, "_next", first)


@caught_by("test_device.py::test_a_deep_wake_does_not_stall_anothers_stream")
def a_wake_reads_on_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "beside_steps", Device.between_steps)


# Writing


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
        monkeypatch, Runner, "decode", lambda tokens: [*tokens[:-1], None] if len(tokens) > 1 else tokens
    )


# Packed weights


@caught_by("test_linear.py::test_a_quiet_model_gets_packed_and_says_the_same")
def a_refilled_weight_passes_for_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Linear, "emptied", lambda self: None)


class NoLock:
    def acquire(self, blocking: bool = True) -> bool:
        return True

    def release(self) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None: ...


@caught_by("test_linear.py::test_a_release_waits_for_the_matrix_that_is_being_packed")
def packing_and_releasing_go_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Weights.__init__

    def init(self: Weights, *args: Any) -> None:
        real(self, *args)
        self._lock = NoLock()  # type: ignore[assignment]

    monkeypatch.setattr(Weights, "__init__", init)


@caught_by("test_linear.py::test_a_quiet_model_gets_packed_and_says_the_same")
def a_tied_embedding_is_read_as_if_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Linear, "rows", lambda self, ids: self.weight[ids])


@caught_by("test_linear.py::test_blocks_that_lie_otherwise_are_refused")
def any_layout_of_blocks_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.packing._same_rows", lambda plain, address, rows: True)


@caught_by("test_row_dependence.py::test_16_bit_linears_have_rows_that_do_not_depend_on_their_number")
def rows_are_multiplied_as_many_as_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Linear, "__call__", lambda self, x, generated=False: self._multiply(x))
