from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from trackserve.data import find_events
from trackserve.data.acorn import AcornEvent
from trackserve.data.trackml import TrackMLEvent
from trackserve.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

# Four hits: of a particle, of two (the first counts), of one that isn't listed, of none.
TRUTH = (
    "hit_id,x,y,z,volume_id,layer_id,module_id,particle_id,region\n"
    "7,10,0,1,8,2,91,100,1\n"
    "8,20,0,2,8,4,92,200,1\n"
    "8,20,0,2,8,4,92,100,1\n"
    "9,30,1,3,8,6,93,300,1\n"
    "4,40,1,4,8,8,94,0,1\n"
)
PARTICLES = (
    "particle_id,subevent,barcode,px,py,pz,pt,eta,vx,vy,vz,radius,status,charge,pdgId\n"
    "100,0,10001,3000,4000,0,5000,0,0.01,0,5,0.01,1,1,211\n"
    "200,0,10002,1000,0,0,1000,0,12,0,5,12,1,-1,-211\n"
)


def write(folder: Path, truth: str = TRUTH, particles: str = PARTICLES) -> Path:
    (folder / "event000000003-truth.csv").write_text(truth)
    (folder / "event000000003-particles.csv").write_text(particles)
    return folder


def test_an_event_dumped_from_athena(tmp_path: Path) -> None:
    (source,) = find_events(write(tmp_path))
    event = source.read()
    assert event.event_id == 3
    assert event.hits.hit_id.tolist() == [7, 8, 9, 4]
    assert event.hits.x.tolist() == [10, 20, 30, 40]
    assert event.hits.modules is not None
    assert event.hits.modules.module_id.tolist() == [91, 92, 93, 94]
    assert event.truth is not None
    assert event.truth.particle_id.tolist() == [100, 200, 0, 0]
    np.testing.assert_allclose(event.truth.particles.pt, [5, 1])  # MeV became GeV
    assert event.truth.particles.q.tolist() == [1, -1]


def test_newer_names_and_momenta_in_gev(tmp_path: Path) -> None:
    header, _, rest = TRUTH.partition("\n")
    names = ["hit_id", *(f"hit_{name}" for name in header.split(",")[1:])]
    particles = PARTICLES.replace("barcode,", "number,").replace("status", "primary")
    (source,) = find_events(write(tmp_path, ",".join(names) + "\n" + rest, particles))
    event = source.read()
    assert event.hits.z.tolist() == [1, 2, 3, 4]
    assert event.truth is not None
    assert event.truth.particle_id.tolist() == [100, 200, 0, 0]
    np.testing.assert_allclose(event.truth.particles.pt, [5000, 1000])


def test_hits_alone(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "event000000003-particles.csv").unlink()
    (source,) = find_events(tmp_path)
    assert source.read(truth=False).truth is None
    with pytest.raises(InputError, match="has no particles file; it has truth"):
        source.read()


@pytest.mark.parametrize("beside", ["cells", "hits"])
def test_an_event_of_trackml_is_not_acorns(tmp_path: Path, beside: str) -> None:
    write(tmp_path)
    (tmp_path / f"event000000003-{beside}.csv").write_text("hit_id,x,y,z\n1,2,3,4\n")
    if beside == "hits":
        (source,) = find_events(tmp_path)
        assert isinstance(source, TrackMLEvent)
    else:  # still being written
        with pytest.raises(
            InputError, match="has no hits or measurements or spacepoint or truth file"
        ):
            find_events(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (source,) = find_events(write(tmp_path, TRUTH.replace(",x,", ",tx,")))
    assert isinstance(source, AcornEvent)
    with pytest.raises(InputError, match=r"no column x or hit_x, so it isn't acorn's; .* TrackML"):
        source.read()
    (source,) = find_events(write(tmp_path, particles=PARTICLES.replace("charge", "sign")))
    with pytest.raises(InputError, match=r"particles\.csv has no column q or charge"):
        source.read()
