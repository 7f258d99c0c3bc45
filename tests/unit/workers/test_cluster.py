"""The Jobs API's client against servers that are no Ray of ours."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from vitsearch.errors import InputError, StudyError
from workers import Cluster, Submitted


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """A server that says the same to everybody."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_another_ray_is_refused_with_both_versions():
    version = json.dumps({"version": "4", "ray_version": "2.31.0", "ray_commit": "x", "session_name": "x"})
    with answering(200, version) as address:
        with pytest.raises(StudyError, match=r"runs Ray 2\.31\.0, and this vitsearch works with Ray >=2\.60,<3"):
            Cluster(address, supported=">=2.60,<3")
        assert Cluster(address, supported=">=2.31").address == address


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, "nothing here", "is not the dashboard of a Ray cluster"),
        (200, "<html>a router's page</html>", "is not the dashboard of a Ray cluster"),
        (401, "who are you?", "wants a token"),
        (403, "not you", "refuses this token"),
        (500, "oops", "does not answer"),
    ],
)
def test_what_is_no_cluster_is_one_line(status: int, body: str, message: str):
    with answering(status, body) as address, pytest.raises(StudyError, match=message) as caught:
        Cluster(address)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["", "http://", "ftp://host", "http://host:x", "host:99999", "http://[::1:8265", "http://[x]:8265"]
)
def test_what_is_no_address_is_refused(address: str):
    with pytest.raises(InputError, match="must be the address of a Ray dashboard"):
        Cluster(address)


@pytest.mark.parametrize("host", ["head..local", f"{'x' * 70}.local"])
def test_a_name_that_no_machine_has_is_one_line(host: str):
    with pytest.raises(StudyError, match=f"no Ray cluster answers at http://{host}:8265") as caught:
        Cluster(f"http://{host}:8265")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://me:geheim@h:8265", "me:geheim@h", "http://h:8265?token=geheim"])
def test_an_address_with_a_password_is_refused(address: str):
    with pytest.raises(InputError, match="--address: must hold no password") as caught:
        Cluster(address)
    assert "geheim" not in str(caught.value)


def test_variables_of_ray_do_not_outrank_the_address(monkeypatch: pytest.MonkeyPatch):
    version = json.dumps({"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "x"})
    with answering(200, version) as address:
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
        assert Cluster(address).address == address


@pytest.mark.parametrize("version", ["[]", '{"ray_version": []}', '{"ray_version": "new"}', "3", "{}", "null"])
def test_a_version_that_is_none_is_one_line(version: str):
    with answering(200, version) as address, pytest.raises(StudyError, match="is not the dashboard") as caught:
        Cluster(address)
    assert "\n" not in str(caught.value)


VERSION = {"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "x"}


@pytest.mark.parametrize("more", [{"type": "SUBMISSION"}, {"status": "TIRED"}, {}])
def test_a_job_that_is_none_is_one_line(more: dict[str, str]):
    with answering(200, json.dumps({**VERSION, **more})) as address:
        cluster = Cluster(address)
        for question in (lambda: cluster.info("a"), cluster.jobs):
            with pytest.raises(StudyError, match="does not understand") as caught:
                question()
            assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")  # of Ray's client
def test_a_log_that_cannot_be_followed_is_one_line():
    with answering(200, json.dumps(VERSION)) as address, pytest.raises(StudyError, match="does not answer"):
        list(Cluster(address).follow(RUNNING))


RUNNING = Submitted(
    id="a", study="a", out="/a", status="RUNNING", message="", submitted_at=0.0, ended_at=None, node_id="n"
)


def saying(lines: Callable[[str], AsyncIterator[str]], address: str) -> Cluster:
    """A cluster whose jobs print these lines."""
    cluster = Cluster(address)
    cluster._client = SimpleNamespace(tail_job_logs=lines)
    return cluster


def test_a_log_is_followed_to_its_end():
    async def two(_: str) -> AsyncIterator[str]:
        yield "first"
        await asyncio.sleep(0)
        yield "second"

    with answering(200, json.dumps(VERSION)) as address:
        assert list(saying(two, address).follow(RUNNING)) == ["first", "second"]


@pytest.mark.parametrize("waiting", [False, True])
def test_ctrl_c_while_a_log_is_followed_is_just_that(waiting: bool):
    """The rest of the log was still being waited for, and could not be closed."""
    closed = []

    async def endless(_: str) -> AsyncIterator[str]:
        try:
            yield "first"
            if not waiting:
                signal.raise_signal(signal.SIGINT)
            asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
            await asyncio.sleep(60)
        finally:
            closed.append(True)

    with answering(200, json.dumps(VERSION)) as address:
        said = saying(endless, address).follow(RUNNING)
        assert next(said) == "first"
        with pytest.raises(KeyboardInterrupt):
            next(said)
    assert closed
