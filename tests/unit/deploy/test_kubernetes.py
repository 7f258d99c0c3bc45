"""``deploy/kuberay``: the parts the manifests use, checked as Kubernetes' and KubeRay's APIs describe them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.unit.deploy.factory import (
    DEPLOY,
    containers,
    kinds,
    manifests,
    pods,
    ray_specs,
    strings,
    text,
)
from vitsearch.cli.head import with_site_defaults
from vitsearch.cli.job_checks import check_space
from vitsearch.config import read_job
from vitsearch.storage.lease import LEASE_S

STRING, COUNT, BOOLEAN = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
NAME = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"}
TEXTS = {"type": "object", "additionalProperties": STRING}


def closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "additionalProperties": False, "properties": properties}


def many(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": item}


AMOUNTS = closed(
    ["cpu", "memory"],
    cpu={"type": "string", "pattern": "^[0-9]+m?$"},
    memory={"type": "string", "pattern": "^[0-9]+(Mi|Gi)$"},
)
RESOURCES = closed(["requests", "limits"], requests=AMOUNTS, limits=AMOUNTS)
PROBE = {
    **closed(
        ["periodSeconds", "timeoutSeconds"],
        httpGet=closed(["path", "port"], path={"type": "string", "pattern": "^/"}, port={}),
        exec=closed(["command"], command=many(STRING)),
        initialDelaySeconds=COUNT,
        periodSeconds=COUNT,
        timeoutSeconds=COUNT,
        failureThreshold=COUNT,
    ),
    "oneOf": [{"required": ["httpGet"]}, {"required": ["exec"]}],
}
NARROW = closed(
    ["allowPrivilegeEscalation", "capabilities"],
    allowPrivilegeEscalation={"const": False},
    capabilities=closed(["drop"], drop={"const": ["ALL"]}),
)
KEY = closed(["secretKeyRef"], secretKeyRef=closed(["name", "key"], name=NAME, key=STRING))
CONTAINER = closed(
    ["name", "image", "resources", "securityContext", "readinessProbe", "livenessProbe", "volumeMounts"],
    name=NAME,
    image={"type": "string", "pattern": r"^[a-z0-9./-]+:[a-z0-9.-]*[0-9][a-z0-9.-]*$"},
    command=many(STRING),
    ports=many(closed(["name", "containerPort"], name=NAME, containerPort=COUNT)),
    env=many(closed(["name"], name={"type": "string", "pattern": "^[A-Z_]+$"}, value=STRING, valueFrom=KEY)),
    envFrom=many(closed(["configMapRef"], configMapRef=closed(["name"], name=NAME))),
    resources=RESOURCES,
    securityContext=NARROW,
    readinessProbe=PROBE,
    livenessProbe=PROBE,
    volumeMounts=many(closed(["name", "mountPath"], name=NAME, mountPath=STRING, readOnly=BOOLEAN)),
)
POD = closed(
    ["securityContext", "containers", "volumes"],
    automountServiceAccountToken={"const": False},
    securityContext=closed(
        ["runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup", "seccompProfile"],
        runAsNonRoot={"const": True},
        runAsUser={"type": "integer", "minimum": 1},
        runAsGroup={"type": "integer", "minimum": 1},
        fsGroup={"type": "integer", "minimum": 1},
        fsGroupChangePolicy={"enum": ["OnRootMismatch", "Always"]},
        seccompProfile={"const": {"type": "RuntimeDefault"}},
    ),
    containers=many(CONTAINER),
    volumes=many(
        {
            **closed(
                ["name"],
                name=NAME,
                configMap=closed(["name"], name=NAME),
                persistentVolumeClaim=closed(["claimName"], claimName=NAME),
            ),
            "minProperties": 2,
        }
    ),
)
LABELS = closed(
    ["app.kubernetes.io/name", "app.kubernetes.io/component"],
    **{"app.kubernetes.io/name": {"const": "vitsearch"}, "app.kubernetes.io/component": NAME},
)
TEMPLATE = closed(["metadata", "spec"], metadata=closed(["labels"], labels=LABELS), spec=POD)
CLAIM = closed(
    ["accessModes", "resources"],
    accessModes={"enum": [["ReadWriteOnce"], ["ReadWriteMany"]]},
    resources=closed(
        ["requests"], requests=closed(["storage"], storage={"type": "string", "pattern": "^[0-9]+Gi$"})
    ),
)
RAY_CLUSTER = closed(
    ["rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"],
    rayVersion=STRING,
    authOptions=closed(["mode", "secretName"], mode={"const": "token"}, secretName=NAME),
    enableInTreeAutoscaling=BOOLEAN,
    autoscalerOptions=closed(
        ["resources", "securityContext"], idleTimeoutSeconds=COUNT, resources=RESOURCES, securityContext=NARROW
    ),
    headGroupSpec=closed(["rayStartParams", "template"], rayStartParams=TEXTS, template=TEMPLATE),
    workerGroupSpecs=many(
        closed(
            ["groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"],
            groupName=NAME,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            rayStartParams=TEXTS,
            template=TEMPLATE,
        )
    ),
)
SELECTOR = closed(["matchLabels"], matchLabels=LABELS)
SPECS: dict[tuple[str, str], dict[str, Any]] = {
    ("v1", "Service"): closed(
        ["selector", "ports"],
        selector=LABELS,
        ports=many(closed(["name", "port", "targetPort"], name=NAME, port=COUNT, targetPort=NAME)),
    ),
    ("v1", "PersistentVolumeClaim"): CLAIM,
    ("apps/v1", "Deployment"): closed(
        ["replicas", "strategy", "selector", "template"],
        replicas={"const": 1},
        strategy={"const": {"type": "Recreate"}},
        selector=SELECTOR,
        template=TEMPLATE,
    ),
    ("apps/v1", "StatefulSet"): closed(
        ["serviceName", "replicas", "selector", "template"],
        serviceName=NAME,
        replicas={"const": 1},
        selector=SELECTOR,
        template=TEMPLATE,
        volumeClaimTemplates=many(closed(["metadata", "spec"], metadata=closed(["name"], name=NAME), spec=CLAIM)),
    ),
    ("ray.io/v1", "RayCluster"): RAY_CLUSTER,
    ("ray.io/v1", "RayJob"): closed(
        ["entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "rayClusterSpec"],
        entrypoint=STRING,
        submissionMode={"enum": ["HTTPMode", "K8sJobMode"]},
        backoffLimit={"type": "integer", "minimum": 1},
        shutdownAfterJobFinishes={"const": True},
        ttlSecondsAfterFinished=COUNT,
        rayClusterSpec=RAY_CLUSTER,
    ),
}
METADATA = closed(["name", "labels"], name=NAME, labels=LABELS)


def titled(document: dict[str, Any]) -> str:
    return f"{document['kind']}-{document['metadata']['name']}"


@pytest.mark.parametrize("document", manifests(), ids=titled)
def test_it_has_the_form_that_the_api_takes(document: dict[str, Any]) -> None:
    content: dict[str, Any]
    if document["kind"] == "ConfigMap":
        version, content = "v1", {"data": TEXTS}
    else:
        version, content = document["apiVersion"], {"spec": SPECS[document["apiVersion"], document["kind"]]}
    form = closed(
        ["apiVersion", "kind", "metadata", *content],
        apiVersion={"const": version},
        kind=STRING,
        metadata=METADATA,
        **content,
    )
    jsonschema.validate(document, form)


def test_every_kind_that_the_page_promises_is_there() -> None:
    assert {document["kind"] for document in manifests()} == {
        "ConfigMap", "Service", "StatefulSet", "Deployment", "PersistentVolumeClaim", "RayCluster", "RayJob",
    }  # fmt: skip


def test_names_are_used_once() -> None:
    named = [titled(document) for document in manifests()]
    assert len(named) == len(set(named))


def test_requests_are_within_limits_and_ray_s_are_equal() -> None:
    """Ray counts what the limits say, and a node that gives less would let a trainer die."""
    for name, container in containers():
        asked, granted = container["resources"]["requests"], container["resources"]["limits"]
        for one in ("cpu", "memory"):
            assert amount(asked[one]) <= amount(granted[one]), name
        if container["name"].startswith("ray-"):
            assert asked == granted, name


def amount(quantity: str) -> float:
    found = re.fullmatch(r"(\d+)(m|Mi|Gi)?", quantity)
    assert found
    return int(found[1]) * {"": 1.0, "m": 0.001, "Mi": 2.0**20, "Gi": 2.0**30}[found[2] or ""]


def test_pods_mount_what_they_declare_and_what_exists() -> None:
    maps = {document["metadata"]["name"] for document in kinds("ConfigMap")}
    claims = {document["metadata"]["name"] for document in kinds("PersistentVolumeClaim")}
    templates = {c["metadata"]["name"] for s in kinds("StatefulSet") for c in s["spec"]["volumeClaimTemplates"]}
    for name, pod in pods():
        declared = {volume["name"] for volume in pod["volumes"]}
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert declared <= mounted <= declared | templates, name
        assert {v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v} <= maps, name
        used = {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
        assert used <= claims, name
        read = {r["configMapRef"]["name"] for c in pod["containers"] for r in c.get("envFrom", [])}
        assert read <= maps, name


def test_services_lead_to_pods_and_ports_that_exist() -> None:
    by_labels = {
        json.dumps(document["spec"]["template"]["metadata"]["labels"], sort_keys=True): document["spec"][
            "template"
        ]
        for kind in ("Deployment", "StatefulSet")
        for document in kinds(kind)
    }
    for service in kinds("Service"):
        template = by_labels[json.dumps(service["spec"]["selector"], sort_keys=True)]
        ports = {port["name"] for container in template["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for kind in ("Deployment", "StatefulSet"):
        for document in kinds(kind):
            labels = document["spec"]["template"]["metadata"]["labels"]
            assert document["spec"]["selector"]["matchLabels"] == labels
    for document in kinds("StatefulSet"):
        assert document["spec"]["serviceName"] in {service["metadata"]["name"] for service in kinds("Service")}


def test_secrets_are_those_that_the_page_makes_and_none_is_written_down() -> None:
    made = set(re.findall(r"^make_secret (\S+) (\S+)", text("README.md"), re.MULTILINE))
    used = {(spec["authOptions"]["secretName"], "auth_token") for spec in ray_specs()}
    for _, container in containers():
        for variable in container.get("env", []):
            if "valueFrom" in variable:
                key = variable["valueFrom"]["secretKeyRef"]
                used.add((key["name"], key["key"]))
            else:
                assert not re.search("PASSWORD|TOKEN|SECRET", variable["name"])
    assert used == made
    for document in manifests():
        assert document["kind"] != "Secret"
        assert not [part for part in strings(document) if re.search(r"://[^/@\s]*:[^/@\s]+@", part)]


def test_addresses_of_the_site_lead_to_its_services() -> None:
    (site,) = (
        document["data"] for document in kinds("ConfigMap") if document["metadata"]["name"] == "vitsearch-site"
    )
    hosts = {re.sub(r"^.*://(?:\w+@)?([\w-]+).*$", r"\1", address) for address in site.values()}
    assert hosts == {service["metadata"]["name"] for service in kinds("Service")}


def test_the_site_s_variables_are_those_that_a_job_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    (site,) = (
        document["data"] for document in kinds("ConfigMap") if document["metadata"]["name"] == "vitsearch-site"
    )
    for name, value in site.items():
        monkeypatch.setenv(name, value)
    job = with_site_defaults(read_job(DEPLOY.parent / "examples" / "digits.yaml"))
    assert {job.tracking.uri, job.storage.url} == set(site.values())


@pytest.mark.parametrize("spec", ray_specs(), ids=["cluster", "job"])
def test_a_cluster_drives_on_the_head_and_trains_on_workers(spec: dict[str, Any]) -> None:
    head, (workers,) = spec["headGroupSpec"], spec["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert 1 <= workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (head, workers):
        mounts = group["template"]["spec"]["containers"][0]["volumeMounts"]
        assert {"name": "studies", "mountPath": "/studies"} in mounts
    assert "automountServiceAccountToken" not in head["template"]["spec"]  # the autoscaler speaks to the API


def test_cluster_and_job_run_on_the_same_pods() -> None:
    """What is mended in one is mended in the other."""
    cluster, job = ray_specs()
    head = job["headGroupSpec"]["template"]["spec"]
    head["volumes"] = [volume for volume in head["volumes"] if volume["name"] != "job"]
    mounts = head["containers"][0]["volumeMounts"]
    head["containers"][0]["volumeMounts"] = [mount for mount in mounts if mount["name"] != "job"]
    for one, other in ((cluster, job), (cluster["headGroupSpec"], job["headGroupSpec"])):
        assert {**one, "headGroupSpec": 0, "workerGroupSpecs": 0, "template": 0} == {
            **other, "headGroupSpec": 0, "workerGroupSpecs": 0, "template": 0,
        }  # fmt: skip
    assert cluster["headGroupSpec"]["template"]["spec"] == head
    (one,), (other,) = cluster["workerGroupSpecs"], job["workerGroupSpecs"]
    assert one["template"]["spec"] == other["template"]["spec"]


def test_probes_ask_what_ray_answers_without_a_token() -> None:
    from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

    agent = set(PUBLIC_EXACT_PATHS)
    for name, container in containers():
        for probe in (container["readinessProbe"], container["livenessProbe"]):
            if container["name"].startswith("ray-"):
                path, port = probe["httpGet"]["path"], probe["httpGet"]["port"]
                assert (path in agent) if port == 52365 else ((path, port) == ("/api/gcs_healthz", 8265)), name


def rayjob_files() -> dict[str, str]:
    (found,) = (document["data"] for document in kinds("ConfigMap") if "job.yaml" in document["data"])
    return found


def test_the_job_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(rayjob_files()["job.yaml"], encoding="utf-8")
    job = read_job(file)
    check_space(job, file)
    (spec,) = (document["spec"]["rayClusterSpec"] for document in kinds("RayJob"))
    assert job.search.max_workers == spec["workerGroupSpecs"][0]["maxReplicas"]


def test_the_entry_point_is_one_plain_command_for_a_file_that_is_mounted() -> None:
    (job,) = kinds("RayJob")
    entrypoint = job["spec"]["entrypoint"]
    assert re.fullmatch(r"[\w./ -]+", entrypoint)  # KubeRay may paste it into a script
    program, file = entrypoint.split()
    assert program == "bash"
    folder, _, name = file.rpartition("/")
    assert name in rayjob_files()
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert folder in {mount["mountPath"] for mount in head["volumeMounts"]}


def test_an_attempt_begins_the_study_and_the_next_goes_on_with_it(tmp_path: Path) -> None:
    """With programs in place of Python and of waiting that write down how they are called."""
    job, studies, programs = tmp_path / "job", tmp_path / "studies", tmp_path / "bin"
    for folder in (job, studies, programs):
        folder.mkdir()
    files = rayjob_files()
    out = studies / yaml.safe_load(files["job.yaml"])["name"]  # one name to change for another search
    for name, content in files.items():
        moved = content.replace("/studies", str(studies)).replace("cd /job", f"cd {job}")
        (job / name).write_text(moved, encoding="utf-8")
    said = tmp_path / "said"
    for program in ("python", "sleep"):
        file = programs / program
        file.write_text(f'#!/bin/sh\necho "{program} $*" in "$(pwd)" >> {said}\n', encoding="utf-8")
        file.chmod(0o755)

    def attempt() -> list[str]:
        said.unlink(missing_ok=True)
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        subprocess.run(["bash", str(job / "run-or-resume.sh")], env=environment, check=True, timeout=30)
        return said.read_text(encoding="utf-8").splitlines()

    module = "python -m vitsearch.cli.on_cluster"
    assert attempt() == [f"{module} run --out {out} in {job}"]
    out.mkdir()
    assert attempt() == [f"{module} run --out {out} in {job}"]  # it died before it had written anything
    (out / "job.yaml").write_text("name: digits", encoding="utf-8")
    waited, gone_on = attempt()
    assert gone_on == f"{module} resume --out {out} in {job}"
    found = re.fullmatch(r"sleep (\d+) in .*", waited)
    assert found
    assert int(found[1]) > LEASE_S


def test_the_commented_target_is_read_as_ray_reads_it() -> None:
    commented = re.search(r"^ +# +resources: (.*)$", text("kuberay/raycluster.yaml"), re.MULTILINE)
    assert commented
    shell_word = json.loads(yaml.safe_load(commented[1]))  # KubeRay pastes the value, quotes and all
    assert json.loads(shell_word) == {"target_jetson": 1}


def test_the_image_of_ours_has_one_name() -> None:
    images = {container["image"] for _, container in containers() if "vitsearch" in container["image"]}
    assert len(images) == 1
