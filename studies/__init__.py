"""Studies of physics, speed and service: one command each, numbers as JSON in ``benchmarks/results``."""
