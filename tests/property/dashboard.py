"""A server that answers as Ray's dashboard does, or not quite."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import ray

JOB: dict[str, Any] = {
    "type": "SUBMISSION", "job_id": "01000000", "submission_id": "flowers-ab12cd", "status": "SUCCEEDED",
    "driver_info": {"id": "01000000", "node_ip_address": "127.0.0.1", "pid": "12"}, "entrypoint": "exec python",
    "message": "Job finished successfully.", "error_type": None, "start_time": 1700000000000,
    "end_time": 1700000100000, "metadata": {"vitsearch_study": "flowers", "vitsearch_out": "/studies/flowers"},
    "runtime_env": {}, "driver_agent_http_address": "http://127.0.0.1:1", "driver_node_id": "ab" * 28,
    "driver_exit_code": 0,
}  # fmt: skip
WORKER = {"worker": "w1", "trial": 4, "candidate": "d4 w64", "epoch": 1, "epochs": 3, "accuracy": 0.5}
PROGRESS: dict[str, Any] = {
    "trials": 20, "ended": 3, "front": 2, "best_accuracy": 0.7, "hypervolume": 0.4, "rejected": 1, "duplicate": 0,
    "failed": 0, "infeasible": 0, "elapsed_s": 12.5, "left_s": 60.0, "num_workers": 1, "workers": [WORKER],
}  # fmt: skip
STATE: dict[str, Any] = {
    "study": "flowers", "step": "", "progress": PROGRESS, "browse_url": "http://h:5000/#/experiments/1",
    "notice": "",
    "ended": "", "at": 1700000000.0,
}  # fmt: skip
TARGETS: dict[str, Any] = {
    "targets": [
        {
            "name": "jetson", "is_there": True, "seen_at": 1700000000.0, "problem": "",
            "machine": {
                "host": "h", "processor": "p", "num_processors": 4, "memory_mb": 8000.0, "python": "3.12.1",
                "gpus": [], "missing": [], "runtimes": {"pytorch": {"version": "2.9", "precisions": ["fp32"]}},
            },
        }
    ]
}  # fmt: skip
VERSION = {"version": "4", "ray_version": ray.__version__, "ray_commit": "x", "session_name": "x"}
ANSWERS: dict[str, Any] = {
    "version": VERSION, "jobs": [JOB, {**JOB, "submission_id": "older", "status": "FAILED"}], "job": JOB,
    "logs": {"logs": "starting\nerror: job.yaml: it is wrong\n"}, "state": STATE, "targets": TARGETS,
    "copy": {"file": "x.tar", "bytes": 0, "sha256": ""}, "submitted": {"job_id": "a", "submission_id": "a"},
    "stopped": {"stopped": True}, "deleted": {"deleted": True}, "package": {},
}  # fmt: skip


@dataclass
class Answer:
    """What the server says to one question.

    Attributes:
        body: The content.
        status: HTTP status.
        missing: Bytes that are announced and do not come.
    """

    body: bytes
    status: int = 200
    missing: int = 0


@dataclass
class Dashboard:
    """A server and its answers by the kind of question.

    Attributes:
        address: Where it listens.
        answers: What it says; ``tar`` is the archive that it hands out.
    """

    address: str
    answers: dict[str, Answer] = field(default_factory=dict)

    def reset(self) -> None:
        """Answer as Ray would."""
        self.answers = {name: Answer(json.dumps(value).encode()) for name, value in ANSWERS.items()}
        self.answers["tar"] = Answer(b"")


def _kind(method: str, path: str) -> str:
    parts = urlsplit(path)
    name = parse_qs(parts.query).get("filename", [""])[0]
    if parts.path == "/api/version":
        return "version"
    if parts.path.startswith("/api/packages"):
        return "package"
    if parts.path == "/api/v0/logs/file":
        kinds = {"vitsearch-copy-": "copy", "vitsearch-targets-": "targets", "vitsearch-": "state"}
        return next((kind for prefix, kind in kinds.items() if name.startswith(prefix)), "tar")
    if parts.path.rstrip("/") == "/api/jobs":
        return "submitted" if method == "POST" else "jobs"
    if parts.path.endswith("/logs"):
        return "logs"
    return {"POST": "stopped", "DELETE": "deleted"}.get(method, "job")


@contextmanager
def dashboard() -> Iterator[Dashboard]:
    """Serve for a while."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = one.answers[_kind(self.command, self.path)]
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(answer.body) + answer.missing))
            if 300 <= answer.status < 400:
                self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            self.wfile.write(answer.body)
            self.close_connection = True

        do_GET = do_POST = do_PUT = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # the client has had enough
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    one = Dashboard(f"http://127.0.0.1:{server.server_port}")
    one.reset()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield one
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
