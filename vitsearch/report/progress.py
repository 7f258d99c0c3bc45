"""Where a study stands by what is stored of it, for those who have no driver to ask."""

from __future__ import annotations

from collections import Counter

from vitsearch.messages import Progress
from vitsearch.report.front import StudyReport
from vitsearch.report.tables import fate


def stored_progress(report: StudyReport) -> Progress:
    """Counts, best accuracy and hypervolume; what runs at the moment is not stored."""
    counts = Counter(fate(trial, report.job) for trial in report.trials)
    best = max((t.figures["accuracy"] for t in report.front if "accuracy" in t.figures), default=None)
    return Progress(
        trials=report.job.search.trials,
        ended=counts["done"] + counts["failed"] + counts["infeasible"],
        front=len(report.front),
        best_accuracy=best,
        hypervolume=report.hypervolume if report.front else None,
        rejected=counts["rejected"],
        duplicate=counts["duplicate"],
        failed=counts["failed"],
        infeasible=counts["infeasible"],
        elapsed_s=report.study.elapsed_s,
    )
