"""Which blocks hold the keys and values of which tokens, so that prompts that begin alike compute them once.

A tree over full blocks: a block is found by the block before it and its own token ids. That is a hash chain
whose token ids are compared at every link, so a collision of hashes can never answer with other tokens.
"""

from __future__ import annotations

from typing import Final

ROOT: Final = -1
"""Stands for the block before the first; a number below it, for that of prompts whose keys are others."""

Tokens = tuple[int, ...]


class PrefixCache:
    """Only names blocks: who holds them, and who may go, is ``engine.blocks``'s. The block before a known one
    is known itself, so blocks leave from the ends of the chains."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[int, Tokens], int] = {}
        self._keys: dict[int, tuple[int, Tokens]] = {}

    def __contains__(self, block: int) -> bool:
        return block in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def next(self, before: int, tokens: Tokens) -> int | None:
        """The block that holds ``tokens`` behind the block ``before``."""
        return self._blocks.get((before, tokens))

    def add(self, block: int, before: int, tokens: Tokens) -> None:
        """Nothing, where ``before`` is not known or another block holds the same."""
        key = (before, tokens)
        if key not in self._blocks and (before <= ROOT or before in self._keys):
            self._blocks[key] = block
            self._keys[block] = key

    def remove(self, block: int) -> None:
        """It must be known, and none behind it."""
        del self._blocks[self._keys.pop(block)]

    def clear(self) -> None:
        self._blocks.clear()
        self._keys.clear()

    def fault(self) -> str | None:
        """What is inconsistent; None when nothing is."""
        if {block: key for key, block in self._blocks.items()} != self._keys:
            return "the prefix cache finds blocks under other tokens than it knows them by"
        if any(before > ROOT and before not in self._keys for before, _ in self._blocks):
            return "the prefix cache knows a block behind one that it does not know"
        return None
