"""Where a driver stands, as every live view draws it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitsearch.messages import Progress, WorkerProgress

if TYPE_CHECKING:
    from vitsearch.search.driver import Driver


SHOWN_WORKERS = 40


def progress_of(driver: Driver) -> Progress:
    """Where a driver stands."""
    study, counts = driver.study, driver.study.counts()
    ended = study.num_ended()
    best = max((t.figures["accuracy"] for t in study.front if "accuracy" in t.figures), default=None)
    workers = []
    for worker, running in sorted(driver.running.items())[:SHOWN_WORKERS]:
        report = running.report
        workers.append(
            WorkerProgress(
                worker=worker,
                trial=running.trial,
                candidate=study.trials[running.trial].candidate.summary(),
                epoch=report.epoch if report else 0,
                epochs=report.epochs if report else driver.job.train.epochs,
                accuracy=report.accuracy if report else None,
            )
        )
    return Progress(
        trials=driver.job.search.trials,
        ended=ended,
        front=len(study.front),
        best_accuracy=best,
        hypervolume=None if best is None else study.hypervolume(),
        rejected=counts["rejected"],
        duplicate=counts["duplicate"],
        failed=counts["failed"],
        infeasible=counts["infeasible"],
        elapsed_s=driver.budget.elapsed_s,
        left_s=_left_s(driver, ended),
        waits_for=driver.executor.waits_for(),
        num_workers=len(driver.running),
        workers=tuple(workers),
    )


def _left_s(driver: Driver, ended: int) -> float | None:
    spec, elapsed = driver.job.search, driver.budget.elapsed_s
    if not ended:
        return None
    by_trials = elapsed / ended * max(0, spec.trials - ended)
    return by_trials if spec.time_limit_s is None else min(by_trials, max(0.0, spec.time_limit_s - elapsed))
