"""One ``TrialRequest`` to one ``TrialResult`` or ``TrialFailure``, without Ray."""

from vitsearch.compress.saved import CANDIDATE_FILE, WEIGHTS_FILE, load_model, save_model
from vitsearch.trial.run import TrialContext, TrialStopped, run_trial

__all__ = [
    "CANDIDATE_FILE",
    "WEIGHTS_FILE",
    "TrialContext",
    "TrialStopped",
    "load_model",
    "run_trial",
    "save_model",
]
