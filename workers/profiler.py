"""The Ray actor that measures; it holds its target's resource as long as it lives."""

from __future__ import annotations

from pathlib import Path

from vitsearch.messages import ProfileRequest


class Profiler:
    """A persistent process that measures one model at a time."""

    def ping(self) -> bool:
        """Whether the process is up."""
        return True

    def run(self, request_json: str) -> str:
        """Measure a trained model; returns a profile as JSON.

        Raises:
            Exception: Whatever went wrong; the executor reports it with the measurement.
        """
        from vitsearch.profile import run_profile
        from vitsearch.trial import load_model

        request = ProfileRequest.model_validate_json(request_json)
        model = load_model(request.candidate, Path(request.artifact_dir))
        return run_profile(request, model).model_dump_json()
