"""``target join`` and ``targets``: devices to measure on."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitsearch.cli.options import DEFAULT_ADDRESS, Address, JsonFlag, print_json

if TYPE_CHECKING:
    from vitsearch.messages import TargetFacts

target = typer.Typer(help="Let this machine be measured on.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(target, name="target")
    app.command()(targets)


@target.command()
def join(
    name: Annotated[str, typer.Option("--name", help="What jobs call it: targets[].name.", show_default=False)],
    address: Annotated[str, typer.Option("--address", help="HEAD:6379 of the cluster.", show_default=False)],
    cpus: Annotated[int, typer.Option("--cpus", min=0, help="Processors that may train here, too.")] = 0,
) -> None:
    """Join a Ray cluster as a target; stays until Ctrl-C."""
    from vitsearch.errors import InputError

    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise InputError("must be lower-case letters, digits and _", field="--name", value=name)
    if name == "local":
        raise InputError("means the driver's own machine", field="--name", value=name, remedy="choose another")
    if not re.fullmatch(r"[^\s/:]+:\d+", address):
        raise InputError("must be the address where nodes join", field="--address", value=address,
                         remedy="write HEAD:6379, not the dashboard's")  # fmt: skip
    typer.echo(f"joining {address} as target {name}; Ctrl-C leaves")
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--address", address, "--block",
        "--num-cpus", str(cpus), "--resources", json.dumps({f"target_{name}": 1}), "--disable-usage-stats",
        "--temp-dir", str(_own_folder()),
    ]  # fmt: skip
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what measures there sees the GPU
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 - Ray takes this process's place, and its signals


def _own_folder() -> Path:
    """Where this node unpacks code: in the head's own, it would delete what jobs there run from.

    Short, as sockets lie below it; Ray makes it.
    """
    return Path(os.environ.get("RAY_TMPDIR", "/tmp")) / f"ray-target-{os.getpid()}"  # noqa: S108 - as Ray's own


def targets(address: Address = DEFAULT_ADDRESS, json_output: JsonFlag = False) -> None:
    """List the targets of a cluster, with processor, runtimes and when they were last seen."""
    from rich.table import Table

    from vitsearch.cli.remote import connect, targets_of
    from vitsearch.cli.screen import screen

    found = targets_of(connect(address))
    if json_output:
        print_json([one.model_dump(mode="json") for one in found])
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("target", "seen", "host", "processor", "memory", "runtimes", "missing"):
        table.add_column(column, overflow="fold")
    for one in found:
        table.add_row(one.name, _seen(one), *_cells(one))
    screen(pipe_width=180).print(table)


def _seen(one: TargetFacts) -> str:
    if one.is_there:
        return "now"
    from vitsearch.cli.screen import day_and_time

    return day_and_time(one.seen_at)


def _cells(one: TargetFacts) -> list[str]:
    machine = one.machine
    if machine is None:
        return ["", one.problem, "", "", ""]
    runtimes = []
    for name, facts in machine.runtimes.items():
        kinds = [f"{kind} (emulated)" if kind in facts.emulated else kind for kind in facts.precisions]
        runtimes.append(f"{name} {facts.version}: {', '.join(kinds)}")
    processor = ", ".join([f"{machine.num_processors} x {machine.processor}", *machine.gpus])
    return [machine.host, processor, f"{machine.memory_mb / 1000:.0f} GB", "\n".join(runtimes),
            ", ".join(machine.missing)]  # fmt: skip
