"""MLflow as a view of the study: an outbox, delivered in the background."""

from vitsearch.tracking.addresses import (
    SERVER_SETTINGS,
    address_of,
    default_uri,
    experiment_name,
    experiment_url,
    experiments_url,
    run_url,
    server_command,
    study_url,
)
from vitsearch.tracking.tracker import Tracker

__all__ = [
    "SERVER_SETTINGS",
    "Tracker",
    "address_of",
    "default_uri",
    "experiment_name",
    "experiment_url",
    "experiments_url",
    "run_url",
    "server_command",
    "study_url",
]
