"""What the driver costs: no-op trials a second, end to end, beside Ray Tune.

Both sides run the same NSGA-II sampler over the same nine parameters on two Ray actors; ours stores every step
of every trial in SQLite before the next begins.
Run: ``python benchmarks/overhead.py [--trials N] [--tune-trials N]``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from vitsearch.config import JobSpec
from vitsearch.testing import NoopTrainer
from vitsearch.testing.study import noop_data, noop_driver
from vitsearch.train.data import ImageData
from workers import RayExecutor, SharedData, local_ray

WORKERS = 2
SPACE = {
    "name": "nine",
    "fixed": {"architecture.image_size": 32},
    "dimensions": {
        "architecture.depth": {"low": 1, "high": 12},
        "architecture.width": {"low": 48, "high": 384, "step": 12},
        "architecture.heads": {"choices": [2, 3, 4, 6]},
        "architecture.patch_size": {"choices": [2, 4, 8]},
        "architecture.mlp_ratio": {"low": 1.0, "high": 4.0, "step": 0.25},
        "tokens.reducer": {"choices": ["none", "tome"]},
        "tokens.r": {"low": 0, "high": 8, "when": {"tokens.reducer": "tome"}},
        "sparsity.mlp_ratio": {"low": 0.0, "high": 0.7, "step": 0.05},
        "precision.weight_bits": {"choices": [3, 4, 5, 6, 8, 16, 32]},
    },
}


def ours(trials: int, folder: Path) -> float:
    job = JobSpec.model_validate(
        {
            "name": "overhead",
            "dataset": {"kind": "digits"},
            "space": SPACE,
            "search": {"sampler": "nsga2", "trials": trials, "population": 50},
            "train": {"autocast": "fp32"},
        }
    )
    empty = np.zeros(1, dtype=np.int64)
    images = ImageData(
        images_NHWC=np.zeros((1, 32, 32, 3), np.uint8), labels_N=empty, train=empty, val=empty, test=empty,
        class_names=tuple("0123456789"), mean=(0.5,) * 3, std=(0.5,) * 3, fingerprint="0" * 16, skipped=(),
    )  # fmt: skip
    executor = RayExecutor(SharedData.put(images), workers=WORKERS, threads=1, trainer=NoopTrainer)
    executor.wait_until_ready()
    driver = noop_driver(folder, job, data=noop_data(image_size=32, in_chans=3), executor=executor)
    started = time.perf_counter()
    driver.run()
    seconds = time.perf_counter() - started
    done = sum(trial.succeeded for trial in driver.study.store.trials())
    assert done == trials, f"only {done} of {trials} trials are stored"
    executor.close()
    return trials / seconds


def ray_tune(trials: int, folder: Path) -> float:
    import optuna
    from ray import tune
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.optuna import OptunaSearch

    class Noop(tune.Trainable):
        def setup(self, config: dict) -> None:  # type: ignore[type-arg]
            self.config = config

        def reset_config(self, new_config: dict) -> bool:  # type: ignore[type-arg]
            self.config = new_config
            return True

        def save_checkpoint(
            self, checkpoint_dir: str
        ) -> None:  # Tune saves on its own accord before reusing an actor
            pass

        def load_checkpoint(self, checkpoint: object) -> None:
            pass

        def step(self) -> dict:  # type: ignore[type-arg]
            return {"accuracy": 0.5, "eer": float(self.config["width"]), "done": True}

    space = {
        "depth": tune.randint(1, 13),
        "width": tune.qrandint(48, 384, 12),
        "heads": tune.choice([2, 3, 4, 6]),
        "patch": tune.choice([2, 4, 8]),
        "mlp_ratio": tune.quniform(1.0, 4.0, 0.25),
        "reducer": tune.choice(["none", "tome"]),
        "r": tune.randint(0, 9),
        "sparsity": tune.quniform(0.0, 0.7, 0.05),
        "bits": tune.choice([3, 4, 5, 6, 8, 16, 32]),
    }
    searcher = OptunaSearch(
        metric=["accuracy", "eer"], mode=["max", "min"], sampler=optuna.samplers.NSGAIISampler(population_size=50)
    )
    tuner = tune.Tuner(
        Noop,
        param_space=space,
        tune_config=tune.TuneConfig(
            num_samples=trials,
            search_alg=ConcurrencyLimiter(searcher, max_concurrent=WORKERS),
            reuse_actors=True,
            max_concurrent_trials=WORKERS,
        ),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        results = tuner.fit()
    seconds = time.perf_counter() - started
    assert len(results) == trials
    assert results.num_errors == 0
    return trials / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=600)
    parser.add_argument("--tune-trials", type=int, default=40)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with (
        tempfile.TemporaryDirectory() as folder,
        local_ray(workers=WORKERS, targets=["local"], object_store_mb=100),
    ):
        mine = ours(options.trials, Path(folder))
        print(f"vitsearch   {mine:7.1f} no-op trials/s ({options.trials} trials, each step durable in SQLite)")
        tune_rate = ray_tune(options.tune_trials, Path(folder) / "tune")
        print(f"Ray Tune    {tune_rate:7.2f} no-op trials/s ({options.tune_trials} trials, reuse_actors=True)")
        print(f"ratio       {mine / tune_rate:7.1f}")


if __name__ == "__main__":
    main()
