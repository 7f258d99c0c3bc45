"""Connecting to MLflow; the only module that imports it, and only in the tracker's thread."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from vitsearch.config import JobSpec
from vitsearch.tracking.addresses import artifact_location, experiment_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

KIND_TAG = "mlflow.experimentKind"
KIND = "custom_model_development"
# MLflow would send a create that was not answered again without a look at whether it was carried out. The tracker
# does look; so whatever the user has set, MLflow sends once.
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
# MLflow's further settings; what the user has set stands
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the terminal belongs to the search
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a search must not phone home on its own account
}


def connect(
    job: JobSpec, out: Path, uri: str, experiment: str | None, *, is_local: bool
) -> tuple[MlflowClient, str]:
    """A client and the id of the job's experiment, which is made where it is missing."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ[RETRIES] = "0"
    from mlflow import MlflowClient

    for logger in ("mlflow", "alembic"):  # tables being made, migrations: nothing a search's terminal should show
        logging.getLogger(logger).setLevel(logging.ERROR)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    name = experiment or experiment_name(job)
    found = client.get_experiment_by_name(name)
    if found is None:
        location = artifact_location(out) if is_local else None
        return client, str(client.create_experiment(name, artifact_location=location, tags={KIND_TAG: KIND}))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    if KIND_TAG not in found.tags:
        client.set_experiment_tag(found.experiment_id, KIND_TAG, KIND)
    return client, str(found.experiment_id)
