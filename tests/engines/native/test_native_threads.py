"""Threads that are kept from one piece of work to the next."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from trackserve.engines.native.abi import variants
from trackserve.engines.native.library import library

HITS = 3000

each_variant = pytest.mark.parametrize("variant", variants())


def found(variant: str, threads: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours of random points, on a number of threads."""
    rng = np.random.default_rng(seed)
    run, points = library(variant), rng.normal(size=(HITS, 4)).astype(np.float32)
    distance = np.arange(1, HITS + 1, dtype=np.float32)
    nothing = np.zeros_like(distance)
    _, edges = run.neighbours(
        points,
        (distance, nothing, nothing),
        squared_radius=0.25,
        limit=HITS,
        cuts=(np.inf, np.inf, 0, 0),
        threads=threads,
    )
    return edges


@each_variant
def test_any_number_of_threads_gives_the_same_in_the_same_order(variant):
    expected = found(variant, 1)
    assert len(expected[0]) > 1000
    for threads in (2, 3, 7, 2):
        np.testing.assert_array_equal(found(variant, threads), expected)


@each_variant
def test_no_more_threads_are_kept_than_were_asked_for(variant):
    def threads() -> set[str]:
        return {task.name for task in Path("/proc/self/task").iterdir()}

    def kept() -> int:
        before = threads()
        for asked in (2, 3, 7, 5, 2):
            found(variant, asked)
        return len(threads() - before)

    with ThreadPoolExecutor(1) as caller:
        assert 0 < caller.submit(kept).result() <= 6


@each_variant
def test_callers_at_once_do_not_share_threads(variant):
    with ThreadPoolExecutor(4) as callers:
        many = list(callers.map(lambda seed: found(variant, 3, seed), list(range(6)) * 4))
    for seed in range(6):
        expected = found(variant, 1, seed)
        for each in many[seed::6]:
            np.testing.assert_array_equal(each, expected)


@each_variant
def test_a_forked_process_has_threads_of_its_own(variant):
    expected = found(variant, 2)
    child = os.fork()
    if child == 0:
        try:
            same = all(map(np.array_equal, found(variant, 2), expected))
        except BaseException:
            same = False
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@each_variant
def test_arrays_outlive_what_made_them(variant):
    kept = [found(variant, 1, seed) for seed in range(5)]
    views = [first[::2] for first, _ in kept]
    expected = [first[::2].copy() for first, _ in kept]
    del kept
    for seed in range(5):
        found(variant, 2, 10 + seed)  # takes memory that was given back
    for view, copy in zip(views, expected, strict=True):
        np.testing.assert_array_equal(view, copy)
