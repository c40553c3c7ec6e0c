"""Where events come from: TrackML files, ACTS files, simulation."""
