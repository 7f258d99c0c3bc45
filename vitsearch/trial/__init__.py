"""One ``TrialRequest`` to one ``TrialResult`` or ``TrialFailure``, without Ray."""

from vitsearch.trial.run import TrialContext, TrialStopped, run_trial
from vitsearch.trial.weights import CANDIDATE_FILE, WEIGHTS_FILE, load_model, save_model

__all__ = [
    "CANDIDATE_FILE",
    "WEIGHTS_FILE",
    "TrialContext",
    "TrialStopped",
    "load_model",
    "run_trial",
    "save_model",
]
