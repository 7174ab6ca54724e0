"""Traces and costs as files: what is read back, and what is refused by name and line."""

from __future__ import annotations

import gzip
from pathlib import Path

import msgspec
import pytest

from gateway.simulate.costs import CPU, CostsError, load_costs
from gateway.simulate.report import _quantile
from gateway.simulate.trace import Request, TraceError, read_trace, write_trace

LINE = b'{"at": 1.5, "model": "a", "prompt_tokens": 3, "max_tokens": 2}\n'


def test_a_trace_is_read_as_it_was_written(tmp_path: Path) -> None:
    requests = [Request(float(at), "a", 3, at + 1) for at in range(5)]
    plain, packed = tmp_path / "trace.jsonl", tmp_path / "trace.jsonl.gz"
    with plain.open("wb") as out:
        write_trace(requests, out)
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert list(read_trace(plain)) == list(read_trace(packed)) == requests


@pytest.mark.parametrize(
    "line",
    [
        b"no JSON\n",
        b'{"at": 2, "model": "a", "prompt_tokens": 3}\n',
        LINE.replace(b"1.5", b"1.4"),
        LINE.replace(b"3", b"0"),
        LINE.replace(b"2}", b"0}"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(LINE + line + LINE)
    with pytest.raises(TraceError, match=r"trace\.jsonl:2: "):
        list(read_trace(path))


@pytest.mark.parametrize("name", ["none.jsonl", "cut.jsonl.gz", "plain.jsonl.gz"])
def test_an_unreadable_trace_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(LINE)[:-10])
    (tmp_path / "plain.jsonl.gz").write_bytes(LINE)
    with pytest.raises(TraceError, match=name):
        list(read_trace(tmp_path / name))


def test_steps_take_what_was_measured() -> None:
    for in_flight in (1, 16):
        step = CPU.weights_bytes * (CPU.per_step + CPU.per_token * in_flight)
        assert in_flight / step == pytest.approx(CPU.tokens_per_second[in_flight])


def test_costs_are_read_from_the_benchs_line_or_alone(tmp_path: Path) -> None:
    alone, line = tmp_path / "costs.json", tmp_path / "bench.json"
    alone.write_bytes(msgspec.json.encode(CPU))
    line.write_bytes(msgspec.json.encode({"benchmark": "switch", "costs": CPU}))
    assert load_costs(alone) == load_costs(line) == CPU


@pytest.mark.parametrize("content", ["[]", "{}", "no JSON", None])
def test_other_files_are_no_costs(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "costs.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CostsError, match=r"costs\.json"):
        load_costs(path)


def test_costs_are_not_negative(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_bytes(msgspec.json.encode(CPU).replace(b"1140000000.0", b"-1.0"))
    with pytest.raises(CostsError, match="rate above 0"):
        load_costs(path)


def test_quantiles_are_values_that_so_many_are_not_above() -> None:
    assert _quantile([0.025, 11.0], 0.5) == 0.025
    assert _quantile(list(range(1, 101)), 0.99) == 99
    assert (_quantile([], 0.5), _quantile([7.0], 0.0), _quantile([1.0, 2.0], 1.0)) == (0.0, 7.0, 2.0)


def test_costs_need_two_numbers_of_requests(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_bytes(msgspec.json.encode(CPU).replace(b'"4":38.9,"16":69.5', b'"1":38.9'))
    with pytest.raises(CostsError, match="tokens_per_second"):
        load_costs(path)
