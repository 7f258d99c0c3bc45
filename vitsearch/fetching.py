"""Files that a job names by an address (``s3://``, ``https://``, ...), as local copies that are fetched once.

A copy is kept under an address and what the store says of its version, so a changed file is fetched again. It
appears whole or not at all, and several processes may ask for one at once. All copies can be deleted at any time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from vitsearch.artifacts import check_address
from vitsearch.errors import InputError, first_line, hide_password, hide_passwords
from vitsearch.scratch import scratch_folder

CACHE_VARIABLE = "VITSEARCH_CACHE"
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
VERSION_KEYS = (
    "etag", "md5hash", "content-md5", "digest", "mtime", "lastmodified", "last-modified", "last_modified",
    "updated", "modified", "created", "size",
)  # fmt: skip
# what each new signature of an address changes: Amazon's and Google's, CloudFront's, Azure's
SIGNATURES = {"x-amz-signature", "x-goog-signature", "signature", "sig"}
SIGNED = re.compile(
    r"(x-(amz|goog)-(algorithm|credential|date|expires|signedheaders|security-token|signature)|signature|expires"
    r"|awsaccesskeyid|googleaccessid|key-pair-id|policy|sig|s[etvpr]|sip|spr|sdd|sk[etsv]|skoid|sktid)",
    re.IGNORECASE,
)
WEB = {"http", "https"}
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 20.0, 60.0
DAY_S = 86400.0  # locks of other machines may not be seen where the cache lies on a network's disk
HERE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # what this machine's disk says, not the store


def fetched(place: str | Path, *, field: str, on_step: Callable[[str], None] = lambda _: None) -> Path:
    """The local copy of what an address names; a path is returned as it is.

    An archive (``.zip``, ``.tar``, ``.tar.gz``, ...) becomes the folder of what it holds; a folder of a store is
    copied with all below it.

    Args:
        place: A path, or an address that fsspec understands.
        field: The job's field, for messages.
        on_step: Told before anything is copied.

    Raises:
        InputError: Nothing is there, the store cannot be reached, a package is missing, or an archive is broken or
            holds a member that would land outside its folder.
        OSError: This machine's disk refuses.
    """
    if isinstance(place, Path):
        return place
    check_address(place, field=field)
    with _told(place, field):
        store, root = _open(place)
        files = _files(store, root, place)
        version = {name: _version(info) for name, info in files.items()}
    key = hashlib.sha256(json.dumps([_unsigned(place), version], sort_keys=True).encode()).hexdigest()[:20]
    kept, name = _cache_folder() / key, _name_of(place)
    result = kept / (_stem(name) if "" in files and _is_archive(name) else name)
    if kept.is_dir():
        return result
    on_step(f"fetching {hide_password(place)}")
    with scratch_folder(".partial-", kept.parent, spare_s=DAY_S) as temporary:
        made = temporary / "made"
        for relative in files:
            target = made / name if relative == "" else _inside(made / name, relative, place, field)
            target.parent.mkdir(parents=True, exist_ok=True)
            with _told(place, field):
                store.get_file(f"{root}/{relative}" if relative else root, str(target))
        if result.name != name:
            _unpack(made / name, made / result.name, place, field)
            (made / name).unlink()
        try:
            made.rename(kept)
        except OSError:
            if not kept.is_dir():  # else another process was faster, with the same content
                raise
    return result


def kept_copies() -> tuple[Path, int]:
    """Where copies lie, and how many bytes they have."""
    folder = _cache_folder()
    return folder, sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())


def only_folder(folder: Path) -> Path:
    """The folder that an archive's members lie in, where they lie in one; the whole of ``train/`` is no such."""
    while True:
        inner = [one for one in folder.iterdir() if not one.name.startswith((".", "__MACOSX"))]
        if len(inner) != 1 or not inner[0].is_dir() or inner[0].name == "train":
            return folder
        folder = inner[0]


def _cache_folder() -> Path:
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        folder = Path(given).expanduser()
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Caches" / "vitsearch"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitsearch"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be made ({error.strerror})", where=CACHE_VARIABLE, value=str(folder),
                         remedy=f"set {CACHE_VARIABLE} to a folder that can be written") from error  # fmt: skip
    return folder.resolve()


def _open(place: str) -> tuple[Any, str]:
    import fsspec

    options: dict[str, Any] = {}
    if place.partition("://")[0].lower() in WEB:
        from aiohttp import ClientTimeout

        # its own limit of five minutes counts the whole download
        timeout = ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)
        options = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    store, root = fsspec.core.url_to_fs(place, **options)
    store.invalidate_cache()
    return store, str(root).rstrip("/")


def _files(store: Any, root: str, place: str) -> dict[str, Mapping[str, Any]]:
    """What is there, by path below the address; a single file has an empty one."""
    info = store.info(root)
    if place.partition("://")[0].lower() in WEB or info.get("type") != "directory":
        return {"": info}
    found = {name: one for name, one in store.find(root, detail=True).items() if one.get("type") != "directory"}
    if not found:
        raise FileNotFoundError("the folder is empty")
    return {name.removeprefix(root).lstrip("/"): found[name] for name in sorted(found)}


def _version(info: Mapping[str, Any]) -> dict[str, str]:
    """What a store says of a file's version, under whatever names it has for that."""
    return {key: str(value) for key, value in info.items() if key.lower() in VERSION_KEYS}


def _unsigned(place: str) -> str:
    """The address without its signature, which is another one each time that a store signs it."""
    address, mark, query = place.partition("?")
    fields = query.split("&")
    names = [field.partition("=")[0] for field in fields]
    if SIGNATURES.isdisjoint(name.lower() for name in names):
        return place
    kept = [field for field, name in zip(fields, names, strict=True) if not SIGNED.fullmatch(name)]
    return address + mark + "&".join(kept)


def _name_of(place: str) -> str:
    parts = urlsplit(place)
    path = parts.path.rstrip("/") or parts.netloc
    name = unquote(path).rpartition("/")[2]
    return name if name not in {"", ".", ".."} else "data"


def _is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVES)


def _stem(name: str) -> str:
    suffix = max((one for one in ARCHIVES if name.lower().endswith(one)), key=len)
    return name[: -len(suffix)] or "data"


def _unpack(archive: Path, folder: Path, place: str, field: str) -> None:
    folder.mkdir()
    try:
        if archive.name.lower().endswith(".zip"):
            with zipfile.ZipFile(archive) as package:
                for member in package.infolist():  # zipfile itself would put them somewhere else without a word
                    _inside(folder, member.filename, place, field)
                package.extractall(folder)  # noqa: S202 - each member was looked at
        else:
            with tarfile.open(archive) as package:
                package.extractall(folder, filter="data")
    except InputError:
        raise
    except Exception as error:  # zip, tar and each compression have exceptions of their own
        if isinstance(error, OSError) and error.errno in HERE:
            raise
        raise InputError(f"must be an archive that can be unpacked ({_short(error)})", field=field,
                         value=hide_password(place), remedy="make it again") from error  # fmt: skip


def _short(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the path, which may be a name made to be long
    return first_line(error)[:200]


def _inside(folder: Path, relative: str, place: str, field: str) -> Path:
    """Where a member belongs.

    Raises:
        InputError: Outside the folder.
    """
    parts = PurePosixPath(relative.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or (parts.parts and ":" in parts.parts[0][1:2]):
        raise InputError(f"holds {relative!r}, which would land outside its folder", field=field,
                         value=hide_password(place), remedy="name its members relative to it")  # fmt: skip
    return folder / parts


@contextmanager
def _told(place: str, field: str) -> Iterator[None]:
    """Turn whatever a store raises into one sentence.

    Raises:
        InputError: Instead.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in HERE and error.filename:
            raise
        cause = error.__cause__ or error
        words = (str(cause).strip() or "no reason given").splitlines()[0]
        reason = hide_passwords(f"{type(cause).__name__}: {words}")
        raise InputError(f"cannot be read ({reason})", field=field, value=hide_password(place),
                         remedy="check the address, the network and the credentials") from error  # fmt: skip
