"""Settings that cannot go together move to the nearest that can; those that never could are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitsearch.candidate import TOKEN_RULES, divisors, max_merges

if TYPE_CHECKING:
    from vitsearch.space.space import SearchSpace


def nearest(value: int, admissible: list[int]) -> int:
    """The admissible value nearest on a logarithmic scale, the smaller one on a tie."""
    return min(admissible, key=lambda k: (max(k, value) / min(k, value), k))


def at_most(value: object, limit: int) -> object:
    """A whole number held to ``limit``; anything else as it is, to be refused as such."""
    return min(value, limit) if isinstance(value, int) and not isinstance(value, bool) else value


def check_reach(space: SearchSpace) -> None:
    """Refuse what no candidate of a space can have: figures that are always moved, settings that nothing reads.

    Raises:
        InputError: Every ``tokens.r`` is past half the patches of the finest grid; every ``k``, ``prune`` or
            ``merge`` leaves nothing to do, or nothing at all, even there; every ``tokens.blocks`` names a block
            past the greatest depth; or no reducer or mask of the space has a dimension's setting.
    """
    sides = divisors(space.image_size)
    patches = [nearest(int(str(p)), sides) for p in space.values_of("architecture.patch_size")]
    count = (space.image_size // min(patches)) ** 2
    for name, limit, rule in (
        ("r", max_merges(count, 0), "a block removes at most half the patches"),
        ("k", count - 1, "a block that keeps all patches removes nothing"),
        ("prune", count - 1, "one patch stays"),
        ("merge", count - 1, "one patch stays"),
    ):
        drawn = [value for value in space.values_of(f"tokens.{name}") if isinstance(value, int | float)]
        if drawn and min(drawn) > limit:
            raise space.refusal(
                f"is {min(drawn):g}, but {rule}, and of {count} (patch_size={min(patches)}) that is {limit}",
                f"tokens.{name}",
                remedy=f"write at most {limit}, or a smaller patch_size",
            )
    named = [_last_block(value) for value in space.values_of("tokens.blocks")]
    if named and min(named) > space.max_depth:
        raise space.refusal(
            f"names block {min(named)}, but no candidate has more than {space.max_depth}",
            "tokens.blocks",
            remedy=f"write numbers up to {space.max_depth}, or a greater depth",
        )
    _check_read(space)


def _check_read(space: SearchSpace) -> None:
    reducers = {str(name) for name in space.values_of("tokens.reducer")} or {"none"}
    settings = {field for name in reducers for field in TOKEN_RULES[name].model_fields}
    for setting in space.spec.dimensions:
        section, _, field = setting.partition(".")
        if section == "tokens" and field not in {"reducer", *settings}:
            having = [name for name, rule in TOKEN_RULES.items() if field in rule.model_fields]
            raise space.refusal(
                f"is read by no reducer of this space ({', '.join(sorted(reducers))})",
                setting,
                remedy=f"remove it, or add {' or '.join(having)} to tokens.reducer",
            )
    if "sparsity.zeros" in space.spec.dimensions and "unstructured" not in space.values_of("sparsity.mask"):
        raise space.refusal(
            "is read under sparsity.mask: unstructured alone, which this space does not have",
            "sparsity.zeros",
            remedy="remove it, or add the mask",
        )


def _last_block(value: object) -> int:
    """The greatest number that a choice of blocks names; 0 for a word."""
    return max((int(one) for one in str(value).replace(" ", "").split(",") if one.isdecimal()), default=0)
