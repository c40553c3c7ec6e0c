"""The algorithm that finds tracks for ACTS' event store.

Space points go to servers (or through the pipeline here); a track comes back as a seed of all its
space points, from the inside outwards. From seeds ACTS itself makes proto tracks (the measurements
behind the space points: two for a strip pair) and track parameters, so everything of ACTS that
starts from any of the three runs on.

Symbols: N space points, T tracks.
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import TYPE_CHECKING, Any, Literal, get_args

import acts
import acts.examples
import numpy as np

from trackserve.acts.finders import InProcess, Served, explain_empty
from trackserve.acts.report import Report
from trackserve.errors import InputError, ServerError, TrackserveError
from trackserve.event import Hits, Modules

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trackserve.event import Int64, Tracks

OnFailure = Literal["fail", "skip", "fall back"]
"""What to do with an event that finally failed: end the job, leave the event out, or find it here."""
_LOG = logging.getLogger("trackserve.acts")


class TrackFinding(acts.examples.IAlgorithm):  # type: ignore[misc]  # acts has no types
    """Finds the tracks of each event's space points and writes them as seeds of all their hits.

    ``servers`` is one ``host:port`` or several, None for the pipeline in this process.
    ``space_points`` and ``seeds`` are names in the event store; with the name of the
    ``measurements`` (a ``MeasurementSubset``) the report counts those without a space point, which
    can be on no track here. Tracks of less than ``fewest_hits`` are dropped. ``bundle`` and
    ``engine`` are for what runs in this process. Further ``options`` are those of
    :class:`trackserve.client.Client`: deadlines and attempts.

    An event whose ``on_failure`` is ``fail`` ends the job; ``skip`` leaves it out, also for all
    algorithms and writers after this one; ``fall back`` finds it here, and ends the job if that fails.

    The ``Sequencer`` runs an event's algorithms one after the other in one thread, so a request in
    flight while ACTS works on another event needs one more thread than cores: a thread that waits
    for a server takes no processor time and lets go of Python's lock.
    """

    def __init__(
        self,
        servers: str | Sequence[str] | None,
        *,
        space_points: str = "spacepoints",
        seeds: str = "seeds",
        measurements: str | None = None,
        fewest_hits: int = 3,
        on_failure: OnFailure = "fail",
        bundle: Path | str | None = None,
        engine: str = "auto",
        level: Any = acts.logging.INFO,
        **options: Any,
    ) -> None:
        super().__init__("TrackFinding", level)
        if on_failure not in get_args(OnFailure):
            message = (
                f"on_failure is {on_failure!r}; expected one of {', '.join(get_args(OnFailure))}"
            )
            raise InputError(message)
        if fewest_hits < 3:
            message = f"fewest_hits is {fewest_hits}; a seed needs at least 3"
            raise InputError(message)
        self._finder: Served | InProcess
        if servers is None:
            if options:
                message = f"{', '.join(options)} is for servers, and none is given"
                raise InputError(message)
            self._finder = InProcess(bundle, engine=engine)
        else:
            self._finder = Served(servers, **options)
        falls_back = on_failure == "fall back" and servers is not None
        self._fallback = InProcess(bundle, engine=engine) if falls_back else None
        self._bundle, self._fewest_hits, self._on_failure = bundle, fewest_hits, on_failure
        self._report = Report()
        self._space_points = acts.examples.ReadDataHandle(
            self, acts.SpacePointContainer, "InputSpacePoints"
        )
        self._space_points.initialize(space_points)
        self._measurements = None
        if measurements is not None:
            kind = acts.examples.MeasurementSubset
            self._measurements = acts.examples.ReadDataHandle(self, kind, "InputMeasurements")
            self._measurements.initialize(measurements)
        self._seeds = acts.examples.WriteDataHandle(self, acts.SeedContainer, "OutputSeeds")
        self._seeds.initialize(seeds)

    def report(self) -> Report:
        """Return what became of the events so far."""
        return self._report

    def execute(self, context: Any) -> Any:
        """Find the tracks of one event; ACTS calls this, from any of its threads."""
        began, spent = time.perf_counter(), time.thread_time()
        event = context.eventNumber
        points = self._space_points(context.eventStore)
        try:
            hits = self._hits(points)
            tracks = self._find(hits, event)
        except TrackserveError as error:
            return self._failed(event, error)
        seeds, count = self._make_seeds(points, hits, tracks.labels)
        self._seeds(context, seeds)
        if self._measurements is not None:
            self._report.add(measurements=len(self._measurements(context.eventStore)))
        self._report.add(
            events=1,
            hits=len(hits),
            tracks=count,
            waited=time.perf_counter() - began,
            spent=time.thread_time() - spent,
        )
        if len(tracks) == 0:
            reason = explain_empty(hits, self._finder, self._bundle)
            self._report.add_empty(reason)
            _LOG.warning("event %d: no tracks among %d hits; %s", event, len(hits), reason)
        return acts.examples.ProcessCode.SUCCESS

    def _hits(self, points: Any) -> Hits:
        """Return the space points as hits, with their modules if the bundle has use for them."""
        x, y, z = (np.array(getattr(points, axis), np.float32) for axis in ("x", "y", "z"))
        modules = None
        if {"volume_id", "layer_id", "module_id"} & set((self._fallback or self._finder).columns()):
            modules = _modules(points)
        return Hits(np.arange(len(x)), x, y, z, modules)

    def _find(self, hits: Hits, event: int) -> Tracks:
        name = f"event{event}-{secrets.token_hex(4)}"
        try:
            return self._finder.find_tracks(hits, name)
        except ServerError as error:
            if self._fallback is None:
                raise
            self._report.add_failure("fell_back", str(error))
            _LOG.warning("event %d falls back to the pipeline in process: %s", event, error)
            return self._fallback.find_tracks(hits, name)

    def _failed(self, event: int, error: TrackserveError) -> Any:
        self._report.add(events=1)
        if self._on_failure == "skip":
            self._report.add_failure("skipped", str(error))
            _LOG.warning("event %d is skipped: %s", event, error)
            return acts.examples.ProcessCode.SKIP
        self._report.add_failure("failed", str(error))
        _LOG.error("event %d ends the job: %s", event, error)
        return acts.examples.ProcessCode.ABORT

    def _make_seeds(self, points: Any, hits: Hits, labels: Int64) -> tuple[Any, int]:
        """Return a seed for each track of enough hits, inner hits first, and how many there are."""
        seeds = acts.SeedContainer()
        seeds.assignSpacePointContainer(points)
        distance = hits.x.astype(np.float64) ** 2 + hits.y.astype(np.float64) ** 2
        distance += hits.z.astype(np.float64) ** 2
        rows = np.lexsort((distance, labels))
        begins = np.searchsorted(labels[rows], np.arange(labels.max(initial=-1) + 2))
        ordered = rows.tolist()
        count = 0
        for begin, end in zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True):
            if end - begin >= self._fewest_hits:
                seeds.createSeed().assignSpacePointIndices(ordered[begin:end])
                count += 1
        return seeds, count


def add_track_finding(
    sequencer: Any,
    servers: str | Sequence[str] | None,
    *,
    seeds: str = "seeds",
    proto_tracks: str = "prototracks",
    geometry: Any = None,
    field: Any = None,
    parameters: str = "estimatedparameters",
    level: Any = acts.logging.INFO,
    **options: Any,
) -> TrackFinding:
    """Add track finding to a sequencer: seeds of all hits of a track, and proto tracks.

    With ``geometry`` and ``field`` track parameters are estimated as well (from three hits that lie
    far apart); then ``estimated_`` ``seeds`` and ``proto_tracks`` are those that have parameters, in
    the same order. ``options`` are those of :class:`TrackFinding`, which is returned.
    """
    finding = TrackFinding(servers, seeds=seeds, level=level, **options)
    sequencer.addAlgorithm(finding)
    sequencer.addAlgorithm(
        acts.examples.SeedsToProtoTracks(
            level=level, inputSeeds=seeds, outputProtoTracks=proto_tracks
        )
    )
    if geometry is not None and field is not None:
        sequencer.addAlgorithm(
            acts.examples.TrackParamsEstimationAlgorithm(
                level=level,
                inputSeeds=seeds,
                inputProtoTracks=proto_tracks,
                outputSeeds=f"estimated_{seeds}",
                outputProtoTracks=f"estimated_{proto_tracks}",
                outputTrackParameters=parameters,
                trackingGeometry=geometry,
                magneticField=field,
                spacePointSelection=acts.examples.SeedSpacePointSelection.SpreadTriplet,
            )
        )
    return finding


def _modules(points: Any) -> Modules:
    """Return the module of each space point: that of its first measurement."""
    kind = acts.examples.IndexSourceLink
    places = [kind.fromSourceLink(point.sourceLinks[0]).geometryId() for point in points]
    return Modules(
        np.array([place.volume for place in places], np.int32),
        np.array([place.layer for place in places], np.int32),
        np.array([place.sensitive for place in places], np.int32),
    )
