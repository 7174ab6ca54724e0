"""Planted faults in embedding, and the test that must catch each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from engine.embedding.body import DecoderBody
from engine.embedding.stepper import EmbeddingStepper
from engine.models import encoder, pooling
from engine.models.encoder import Encoder
from engine.models.encoder_config import EncoderConfig
from engine.models.pooling import Pooling
from tests.mutants.engine_faults import FAULTS, caught_by, change_result

__all__ = ["FAULTS"]


@caught_by("test_encoders.py::test_every_family[Bert]")
def the_mean_leaves_a_token_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pooling._POOLINGS, "mean", lambda hidden: hidden[: max(1, len(hidden) - 1)].mean(0))


@caught_by("test_encoders.py::test_every_family[Bert]")
def vectors_are_not_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "normalize", lambda x, dim: x)


@caught_by("test_encoders.py::test_neighbours_change_nothing")
def an_input_attends_to_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Encoder._attention

    def attention(self: Encoder, index: int, x: torch.Tensor, lengths: Sequence[int], biases: Any) -> Any:
        return real(self, index, x, [sum(lengths)], {sum(lengths): None})

    monkeypatch.setattr(Encoder, "_attention", attention)


@caught_by("test_encoders.py::test_every_family[Roberta]")
def positions_begin_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    change_result(monkeypatch, EncoderConfig, "parse", lambda config: replace(config, first_position=0))


@caught_by("test_encoders.py::test_every_family[Bert]")
def token_types_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(config: EncoderConfig) -> EncoderConfig:
        return replace(config, family=replace(config.family, token_types=False))

    change_result(monkeypatch, EncoderConfig, "parse", forget)


@caught_by("test_encoders.py::test_every_family[MPNet]")
def distances_are_turned_round(monkeypatch: pytest.MonkeyPatch) -> None:
    real = encoder._buckets
    monkeypatch.setattr(encoder, "_buckets", lambda distance, count: real(-distance, count))


@caught_by("test_embedding.py::test_any_pooling_over_a_decoder")
def only_the_last_chunk_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pooling, "to_keep", lambda self, hidden: hidden[:0])


@caught_by("test_embedding.py::test_a_decoder_gives_its_last_tokens_state[None]")
def a_decoders_later_chunks_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    change_result(monkeypatch, DecoderBody, "next_count", lambda count: min(count, 300))
    real = EmbeddingStepper._compute

    def compute(self: EmbeddingStepper, chosen: Any) -> Any:
        for work, _ in chosen:
            work.ids, work.computed = work.ids[work.computed :], 0
        return real(self, chosen)

    monkeypatch.setattr(EmbeddingStepper, "_compute", compute)


@caught_by("test_embedding.py::test_a_failing_input_ends_only_its_own_request[encoder]")
def a_failing_input_ends_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    real = EmbeddingStepper._advance

    def advance(self: EmbeddingStepper, chosen: Any) -> None:
        try:
            self._compute(chosen)
        except Exception:
            self.end_all("a step failed")
        else:
            real(self, chosen)

    monkeypatch.setattr(EmbeddingStepper, "_advance", advance)


@caught_by("test_embedding.py::test_leaving_ends_the_work_within_a_step[encoder]")
def who_left_is_served_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    def collect(self: EmbeddingStepper) -> None:
        while self.inbox:
            self._queue.append(self.inbox.popleft())

    monkeypatch.setattr(EmbeddingStepper, "_collect", collect)


@caught_by("test_suspended_embeddings.py::test_a_large_batch_is_cut_at_a_steps_end")
def what_is_under_way_is_finished_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmbeddingStepper, "suspend", lambda self, keep_kv: not self.has_work)


@caught_by("test_suspended_embeddings.py::test_the_rest_is_computed_later[False-2-decoder_in_an_input]")
def what_gave_up_its_kv_goes_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    real = EmbeddingStepper._give_up

    def give_up(self: EmbeddingStepper) -> bool:
        oldest = next(self._inputs(), None)
        computed = oldest.computed if oldest else 0
        gave = real(self)
        if oldest:
            oldest.computed = computed
        return gave

    monkeypatch.setattr(EmbeddingStepper, "_give_up", give_up)


@caught_by("test_suspended_embeddings.py::test_what_is_not_kept_is_given_back[2]")
def suspended_embeddings_keep_their_kv(monkeypatch: pytest.MonkeyPatch) -> None:
    real = EmbeddingStepper.suspend
    monkeypatch.setattr(EmbeddingStepper, "suspend", lambda self, keep_kv: real(self, keep_kv=True))


@caught_by("test_suspended_embeddings.py::test_who_leaves_gives_memory_back_without_a_wake")
def who_leaves_a_suspended_model_is_missed_at_its_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    has_work = property(lambda self: not self.suspended and bool(self.inbox or self._queue))
    monkeypatch.setattr(EmbeddingStepper, "has_work", has_work)


@caught_by("test_suspended_embeddings.py::test_it_is_told_when_more_is_computed_than_before[False-5]")
def going_over_it_again_counts_as_going_on(monkeypatch: pytest.MonkeyPatch) -> None:
    real = EmbeddingStepper._give_up

    def give_up(self: EmbeddingStepper) -> bool:
        for work in self._inputs():
            work.reached = 0
        return real(self)

    monkeypatch.setattr(EmbeddingStepper, "_give_up", give_up)
