"""Who runs when: continuous batching, chunked prefill, preemption, and nothing lost in any of them."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.chunk import UNIT
from engine.sequence import Sequence as Running
from engine.types import OutOfMemory
from tests.engine.conftest import OpenStepper
from tests.engine.harness import Answer, greedy, prompt
from tests.exact import Reference, assert_same, wrong_token


def reference(answer: Answer) -> Reference:
    return Reference(answer.token_ids, torch.stack(answer.logits))


@pytest.mark.parametrize(("name", "dtype"), [("llama", "float32"), ("qwen3", "bfloat16")])
async def test_neighbours_do_not_change_an_answer(
    request: pytest.FixtureRequest, stepper: OpenStepper, name: str, dtype: Literal["float32", "bfloat16"]
) -> None:
    directory = request.getfixturevalue(name)
    prompts = [prompt(length, seed=length) for length in (3, 300, 17, 64, 31, 1, 33, 5, *range(70, 110))]
    lone = stepper(directory)
    alone = [lone.answer(ids, greedy(16)) for ids in prompts]
    run = stepper(directory)
    together = [run.add(ids, greedy(16)) for ids in prompts]
    run.run()
    assert max(len(step) for step in run.log) > 10
    answers = [run.answers[sequence].token_ids for sequence in together]
    assert_same([reference(answer) for answer in alone], answers, dtype)


@pytest.mark.parametrize("blocks", [6, 9, 14, 30])
@pytest.mark.parametrize(("name", "dtype"), [("llama", "float32"), ("qwen3", "bfloat16")])
async def test_preempted_sequences_say_the_same(
    request: pytest.FixtureRequest,
    stepper: OpenStepper,
    name: str,
    dtype: Literal["float32", "bfloat16"],
    blocks: int,
) -> None:
    """Blocks for one to a few sequences at a time, all of which outgrow what is there together."""
    directory = request.getfixturevalue(name)
    prompts = [prompt(length, seed=length) for length in (5, 30, 17, 40, 21, 16)]
    roomy = stepper(directory)
    wanted = [roomy.add(ids, greedy(40)) for ids in prompts]
    roomy.run()
    tight = stepper(directory, blocks=blocks)
    got = [tight.add(ids, greedy(40)) for ids in prompts]
    tight.run()
    assert tight.model.kv.used_blocks == 0
    assert_same(
        [reference(roomy.answers[sequence]) for sequence in wanted],
        [tight.answers[sequence].token_ids for sequence in got],
        dtype,
        identical=0.5 if dtype == "float32" else 1.0,  # only bfloat16 linears are the same in any company
    )


async def test_preemption_happens_and_takes_the_latest_comer(llama: Path, stepper: OpenStepper) -> None:
    run = stepper(llama, chunk=256, blocks=5)
    first, second = run.add(prompt(30), greedy(40)), run.add(prompt(30, seed=1), greedy(10))
    run.run()
    recomputed = [count for step in run.log for sequence, count in step if sequence is second and count > 1]
    assert recomputed == [30, 30, 3], "the latest comer was not preempted, or not recomputed in one go"
    assert [count for step in run.log for sequence, count in step if sequence is first and count > 1] == [30]


async def test_a_long_prompt_beside_decoding_sequences_goes_in_chunks(
    llama: Path, stepper: OpenStepper
) -> None:
    run = stepper(llama, chunk=256)
    talking = run.add(prompt(4), greedy(30))
    run.step()
    late = run.add(prompt(500), greedy(2))
    for _ in range(3):
        run.step()
    assert [[(s is talking, n) for s, n in step] for step in run.log[1:4]] == [
        [(True, 1), (False, 256)],
        [(True, 1), (False, 244)],
        [(True, 1), (False, 1)],
    ]
    assert len(run.answers[talking].token_ids) == 4
    assert len(run.answers[late].token_ids) == 2


async def test_a_chunk_of_prompts_is_computed_over_several_steps(llama: Path, stepper: OpenStepper) -> None:
    """Layer by layer, while others get their tokens; a newcomer waits for the next chunk."""
    run = stepper(llama, chunk=256)
    talking = run.add(prompt(4), greedy(30))
    run.step()
    layers = len(run.model.kv.layers)
    assert layers > 1
    late, later = run.add(prompt(20), greedy(2)), None
    for made in range(1, layers):
        run.step(layers=1)
        assert [sequence for sequence, _ in run.model.scheduler.prefilling] == [late]
        assert len(run.answers[talking].token_ids) == 1 + made
        assert run.answers[late].token_ids == []
        later = later or run.add(prompt(5, seed=made), greedy(1))
    run.step(layers=1)
    assert run.model.scheduler.prefilling == []
    assert len(run.answers[late].token_ids) == 1
    assert later and run.answers[later].token_ids == []
    run.run()
    assert run.answers[late].token_ids == stepper(llama).answer(prompt(20), greedy(2)).token_ids


async def test_the_blocks_of_a_chunk_in_the_making_stay_its_own_though_its_sequence_leaves(
    llama: Path, stepper: OpenStepper
) -> None:
    """It goes on writing into them: nobody else may have them until it ends."""
    run = stepper(llama, blocks=8)
    leaves, stays = run.add(prompt(40), greedy(2)), run.add(prompt(20, seed=1), greedy(2))
    run.step(layers=1)
    left = list(leaves.blocks)
    run.model.scheduler.finish(leaves)
    assert run.model.kv.used_blocks == len(left) + len(stays.blocks)
    comes = run.add(prompt(30, seed=2), greedy(2))
    run.run()
    assert run.model.kv.used_blocks == 0
    for sequence, (length, seed) in ((stays, (20, 1)), (comes, (30, 2))):
        alone = stepper(llama).answer(prompt(length, seed), greedy(2))
        assert run.answers[sequence].token_ids == alone.token_ids
    assert run.answers[leaves].token_ids == []


async def test_a_chunk_ends_when_all_of_its_sequences_have_left(llama: Path, stepper: OpenStepper) -> None:
    run = stepper(llama)
    sequences = [run.add(prompt(20, seed), greedy(2)) for seed in range(2)]
    run.step(layers=1)
    for sequence in sequences:
        run.model.scheduler.finish(sequence)
    assert not run.model.scheduler.has_work
    assert run.model.kv.used_blocks == 0
    assert len(run.answer(prompt(20), greedy(2)).token_ids) == 2


async def test_prompts_share_the_budget_of_a_step(llama: Path, stepper: OpenStepper) -> None:
    run = stepper(llama, chunk=256)
    for seed, length in enumerate((100, 100, 300, 100)):
        run.add(prompt(length, seed), greedy(3))
    for _ in range(3):
        run.step()
    assert [[n for _, n in step] for step in run.log] == [[100, 100, 48], [1, 1, 252], [1, 1, 1, 100]]


async def test_a_lone_prompt_gets_a_large_chunk_and_one_beside_a_stream_a_small_one(
    llama: Path, stepper: OpenStepper
) -> None:
    """As long as nothing is known of what steps take."""
    run = stepper(llama)
    run.add(prompt(510), greedy(2))
    run.step()
    run.add(prompt(300, seed=1), greedy(2))
    run.step()
    assert [[n for _, n in step] for step in run.log] == [[510], [1, UNIT]]


async def test_sequences_that_grow_side_by_side_keep_consecutive_blocks(
    llama: Path, stepper: OpenStepper
) -> None:
    """So that attention reads them without copying."""
    run = stepper(llama)
    sequences = [run.add(prompt(20, seed), greedy(150)) for seed in range(4)]
    for _ in range(140):
        run.step()
    for sequence in sequences:
        first = sequence.blocks[0]
        assert len(sequence.blocks) == 10
        assert sequence.blocks == list(range(first, first + 10))


async def test_no_more_than_max_running_run(llama: Path, stepper: OpenStepper) -> None:
    run = stepper(llama, max_running=3)
    sequences = [run.add(prompt(4, seed=seed), greedy(3 + seed)) for seed in range(9)]
    running = []
    while run.model.scheduler.has_work:
        run.step()
        running.append(len(run.model.scheduler.running))
    assert max(running) == 3
    assert [len(run.answers[s].token_ids) for s in sequences] == [3 + seed for seed in range(9)]


async def test_first_come_is_first_served(llama: Path, stepper: OpenStepper) -> None:
    run = stepper(llama, max_running=2)
    sequences = [run.add(prompt(4, seed=seed), greedy(5)) for seed in range(6)]
    run.run()
    started = list(dict.fromkeys(sequence for step in run.log for sequence, _ in step))
    assert started == sequences


@pytest.mark.parametrize(("length", "blocks"), [(200, 8), (400, 20)])
async def test_a_prompt_that_can_never_fit_is_out_of_memory(
    llama: Path, stepper: OpenStepper, length: int, blocks: int
) -> None:
    run = stepper(llama, blocks=blocks)
    sequence = run.add(prompt(length), greedy(2))
    with pytest.raises(OutOfMemory) as caught:
        for _ in range(20):
            run.step()
    assert run.model.scheduler.waiting[0] is sequence
    assert caught.value.needed > caught.value.available


@pytest.mark.parametrize("blocks", [8, 20])
async def test_an_answer_that_outgrows_everything_is_out_of_memory(
    llama: Path, stepper: OpenStepper, blocks: int
) -> None:
    """Also when it is longer by then than one chunk of prefill."""
    run = stepper(llama, blocks=blocks)
    run.add(prompt(blocks * 16 - 10), greedy(100))
    with pytest.raises(OutOfMemory):
        for _ in range(150):
            run.step()


async def test_a_preempted_long_prompt_does_not_take_a_place_that_it_cannot_keep(
    llama: Path, stepper: OpenStepper
) -> None:
    """It waits for all of its blocks, instead of computing its first chunk over and over."""
    run = stepper(llama, blocks=24)
    talking = run.add(prompt(100), greedy(60))
    run.step()
    late = run.add(prompt(350), greedy(2))
    run.run()
    assert len(run.answers[talking].token_ids) == 60
    computed = sum(count for step in run.log for sequence, count in step if sequence is late)
    assert computed <= 2 * 351


async def test_what_an_earlier_owner_left_in_a_block_harms_nobody(llama: Path, stepper: OpenStepper) -> None:
    """Not even a NaN, which a mask would not hide: 0 times NaN is NaN."""
    prompts = [prompt(length, seed=length) for length in (3, 40, 17, 64)]
    clean = stepper(llama)
    wanted = [clean.add(ids, greedy(20)) for ids in prompts]
    clean.run()
    run = stepper(llama)
    first = run.model.kv.memory.blocks_of(0)
    run.model.kv.reserve()
    for keys, values in run.model.kv.layers:
        keys[first.start : first.stop] = values[first.start : first.stop] = torch.nan
    got = [run.add(ids, greedy(20)) for ids in prompts]
    run.run()
    for one, other in zip(wanted, got, strict=True):
        assert torch.equal(*(torch.stack(a.logits) for a in (clean.answers[one], run.answers[other])))


LENGTHS = (1, 16, 45, 130, 300)
arrivals = st.lists(
    st.tuples(
        st.sampled_from(LENGTHS), st.integers(1, 20), st.integers(0, 4), st.none() | st.integers(0, 12)
    ),
    min_size=1,
    max_size=7,
)
"""(length of the prompt, most tokens, steps until the next one comes, steps after which this one leaves)."""


@given(
    arriving=arrivals,
    blocks=st.integers(21, 60),
    max_running=st.integers(1, 5),
    layers=st.none() | st.integers(1, 2),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mix_of_comers_and_leavers_is_answered_rightly(
    llama: Path,
    stepper: OpenStepper,
    arriving: list[tuple[int, int, int, int | None]],
    blocks: int,
    max_running: int,
    layers: int | None,
) -> None:
    """Whatever the order and however scarce the blocks, as long as each would fit alone."""

    async def drive() -> None:
        run = stepper(llama, blocks=blocks, max_running=max_running)
        scheduler, kv = run.model.scheduler, run.model.kv
        came: list[tuple[Running, int, int]] = []
        leaving: dict[Running, int] = {}

        def step() -> None:
            run.step(layers)
            held = [block for sequence in scheduler.running for block in sequence.blocks]
            assert len({*held, *scheduler._held}) == kv.used_blocks
            assert len(scheduler.running) <= max_running
            for sequence in [one for one, at in leaving.items() if at <= len(run.log)]:
                scheduler.finish(sequence)
                del leaving[sequence]

        for length, tokens, pause, leaves in arriving:
            came.append((run.add(prompt(length, seed=length), greedy(tokens)), length, tokens))
            if leaves is not None:
                leaving[came[-1][0]] = len(run.log) + leaves
            for _ in range(pause):
                if scheduler.has_work:
                    step()
        while scheduler.has_work:
            step()
        assert kv.used_blocks == 0
        for sequence, length, tokens in came:
            answer, whole = run.answers[sequence].token_ids, references[length]
            wanted = Reference(whole.token_ids[: len(answer)], torch.stack(whole.logits)[: len(answer)])
            assert wrong_token(wanted, answer, "float32") is None
            assert len(answer) == tokens or sequence.finish_reason is None

    references = {length: alone(llama, stepper, length) for length in LENGTHS}
    asyncio.run(drive())


@functools.cache
def alone(directory: Path, stepper: OpenStepper, length: int) -> Answer:
    """Twenty tokens after a prompt of this length, with all the room there is."""

    async def answer() -> Answer:
        return stepper(directory).answer(prompt(length, seed=length), greedy(20))

    return asyncio.run(answer())
