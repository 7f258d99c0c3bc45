"""``deploy/Dockerfile``: what a linter would say, and that what it names is there."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.unit.deploy.factory import Stage, pods, stages, text

ROOT = Path(__file__).parents[3]
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")


def sources(stage: Stage) -> list[str]:
    """What a stage takes from the repository."""
    copied = [word for rest in stage.of("COPY") if "--from" not in rest for word in rest.split()[:-1]]
    bound = [re.search(r"source=([^,\s]+)", rest) for run in stage.of("RUN") for rest in mounts(run, "bind")]
    return copied + [found[1] for found in bound if found and not found[1].startswith("/")]


def mounts(run: str, kind: str) -> list[str]:
    return [rest for rest in re.findall(r"--mount=(\S+)", run) if f"type={kind}" in rest]


def is_sent(path: str) -> bool:
    """Whether ``.dockerignore`` lets a path of the repository through: its last line that matches decides."""
    sent = True
    for line in IGNORED:
        pattern = line.removeprefix("!")
        if pattern and not line.startswith("#") and (fnmatch(path, pattern) or path.startswith(f"{pattern}/")):
            sent = line.startswith("!")
    return sent


def test_base_images_are_pinned_and_of_one_python() -> None:
    images = {stage.image for stage in stages()}
    assert len(images) == 1
    found = re.fullmatch(r"python:3\.11\.\d+-slim-\w+", images.pop())
    assert found, "not a slim Python 3.11 of a named Debian"


def test_python_is_one_that_the_package_supports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11"


def test_what_it_takes_from_the_repository_is_there_and_is_sent() -> None:
    taken = [source for stage in stages() for source in sources(stage)]
    assert {"pyproject.toml", "vitsearch", "workers", "search_spaces", "constraints.txt"} <= set(taken)
    for source in taken:
        assert (ROOT / source).exists(), source
        assert is_sent(source), f".dockerignore keeps {source} back"


@pytest.mark.parametrize("path", [".git", "deploy/secrets/ray_token", "runs", "tests", ".venv", "pip.conf"])
def test_nothing_else_is_sent(path: str) -> None:
    assert not is_sent(path)


def test_the_wheel_is_built_from_all_that_the_build_reads() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], project["project"]["readme"]}
    needed |= {"pyproject.toml", *project["project"]["license-files"]}
    assert needed == set(sources(stages()[0]))


def test_the_source_stays_out_of_the_final_image() -> None:
    final = stages()[-1]
    assert not final.of("COPY")
    assert [rest for run in final.of("RUN") for rest in mounts(run, "bind") if f"from={stages()[0].name}" in rest]


def test_pip_keeps_no_cache_and_goes_by_the_constraints() -> None:
    runs = [run for stage in stages() for run in stage.of("RUN") if re.search(r"\bpip ", run)]
    assert len(runs) == 2
    assert all("--no-cache-dir" in run for run in runs)
    install = stages()[-1].of("RUN")[1]
    constraints = re.search(r"-c (\S+)", install)
    assert constraints
    assert f"source=constraints.txt,target={constraints[1]}" in install
    assert "[postgres]" in install


def test_apt_leaves_no_lists_behind() -> None:
    for run in stages()[-1].of("RUN"):
        if "apt-get" in run:
            assert "--no-install-recommends" in run
            assert "--yes" in run
            assert run.endswith("rm -rf /var/lib/apt/lists/*")


def test_it_ends_as_a_user_with_a_number_that_is_not_root() -> None:
    final = stages()[-1]
    (user,) = final.of("USER")
    uid, _, gid = user.partition(":")
    assert uid.isdigit()  # a name would not satisfy runAsNonRoot
    assert int(uid) > 0
    words = [word for word, _ in final.instructions]
    assert "RUN" not in words[words.index("USER") :]
    made = " ".join(final.of("RUN"))
    assert f"--uid {uid} " in made
    assert f"--gid {gid} " in made


def test_manifests_run_the_image_as_its_own_user_on_folders_it_has() -> None:
    user = int(stages()[-1].of("USER")[0].partition(":")[0])
    made = next(run for run in stages()[-1].of("RUN") if "install --directory" in run)
    for name, pod in pods():
        for container in pod["containers"]:
            if "/vitsearch:" in container["image"]:
                assert pod["securityContext"]["runAsUser"] == user, name
                mounted = {mount["mountPath"] for mount in container["volumeMounts"]} - {"/job"}
                assert all(f" {folder}" in made for folder in mounted), name


def test_nothing_is_fetched_by_address_and_no_secret_is_kept() -> None:
    assert not [rest for stage in stages() for rest in stage.of("ADD")]
    assert not re.search(r"https?://|index-url|:latest", text("Dockerfile"))
    assert not [rest for stage in stages() for word in ("ARG", "ENV") for rest in stage.of(word)
                if re.search("PASSWORD|TOKEN|SECRET", rest)]  # fmt: skip


def test_commands_are_lists_of_words() -> None:
    (command,) = stages()[-1].of("CMD")
    assert command == '["vitsearch", "--help"]'
    assert not stages()[-1].of("HEALTHCHECK")  # roles differ: Compose and Kubernetes know them
