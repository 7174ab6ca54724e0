"""Planted faults in choosing tokens and holding them to a form, and the test that must catch each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from engine import grammar, logprobs, runner, sampler
from engine.grammar import CompiledGrammar, Matcher
from engine.penalties import History
from engine.sequence import Sequence
from engine.tokenizer import Tokenizer
from tests.mutants.engine_faults import FAULTS, caught_by, change_result

__all__ = ["FAULTS"]

# Sampling


@caught_by("test_sampler.py::test_draws_follow_the_distribution[top-p]")
def top_p_leaves_out_the_token_that_crosses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.Tensor.cumsum

    def cumsum(self: torch.Tensor, dim: int, *args: Any, **options: Any) -> torch.Tensor:
        found: torch.Tensor = real(self, dim, *args, **options)
        return found * 1.3 if self[:, 0].eq(1).all() else found

    monkeypatch.setattr(torch.Tensor, "cumsum", cumsum)


@caught_by("test_sampler.py::test_draws_from_many_tokens_follow_the_distribution[a nucleus beyond]")
def a_nucleus_ends_with_the_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    change_result(
        monkeypatch,
        sampler,
        "_draw_from_best",
        lambda found: (found[0], torch.ones_like(found[1])),
    )


@caught_by("test_sampler.py::test_the_end_of_the_distribution_is_no_token_that_may_not_come")
def rounding_draws_past_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_above(cumulative: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.searchsorted(cumulative, target, right=True).clamp_max(cumulative.shape[-1] - 1)

    monkeypatch.setattr(sampler, "_first_above", first_above)


@caught_by("test_sampler.py::test_a_seed_says_the_same_with_neighbours_and_after_sleeps")
def a_draw_depends_on_what_was_drawn_before(monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = sampler.uniform, iter(range(10**9))
    monkeypatch.setattr(sampler, "uniform", lambda seed, position: real(seed, next(count)))


@caught_by("test_sampler.py::test_banned_tokens_never_come")
def banned_tokens_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler.SampleRow, "banned", property(lambda self: ()), raising=False)


# Penalties


@caught_by("test_sampler.py::test_penalties_and_bias_are_exact[repetition]")
def the_prompt_is_not_penalised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(History, "seen", lambda self: self._answer)


@caught_by("test_sampler.py::test_penalties_and_bias_are_exact[frequency]")
def frequency_is_taken_for_presence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(History, "add", lambda self, token_id: self._counts.update({token_id: 1}))


@caught_by("test_sampler.py::test_penalties_and_bias_are_exact[presence]")
def presence_falls_on_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    real = History.__init__

    def init(self: History, params: Any, prompt_ids: Any) -> None:
        real(self, params, prompt_ids)
        self._counts = dict.fromkeys(prompt_ids, 0)

    monkeypatch.setattr(History, "__init__", init)


@caught_by("test_sampler.py::test_penalties_and_bias_are_exact[bias]")
def the_bias_is_added_with_the_wrong_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    change_result(monkeypatch, History, "additions", lambda found: (found[0], -found[1]))


@caught_by("test_sampler.py::test_an_answer_under_the_penalty_is_that_of_transformers")
def an_answers_tokens_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(History, "add", lambda self, token_id: None)


# Log probabilities


@caught_by("test_logprobs.py::test_each_row_gets_as_many_as_it_asks_for_best_first")
def the_least_likely_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    change_result(monkeypatch, logprobs, "best", lambda found: (found[0].flip(-1), found[1].flip(-1)))


@caught_by("test_logprobs.py::test_an_answers_are_of_the_raw_distribution[penalised]")
def they_are_told_after_the_penalties(monkeypatch: pytest.MonkeyPatch) -> None:
    real = sampler.sample

    def sample(logits: torch.Tensor, rows: Any) -> Any:
        sampler.penalise(logits, [row.history for row in rows])
        return real(logits, rows)

    monkeypatch.setattr(runner, "sample", sample)


@caught_by("test_logprobs.py::test_a_prompts_are_those_of_transformers[150]")
def a_prompts_cached_tokens_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sequence, "needs_prompt_logits", property(lambda self: self.computed > 0))


# Grammars


@caught_by("test_grammar.py::test_every_finished_answer_has_the_form[byte-level-regex]")
def a_grammar_allows_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    change_result(monkeypatch, sampler, "allowed_tokens", torch.ones_like)


@caught_by("test_grammar.py::test_every_finished_answer_has_the_form[byte-level-regex]")
def masks_are_read_from_the_other_end(monkeypatch: pytest.MonkeyPatch) -> None:
    real = np.unpackbits
    monkeypatch.setattr(
        grammar.np, "unpackbits", lambda bits, **options: real(bits, **{**options, "bitorder": "big"})
    )


@caught_by("test_grammar.py::test_random_weights_say_what_they_must_before_and_after_sleep")
def one_rows_mask_falls_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    change_result(monkeypatch, sampler, "allowed_tokens", lambda found: found.roll(1, 0))


@caught_by("test_grammar.py::test_choices_of_one_request_each_keep_to_the_grammar")
def choices_share_a_matcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompiledGrammar, "matcher", lambda self: Matcher(self._start, self._words))


@caught_by("test_grammar.py::test_an_answer_ends_where_its_grammar_does")
def an_answer_outlives_its_grammar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Matcher, "finished", property(lambda self: False))


@caught_by("test_grammar.py::test_bans_and_bias_give_way_to_the_grammar")
def a_ban_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = sampler._forbid

    def forbid(logits: torch.Tensor, rows: Any) -> None:
        real(logits, rows)
        for index, row in enumerate(rows):
            logits[index, list(row.banned)] = -torch.inf

    monkeypatch.setattr(sampler, "_forbid", forbid)


@caught_by("test_grammar.py::test_what_cannot_be_enforced_is_refused_with_a_reason")
def what_fails_at_the_first_step_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "_error_in", lambda matcher: "")


@caught_by("test_grammar.py::test_every_choice_comes_and_each_end_token_ends")
def one_end_token_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    real = grammar.GrammarCompiler.__init__
    monkeypatch.setattr(
        grammar.GrammarCompiler,
        "__init__",
        lambda self, text, size, eos: real(self, text, size, frozenset([min(eos)])),
    )


@caught_by("test_tokenizer.py::test_the_bytes_of_the_tokens_are_the_text")
def half_characters_have_replacements_for_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "token_bytes", lambda self, token_id: self.decode([token_id]).encode())
