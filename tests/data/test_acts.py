from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trackserve.data import find_events as find_any_events
from trackserve.data.acts import ActsEvent, find_events, pack_barcode, read_event
from trackserve.data.trackml import TrackMLEvent
from trackserve.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from trackserve.event import Event

# Volume 8, layer 2, module 91 and volume 201, layer 14, module 3.
GEOMETRY = (576460889742400256, 201 << 56 | 14 << 36 | 3 << 8)
VOLUMES = (7, 8, 9, 12, 13, 14, 16, 17, 18)
PARTICLES = "particle_type,process,vx,vy,vz,vt,px,py,pz,m,q"
FIVE = "particle_id_pv,particle_id_sv,particle_id_part,particle_id_gen,particle_id_subpart"
SIMULATED = "geometry_id,tx,ty,tz,tt,tpx,tpy,tpz,te,deltapx,deltapy,deltapz,deltae,index"

# Three measurements: of a primary, of a secondary and the primary merged, of nothing.
PRESENT = {
    "measurements": (
        "measurement_id,geometry_id,local_key,local0,local1,phi,theta,time,var_local0,var_local1,"
        "var_phi,var_theta,var_time,global_x,global_y,global_z\n"
        f"0,{GEOMETRY[0]},\x06,-0.5,21.8,0,0,0,1e-05,1e-05,0,0,0,18.1123066,26.1712532,-83.1579361\n"
        f"1,{GEOMETRY[1]},\x06,1.4,30.8,0,0,0,1e-05,1e-05,0,0,0,36.5,52.25,-166\n"
        f"2,{GEOMETRY[1]},\x06,1.4,3.8,0,0,0,1e-05,1e-05,0,0,0,1,2,3\n"
    ),
    "hits": (
        f"{FIVE},{SIMULATED}\n"
        f"1,0,2,0,0,{GEOMETRY[0]},18.1,26.2,-83.2,89,5.5,8,-25,27,0,0,0,0,0\n"
        f"1,0,2,1,3,{GEOMETRY[1]},36.4,52.2,-166,189,5.5,8,-25,27,0,0,0,0,0\n"
        f"1,0,2,0,0,{GEOMETRY[1]},36.5,52.3,-166,189,5.5,8,-25,27,0,0,0,0,1\n"
    ),
    "measurement-simhit-map": "measurement_id,hit_id\n0,0\n1,1\n1,2\n",
    "particles_simulated": (
        f"{FIVE},{PARTICLES}\n"
        "1,0,2,0,0,-13,0,0,0.01,5,0,1.5,2,-5,0.105658375,1\n"
        "1,0,2,1,3,11,0,18.1,26.2,-83.2,0,0.5,0.5,-0.5,0.000511,-1\n"
    ),
    "cells": (
        "geometry_id,measurement_id,channel0,channel1,timestamp,value\n"
        f"{GEOMETRY[0]},0,157,1024,0,0.0137\n"
        f"{GEOMETRY[0]},0,157,1025,0,0.0587\n"
        f"{GEOMETRY[1]},2,3,4,0,0.5\n"
    ),
}
PRIMARY, SECONDARY = 1 << 52 | 2 << 24, 1 << 52 | 2 << 24 | 1 << 16 | 3

# The same event from an ACTS that wrote one particle id and no global positions.
EARLIER = {
    "measurements": "\n".join(
        ",".join(row.split(",")[:13]) for row in PRESENT["measurements"].splitlines()
    ),
    "spacepoint": (
        "measurement_id,geometry_id,x,y,z,var_r,var_z\n"
        f"0,{GEOMETRY[0]},18.1123066,26.1712532,-83.1579361,1e-5,1e-5\n"
        f"1,{GEOMETRY[1]},36.5,52.25,-166,1e-5,1e-5\n"
        f"2,{GEOMETRY[1]},1,2,3,1e-5,1e-5\n"
    ),
    "hits": PRESENT["hits"]
    .replace(FIVE, "particle_id")
    .replace("\n1,0,2,0,0,", f"\n{PRIMARY},")
    .replace("\n1,0,2,1,3,", f"\n{SECONDARY},"),
    "measurement-simhit-map": PRESENT["measurement-simhit-map"],
    "particles_initial": PRESENT["particles_simulated"]
    .replace(FIVE, "particle_id")
    .replace("\n1,0,2,0,0,", f"\n{PRIMARY},")
    .replace("\n1,0,2,1,3,", f"\n{SECONDARY},"),
    "cells": PRESENT["cells"].replace("measurement_id", "hit_id"),
}


def write_tables(folder: Path, tables: dict[str, str], event: int = 4) -> Path:
    for name, text in tables.items():
        (folder / f"event{event:09d}-{name}.csv").write_text(text)
    return folder / f"event{event:09d}"


def check(event: Event) -> None:
    hits, truth = event.hits, event.truth
    assert event.event_id == 4
    assert hits.hit_id.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(hits.x, np.float32([18.1123066, 36.5, 1]))
    np.testing.assert_array_equal(hits.z, np.float32([-83.1579361, -166, 3]))
    assert hits.modules is not None
    assert hits.modules.volume_id.tolist() == [8, 201, 201]
    assert hits.modules.layer_id.tolist() == [2, 14, 14]
    assert hits.modules.module_id.tolist() == [91, 3, 3]
    assert hits.clusters is not None
    assert hits.clusters.cells.tolist() == [2, 0, 1]
    assert hits.clusters.length_v.tolist() == [2, 0, 1]
    assert truth is not None
    assert truth.particle_id.tolist() == [PRIMARY, SECONDARY, 0]
    assert truth.particles.particle_id.tolist() == [PRIMARY, SECONDARY]
    assert truth.particles.primary.tolist() == [True, False]
    assert truth.particles.px.tolist() == [1.5, 0.5]


@pytest.mark.parametrize("tables", [PRESENT, EARLIER], ids=["present", "earlier"])
def test_an_event_by_hand(tmp_path: Path, tables: dict[str, str]) -> None:
    check(read_event(write_tables(tmp_path, tables), cells=True))


def test_the_space_points_of_present_acts(tmp_path: Path) -> None:
    points = EARLIER["spacepoint"].replace(
        "measurement_id,geometry_id,",
        "measurement_id_1,measurement_id_2,geometry_id_1,geometry_id_2,",
    )
    for measurement, geometry in ((0, GEOMETRY[0]), (1, GEOMETRY[1]), (2, GEOMETRY[1])):
        points = points.replace(
            f"\n{measurement},{geometry}", f"\n{measurement},18446744073709551615,{geometry},0"
        )
    check(read_event(write_tables(tmp_path, {**EARLIER, "spacepoint": points}), cells=True))
    paired = points.replace(",18446744073709551615,", ",1,").replace(
        ",0,18.1", f",{GEOMETRY[1]},18.1"
    )
    prefix = write_tables(tmp_path, {**EARLIER, "spacepoint": paired})
    with pytest.raises(InputError, match=r"spacepoint\.csv row 1 is made of two measurements"):
        read_event(prefix)


def test_a_measurement_without_a_space_point_is_no_hit(tmp_path: Path) -> None:
    header, first, _, third = EARLIER["spacepoint"].splitlines()
    fewer = {**EARLIER, "spacepoint": f"{header}\n{third}\n{first}\n"}
    event = read_event(write_tables(tmp_path, fewer), cells=True)
    assert event.hits.hit_id.tolist() == [2, 0]
    assert event.hits.clusters is not None
    assert event.hits.clusters.cells.tolist() == [1, 2]
    assert event.truth is not None
    assert event.truth.particle_id.tolist() == [0, PRIMARY]


def test_zero_hits(tmp_path: Path) -> None:
    empty = {name: text.partition("\n")[0] + "\n" for name, text in PRESENT.items()}
    event = read_event(write_tables(tmp_path, empty), cells=True)
    assert len(event.hits) == 0
    assert event.truth is not None
    assert len(event.truth.particles) == 0


def test_both_formats_are_told_apart(tmp_path: Path) -> None:
    write_tables(tmp_path, PRESENT)
    write_tables(tmp_path, {"hits": "hit_id,x,y,z\n1,2,3,4\n"}, event=5)
    sources = find_any_events(tmp_path)
    assert [type(source) for source in sources] == [ActsEvent, TrackMLEvent]
    assert len(sources[1].read(truth=False).hits) == 1
    assert [source.event_id for source in find_events(tmp_path)] == [4]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {name: text for name, text in EARLIER.items() if name != "spacepoint"},
            r"measurements\.csv has no columns global_x, global_y, global_z and the event no spacepoint",
        ),
        (
            {name: text for name, text in PRESENT.items() if not name.startswith("particles")},
            "has no particles_simulated or particles_initial or particles file; it has cells, hits",
        ),
        (
            {**PRESENT, "hits": PRESENT["hits"].replace("particle_id_gen", "generation")},
            r"hits\.csv has neither a column particle_id nor all five parts: particle_id_gen",
        ),
        (
            {**PRESENT, "cells": PRESENT["cells"].replace("measurement_id", "number")},
            r"cells\.csv has no column measurement_id or hit_id",
        ),
        (
            {**PRESENT, "hits": PRESENT["hits"].replace("\n1,0,2,1,3", "\n1,0,2,1,4")},
            rf"hits\.csv row 2: particle id {SECONDARY + 1} is not among the particles",
        ),
        (
            {**PRESENT, "measurement-simhit-map": "measurement_id,hit_id\n0,0\n1,3\n"},
            r"simhit-map\.csv row 2: hit_id 3 is not among the rows of hits",
        ),
        (
            {**PRESENT, "measurements": PRESENT["measurements"].replace("\n2,", "\n1,")},
            r"measurements\.csv row 3: measurement_id 1 occurred before, in row 2",
        ),
        (
            {**PRESENT, "measurements": PRESENT["measurements"].replace("36.5", "nan")},
            r"measurements\.csv row 2: global_x is nan",
        ),
        (
            {**PRESENT, "hits": PRESENT["hits"].replace("\n1,0,2,1,3", "\n4096,0,2,1,3")},
            r"hits\.csv row 2: particle_id_pv is 4096; expected less than 4096",
        ),
    ],
)
def test_one_sentence_says_what_is_wrong(
    tmp_path: Path, tables: dict[str, str], message: str
) -> None:
    prefix = write_tables(tmp_path, tables)
    with pytest.raises(InputError, match=message) as caught:
        read_event(prefix, cells=True)
    assert "\n" not in str(caught.value)


def test_barcodes_are_packed_as_acts_did() -> None:
    parts = {
        "particle_id_pv": [1, 4095],
        "particle_id_sv": [2, 4095],
        "particle_id_part": [3, 65535],
        "particle_id_gen": [4, 255],
        "particle_id_subpart": [5, 65535],
    }
    packed = pack_barcode(
        {name: np.array(values, dtype=np.uint64) for name, values in parts.items()}, owner="test"
    )
    assert packed.view(np.uint64).tolist() == [0x0010_0200_0304_0005, 2**64 - 1]


def test_what_the_installed_acts_writes(tmp_path: Path) -> None:
    acts = pytest.importorskip("acts")
    examples = pytest.importorskip("acts.examples")
    from acts.examples.simulation import (
        EtaConfig,
        MomentumConfig,
        ParticleConfig,
        addDigitization,
        addFatras,
        addParticleGun,
    )

    detector = examples.GenericDetector()
    geometry = detector.trackingGeometry()
    field = acts.ConstantBField(acts.Vector3(0, 0, 2 * acts.UnitConstants.T))
    random = examples.RandomNumbers(seed=1)
    blur = {"mean": 0.0, "stddev": 0.02, "type": "Gauss"}
    digitisation = tmp_path / "digitisation.json"
    smearing = {"smearing": [{"index": 0, **blur}, {"index": 1, **blur}]}
    entries = [{"volume": volume, "value": smearing} for volume in VOLUMES]
    head = {"format-version": 0, "value-identifier": "digitization-configuration"}
    digitisation.write_text(json.dumps({"acts-geometry-hierarchy-map": head, "entries": entries}))
    sequencer = examples.Sequencer(
        events=2, numThreads=1, logLevel=acts.logging.ERROR, trackFpes=False
    )
    addParticleGun(
        sequencer,
        MomentumConfig(1.0, 10.0, transverse=True),
        EtaConfig(-1.0, 1.0, uniform=True),
        ParticleConfig(5, acts.PdgParticle.eMuon, randomizeCharge=True),
        rnd=random,
    )
    addFatras(sequencer, geometry, field, random, outputDirCsv=tmp_path)
    addDigitization(sequencer, geometry, field, digitisation, rnd=random, outputDirCsv=tmp_path)
    sequencer.run()

    sources = find_any_events(tmp_path)
    assert [source.event_id for source in sources] == [0, 1]
    for source in sources:
        event = source.read()
        assert event.truth is not None
        particles = event.truth.particles
        assert particles.primary.sum() == 5
        assert len(event.hits) > 5 * 8
        assert np.isin(event.truth.particle_id, particles.particle_id).all()
        assert set(np.unique(event.hits.modules.volume_id)) <= set(VOLUMES)
        phi = {p: particles.phi[i] for i, p in enumerate(particles.particle_id)}
        first = np.hypot(event.hits.x, event.hits.y) < 50
        expected = np.array([phi[p] for p in event.truth.particle_id[first]])
        turn = np.arctan2(event.hits.y[first], event.hits.x[first]) - expected
        assert first.any()
        assert (np.abs((turn + np.pi) % (2 * np.pi) - np.pi) < 0.1).all()
        np.testing.assert_allclose(event.truth.weight.sum(), 1)


def test_cells_written_again_count_once(tmp_path: Path) -> None:
    again = f"{GEOMETRY[0]},0,157,1025,0,0.5\n"
    prefix = write_tables(tmp_path, {**PRESENT, "cells": PRESENT["cells"] + again})
    event = read_event(prefix, cells=True)
    assert event.hits.clusters is not None
    assert event.hits.clusters.cells.tolist() == [2, 0, 1]
    np.testing.assert_allclose(event.hits.clusters.charge, [0.5724, 0, 0.5], rtol=1e-6)


def test_the_measurement_of_a_cell_goes_before_its_hit(tmp_path: Path) -> None:
    rows = PRESENT["cells"].splitlines()
    both = [f"hit_id,{rows[0]}", *(f"{77 + i},{row}" for i, row in enumerate(rows[1:]))]
    check(read_event(write_tables(tmp_path, {**PRESENT, "cells": "\n".join(both)}), cells=True))
