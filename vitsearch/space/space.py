"""From a sampler's draw to a valid candidate.

Every axis is drawn every time, so that evolutionary and model-based samplers see one fixed space; axes whose
condition does not hold are ignored, and settings that cannot go together are moved to the nearest ones that can
(heads to a divisor of the width, for example). So each draw is valid by construction, and two draws that mean the
same model give candidates that hash equally.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property

from vitsearch.candidate import (
    TOKEN_RULES,
    Architecture,
    BlockwiseRule,
    Candidate,
    DistillChoice,
    Precision,
    Sparsity,
    TokenRule,
    Training,
    budget_counts_of,
    divisors,
    every_block,
    is_stem_patch,
    least_ratio,
    max_merges,
    quarter_blocks,
)
from vitsearch.config import SpaceSpec, Value
from vitsearch.errors import InputError
from vitsearch.space.dimension import Dimension, expand
from vitsearch.space.fitting import at_most, check_reach, nearest
from vitsearch.space.probe import probe, probing_draws
from vitsearch.space.shape import BLOCKS_RATIO, blocks_kept, num_kept, shape_of

Draw = Mapping[str, Value]
SPARSITY_SETTINGS = tuple(
    f"sparsity.{name}" for name in ("method", "steps", "schedule", "macs_ratio", "mask", "zeros")
)
# what a ratio removes a share of, and whether it may differ from block to block
SPARSITY_RATIOS = {
    "sparsity.mlp_ratio": True,
    "sparsity.heads_ratio": True,
    "sparsity.qk_ratio": True,
    "sparsity.v_ratio": True,
    "sparsity.width_ratio": False,
    BLOCKS_RATIO: False,
}
GIVEN_BY_DATASET = ("architecture.in_chans", "architecture.num_classes")


def known_fields() -> dict[str, bool]:
    """Every setting a space may fix or vary, and whether it may vary per block."""
    architecture = {f"architecture.{name}": False for name in Architecture.model_fields}
    reducers: dict[str, bool] = {}
    for rule in TOKEN_RULES.values():
        for name in rule.model_fields:
            varies = name in rule.per_block_fields
            reducers[f"tokens.{name}"] = varies or reducers.get(f"tokens.{name}", False)
    sparsity = {**dict.fromkeys(SPARSITY_SETTINGS, False), **SPARSITY_RATIOS}
    precision = {
        "precision.quantizer": False,
        "precision.calibration": False,
        "precision.noisy": False,
        "precision.mixed": False,
        "precision.training": False,
        "precision.weight_bits": True,
        "precision.activation_bits": True,
    }
    training = {f"train.{name}": False for name in Training.model_fields if name != "distill"}
    distill = {f"train.distill.{name}": False for name in DistillChoice.model_fields}
    return architecture | reducers | sparsity | precision | training | distill


LARGEST = 16_384
"""The largest whole number that some setting of an architecture takes."""


class SearchSpace:
    """A checked search space for one data set.

    Args:
        spec: The space as written; presets already resolved.
        in_chans: Channels of the images.
        num_classes: Classes of the data set.
        where: The file the space stands in, for messages; its name when left out.
        checked: Whether to try it out. That of a stored study was, by the rules of its day.

    Attributes:
        dimensions: Its axes.

    Raises:
        InputError: A name is unknown, a value impossible, or a condition refers to nothing.
    """

    def __init__(
        self, spec: SpaceSpec, *, in_chans: int, num_classes: int, where: str = "", checked: bool = True
    ) -> None:
        self.spec = spec
        self._where = where or spec.name
        self.fixed: dict[str, Value] = {
            **spec.fixed,
            "architecture.in_chans": in_chans,
            "architecture.num_classes": num_classes,
        }
        _check_names(spec, self._where)
        depth = spec.dimensions.get("architecture.depth")
        depths = expand("architecture.depth", depth, 1)[0].values() if depth else ()
        depths = depths or (self.fixed.get("architecture.depth", 1),)
        self.max_depth = max(self._whole("architecture.depth", value) for value in depths)
        self.dimensions: tuple[Dimension, ...] = tuple(
            axis for field, one in spec.dimensions.items() for axis in expand(field, one, self.max_depth)
        )
        if checked:
            _check_written(spec, self._where)
            self.probed = probe(self)
            check_reach(self)

    @cached_property
    def probed(self) -> tuple[Candidate, ...]:
        """Some hundred candidates; every value of every axis is in one of them."""
        return tuple(self.decode(draw) for draw in probing_draws(self))

    @cached_property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self._whole("architecture.image_size", self.fixed["architecture.image_size"])

    def values_of(self, name: str) -> tuple[Value, ...]:
        """Every value that a setting can take: the fixed one, or those of its axes; none where it is not set."""
        if name in self.fixed:
            return (self.fixed[name],)
        return tuple(value for axis in self.dimensions if axis.field == name for value in axis.values())

    def decode(self, draw: Draw) -> Candidate:
        """The candidate a draw stands for, in canonical form.

        A combination that is impossible though its parts are possible moves to the nearest possible one: one
        setting changes, the last that can. ``probe`` refuses spaces where that would happen often.

        Args:
            draw: A value for every axis in ``dimensions``.

        Raises:
            ValueError: No change of one setting makes the draw valid (a hand-written draw outside the space).
        """
        try:
            return self.decode_as_drawn(draw)
        except ValueError:
            for other in self._nearby(draw):
                with suppress(ValueError):
                    return self.decode_as_drawn(other)
            raise

    def _nearby(self, draw: Draw) -> Iterator[Draw]:
        """The draws that differ in one setting, the last settings and the nearest values first."""
        for axis in reversed(self.dimensions):
            for value in axis.values_near(draw[axis.name]):
                yield {**draw, axis.name: value}

    def decode_as_drawn(self, draw: Draw) -> Candidate:
        """The same, without moving impossible combinations of settings.

        Raises:
            ValueError: The draw is no model.
        """
        chosen = self.active_values(draw)
        architecture = self._architecture(chosen)
        sparsity = _sparsity(chosen, architecture)
        pruned = sparsity.pruned_architecture(architecture)
        tokens = _tokens(chosen, pruned.self_attention_part)
        return Candidate(
            architecture=architecture,
            tokens=tokens,
            sparsity=_affordable(sparsity, tokens, architecture),
            precision=Precision.model_validate(
                _per_block_part(chosen, "precision.", pruned.depth, pruned.share_blocks)
            ),
            training=_training(chosen),
        ).canonical()

    def architecture_of(self, draw: Draw) -> Architecture:
        """The repaired architecture alone, in canonical form; cheaper than ``decode``."""
        return self._architecture(self.active_values(draw)).resolved()

    def active_values(self, draw: Draw) -> dict[str, Value]:
        """The fixed values, and those of the draw whose conditions hold."""
        chosen = dict(self.fixed)
        for axis in self.dimensions:
            if all(chosen.get(name) in values for name, values in axis.when):
                chosen[axis.name] = draw[axis.name]
        return chosen

    def _architecture(self, chosen: dict[str, Value]) -> Architecture:
        prefix = "architecture."
        settings = {name.removeprefix(prefix): value for name, value in chosen.items() if name.startswith(prefix)}
        for name in ("depth", "width", "heads", "patch_size"):
            settings[name] = self._whole(prefix + name, settings[name])
        width, heads, patch = int(settings["width"]), int(settings["heads"]), int(settings["patch_size"])
        settings["heads"] = nearest(heads, divisors(width))
        patches = [p for p in divisors(self.image_size) if p < self.image_size or self.image_size == 1]
        if settings.get("patch_embedding") == "conv_stem":
            patches = [p for p in patches if is_stem_patch(p)] or patches
        settings["patch_size"] = nearest(patch, patches)
        depth, share = int(settings["depth"]), settings.get("share_blocks", 1)
        if isinstance(share, int) and share > 1:  # what is no whole number is for the architecture to refuse
            settings["share_blocks"] = nearest(share, divisors(depth))
        in_last = settings.get("class_attention_blocks", 0)
        if isinstance(in_last, int) and in_last >= depth:
            settings["class_attention_blocks"] = depth - 1
        return Architecture.model_validate(settings, strict=True)

    def _whole(self, name: str, value: Value) -> int:
        if isinstance(value, bool | str) or value < 1 or value != int(value):
            raise InputError("must be a whole number of at least 1", where=self._where,
                             field=_path(self.spec, name), value=value, remedy="write 1 or more")  # fmt: skip
        if (
            value > LARGEST
        ):  # its divisors are looked for, and its blocks laid out, before the architecture is made
            raise InputError(f"must be at most {LARGEST}", where=self._where,
                             field=_path(self.spec, name), value=value, remedy="write a smaller one")  # fmt: skip
        return int(value)

    def refusal(self, rule: str, setting: str, *, value: object = None, remedy: str = "") -> InputError:
        """What is wrong with a setting, and where it stands."""
        return InputError(rule, where=self._where, field=_path(self.spec, setting), value=value, remedy=remedy)


def _path(spec: SpaceSpec, name: str) -> str:
    """Where a setting stands in the space as it is written."""
    place = "fixed." if name in spec.fixed else "dimensions." if name in spec.dimensions else ""
    return f"space.{place}{name}".rstrip(".")


def _check_names(spec: SpaceSpec, where: str) -> None:
    known = known_fields()
    for name in (*spec.fixed, *spec.dimensions):
        if name not in known or name in GIVEN_BY_DATASET:
            near = difflib.get_close_matches(name, known, n=1)
            rule = "follows from the data set" if name in GIVEN_BY_DATASET else "is not a known setting"
            guess = f"did you mean {near[0]!r}?" if near else f"known settings are {', '.join(sorted(known))}"
            remedy = "remove it" if name in GIVEN_BY_DATASET else guess
            raise InputError(rule, where=where, field=_path(spec, name), remedy=remedy)
    for name, one in spec.dimensions.items():
        if name in spec.fixed:
            raise InputError(
                "is both fixed and a dimension",
                where=where,
                field=f"space.dimensions.{name}",
                remedy="remove one of the two",
            )
        if one.per_block and not known[name]:
            raise InputError(
                "cannot vary per block",
                where=where,
                field=f"space.dimensions.{name}",
                remedy=f"only {', '.join(n for n, varies in known.items() if varies)} can",
            )
        earlier = list(spec.dimensions)[: list(spec.dimensions).index(name)]
        for other in one.when:
            source = spec.dimensions.get(other)
            if other not in spec.fixed and other not in earlier:
                raise InputError(
                    "a condition refers to a dimension that stands before it",
                    where=where,
                    field=f"space.dimensions.{name}.when.{other}",
                    remedy="add or move it",
                )
            if source is not None and source.per_block:
                raise InputError(
                    "a condition cannot refer to a per-block dimension",
                    where=where,
                    field=f"space.dimensions.{name}.when.{other}",
                    remedy="remove per_block there or the condition here",
                )
    if "architecture.image_size" not in spec.fixed:
        raise InputError("is required", where=where, field="space.fixed.architecture.image_size", remedy="add it")


def _check_written(spec: SpaceSpec, where: str) -> None:
    """Refuse steps past the end of a range, and conditions that never hold."""
    for name, one in spec.dimensions.items():
        if one.step is not None and one.low is not None and one.high is not None and one.low < one.high:
            span = one.high - one.low
            if one.step > span:
                raise InputError(f"must fit between low and high, {span:g} apart", where=where,
                                 field=f"space.dimensions.{name}.step", value=one.step,
                                 remedy="write a smaller step")  # fmt: skip
        for other, wanted in one.when.items():
            for value in wanted if isinstance(wanted, tuple) else (wanted,):
                _check_condition(spec, name, other, value, where)


def _check_condition(spec: SpaceSpec, name: str, other: str, value: Value, where: str) -> None:
    """Refuse a condition on a value that the other setting never has."""
    source = spec.dimensions.get(other)
    if source is None:
        possible, rule, remedy = value == spec.fixed[other], f"must be {spec.fixed[other]!r}, as it is fixed", ""
        remedy = f"write that, or leave {name} out"
    elif source.choices is not None:
        possible, rule = value in source.choices, f"must be one of {list(source.choices)}"
        remedy = _did_you_mean(value, source.choices)
    else:
        possible = (
            value in expand(other, source, 1)[0].values() if source.is_integer else not isinstance(value, str)
        )
        rule, remedy = f"must be one of the values from {source.low} to {source.high}", "choose one of these"
    if not possible:
        raise InputError(rule, where=where, field=f"space.dimensions.{name}.when.{other}", value=value,
                         remedy=remedy)  # fmt: skip


def _did_you_mean(value: Value, choices: tuple[Value, ...]) -> str:
    near = difflib.get_close_matches(str(value), map(str, choices), n=1)
    return f"did you mean {near[0]!r}?" if near else "choose one of these"


def _tokens(chosen: dict[str, Value], architecture: Architecture) -> TokenRule:
    name = str(chosen.get("tokens.reducer", "none"))
    if name not in TOKEN_RULES:
        raise ValueError(f"tokens.reducer must be one of {sorted(TOKEN_RULES)}, but got {name!r}; "
                         f"{_did_you_mean(name, tuple(TOKEN_RULES))}")  # fmt: skip
    rule = TOKEN_RULES[name]
    part = _per_block_part(chosen, "tokens.", architecture.depth)
    settings = {field: part[field] for field in rule.model_fields if field in part} | {"reducer": name}
    if issubclass(rule, BlockwiseRule):
        if "blocks" in settings:
            settings["blocks"] = blocks_named(settings["blocks"], architecture.depth)
        blocks = settings.get("blocks") or rule.default_blocks(architecture.depth)
        for field in rule.per_block_fields:
            drawn = settings.get(field)
            if isinstance(drawn, tuple):
                settings[field] = tuple(drawn[block - 1] for block in blocks)  # type: ignore[attr-defined]
    limit = max_merges(architecture.num_tokens, architecture.num_prefix_tokens)
    if "r" in settings:
        r = settings["r"]
        settings["r"] = tuple(at_most(one, limit) for one in r) if isinstance(r, tuple) else at_most(r, limit)
    return rule.model_validate(settings, strict=True)


def _training(chosen: dict[str, Value]) -> Training:
    part = _per_block_part(chosen, "train.", 1)
    distill = {name.removeprefix("distill."): part.pop(name) for name in list(part) if name.startswith("distill.")}
    return Training.model_validate(
        {**part, "distill": DistillChoice.model_validate(distill, strict=True)}, strict=True
    )


def blocks_named(value: object, depth: int) -> tuple[int, ...]:
    """``all``, ``quarters``, one number, or several like ``2,4``; those past the depth move to the last block."""
    if value == "all":
        return every_block(depth)
    if value == "quarters":
        return quarter_blocks(depth)
    numbers = str(value).replace(" ", "").split(",")
    if isinstance(value, bool | float) or not all(one.isdecimal() and int(one) for one in numbers):
        raise ValueError(
            f"tokens.blocks must be 'all', 'quarters' or block numbers, but got {value!r}; write '4,7,10', say"
        )
    return tuple(sorted({min(int(one), depth) for one in numbers}))


def _sparsity(chosen: dict[str, Value], architecture: Architecture) -> Sparsity:
    """Ratios become counts: a ratio p of n units removes floor(p n), but never the last one."""
    a = architecture
    blocks = blocks_kept(shape_of(a), chosen.get(BLOCKS_RATIO, 0.0))
    width = num_kept(a.width, chosen.get("sparsity.width_ratio", 0.0), "sparsity.width_ratio")
    part = _per_block_part(chosen, "sparsity.", blocks, a.share_blocks)
    kept: dict[str, int | tuple[int, ...]] = {}
    for ratio_name, field, available in (
        ("mlp_ratio", "mlp_units", a.mlp_units),
        ("heads_ratio", "heads", a.heads),
        ("qk_ratio", "qk_dim", a.head_dim),
        ("v_ratio", "v_dim", a.head_dim),
    ):
        ratio = part.get(ratio_name, 0.0)
        name = f"sparsity.{ratio_name}"
        if isinstance(ratio, tuple):
            kept[field] = tuple(num_kept(available, one, name) for one in ratio)
        else:
            kept[field] = num_kept(available, ratio, name)
    settings = {
        name: chosen[f"sparsity.{name}"]
        for name in ("steps", "schedule", "macs_ratio", "mask", "zeros")
        if f"sparsity.{name}" in chosen
    }
    method = part.get("method", "magnitude")
    dropping = {"blocks": blocks} if blocks < a.depth else {}
    return Sparsity.model_validate({"method": method, "width": width, **dropping, **kept, **settings})


def _affordable(sparsity: Sparsity, tokens: TokenRule, architecture: Architecture) -> Sparsity:
    """A budget of MACs, raised to what one head and one hidden unit in each block cost."""
    if sparsity.macs_ratio is None:
        return sparsity
    dense = Sparsity().widths(architecture)
    least = least_ratio(dense, budget_counts_of(tokens, architecture))
    return sparsity.model_copy(
        update={"macs_ratio": min(1.0, max(sparsity.macs_ratio, math.ceil(least * 1e4) / 1e4))}
    )


def _per_block_part(chosen: dict[str, Value], prefix: str, depth: int, share: int = 1) -> dict[str, object]:
    """The settings under ``prefix``; per-block axes collected into tuples of the network's depth.

    Of ``share`` consecutive blocks that share their weights, the first one's figure is that of all.
    """
    part: dict[str, object] = {}
    for name, value in chosen.items():
        if not name.startswith(prefix):
            continue
        field, bracket, _ = name.removeprefix(prefix).partition("[")
        if bracket:
            part[field] = (*part.get(field, ()), value)[:depth]  # type: ignore[misc]
        else:
            part[field] = value
    return {
        field: tuple(value[i - i % share] for i in range(len(value))) if isinstance(value, tuple) else value
        for field, value in part.items()
    }
