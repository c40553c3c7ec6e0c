from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("acts")
pytest.importorskip("pythia8mc")

from trackserve.data.conditions import CONDITIONS, TRACKML, VOLUMES, of_volume
from trackserve.data.detector import Surfaces, build_detector, read_surfaces
from trackserve.data.generate import Generated, pack_barcode, unpack_barcode
from trackserve.data.interactions import interact, products
from trackserve.data.transport import Crossings

PION, MUON, ELECTRON = 211, 13, 11


@pytest.fixture(scope="module")
def surfaces() -> Surfaces:
    return read_surfaces(build_detector())


def straight(
    surfaces: Surfaces, number: int, identity: int, pt: float = 2.0
) -> tuple[Crossings, Generated]:
    """Make particles from the origin that cross the four pixel layers of the barrel head on."""
    barrel = np.flatnonzero(surfaces.volume_id == 8)
    modules = [
        barrel[surfaces.layer_id[barrel] == layer][
            np.argmin(np.abs(surfaces.centre[barrel[surfaces.layer_id[barrel] == layer], 2]))
        ]
        for layer in (2, 4, 6, 8)
    ]
    surface = np.tile(modules, number)
    position = surfaces.centre[surface]
    normal = surfaces.rotation[surface, :, 2]
    identities = pack_barcode(1, 0, np.arange(1, number + 1), 0, 0)
    momentum = pt * normal
    crossings = Crossings(
        np.repeat(identities, 4), surface, np.tile(np.arange(4), number), position, momentum
    )
    particles = Generated(
        identities,
        np.full(number, identity, dtype=np.int32),
        np.ones(number),
        np.full(number, 0.14),
        np.zeros((number, 3)),
        np.zeros(number),
        np.tile([pt, 0.0, 0.0], (number, 1)),
    )
    return crossings, particles


def test_hadrons_stop_as_often_as_the_layers_are_thick(surfaces: Surfaces) -> None:
    crossings, particles = straight(surfaces, 40000, PION)
    happens, found = interact(crossings, particles, surfaces, TRACKML, np.random.default_rng(1))
    hits = happens.reshape(-1, 4).sum(axis=1)
    # A particle that has interacted leaves no later hit.
    assert (np.diff(happens.reshape(-1, 4).astype(int), axis=1) <= 0).all()
    # Behind the fourth module there is none to miss.
    assert (hits < 4).mean() == pytest.approx(0.0025 + sum(TRACKML.pixel_barrel[:3]), rel=0.15)
    stopped_after_first = (hits == 1).mean()
    assert stopped_after_first == pytest.approx(TRACKML.pixel_barrel[0], rel=0.25)
    assert len(found) == pytest.approx(40000 * (0.0025 + sum(TRACKML.pixel_barrel)), rel=0.15)


@pytest.mark.parametrize("identity", [MUON, ELECTRON])
def test_leptons_go_on(surfaces: Surfaces, identity: int) -> None:
    crossings, particles = straight(surfaces, 2000, identity)
    happens, found = interact(crossings, particles, surfaces, TRACKML, np.random.default_rng(1))
    assert happens.all()
    assert len(found) == 0


def test_particles_stop_where_they_become_soft(surfaces: Surfaces) -> None:
    crossings, particles = straight(surfaces, 10, MUON, pt=0.3)
    momentum = crossings.momentum.copy()
    momentum[crossings.order >= 2] *= 0.3
    happens, _ = interact(
        replace(crossings, momentum=momentum),
        particles,
        surfaces,
        TRACKML,
        np.random.default_rng(1),
    )
    assert (happens == (crossings.order < 2)).all()


def test_the_order_of_rows_does_not_matter(surfaces: Surfaces) -> None:
    crossings, particles = straight(surfaces, 3000, PION)
    happens, _ = interact(crossings, particles, surfaces, TRACKML, np.random.default_rng(2))
    mixed = np.random.default_rng(0).permutation(len(crossings))
    again, _ = interact(
        crossings.take(mixed), particles, surfaces, TRACKML, np.random.default_rng(2)
    )
    assert np.array_equal(again, happens[mixed])


def test_products_start_at_the_interaction_with_ids_of_their_own(surfaces: Surfaces) -> None:
    crossings, particles = straight(surfaces, 40000, PION)
    random = np.random.default_rng(1)
    _, found = interact(crossings, particles, surfaces, TRACKML, random)
    made = products(found, random)
    assert len(np.unique(made.particle_id)) == len(made) > 500
    assert (unpack_barcode(made.particle_id)[3] == 1).all()
    places = {tuple(place) for place in found.position.tolist()}
    assert {tuple(place) for place in made.vertex.tolist()} <= places
    # Slow, in all directions, mostly positive.
    assert np.median(np.linalg.norm(made.momentum, axis=1)) < 0.4
    assert 0.6 < (made.charge > 0).mean() < 0.95
    radius = np.hypot(made.vertex[:, 0], made.vertex[:, 1])
    layers = np.hypot(*surfaces.centre[np.unique(crossings.surface), :2].T)
    nearest = np.abs(radius[:, None] - np.append(layers, 19.0)).min(axis=1)
    assert nearest.max() < 0.1


def test_conditions_differ_in_beam_spot_and_pileup_alone() -> None:
    wide = CONDITIONS["hl-lhc"]
    assert TRACKML.beam_spot[2] == 5.5
    assert wide.beam_spot[2] == 50.0
    assert replace(wide, beam_spot=TRACKML.beam_spot, pileup=TRACKML.pileup) == TRACKML
    assert of_volume(TRACKML.missed, np.array(VOLUMES)).tolist() == list(TRACKML.missed)
    assert sum(TRACKML.noise_volumes) == pytest.approx(1, abs=0.01)
