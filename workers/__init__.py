"""The Ray side of vitsearch: trainer and profiler actors and the executor that drives them."""

from workers.executor import RayExecutor
from workers.resources import check_workers, default_workers, local_ray
from workers.shared_data import SharedData

__all__ = ["RayExecutor", "SharedData", "check_workers", "default_workers", "local_ray"]
