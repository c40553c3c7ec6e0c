"""Send hits, get tracks: machine-learning track finding behind a Triton Inference Server."""

__version__ = "0.1.0"
