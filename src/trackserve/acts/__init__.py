"""Track finding inside an ACTS job: an algorithm for the ``Sequencer`` of ACTS' examples framework.

from trackserve.acts import add_track_finding

finding = add_track_finding(sequencer, "one:8001,two:8001", on_failure="skip")
sequencer.run()
print(finding.report())
"""

from trackserve.errors import MissingDependencyError

try:
    from trackserve.acts.algorithm import TrackFinding, add_track_finding
    from trackserve.acts.report import Report
except ModuleNotFoundError as error:
    message = (
        f"{error.name} is not installed; track finding inside an ACTS job needs: "
        "pip install 'trackserve[acts]'"
    )
    raise MissingDependencyError(message) from error

__all__ = ["Report", "TrackFinding", "add_track_finding"]
