"""The search: one driver, its samplers, its study, and what it needs from an executor."""

from vitsearch.search.asker import Asker
from vitsearch.search.budget import Budget
from vitsearch.search.driver import Driver, asking_recipe, data_seed
from vitsearch.search.executor import (
    EpochDone,
    Event,
    Executor,
    InlineExecutor,
    ProfileDone,
    TrialDone,
    WorkerLost,
    WorkerRests,
    WorkerTaken,
)
from vitsearch.search.finish import Finisher
from vitsearch.search.places import SAMPLE_FILE, Places, is_scratch, resume_command, scratch_prefix
from vitsearch.search.samplers import SAMPLERS
from vitsearch.search.study import Study

__all__ = [
    "SAMPLERS",
    "SAMPLE_FILE",
    "Asker",
    "Budget",
    "Driver",
    "EpochDone",
    "Event",
    "Executor",
    "Finisher",
    "InlineExecutor",
    "Places",
    "ProfileDone",
    "Study",
    "TrialDone",
    "WorkerLost",
    "WorkerRests",
    "WorkerTaken",
    "asking_recipe",
    "data_seed",
    "is_scratch",
    "resume_command",
    "scratch_prefix",
]
