"""How the launcher and the served models agree on a stop: files in a folder that both know."""

FRONTS = "TRACKSERVE_FRONTS"
"""The environment variable that names the folder where served models and who started them meet.

Each served model keeps a file of its name there while it serves. Once there is a file :data:`STOP`, it
takes no more requests, and removes its own when the last one is answered.
"""
STOP = "stop"
