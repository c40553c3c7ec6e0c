"""What an engine is: something that opens a bundle as a pipeline, on the devices that it has here.

A new engine is one folder with an :class:`Engine` named ``ENGINE``, and one line in
:data:`trackserve.engines.registry.BUILT_IN` or an entry point of the group ``trackserve.engines``.
Every choice of an engine (command line, settings, tuning, instances, documents) follows from it, and
``tests/engines`` holds it to the results of the reference.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trackserve.columns import HitsLike, as_hits
from trackserve.contract.wanted import LABELS_ONLY, Wanted
from trackserve.errors import InputError, InputWarning
from trackserve.pipeline.features import hit_features

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trackserve.bundle import Bundle
    from trackserve.event import Float32, Tracks
    from trackserve.pipeline.stages import StageOutputs
    from trackserve.pipeline.timings import Timings


@dataclass(frozen=True)
class DeviceMemory:
    """The memory of a pipeline's device: the device's name, and bytes by kind."""

    name: str
    bytes: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class TimedTracks:
    """The tracks of one event, and what its stages took."""

    tracks: Tracks
    timings: Timings


class Pipeline(ABC):
    """A bundle opened by an engine, ready to find tracks in this process.

    An engine's own are one pass over an event and raise :class:`InputError` for a bundle of two, of which
    :func:`trackserve.engines.registry.open_pipeline` makes both. It holds no state between events.
    ``precision`` is what its networks are computed in, ``notes`` are sentences on what is not as asked for.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int = 1, precision: str = "float32", device: str = "cpu"
    ) -> None:
        if bundle.second_pass is not None:
            message = (
                f"bundle {bundle.name} has two passes over an event; open both with "
                "trackserve.open_pipeline, or only the first with bundle.first_pass"
            )
            raise InputError(message)
        self.bundle = bundle
        self.threads = threads
        self.precision = precision
        self.device = device
        self.notes: list[str] = []

    def device_memory(self) -> DeviceMemory | None:
        """Return the memory of its device, None for the processor's, which the system knows."""
        return None

    @abstractmethod
    def _run_events(self, events: Sequence[Float32], wanted: Wanted) -> list[TimedTracks]:
        """Return the tracks and timings of each event, given by features that were checked.

        So is what is ``wanted`` of their tracks: the bundle has it.
        """

    @abstractmethod
    def _run(self, features: Float32, wanted: Wanted) -> StageOutputs:
        """Run every stage on features that were checked, and return what each produced."""

    def run_events(
        self, events: Sequence[Float32], wanted: Wanted = LABELS_ONLY
    ) -> list[TimedTracks]:
        """Return the tracks and timings of several events, given by scaled features ``[N, F]``.

        Raises :class:`InputError` if an event cannot be used, or for what the bundle can't give.
        """
        self.bundle.track_stage.chosen(wanted)
        for features in events:
            self.bundle.check_features(features)
        return self._run_events(events, wanted)

    def run(self, features: Float32, *, parameters: bool = False) -> StageOutputs:
        """Run every stage on scaled features ``[N, F]`` and return what each produced.

        Raises :class:`InputError` as :meth:`run_events` does.
        """
        wanted = Wanted(parameters)
        self.bundle.track_stage.chosen(wanted)
        self.bundle.check_features(features)
        return self._run(features, wanted)

    def find_tracks(
        self, hits: HitsLike, *, parameters: bool = False, min_quality: float | None = None
    ) -> Tracks:
        """Return the tracks of an event, with what is fitted of each where ``parameters`` are wanted.

        ``hits`` are ``Hits``, or what :func:`trackserve.columns.as_hits` takes. Tracks of a quality
        below ``min_quality``, in [0, 1), are dropped (default: the bundle's ``tracks.min_quality``).
        Raises :class:`InputError` for hits that can't be used, and for what the bundle can't give.
        """
        features = hit_features(as_hits(hits), self.bundle.features)
        return self.run_events([features], Wanted(parameters, min_quality))[0].tracks

    def find_tracks_from_features(
        self, features: Float32, *, parameters: bool = False, min_quality: float | None = None
    ) -> Tracks:
        """Return the tracks of hits given by their scaled features ``[N, F]``.

        Warns with :class:`InputWarning` of features that are hardly those of the bundle.
        """
        (found,) = self.run_events([features], Wanted(parameters, min_quality))
        if doubt := self.bundle.out_of_scale(features):
            warnings.warn(doubt, InputWarning, stacklevel=2)
        return found.tracks

    def find_tracks_of_events(
        self,
        events: Sequence[Float32],
        *,
        parameters: bool = False,
        min_quality: float | None = None,
    ) -> list[Tracks]:
        """Return the tracks of several events, given by their scaled features."""
        wanted = Wanted(parameters, min_quality)
        return [each.tracks for each in self.run_events(events, wanted)]


class Engine(ABC):
    """A way to run any bundle.

    ``summary`` is one line for help texts. ``tolerance`` bounds how far a float32 output of a network
    may be from the reference's, relative to the largest output; edges and labels are equal.
    ``all_precisions`` and ``device_kinds`` (the default first) are what it can have on some machine.
    """

    name: str
    summary: str
    tolerance: float = 0.0
    all_precisions: tuple[str, ...] = ("float32",)
    device_kinds: tuple[str, ...] = ("cpu",)

    @abstractmethod
    def unavailable(self) -> str | None:
        """Return in one sentence why it cannot run on this machine, None if it can."""

    def chosen_by_auto(self) -> bool:
        """Return whether ``auto`` may choose it on this machine."""
        return self.unavailable() is None

    @abstractmethod
    def details(self) -> str:
        """Return in a few words what of it is installed; it is available."""

    def devices(self) -> tuple[str, ...]:
        """Return the devices that it has on this machine, the default first."""
        return ("cpu",)

    def precisions(self, device: str) -> tuple[str, ...]:
        """Return the precisions that it has on one of its devices here."""
        del device
        return self.all_precisions

    def nearest_precision(self, wanted: str, device: str) -> str:
        """Return what it computes in on a device where this precision is wanted."""
        return wanted if wanted in self.precisions(device) else "float32"

    @abstractmethod
    def open(self, bundle: Bundle, *, device: str, precision: str, threads: int) -> Pipeline:
        """Return the pipeline of a bundle of one pass; the registry opens each of two by itself.

        ``device`` and ``precision`` are among those that it has here; ``threads`` is the number of
        processor threads that an event may use.
        """
