"""Block ranges, and how they tile a chain.

A range `(start, end)` proves the step from the output root at `start` to the one at `end`: it executes the blocks
`start + 1 .. end`. Neighbours share the boundary number.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeVar


@dataclass(frozen=True, order=True, slots=True)
class BlockRange:
    """Blocks `start + 1 .. end`; `0 <= start < end`, else `ValueError`."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"a block range needs 0 <= start < end, not {self.start} and {self.end}")

    def __str__(self) -> str:
        return f"{self.start}→{self.end}"

    @property
    def blocks(self) -> int:
        """Number of blocks the range executes."""
        return self.end - self.start

    def overlaps(self, other: "BlockRange") -> bool:
        """Whether the two share a block; neighbours do not."""
        return self.start < other.end and other.start < self.end

    def halves(self) -> tuple["BlockRange", "BlockRange"]:
        """Split at `(start + end) // 2` into two that tile this one exactly.

        Raises `ValueError` on a single block: it cannot be halved.
        """
        if self.blocks == 1:
            raise ValueError(f"a single block cannot be halved: {self}")
        middle = (self.start + self.end) // 2
        return BlockRange(self.start, middle), BlockRange(middle, self.end)


class HasRange(Protocol):
    """Anything that covers a range."""

    @property
    def range(self) -> BlockRange:
        """The blocks."""
        ...


def cut(span: BlockRange, size: int) -> list[BlockRange]:
    """Cut `span` from its start into ranges of `size` blocks; the last may be shorter."""
    edges = [*range(span.start, span.end, size), span.end]
    return [BlockRange(a, b) for a, b in pairwise(edges)]


T = TypeVar("T", bound=HasRange)


def furthest_chain(start: int, coverage: Iterable[T], max_members: int) -> list[T]:
    """Find the gap-free chain from `start` that reaches furthest with at most `max_members` members.

    Coverage may overlap and hold duplicates: this is a path search from `start` over equal boundaries. Among the
    chains that reach equally far the one with the fewest members is taken. The empty list means nothing starts there.
    """
    outgoing: defaultdict[int, list[T]] = defaultdict(list)
    for item in coverage:
        outgoing[item.range.start].append(item)
    best: dict[int, list[T]] = {start: []}
    frontier = [start]
    for _ in range(max_members):
        reached: dict[int, list[T]] = {}
        for node in frontier:
            for item in outgoing[node]:
                if item.range.end not in best:
                    reached.setdefault(item.range.end, [*best[node], item])
        best |= reached
        frontier = list(reached)
        if not frontier:
            break
    return best[max(best)]


@dataclass(frozen=True, slots=True)
class Piece:
    """A range that may be part of the tiling: how dear it is to rely on it, and whether its blocks are reserved.

    `dearness` is 0 for what is proven and grows with what is still to be done; `reserved` means the ledger allows no
    other open range over these blocks.
    """

    id: int
    range: BlockRange
    dearness: int
    reserved: bool


@dataclass(frozen=True, slots=True)
class Tiling:
    """How `(start, tip]` is covered: by pieces in use, and gaps nobody works on."""

    used: frozenset[int]
    gaps: tuple[BlockRange, ...]


_GAP = 1_000


def tile(start: int, tip: int, pieces: Sequence[Piece]) -> Tiling:
    """Cover `(start, max(tip, furthest piece)]` with pieces and as few unproven blocks as possible.

    A shortest path over block numbers: a piece leads from its start to its end, a gap from one boundary to the next,
    and a gap never runs through blocks that a reserved piece holds. Pieces that begin below `start` must be left out
    by the caller: a proof from below the head cannot be part of a chain from it.
    """
    usable = [piece for piece in pieces if piece.range.start >= start]
    nodes = sorted({start, max([tip, start]), *(n for p in usable for n in (p.range.start, p.range.end))})
    incoming: defaultdict[int, list[Piece]] = defaultdict(list)
    for piece in usable:
        incoming[piece.range.end].append(piece)
    reserved = sorted(piece.range for piece in usable if piece.reserved)
    cost: dict[int, tuple[int, int]] = {nodes[0]: (0, 0)}
    came: dict[int, tuple[int, Piece | None]] = {}
    for before, node in pairwise(nodes):
        options: list[tuple[int, int, int, Piece | None]] = [
            (cost[p.range.start][0] + p.dearness * p.range.blocks, cost[p.range.start][1] + 1, p.range.start, p)
            for p in incoming[node]
            if p.range.start in cost
        ]
        gap = BlockRange(before, node)
        if before in cost and not any(gap.overlaps(held) for held in _near(reserved, gap)):
            options.append((cost[before][0] + _GAP * gap.blocks, cost[before][1], before, None))
        if options:
            total, count, origin, piece = min(options, key=lambda option: option[:3])
            cost[node], came[node] = (total, count), (origin, piece)
    used: set[int] = set()
    gaps: list[BlockRange] = []
    node = max(cost)
    while node != nodes[0]:
        origin, piece = came[node]
        if piece is not None:
            used.add(piece.id)
        elif gaps and gaps[-1].start == node:
            gaps[-1] = BlockRange(origin, gaps[-1].end)
        else:
            gaps.append(BlockRange(origin, node))
        node = origin
    return Tiling(frozenset(used), tuple(reversed(gaps)))


def _near(held: Sequence[BlockRange], gap: BlockRange) -> Iterable[BlockRange]:
    """Those of the disjoint, sorted ranges that can overlap the gap."""
    first = max(0, bisect_left(held, BlockRange(gap.start, gap.start + 1)) - 1)
    for candidate in held[first:]:
        if candidate.start >= gap.end:
            return
        yield candidate
