"""Ranges tile: halves, cuts, chains over overlapping coverage, and the tiling above the head."""

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proposer.ranges import BlockRange, Piece, Tiling, cut, furthest_chain, tile


@st.composite
def ranges(draw: st.DrawFn, most: int = 30) -> BlockRange:
    start = draw(st.integers(0, most - 1))
    return BlockRange(start, draw(st.integers(start + 1, most)))


def piece(number: int, start: int, end: int, dearness: int = 0) -> Piece:
    """A proven piece, or with a dearness one that reserves its blocks."""
    return Piece(number, BlockRange(start, end), dearness, reserved=dearness > 0)


@pytest.mark.parametrize(("start", "end"), [(0, 0), (5, 5), (6, 5), (-1, 3)])
def test_a_range_has_at_least_one_block_from_zero_on(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="0 <= start < end"):
        BlockRange(start, end)


def test_a_range_executes_the_blocks_after_its_start() -> None:
    assert BlockRange(1000, 1300).blocks == 300
    assert str(BlockRange(1000, 1300)) == "1000→1300"


def test_neighbours_share_a_boundary_and_no_block() -> None:
    assert not BlockRange(0, 10).overlaps(BlockRange(10, 20))
    assert BlockRange(0, 11).overlaps(BlockRange(10, 20))


@given(ranges(), ranges())
def test_overlap_means_a_common_block(one: BlockRange, other: BlockRange) -> None:
    def blocks(r: BlockRange) -> set[int]:
        return set(range(r.start + 1, r.end + 1))

    assert one.overlaps(other) is other.overlaps(one) is bool(blocks(one) & blocks(other))


@given(ranges(10**9).filter(lambda r: r.blocks > 1))
def test_halves_tile_their_range_exactly(whole: BlockRange) -> None:
    """The seed's second half began one block too late: that block was never proven."""
    first, second = whole.halves()
    assert (first.start, first.end, second.end) == (whole.start, second.start, whole.end)
    assert abs(first.blocks - second.blocks) <= 1


def test_a_single_block_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="cannot be halved"):
        BlockRange(7, 8).halves()


@given(ranges(200), st.integers(1, 50))
def test_a_cut_tiles_with_full_pieces_and_at_most_one_shorter_last(span: BlockRange, size: int) -> None:
    pieces = cut(span, size)
    assert (pieces[0].start, pieces[-1].end) == (span.start, span.end)
    assert all(a.end == b.start for a, b in pairwise(pieces))
    assert {p.blocks for p in pieces[:-1]} <= {size}
    assert pieces[-1].blocks <= size


# -- chains


def _all_chains(start: int, coverage: list[Piece], most: int) -> list[list[Piece]]:
    found: list[list[Piece]] = [[]]
    grown = found
    for _ in range(most):
        grown = [
            [*chain, p]
            for chain in grown
            for p in coverage
            if p.range.start == (chain[-1].range.end if chain else start)
        ]
        found = found + grown
    return found


@given(st.lists(ranges(8), max_size=7), st.integers(0, 4), st.integers(1, 4))
def test_the_furthest_chain_is_the_best_of_all(coverage: list[BlockRange], start: int, most: int) -> None:
    """It reaches furthest with the fewest members, over overlapping coverage with duplicates."""
    pieces = [Piece(i, r, 0, False) for i, r in enumerate([*coverage, *coverage[:2]])]
    chain = furthest_chain(start, pieces, most)
    assert [start, *(p.range.end for p in chain)] == [
        *(p.range.start for p in chain),
        ([start] + [p.range.end for p in chain])[-1],
    ]
    candidates = _all_chains(start, pieces, most)
    best = min((-(c[-1].range.end if c else start), len(c)) for c in candidates)
    assert (-(chain[-1].range.end if chain else start), len(chain)) == best


def test_a_chain_may_need_the_shorter_of_two_first_ranges() -> None:
    """Greed would take 0→10 and end there."""
    chain = furthest_chain(0, [piece(1, 0, 10), piece(2, 0, 6), piece(3, 6, 20)], 64)
    assert [p.id for p in chain] == [2, 3]


def test_nothing_starts_there() -> None:
    assert furthest_chain(5, [piece(1, 0, 10)], 64) == []


# -- tilings


@st.composite
def worlds(draw: st.DrawFn, most: int = 14) -> tuple[int, int, list[Piece]]:
    """A head, a tip, disjoint reserved pieces and any proven ones."""
    head = draw(st.integers(0, 4))
    tip = draw(st.integers(0, most))
    edges = sorted(draw(st.sets(st.integers(head, most), max_size=6)))
    kept = [BlockRange(a, b) for a, b in pairwise(edges) if draw(st.booleans())]
    proven = [r for r in draw(st.lists(ranges(most), max_size=5)) if r.start >= head]
    pieces = [Piece(i, r, draw(st.integers(1, 4)), True) for i, r in enumerate(kept)]
    pieces += [Piece(100 + i, r, 0, False) for i, r in enumerate(proven)]
    return head, tip, draw(st.permutations(pieces))


def _assert_tiles(head: int, tip: int, pieces: list[Piece], tiling: Tiling) -> None:
    used = [p.range for p in pieces if p.id in tiling.used]
    whole = sorted([*used, *tiling.gaps])
    end = max([head, tip, *(p.range.end for p in pieces)])
    edges = [head, *(r.end for r in whole)]
    assert edges == [*(r.start for r in whole), end]


@given(worlds())
def test_used_pieces_and_gaps_tile_exactly(world: tuple[int, int, list[Piece]]) -> None:
    """From the head to the furthest end without hole or overlap, and no gap runs through reserved blocks."""
    head, tip, pieces = world
    tiling = tile(head, tip, pieces)
    _assert_tiles(head, tip, pieces, tiling)
    for gap, held in product(tiling.gaps, (p.range for p in pieces if p.reserved)):
        assert not gap.overlaps(held)
    assert all(a.end < b.start for a, b in pairwise(tiling.gaps)), "neighbouring gaps are one"


def _cheapest(node: int, end: int, pieces: list[Piece]) -> float:
    """Brute force: the least (gap blocks x 1000 + dearness x blocks) from node to end."""
    if node == end:
        return 0
    costs = [p.dearness * p.range.blocks + _cheapest(p.range.end, end, pieces) for p in pieces if p.range.start == node]
    step = BlockRange(node, node + 1)
    if not any(p.reserved and p.range.overlaps(step) for p in pieces):
        costs.append(1000 + _cheapest(node + 1, end, pieces))
    return min(costs, default=float("inf"))


@given(worlds(9))
def test_a_tiling_is_the_cheapest_of_all(world: tuple[int, int, list[Piece]]) -> None:
    """As few unproven blocks as possible, and what is proven or nearly so before what is only planned."""
    head, tip, pieces = world
    tiling = tile(head, tip, pieces)
    cost = sum(p.dearness * p.range.blocks for p in pieces if p.id in tiling.used)
    cost += 1000 * sum(gap.blocks for gap in tiling.gaps)
    assert cost == _cheapest(head, max([head, tip, *(p.range.end for p in pieces)]), pieces)


TILINGS = {
    "nothing there": (0, 30, [], set(), ["0→30"]),
    "nothing finalized": (5, 0, [], set(), []),
    "a gap between": (0, 30, [piece(1, 0, 10, 1), piece(2, 20, 30, 3)], {1, 2}, ["10→20"]),
    "proven before planned": (0, 10, [piece(1, 0, 10), piece(2, 0, 10, 3)], {1}, []),
    "halves give way to a late proof": (0, 10, [piece(1, 0, 10), piece(2, 0, 5, 3), piece(3, 5, 10, 1)], {1}, []),
    "of two proofs the fewer members": (0, 10, [piece(1, 0, 10), piece(2, 0, 5), piece(3, 5, 10)], {1}, []),
    "a proof below the head is no use": (5, 10, [piece(1, 0, 10)], set(), ["5→10"]),
    "a bridge to what exists": (3, 20, [piece(1, 10, 20)], {1}, ["3→10"]),
    "beyond the tip": (0, 10, [piece(1, 0, 20, 1)], {1}, []),
}


@pytest.mark.parametrize(("head", "tip", "pieces", "used", "gaps"), TILINGS.values(), ids=TILINGS)
def test_tilings(head: int, tip: int, pieces: list[Piece], used: set[int], gaps: list[str]) -> None:
    tiling = tile(head, tip, pieces)
    assert (tiling.used, [str(gap) for gap in tiling.gaps]) == (used, gaps)


def test_a_thousand_pieces_are_tiled_in_no_time() -> None:
    """A cycle far behind finality is not slow: the work is linear in the pieces."""
    pieces = [piece(i, 300 * i, 300 * i + 300, i % 4 + 1) for i in range(0, 2000, 2)]
    assert len(tile(0, 600_000, pieces).gaps) == 1000
