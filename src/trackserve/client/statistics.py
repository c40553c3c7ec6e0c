"""Where the time of requests went, from a server's own statistics."""

from __future__ import annotations

import contextlib
import http.client
import re
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from trackserve.client.connection import split_url
from trackserve.client.credentials import SECURE, Credentials
from trackserve.client.failures import explain, unreachable
from trackserve.client.http import Http, open_connection
from trackserve.contract import metrics
from trackserve.contract.tensors import ENSEMBLES, MODELS, SERVED, STAGES, split_name

if TYPE_CHECKING:
    from collections.abc import Mapping

Numbers = dict[tuple[str, ...], float]
"""Requests and seconds of ``(model, part)``; counters of ``(metric, label, ...)``."""
PARTS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
TIMEOUT = 10.0
USUAL_PORTS, METRICS_PORT = ("8000", "8001"), 8002
"""A server on one of the first has its metrics on the last; where others have theirs can't be known."""
_LABELS = {metric.name: metric.labels for metric in metrics.METRICS}
_METRIC = re.compile(r"^(trackserve_\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Statistics:
    """What a server has counted since it started: Triton's statistics, and our metrics if read."""

    count: Numbers
    seconds: Numbers
    counters: Numbers = field(default_factory=dict)

    def since(self, before: Statistics) -> Statistics:
        """Return what came after; a server that was restarted in between counts from there."""
        if any(self.count.get(key, 0) < number for key, number in before.count.items()):
            return self
        return Statistics(
            *(
                {key: n - earlier.get(key, 0.0) for key, n in now.items()}
                for now, earlier in (
                    (self.count, before.count),
                    (self.seconds, before.seconds),
                    (self.counters, before.counters),
                )
            )
        )

    def mean(self, model: str, part: str) -> float:
        """Return the mean seconds of a part for the requests that had it; 0 for none."""
        return self.seconds.get((model, part), 0.0) / max(self.count.get((model, part), 0), 1)

    def spent(self) -> dict[str, float]:
        """Return where the server's part of an answered request went, in seconds.

        ``server`` is all of it: what each stage computed, and in an ensemble ``queue`` (before a
        stage's model) and ``copy`` (tensors to the models' processes and back). ``turn`` is the time
        before that. Turn and a monolith's stages are in the metrics only.
        """
        models = [stage.name for stage in STAGES if self.count.get((stage.name, "success"))]
        if models:
            copy = sum(
                self._of_stage(m, p) for m in models for p in ("compute_input", "compute_output")
            )
            queue = sum(self._of_stage(m, "queue") for m in models)
            compute = {f"compute {m}": self._of_stage(m, "compute_infer") for m in models}
            done = [(each.name, "success") for each in ENSEMBLES]
            whole = sum(self.seconds.get(each, 0.0) for each in done)
            whole /= max(sum(self.count.get(each, 0) for each in done), 1)
            spent = {"server": whole, "queue": queue, "copy": copy, **compute}
        else:
            compute = self._stages()
            spent = {"server": sum(compute.values()), **compute}
        if self.counters:
            turn = self._per_request(metrics.QUEUE_SECONDS)
            spent |= {"server": spent["server"] + turn, "turn": turn}
        return spent

    def worked(self) -> float:
        """Return for how long (s) the stages of a monolith worked, over all its instances; needs metrics."""
        return sum(n for (name, *_), n in self.counters.items() if name == metrics.SECONDS.name)

    def of(self, suffix: str, bundle: str) -> Statistics:
        """Return what was counted for one bundle of a server, whose models' names end in ``suffix``.

        The counters then go without the bundle's name.
        """
        names = {model.of(suffix).name: name for name, model in MODELS.items()}

        def own(numbers: Numbers) -> Numbers:
            return {(names[m], part): n for (m, part), n in numbers.items() if m in names}

        counters = {
            (name, *key): number
            for (name, of, *key), number in self.counters.items()
            if of in {bundle, ""}
        }
        return Statistics(own(self.count), own(self.seconds), counters)

    def _answered(self) -> tuple[float, float]:
        """Return how many events were answered that came as hits, and in all."""
        hits, features = (self.count.get((model.name, "success"), 0) for model in SERVED)
        return hits, hits + features

    def _share(self, stage: str) -> float:
        """Return the share of events that a stage worked on: hits go through one that features don't."""
        hits, every = self._answered()
        return hits / every if every and stage == STAGES[0].name else 1.0

    def _of_stage(self, stage: str, part: str) -> float:
        return self.mean(stage, part) * self._share(stage)

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of the devices of the model for hits, by device and kind; needs metrics."""
        return {
            f"{labels[0]} {labels[3]} {labels[1]}": int(size)
            for (name, *labels), size in self.counters.items()
            if name == metrics.DEVICE_BYTES.name and labels[2] == SERVED[0].name
        }

    def _per_request(self, metric: metrics.Metric) -> float:
        spent = (self.counters.get((metric.name, model.name), 0.0) for model in SERVED)
        return sum(spent) / max(self._answered()[1], 1)

    def _stages(self) -> dict[str, float]:
        """Return the mean seconds of each stage inside of a monolith, if the metrics were read."""
        seconds = metrics.SECONDS.name
        return {
            f"compute {stage.name}": self._share(stage.name)
            * self.counters[seconds, stage.name]
            / events
            for stage in STAGES
            if (events := self.counters.get((metrics.EVENTS.name, stage.name)))
        }


def read_statistics(url: str, metrics_url: str | None = None) -> Statistics:
    """Ask a server for its statistics, by the protocol of the URL, and for its metrics.

    Raises :class:`ServerError` if it doesn't answer.
    """
    scheme, address = split_url(url)
    shown = Credentials.from_environment()
    try:
        if SECURE.get(scheme, scheme) == "grpc":
            options = shown.grpc_options(scheme)
            with tritonclient.grpc.InferenceServerClient(address, **options) as client:
                found = client.get_inference_statistics(
                    as_json=True, client_timeout=TIMEOUT, headers=shown.headers()
                )
        else:
            context = shown.context() if scheme in SECURE else None
            talk = Http(address, TIMEOUT, context=context, headers=shown.headers())
            with contextlib.closing(talk) as client:
                found = client.get("/v2/models/stats")
    except InferenceServerException as error:
        raise explain(error, url, TIMEOUT) from None
    except (OSError, http.client.HTTPException) as error:
        raise unreachable(url, str(error)) from None
    counters = {} if metrics_url is None else read_counters(metrics_url)
    return _statistics(found, counters)


def usual_metrics(url: str) -> str | None:
    """Return where a server on a usual port has its metrics, None if it doesn't have them there."""
    scheme, address = split_url(url)
    secure = "s" if scheme in SECURE else ""
    host, _, port = address.rpartition(":")
    if port not in USUAL_PORTS:
        return None
    with (
        contextlib.closing(http.client.HTTPConnection(host, METRICS_PORT, timeout=1)) as connection,
        contextlib.suppress(OSError),
    ):
        connection.connect()
        return f"http{secure}://{host}:{METRICS_PORT}/metrics"
    return None


def read_counters(url: str) -> Numbers:
    """Read our own metrics (Prometheus' text) as numbers by name and labels, of all servers of a fleet."""
    try:
        text = read_page(url)
    except (OSError, http.client.HTTPException) as error:
        raise unreachable(url, str(error)) from None
    found: Numbers = {}
    for name, labels, value in _METRIC.findall(text):
        if name in _LABELS:
            values = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            key = (name, *(values.get(label, "") for label in _LABELS[name]))
            found[key] = found.get(key, 0.0) + float(value)
    return found


def read_page(url: str) -> str:
    """Return what is at a URL, ``unix:PATH`` for a server's metrics at a socket, with our credentials."""
    shown, context = Credentials.from_environment(), None
    address, path = url, "/metrics"
    if not url.startswith("unix:"):
        parts = urllib.parse.urlsplit(url)
        address, path = parts.netloc, parts.path
        context = shown.context() if parts.scheme in SECURE else None
    with contextlib.closing(open_connection(address, TIMEOUT, context)) as connection:
        connection.request("GET", path, headers=shown.headers())
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status != http.client.OK:
            msg = f"{answer.status} {text[:200]}"
            raise http.client.HTTPException(msg)
        return text


def _statistics(found: Mapping[str, Any], counters: Numbers) -> Statistics:
    count: Numbers = {}
    seconds: Numbers = {}
    for model in found.get("model_stats", []):
        if split_name(model["name"])[0] in MODELS:
            for part in PARTS:
                value = model.get("inference_stats", {}).get(part, {})
                count[model["name"], part] = int(value.get("count", 0))
                seconds[model["name"], part] = int(value.get("ns", 0)) / 1e9
    return Statistics(count, seconds, counters)
