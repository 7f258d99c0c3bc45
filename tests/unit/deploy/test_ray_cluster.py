"""``deploy/ray-cluster.yaml``, as ``ray up`` reads it."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.unit.deploy.factory import DEPLOY, documents, text


def config() -> dict[str, Any]:
    return documents(DEPLOY / "ray-cluster.yaml")[0]


def test_ray_takes_it() -> None:
    prepared = prepare_config(config())
    validate_config(prepared)
    assert prepared["available_node_types"]["head"]["max_workers"] == 0


def test_ray_takes_its_commented_node_type_too() -> None:
    commented = re.search(r"^  # target:\n(?:  # +.*\n)+", text("ray-cluster.yaml"), re.MULTILINE)
    assert commented
    more = yaml.safe_load(re.sub(r"^  # ", "", commented[0], flags=re.MULTILINE))
    changed = config()
    changed["available_node_types"] |= more
    validate_config(prepare_config(changed))
    assert [name for name in more["target"]["resources"] if name.startswith("target_")]


def test_ray_would_refuse_a_slip() -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config({**config(), "max_worker": 8}))


def test_ray_installs_nothing_of_its_own() -> None:
    """Its defaults for this provider would put a nightly Ray over the image's."""
    prepared = prepare_config(config())
    commands = [*prepared["head_setup_commands"], *prepared["worker_setup_commands"]]
    assert not [command for command in commands if "ray" in command]


def test_a_search_finds_room_from_the_start() -> None:
    types = config()["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0
    assert types["trainer"]["min_workers"] >= 1


def test_what_is_to_be_filled_in_stands_on_the_page() -> None:
    for placeholder in set(re.findall(r"[\w.-]+\.example\.com|fs-REPLACE", text("ray-cluster.yaml"))):
        assert f"`{placeholder}`" in text("README.md"), placeholder


def test_files_go_to_the_home_of_the_image_s_user() -> None:
    home = re.search(r"WORKDIR (/home/\w+)", text("Dockerfile"))
    assert home
    assert all(there.startswith(f"{home[1]}/") for there in config()["file_mounts"])
