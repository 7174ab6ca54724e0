"""Choices and cached tokens through the real server and the real SDK."""

from __future__ import annotations

from pathlib import Path

from openai.types import CompletionUsage

from tests.e2e.server import Server, running

TEXT = "The dormouse sleeps all winter and wakes in spring, hungry. " * 8


def ask(server: Server, model: str, n: int = 1) -> tuple[list[str | None], int]:
    """The answers, and how many tokens of the prompt were cached."""
    with server.openai() as client:
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": TEXT}], max_tokens=20, temperature=0, n=n
        )
    usage = answer.usage
    assert isinstance(usage, CompletionUsage) and usage.prompt_tokens_details
    assert usage.completion_tokens <= 20 * n
    cached = usage.prompt_tokens_details.cached_tokens
    assert cached is not None and cached < usage.prompt_tokens
    return [choice.message.content for choice in answer.choices], cached


def test_choices_and_cached_tokens(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    config = f"""
[models.cached]
path = "{checkpoints["tiny-a"]}"
dtype = "float32"
[models.plain]
path = "{checkpoints["tiny-a"]}"
dtype = "float32"
prefix_cache = false
"""
    with running(tmp_path, config) as server:
        (first,), cached = ask(server, "cached")
        assert cached == 0
        (again,), cached = ask(server, "cached")
        assert cached > 50
        assert again == first
        three, still = ask(server, "cached", n=3)
        assert (three, still) == ([first] * 3, cached)
        reset = server.http.post("/reset_prefix_cache", params={"model": "cached"})
        assert reset.json() == {"success": True}
        assert ask(server, "cached") == ([first], 0)
        server.http.post("/sleep", params={"model": "cached", "level": 1})
        assert ask(server, "cached") == ([first], 0)
        assert [ask(server, "plain", n=2) for _ in range(2)] == [([first] * 2, 0)] * 2
