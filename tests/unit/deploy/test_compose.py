"""``deploy/compose.yaml``: the parts it uses, checked as Compose's specification describes them."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

import jsonschema
import pytest

from tests.unit.deploy.factory import DEPLOY, compose, interpolated, strings, text
from workers import turns

STRING, STRINGS = {"type": "string"}, {"type": "array", "items": {"type": "string"}}


def closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "additionalProperties": False, "properties": properties}


def named(values: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": values}


DURATION = {"type": "string", "pattern": "^[0-9]+(s|m)$"}
SIZE = {"type": "string", "pattern": "^[0-9]+(mb|gb|m|g)$"}
CONDITION = {"enum": ["service_started", "service_healthy", "service_completed_successfully"]}
SERVICE = closed(
    ["image", "restart", "security_opt"],
    image=STRING,
    build=closed(["context", "dockerfile"], context=STRING, dockerfile=STRING),
    init={"type": "boolean"},
    restart={"enum": ["unless-stopped"]},
    hostname=STRING,
    command=STRINGS,
    environment=named(STRING),
    secrets=STRINGS,
    configs={"type": "array", "items": closed(["source", "target"], source=STRING, target=STRING)},
    volumes=STRINGS,
    ports=STRINGS,
    cap_drop=STRINGS,
    security_opt=STRINGS,
    cpus={"type": "string", "pattern": r"^[0-9.]+$"},
    mem_limit=SIZE,
    shm_size=SIZE,
    depends_on=named(closed(["condition"], condition=CONDITION)),
    healthcheck=closed(
        ["test", "interval", "timeout", "retries", "start_period"],
        test=STRINGS,
        interval=DURATION,
        timeout=DURATION,
        retries={"type": "integer", "minimum": 1},
        start_period=DURATION,
    ),
)
SCHEMA = {
    **closed(
        ["name", "services"],
        name=STRING,
        services=named(SERVICE),
        configs=named(closed(["content"], content=STRING)),
        secrets=named(closed(["file"], file={"type": "string", "pattern": r"^\./secrets/"})),
        volumes=named({"type": "null"}),
    ),
    "patternProperties": {"^x-": {}},
}


def read(value: Any) -> Any:
    """With the defaults of variables in place."""
    if isinstance(value, str):
        return interpolated(value)
    if isinstance(value, dict):
        return {key: read(inner) for key, inner in value.items()}
    return [read(inner) for inner in value] if isinstance(value, list) else value


def services() -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"]
    return found


def test_it_has_the_form_that_compose_reads() -> None:
    jsonschema.validate(read(compose()), SCHEMA)
    assert set(services()) == {"postgres", "mlflow", "head", "worker"}


def test_what_is_named_is_declared_and_what_is_declared_is_used() -> None:
    site = compose()
    used: dict[str, set[str]] = {"secrets": set(), "volumes": set(), "configs": set()}
    for service in services().values():
        used["secrets"] |= set(service.get("secrets", []))
        used["volumes"] |= {volume.partition(":")[0] for volume in service.get("volumes", [])}
        used["configs"] |= {config["source"] for config in service.get("configs", [])}
        assert set(service.get("depends_on", {})) <= set(services())
    assert used == {part: set(site[part]) for part in used}


def test_every_port_is_for_this_machine_alone() -> None:
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert ports
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports), ports


@pytest.mark.parametrize("name", ["mlflow", "head", "worker"])
def test_a_service_of_ours_has_no_rights_it_does_not_need(name: str) -> None:
    service = services()[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["image"].endswith(":-vitsearch:0.1.0}")
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_every_service_says_whether_it_is_well_and_others_wait_for_that() -> None:
    for name, service in services().items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        for other, waits in service.get("depends_on", {}).items():
            assert waits == {"condition": "service_healthy"}, f"{name} on {other}"


def test_health_checks_are_python_that_compiles_and_ask_a_port_that_is_served() -> None:
    for name in ("mlflow", "head", "worker"):
        _, program, option, code = services()[name]["healthcheck"]["test"]
        assert (program, option) == ("python", "-c")
        compile(code, name, "exec")
        port = re.search(r"127\.0\.0\.1:(\d+)/", code)
        assert port
        assert port[1] in " ".join(services()[name]["command"]), f"{name} does not serve {port[1]}"


def test_secrets_come_from_files_that_exist_where_they_are_read() -> None:
    for name, service in services().items():
        mounted = {f"/run/secrets/{secret}" for secret in service.get("secrets", [])}
        named_there = {path for part in strings(service) for path in re.findall(r"/run/secrets/\w+", part)}
        assert named_there == mounted, name


def test_no_password_stands_in_the_file() -> None:
    for part in strings(compose()):
        assert not re.search(r"://[^/@\s]*:[^/@\s]+@", part), f"a password in {part}"
    for service in services().values():
        for variable in service.get("environment", {}):
            assert variable == "POSTGRES_PASSWORD_FILE" or not re.search("PASSWORD|SECRET|TOKEN$", variable)


def test_compose_leaves_dollars_of_scripts_to_the_shell() -> None:
    rest = re.sub(r"\$\$|\$\{\w+(:-[^}]*)?\}", "", "\n".join(strings(compose())))
    assert "$" not in rest


def test_every_variable_has_a_default_and_stands_on_the_page() -> None:
    for name in re.findall(r"\$\{(\w+)", text("compose.yaml")):
        assert f"`{name}`" in text("README.md"), name
        assert f"${{{name}:-" in text("compose.yaml")


def test_head_and_workers_share_studies_token_and_turns() -> None:
    head, worker = services()["head"], services()["worker"]
    shared = f"turns:{turns.FOLDER}"  # or trainers would not rest while this machine measures
    assert head["volumes"] == worker["volumes"] == ["studies:/studies", shared]
    assert str(turns.FOLDER) in text("Dockerfile"), "whose owner the volume takes"
    assert "hostname" in head, "a study's lease trusts process ids under one host name"
    assert "hostname" not in worker
    for service in (head, worker):
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert "ray_token" in service["secrets"]


def test_addresses_lead_to_services_and_databases_that_are_made() -> None:
    made = {services()["postgres"]["environment"]["POSTGRES_DB"]}
    made |= set(re.findall(r"CREATE DATABASE (\w+)", compose()["configs"]["mlflow_database"]["content"]))
    addresses = re.findall(r"postgresql\+psycopg://(\w+)@(\w+)/(\w+)", text("compose.yaml"))
    assert {database for _, _, database in addresses} == made
    assert {user for user, _, _ in addresses} == {services()["postgres"]["environment"]["POSTGRES_USER"]}
    assert {host for _, host, _ in addresses} == {"postgres"}
    assert services()["head"]["environment"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"


def test_a_secret_never_enters_git_or_the_image() -> None:
    folders = {PurePosixPath(secret["file"]).parent.as_posix() for secret in compose()["secrets"].values()}
    assert folders == {"secrets"}
    assert "deploy/secrets/" in (DEPLOY.parent / ".gitignore").read_text(encoding="utf-8").splitlines()
