"""Judging tracks against truth: matching, efficiencies, the TrackML score, plots."""
