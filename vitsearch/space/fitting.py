"""Settings that cannot go together move to the nearest that can; those that never could are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitsearch.candidate import divisors, max_merges

if TYPE_CHECKING:
    from vitsearch.space.space import SearchSpace


def nearest(value: int, admissible: list[int]) -> int:
    """The admissible value nearest on a logarithmic scale, the smaller one on a tie."""
    return min(admissible, key=lambda k: (max(k, value) / min(k, value), k))


def at_most(value: object, limit: int) -> object:
    """A number held to ``limit``; anything else as it is."""
    return min(int(value), limit) if isinstance(value, int | float) and not isinstance(value, bool) else value


def check_reach(space: SearchSpace) -> None:
    """Refuse figures that no candidate of a space can have, because all of them would move it to another.

    Raises:
        InputError: Every ``tokens.r`` is past half the patches of the finest grid, or every ``tokens.blocks``
            names a block past the greatest depth.
    """
    sides = divisors(space.image_size)
    patches = [nearest(int(str(p)), sides) for p in space.values_of("architecture.patch_size")]
    count = (space.image_size // min(patches)) ** 2
    limit = max_merges(count, 0)
    drawn = [r for r in space.values_of("tokens.r") if isinstance(r, int | float)]
    if drawn and min(drawn) > limit:
        raise space.refusal(
            f"is {min(drawn):g}, but a block removes at most half the patches, and of {count} "
            f"(patch_size={min(patches)}) that is {limit}",
            "tokens.r",
            remedy=f"write at most {limit}, or a smaller patch_size",
        )
    named = [_last_block(value) for value in space.values_of("tokens.blocks")]
    if named and min(named) > space.max_depth:
        raise space.refusal(
            f"names block {min(named)}, but no candidate has more than {space.max_depth}",
            "tokens.blocks",
            remedy=f"write numbers up to {space.max_depth}, or a greater depth",
        )


def _last_block(value: object) -> int:
    """The greatest number that a choice of blocks names; 0 for a word."""
    return max((int(one) for one in str(value).replace(" ", "").split(",") if one.isdecimal()), default=0)
