"""Which operations give a row other bits in other company: what the exactness of answers rests on.

Every operation of the decoder is tried with 1 to 64 rows and with contexts to 2,048. Those of ``NEVER`` must
not depend on the company on any machine, nor may attention on who else is in the step or on where a sequence
is cut. The others are listed (``pytest -rP`` shows it), and may differ by rounding alone. On one thread of a
Xeon with AVX-512 BF16 these do: float32 linears below 16 generated rows, and a generated row against the same
row of a prompt, in attention and in bfloat16 linears. Among their kind no other rows do: a long lone row is
multiplied as two, and rows of prompts as sixteen at least (``engine.linear``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch.nn.functional import rms_norm, silu

from engine.attention import AttentionSpec, attend, make_plan, write_kv
from engine.blocks import BLOCK_SIZE, blocks_for
from engine.linear import Linear, has_amx
from engine.models.experts_config import ExpertsConfig
from engine.models.moe import mixture
from engine.models.operations import _rms_norm
from engine.models.rope import rotate
from engine.packing import can_pack
from engine.penalties import History
from engine.sampler import SampleRow, sample
from engine.types import SamplingParams
from engine.widening import widening_pays

MOST_ROWS = 64
SOME = (*range(1, 18), 23, 24, 31, 32, 33, 48, 63)
"""Numbers of rows with which matrices are tried, whose kernels change at multiples of small powers of two."""
CONTEXTS = (1, 16, 17, 200, 513, 1024, 2048)
CPU = torch.device("cpu")
Operation = Callable[[torch.Tensor], torch.Tensor]


def rows(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(MOST_ROWS, *shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


def matrix(inputs: int, outputs: int, dtype: torch.dtype, *, packed: bool = False) -> Linear:
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(7)) / inputs**0.5
    layer = Linear(weight.to(dtype))
    if packed and layer.packable:
        layer.pack()
    return layer


def as_generated(layer: Linear) -> Operation:
    return lambda x: layer(x, generated=True)


def dependent(
    operation: Operation, x: torch.Tensor, numbers: Sequence[int] = range(1, MOST_ROWS)
) -> list[int]:
    """The numbers of rows with which some row is not what it is among all."""
    whole = operation(x.clone())
    return [n for n in numbers if not torch.equal(operation(x[:n].clone()), whole[:n])]


def differs_alone(operation: Operation, x: torch.Tensor) -> bool:
    """Whether any row is not what it is among all. Most are by chance, where one is not."""
    alone = torch.cat([operation(row.unsqueeze(0).clone()) for row in x])
    return not torch.equal(alone, operation(x.clone()))


def norm(x: torch.Tensor) -> torch.Tensor:
    return _rms_norm(x, 1e-6) * 0.7


def wide_norm(x: torch.Tensor) -> torch.Tensor:
    return rms_norm(x, x.shape[-1:], torch.full(x.shape[-1:], 0.7, dtype=x.dtype), 1e-6)


def gated(x: torch.Tensor) -> torch.Tensor:
    gate, up = x.chunk(2, dim=-1)
    return silu(gate) * up


def turned(x: torch.Tensor) -> torch.Tensor:
    angles = torch.arange(len(x)).view(-1, 1, 1) * torch.linspace(0, 1, x.shape[-1])
    return rotate(x, angles.cos().to(x.dtype), angles.sin().to(x.dtype))


def mixed(x: torch.Tensor) -> torch.Tensor:
    """The router's and the sums' part; the experts' matrices are linears."""
    config = ExpertsConfig(count=8, per_token=4, inner_size=8, normalize=True, shared_size=None)
    return mixture(x, x[:, :8], config, lambda part, name: part * (int(name[:-1]) + 0.3), "")


def drawn(params: SamplingParams) -> Operation:
    def draw(logits: torch.Tensor) -> torch.Tensor:
        asked = [SampleRow(params, seed, 9, History(params, [1, 2, 3])) for seed in range(len(logits))]
        return torch.tensor([sampled.token_id for sampled in sample(logits, asked)])

    return draw


WIDE = rows(4096, dtype=torch.float32) * 3
NEVER: dict[str, tuple[Operation, torch.Tensor]] = {
    "rms norm": (norm, rows(1024)),
    "rms norm, weighted in float32": (wide_norm, rows(1024)),
    "rms norm of heads": (norm, rows(16, 128)),
    "rms norm, float32": (norm, rows(1024, dtype=torch.float32)),
    "rotation": (turned, rows(8, 128)),
    "activation": (gated, rows(6144)),
    "mixture": (mixed, rows(1024)),
    "greedy": (drawn(SamplingParams(max_tokens=1, temperature=0)), WIDE),
    "sampling": (drawn(SamplingParams(max_tokens=1)), WIDE),
    "nucleus sampling": (drawn(SamplingParams(max_tokens=1, top_p=0.9, top_k=50)), WIDE),
    "penalties": (drawn(SamplingParams(max_tokens=1, presence_penalty=0.5, repetition_penalty=1.2)), WIDE),
}
SHAPES = [(64, 192), (1024, 2048), (1026, 2048), (1536, 2048), (2048, 2048), (3072, 1024), (8192, 512)]


@functools.cache
def linears() -> dict[str, tuple[Operation, torch.Tensor]]:
    """Those that may depend on the company. Made for who runs: seconds, which collecting need not take."""
    return {
        f"linear {inputs} -> {outputs}, {str(dtype)[6:]}, {kind}{', packed' * packed}": (
            of_kind(matrix(inputs, outputs, dtype, packed=packed)),
            rows(inputs, dtype=dtype),
        )
        for inputs, outputs in SHAPES
        for dtype in (torch.bfloat16, torch.float16, torch.float32)
        for packed in (False, True)[: 1 + (dtype == torch.bfloat16)]
        for kind, of_kind in (("prompts", lambda layer: layer), ("generated", as_generated))
    }


KNOWN = has_amx() or (can_pack() and widening_pays())
"""Whether this CPU is of a kind whose 16-bit products do not depend on the number of rows."""


@pytest.mark.parametrize("name", NEVER)
def test_a_row_is_the_same_in_any_company(name: str) -> None:
    operation, x = NEVER[name]
    assert dependent(operation, x) == []


@pytest.fixture(scope="module")
def different() -> Callable[[str], list[int]]:
    """By operation, the numbers of rows with which they come out otherwise; each is tried once."""

    @functools.cache
    def numbers(name: str) -> list[int]:
        operation, x = linears()[name]
        found = dependent(operation, x, SOME)
        if 1 not in found and differs_alone(operation, x):
            found = [1, *found]
        print(f"{name}: {'rows differ with ' + str(found) if found else 'never'}")
        return found

    return numbers


@pytest.mark.skipif(not KNOWN, reason="what 16-bit products depend on is not known of this CPU")
def test_16_bit_linears_have_rows_that_do_not_depend_on_their_number(
    different: Callable[[str], list[int]],
) -> None:
    for name, (_, x) in linears().items():
        assert x.dtype == torch.float32 or not different(name), name


def test_linears_whose_rows_depend_on_their_number_round_otherwise_and_no_more(
    different: Callable[[str], list[int]],
) -> None:
    for name, (operation, x) in linears().items():
        step = 0.0 if x.dtype == torch.float32 else 2**-7
        whole = operation(x).float()
        for number in (1, *different(name)):
            apart = (operation(x[:number]).float() - whole[:number]).abs()
            assert (apart <= step * whole[:number].abs() + 1e-5).all(), name


class Cache:
    """One layer with one sequence of 2,048 tokens in neighbouring blocks, and again in scattered ones."""

    def __init__(self, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        longest, heads, kv_heads, size = max(CONTEXTS), 8, 4, 64
        blocks = blocks_for(longest)
        shape = (2 * blocks, BLOCK_SIZE, kv_heads, size)
        self.layer = (torch.empty(shape, dtype=dtype), torch.empty(shape, dtype=dtype))
        self.neighbours = list(range(blocks))
        self.scattered = [blocks + block * 5 % blocks for block in range(blocks)]
        self.queries = torch.randn(longest, heads, size, generator=generator).to(dtype)
        keys, values = (torch.randn(longest, kv_heads, size, generator=generator).to(dtype) for _ in range(2))
        for table in (self.neighbours, self.scattered):
            write_kv(make_plan([(0, longest, table)], CPU), self.layer, keys, values)

    def attend(self, spans: Sequence[tuple[int, int, list[int]]]) -> list[torch.Tensor]:
        """Per span of (first, rows, table) its rows' results."""
        queries = torch.cat([self.queries[first : first + count] for first, count, _ in spans])
        out = attend(make_plan(spans, CPU), self.layer, queries, AttentionSpec(0.125))
        return list(torch.split(out, [count for _, count, _ in spans]))


@pytest.fixture(params=["bfloat16", "float32"])
def cache(request: pytest.FixtureRequest) -> Cache:
    return Cache(getattr(torch, request.param))


def test_attention_is_the_same_beside_any_neighbours(cache: Cache) -> None:
    spans = [(context - 1, 1, cache.neighbours) for context in CONTEXTS]
    spans += [(512, 100, cache.neighbours), (0, 200, cache.neighbours), (700, 1, cache.scattered)]
    alone = [cache.attend([span])[0] for span in spans]
    for order in (spans, spans[::-1]):
        for span, result in zip(order, cache.attend(order), strict=True):
            assert torch.equal(result, alone[spans.index(span)]), span


def test_attention_is_the_same_wherever_the_sequence_is_cut_and_lies(cache: Cache) -> None:
    """What a prefix hit, a recomputation or another chunk would change, if anything did."""
    longest = max(CONTEXTS)
    whole = cache.attend([(0, longest, cache.neighbours)])[0]
    for chunk in (16, 100, 512, 1024):
        spans = [(first, min(chunk, longest - first), cache.neighbours) for first in range(0, longest, chunk)]
        assert torch.equal(torch.cat([cache.attend([span])[0] for span in spans]), whole), chunk
    for context in CONTEXTS:
        one = cache.attend([(context - 1, 1, cache.scattered)])[0]
        assert torch.equal(one, whole[context - 1 : context])


def test_a_decoded_row_differs_from_a_prompts_by_rounding_alone(cache: Cache) -> None:
    longest = max(CONTEXTS)
    whole = cache.attend([(0, longest, cache.neighbours)])[0]
    bound = 1e-5 if whole.dtype == torch.float32 else 2**-5
    for context in CONTEXTS:
        plan = make_plan([(context - 1, 1, cache.neighbours)], CPU, generated=True)
        row = attend(plan, cache.layer, cache.queries[context - 1 : context], AttentionSpec(0.125))
        same = torch.equal(row, whole[context - 1 : context])
        print(f"{whole.dtype}, row {context} decoded: {'the same' if same else 'differs'}")
        assert (row.float() - whole[context - 1 : context].float()).abs().max() < bound
