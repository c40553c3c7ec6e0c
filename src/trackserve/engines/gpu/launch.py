"""How kernels are launched: how many rows a program works on, and how many programs there are."""

from __future__ import annotations

import triton

INTERPRETED = 16
"""Triton's interpreter runs one program after the other in Python, so there a program takes more rows."""


def interpreted() -> bool:
    """Return whether kernels run in Triton's interpreter, on the processor."""
    return bool(triton.knobs.runtime.interpret)


def rows(at_once: int, interpreted_factor: int = INTERPRETED) -> int:
    """Return the rows of a program: ``at_once`` on a device."""
    return at_once * interpreted_factor if interpreted() else at_once


def blocks(count: int, at_once: int) -> tuple[int]:
    """Return the grid of programs that work on ``at_once`` rows each."""
    return (max(1, -(-count // at_once)),)
