"""The network between the head and a node is cut and comes back: two network namespaces on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.command_line import PROGRAM
from tests.e2e.harness import assert_front_is_that_of_the_results, query, results_stored, wait_for, write_job
from tests.e2e.heads import end
from tests.e2e.test_node_death import both_train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("e2e-cluster"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and iproute2"
    ),
]
RAY = Path(sys.executable).with_name("ray")
ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "disabled"}
HEAD, NODE, PORT, NODE_PORT = "10.77.0.1", "10.77.0.2", "26401", "26402"
CONNECT = f"import socket; socket.create_connection(('{NODE}', {NODE_PORT}), 3)"
LAST_WORKER = "SELECT worker FROM trials JOIN results ON trial = number ORDER BY finished_at DESC LIMIT 1"
CUT_S = 60


@dataclass(frozen=True, kw_only=True)
class Link:
    """Two namespaces with one cable between them."""

    head: str
    node: str

    def cut(self) -> None:
        ip("-n", self.head, "link", "set", "cable", "down")

    def mend(self) -> None:
        ip("-n", self.head, "link", "set", "cable", "up")

    def carries(self) -> bool:
        """Whether the head reaches the node."""
        command = ["ip", "netns", "exec", self.head, sys.executable, "-c", CONNECT]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def link() -> Iterator[Link]:
    names = [f"vs{os.getpid()}{end}" for end in "hn"]
    made: list[str] = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for name, address in zip(names, (HEAD, NODE), strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "cable", "up")
        yield Link(head=names[0], node=names[1])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    finally:
        for name in made:
            ip("netns", "del", name)


@contextmanager
def ray_node(namespace: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Ray node in a namespace; killed with all that it has started."""
    folder = tempfile.mkdtemp(prefix="vs-ray-", dir="/tmp")
    command = [
        "ip", "netns", "exec", namespace, str(RAY), "start", "--block", "--num-cpus", "1", "--disable-usage-stats",
        "--object-store-memory", str(100 * 2**20), *words,
    ]  # fmt: skip
    with (Path(folder) / "log").open("wb") as log:
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_cut_network_doubles_nothing_and_the_node_comes_back(tmp_path: Path, link: Link) -> None:
    out = tmp_path / "out"
    job = write_job(tmp_path, search={"trials": 30}, train={"epochs": 12, "early_stop": False})
    join = ("--address", f"{HEAD}:{PORT}", "--node-ip-address", NODE, "--node-manager-port", NODE_PORT)
    with ExitStack() as stack:
        stack.enter_context(
            ray_node(
                link.head, "--head", "--node-ip-address", HEAD, "--port", PORT, "--include-dashboard", "false"
            )
        )
        time.sleep(8)
        first = stack.enter_context(ray_node(link.node, *join))
        time.sleep(5)
        with (tmp_path / "log").open("w") as log:
            driver = subprocess.Popen(
                ["ip", "netns", "exec", link.head, *PROGRAM, "run", str(job), "--out", str(out)],
                env={**ENVIRONMENT, "RAY_ADDRESS": f"{HEAD}:{PORT}"}, stdout=log, stderr=log, text=True,
                start_new_session=True,
            )  # fmt: skip
        stack.callback(driver.kill)
        wait_for(lambda: both_train(out), driver)

        assert link.carries()
        link.cut()
        before, cut_at = results_stored(out), time.monotonic()
        time.sleep(1)  # what had come through by then has been taken in, and the next trial leased
        leased = query(out, "SELECT number, worker FROM trials WHERE state = 'leased'")
        assert not link.carries()
        wait_for(lambda: results_stored(out) >= before + 2, driver, timeout_s=240)  # the head goes on alone
        ((goes_on,),) = query(out, LAST_WORKER)
        (cut_off,) = (number for number, worker in leased if worker != goes_on)
        while time.monotonic() - cut_at < CUT_S:
            assert driver.poll() is None
            time.sleep(1)
        assert not link.carries()
        link.mend()

        def is_back() -> bool:
            if first.poll() is not None and not again:  # given up, told so, ended: its supervisor starts it again
                again.append(stack.enter_context(ray_node(link.node, *join)))
            return both_train(out)

        again: list[subprocess.Popen[bytes]] = []
        wait_for(is_back, driver, timeout_s=240)
        assert driver.wait(300) == 0, (tmp_path / "log").read_text()

    trials = query(out, "SELECT number, state, attempts FROM trials WHERE kind = 'evaluate'")
    assert len(trials) == 30
    assert {state for _, state, _ in trials} == {"told"}
    attempts = {number: count for number, _, count in trials}
    (twice,) = (number for number, count in attempts.items() if count > 1)
    assert attempts[twice] == 2, "the trial on the node that was cut off"
    assert twice >= cut_off, "or the next, where that had ended just before and was taken in late"
    outcomes = [json.loads(text) for (text,) in query(out, "SELECT outcome FROM results")]
    assert [outcome["kind"] for outcome in outcomes] == ["result"] * 30
    assert_front_is_that_of_the_results(out)
