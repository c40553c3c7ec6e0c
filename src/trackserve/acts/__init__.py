"""Track finding inside an ACTS job: an algorithm for the ``Sequencer`` of ACTS' examples framework.

from trackserve.acts import add_track_finding

finding = add_track_finding(sequencer, "one:8001,two:8001", on_failure="skip")
sequencer.run()
print(finding.report())
"""

from trackserve.errors import needs_extra

with needs_extra("acts", "track finding inside an ACTS job"):
    from trackserve.acts.algorithm import TrackFinding, add_track_finding
    from trackserve.acts.report import Report

__all__ = ["Report", "TrackFinding", "add_track_finding"]
