"""Ids that are free, as stretches: so that a place with room for many in a row is found at once."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator


class FreeIds:
    """Disjoint stretches in ascending order, no two of which touch. At first 0 to ``count`` are free."""

    def __init__(self, count: int) -> None:
        self._starts = [0] if count else []
        self._stops = {0: count} if count else {}
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[range]:
        return (range(start, self._stops[start]) for start in self._starts)

    def from_id(self, first: int) -> range:
        """The free ids from ``first`` on without a gap; empty when it is not free itself."""
        index = bisect_right(self._starts, first) - 1
        stop = self._stops[self._starts[index]] if index >= 0 else first
        return range(first, max(first, stop))

    def with_room(self, count: int) -> range:
        """The lowest stretch of ``count`` ids, else the longest that there is."""
        longest = range(0)
        for stretch in self:
            if len(stretch) >= count:
                return stretch
            longest = max(longest, stretch, key=len)
        return longest

    def take(self, first: int, stop: int) -> None:
        """All of these must be free."""
        if first == stop:
            return
        index = bisect_right(self._starts, first) - 1
        start = self._starts[index]
        end = self._stops.pop(start)
        del self._starts[index]
        self._count -= stop - first
        for left, right in ((start, first), (stop, end)):
            if left < right:
                insort(self._starts, left)
                self._stops[left] = right

    def give(self, first: int, stop: int) -> None:
        """None of these may be free."""
        if first == stop:
            return
        self._count += stop - first
        index = bisect_right(self._starts, first)
        if index < len(self._starts) and self._starts[index] == stop:
            stop = self._stops.pop(self._starts.pop(index))
        if index and self._stops[self._starts[index - 1]] == first:
            self._stops[self._starts[index - 1]] = stop
        else:
            self._starts.insert(index, first)
            self._stops[first] = stop
