"""The search spaces that ship with vitsearch."""

from __future__ import annotations

import difflib
from functools import lru_cache
from importlib import resources
from pathlib import Path

from vitsearch.config import SpaceSpec, load_yaml, parse
from vitsearch.errors import InputError


def preset_names() -> list[str]:
    """Names of all presets, sorted."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def load_preset(name: str, *, where: str = "") -> SpaceSpec:
    """Read one preset.

    Args:
        name: Its name.
        where: The file that names it, for messages.

    Raises:
        InputError: There is no preset of that name.
    """
    names = preset_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"presets are {', '.join(names)}"
        raise InputError("is not a known preset", where=where, field="space.preset", value=name, remedy=remedy)
    path = _folder() / f"{name}.yaml"
    return parse(SpaceSpec, load_yaml(path), where=str(path))


def resolve_preset(spec: SpaceSpec, *, where: str = "") -> SpaceSpec:
    """The space with its preset's entries filled in; what the job writes wins, entry by entry.

    Args:
        spec: The space as written.
        where: The file it stands in, for messages.

    Raises:
        InputError: There is no such preset, or it lacks a dimension to drop.
    """
    if spec.preset is None:
        return spec
    base = load_preset(spec.preset, where=where)
    unknown = [name for name in spec.drop if name not in base.dimensions]
    if unknown:
        raise InputError(
            f"the preset {spec.preset} has no dimension {unknown[0]!r}",
            where=where,
            field="space.drop",
            remedy=f"its dimensions are {', '.join(base.dimensions)}",
        )
    dimensions = {k: v for k, v in base.dimensions.items() if k not in spec.drop and k not in spec.fixed}
    fixed = {k: v for k, v in base.fixed.items() if k not in spec.dimensions}
    return SpaceSpec(
        name=spec.preset if spec.name == "custom" else spec.name,
        description=spec.description or base.description,
        fixed={**fixed, **spec.fixed},
        dimensions={**dimensions, **spec.dimensions},
    )


@lru_cache(maxsize=1)
def _folder() -> Path:
    installed = Path(str(resources.files("vitsearch").joinpath("_search_spaces")))
    return installed if installed.is_dir() else Path(__file__).parents[2] / "search_spaces"
