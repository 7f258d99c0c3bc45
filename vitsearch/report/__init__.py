"""What a study found: figures, front, knee, pictures and tables."""

from vitsearch.report.figures import directions, objective_values, violations
from vitsearch.report.front import StudyReport, front_of, knee_of, space_of
from vitsearch.report.selection import find_trial, select_trial

__all__ = [
    "StudyReport",
    "directions",
    "find_trial",
    "front_of",
    "knee_of",
    "objective_values",
    "select_trial",
    "space_of",
    "violations",
]
