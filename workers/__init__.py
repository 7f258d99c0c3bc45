"""The Ray side of vitsearch: trainer and profiler actors and the executor that drives them."""

from workers.executor import RayExecutor
from workers.resources import default_workers, local_ray
from workers.shared_data import SharedData

__all__ = ["RayExecutor", "SharedData", "default_workers", "local_ray"]
