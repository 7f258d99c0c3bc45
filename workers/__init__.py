"""The Ray side of vitsearch: trainer and profiler actors, the executor that drives them, and the Jobs API."""

from workers.cluster import Cluster, Submitted, state_file
from workers.crew import Crew, crew_of
from workers.executor import RayExecutor
from workers.inside import StateFile, log_folder, remember, remembered, this_submission
from workers.resources import OWN_TARGET, check_devices, check_workers, default_workers, local_ray
from workers.shared_data import SharedData
from workers.targets import known_targets

__all__ = [
    "OWN_TARGET",
    "Cluster",
    "Crew",
    "RayExecutor",
    "SharedData",
    "StateFile",
    "Submitted",
    "check_devices",
    "check_workers",
    "crew_of",
    "default_workers",
    "known_targets",
    "local_ray",
    "log_folder",
    "remember",
    "remembered",
    "state_file",
    "this_submission",
]
