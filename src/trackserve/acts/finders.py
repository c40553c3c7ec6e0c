"""Who finds the tracks of an event: servers, or the pipeline in this process; for several threads."""

from __future__ import annotations

from threading import local
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.client import Client
from trackserve.errors import InputError, MissingDependencyError, TrackserveError, needs_extra

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trackserve.bundle import Bundle
    from trackserve.engines.base import Pipeline
    from trackserve.event import Hits, Tracks
    from trackserve.pipeline.stages import StageOutputs

NO_EXPLANATION = (
    "the stage is known only with trackserve[engines] and the served bundle installed here"
)


class Served:
    """Servers, with a connection for each thread; ``options`` are those of :class:`Client`."""

    def __init__(self, servers: str | Sequence[str], **options: Any) -> None:
        self._servers, self._options = servers, options
        self._here = local()
        Client(servers, **options).close()  # refuses wrong options now and not in the first event

    def find_tracks(self, hits: Hits, name: str) -> Tracks:
        """Return the tracks; ``name`` names the request. Raises what the client raises."""
        return self._client().find_tracks(hits, request_id=name)

    def columns(self) -> Sequence[str]:
        """Return the columns of a hit that are of use."""
        return self._client().description.columns

    def digest(self) -> str:
        """Return the digest of the bundle."""
        return self._client().description.digest

    def _client(self) -> Client:
        if not hasattr(self._here, "client"):
            self._here.client = Client(self._servers, **self._options)
        client: Client = self._here.client
        return client


class InProcess:
    """A bundle (the shipped one if None) on an engine here, opened once for each thread.

    Raises :class:`MissingDependencyError` without ``trackserve[engines]``.
    """

    def __init__(self, bundle: Path | str | None = None, *, engine: str = "auto") -> None:
        with needs_extra("engines", "finding tracks in this process"):
            from trackserve.bundle import read_bundle
            from trackserve.engines.registry import open_pipeline
        self._bundle, self._engine, self._open = read_bundle(bundle), engine, open_pipeline
        self._here = local()

    def find_tracks(self, hits: Hits, name: str) -> Tracks:  # noqa: ARG002 - as Served has it
        """Return the tracks."""
        return self._pipeline().find_tracks(hits)

    def columns(self) -> Sequence[str]:
        """Return the columns of a hit that are of use."""
        return self._bundle.features.wire_columns

    def digest(self) -> str:
        """Return the digest of the bundle."""
        return self._bundle.digest()

    def why_no_tracks(self, hits: Hits) -> str:
        """Return at which stage the last edge of these hits without tracks was cut, or what tracks lacked."""
        from trackserve.pipeline.features import hit_features

        features = hit_features(hits, self._bundle.features)
        return why_no_tracks(self._pipeline().run(features), self._bundle)

    def _pipeline(self) -> Pipeline:
        if not hasattr(self._here, "pipeline"):
            self._here.pipeline = self._open(self._bundle, engine=self._engine)
        pipeline: Pipeline = self._here.pipeline
        return pipeline


def why_no_tracks(outputs: StageOutputs, bundle: Bundle) -> str:
    """Return at which stage the last edge was cut and how many came there, or what the tracks of those left lacked.

    Where a bundle has two passes, the second is described: its cuts are the wider.
    """
    if outputs.second is not None and bundle.second_pass is not None:
        return why_no_tracks(outputs.second.outputs, bundle.second_pass)
    came = len(outputs.order)
    if came == 0:
        return "there was no hit"
    what = "hits"
    stages = {
        "neighbours": outputs.candidates,
        "filter": outputs.filtered,
        "triplets": outputs.joined,
    }
    for stage, graph in stages.items():
        if graph.edges.shape[1] == 0:
            return f"the last edge was cut at {stage}, where {came} {what} came"
        came, what = graph.edges.shape[1], "edges"
    scores, builder = outputs.scored.scores, bundle.track_builder
    passed = int((scores >= np.float32(builder.cut)).sum())
    if passed == 0:
        best = float(scores.max())
        return f"the last edge was cut at gnn, where {came} edges came, the best with a score of {best:.3g}"
    needed = f"{builder.min_hits} hits"
    if builder.min_quality > 0:
        needed += f" and a quality of {builder.min_quality:g}"
    return f"no track had {needed}, though the cut at gnn left {passed} of {came} edges"


def explain_empty(hits: Hits, finder: Served | InProcess, bundle: Path | str | None) -> str:
    """Return at which stage the last edge of an event without tracks was cut, or what tracks lacked.

    A server answers labels only, so the event is run again here, through the bundle that is served.
    """
    if len(hits) == 0:
        return "there was no hit"
    if isinstance(finder, InProcess):
        return finder.why_no_tracks(hits)
    try:
        here = InProcess(bundle)
        return here.why_no_tracks(hits) if here.digest() == finder.digest() else NO_EXPLANATION
    except (MissingDependencyError, InputError, TrackserveError):
        return NO_EXPLANATION
