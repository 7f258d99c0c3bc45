"""What a hostile or broken sender makes of something valid: strategies for trees, text, bytes and files."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

OUTSIDE = "OUTSIDE"  # stands for a folder that nothing may touch
NASTY_TEXT = [
    "", " ", "\x00", "a\x00b", "\n", "\r\n", "\x1b[31m", "\u202eabc", "\ud800", "🦒" * 40, "x" * 5000,
    "%s%n{0}{x}",
    "[/red]", "[bold", "$(touch OUTSIDE/made)", "`touch OUTSIDE/made`", "'; touch OUTSIDE/made; '", "--help", "-",
    "..", "../../OUTSIDE/made", "OUTSIDE/made", "/dev/zero", "/etc/passwd", "/", "~", "~nobody/x", "C:\\x", "con",
    "file:///etc/passwd", "sqlite:///OUTSIDE/made.db", "postgresql://u:p@[::1/db", "http://[", "s3://",
    "memory://x",
    "local://x", "x://", "://", "mysql://h/d?plugin=x", "sqlite://?a=b", "${A}", "${", "${file:/etc/passwd}",
    "!!python/object/apply:os.system [touch OUTSIDE/made]", "null", "true", "1e999", ".nan", "0x10", "1_000", "<<",
    "__class__", "__init__", "tokens.reducer", "architecture.width", "vit_micro_8", "digits", "nsga2",
]  # fmt: skip
NUMBERS = [
    0, -1, 1, 2, 3, 7, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400, 0.0, -0.0, 1e-300, 1e300, 0.1, 0.5, 1.5,
    float("nan"), float("inf"), float("-inf"), 5e-324, True, False, None,
]  # fmt: skip

scalars = st.one_of(
    st.sampled_from(NASTY_TEXT), st.sampled_from(NUMBERS), st.text(max_size=12), st.integers(), st.floats()
)
keys = st.one_of(st.sampled_from(NASTY_TEXT), st.text(max_size=8))
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=8
)


def reproducible(examples: int) -> settings:
    """So many examples, the same every time; none is kept, and none made smaller, which can take minutes."""
    return settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def places(tree: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside."""
    yield here
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, inner in children:
        yield from places(inner, (*here, key))


def at(tree: Any, path: tuple[Any, ...]) -> Any:
    """The value at a path."""
    for key in path:
        tree = tree[key]
    return tree


@st.composite
def mutated(draw: st.DrawFn, tree: Any, most: int = 3) -> Any:
    """The tree with up to so many values changed, moved, added or taken away."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, most))):
        paths = list(places(tree))[1:]
        if not paths:
            return draw(trees)
        path = draw(st.sampled_from(paths))
        parent, key = at(tree, path[:-1]), path[-1]
        kind = draw(
            st.sampled_from(["value", "value", "value", "tree", "delete", "rename", "add", "move", "wrap", "long"])
        )
        if kind == "value":
            parent[key] = draw(scalars)
        elif kind == "tree":
            parent[key] = draw(trees)
        elif kind == "delete":
            del parent[key]
        elif kind in {"rename", "add"} and isinstance(parent, dict):
            value = parent.pop(key) if kind == "rename" else draw(trees)
            parent[draw(keys)] = value
        elif kind == "move":
            parent[key] = copy.deepcopy(at(tree, draw(st.sampled_from(paths))))
        elif kind == "wrap":
            parent[key] = draw(st.sampled_from([[parent[key]], {"x": parent[key]}, [parent[key]] * 3]))
        else:
            parent[key] = [parent[key]] * draw(st.sampled_from([0, 50, 2000]))
    return tree


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content cut, overwritten, filled up or replaced."""
    kind = draw(st.sampled_from(["cut", "flip", "insert", "replace", "repeat"]))
    where = draw(st.integers(0, max(0, len(content) - 1)))
    if kind == "cut":
        return content[:where]
    if kind == "flip":
        other = bytearray(content)
        for _ in range(draw(st.integers(1, 8))):
            if other:
                other[draw(st.integers(0, len(other) - 1))] = draw(st.integers(0, 255))
        return bytes(other)
    if kind == "insert":
        return content[:where] + draw(st.binary(min_size=1, max_size=20)) + content[where:]
    if kind == "repeat":
        return content + content[where:]
    return draw(st.one_of(st.binary(max_size=200), st.just(b"\x80\x04N."), st.just(b"\x00" * 4096)))


def deep_yaml(levels: int) -> str:
    """Lists in lists."""
    return "name: " + "[" * levels + "]" * levels + "\n"


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
YAML_EXTRAS = [
    BOMB, f"{BOMB}seed: *j\n", f"{BOMB}search: *j\n", f"{BOMB}objectives: *j\n", f"{BOMB}targets: [*j]\n",
    deep_yaml(500), deep_yaml(50_000), "name: !!python/object/apply:os.system ['touch OUTSIDE/made']\n",
    "name: !!python/name:os.system\n", "name: !!binary aGFsbG8=\n", "name: !!timestamp 2001-01-01\n",
    "name: &x [*x]\n",
    "seed: !!int '1__'\n", "seed: !!float 'x'\n", "? [a, b]\n: c\n", "? {a: b}\n: c\n", "seed: 190:20:30\n",
    "search: !!set {a, b}\n", "search: !!omap [a: 1]\n", "search: !!pairs [a: 1]\n", "<<: *a\n", "<<: 3\n",
    "<<: [3]\n",
    "---\n", "...\n---\n", "%YAML 3.0\n", "\tname: x\n", "seed: 0b\n", "seed: 0o9\n", "seed: ._\n", "seed: 1e\n",
    "seed: 2001-13-45\n", "seed: 99999-01-01\n", "seed: 2001-01-01 25:61:61\n", "seed: =\n", "\ufeff", "# \x07\n",
    "seed: " + "9" * 5000 + "\n", "seed: 0x" + "f" * 5000 + "\n", "'" , '"\\ud800"\n', "key: |\n", "- a\n",
    "&", "*",
    "name: !<tag:yaml.org,2002:str> [a]\n", "name: !!str {a: b}\n", "seed: !!bool x\n", "name: !!null x\n",
]  # fmt: skip


@st.composite
def spoiled(draw: st.DrawFn, text: str) -> bytes:
    """A text with a piece of YAML in some line, or damaged as bytes; often as it is."""
    kind = draw(st.sampled_from(["as it is", "as it is", "extra", "bytes"]))
    if kind == "extra":
        lines = text.splitlines(keepends=True)
        where = draw(st.integers(0, len(lines)))
        extra = draw(st.sampled_from(YAML_EXTRAS))
        return "".join([*lines[:where], extra, *lines[where:]]).encode("utf-8", "surrogatepass")
    content = text.encode("utf-8", "surrogatepass")
    return draw(damaged(content)) if kind == "bytes" else content


@st.composite
def as_json(draw: st.DrawFn, tree: Any) -> bytes:
    """A mutated tree as JSON, which may be damaged on top."""
    content = json.dumps(draw(mutated(tree))).encode()
    return draw(damaged(content)) if draw(st.integers(0, 5)) == 0 else content


@st.composite
def safetensors(draw: st.DrawFn, content: bytes) -> bytes:
    """Weights whose header lies."""
    if draw(st.booleans()):
        return draw(damaged(content))
    (size,) = struct.unpack("<Q", content[:8])
    header = draw(as_json(json.loads(content[8 : 8 + size])))
    claimed = draw(st.sampled_from([len(header), len(header), 0, 2**40, 2**63]))
    return struct.pack("<Q", claimed) + header + content[8 + size :]


def state_of(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Everything in a folder, by its name: kind, size and time of its last change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        found[str(path.relative_to(folder))] = (facts.st_mode, facts.st_size, facts.st_mtime_ns)
    return found
