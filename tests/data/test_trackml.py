from __future__ import annotations

import gzip
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackserve.data import find_events as find_any_events
from trackserve.data.tables import write_table
from trackserve.data.trackml import (
    Cells,
    Form,
    SimulatedEvent,
    cluster_shapes,
    find_events,
    is_primary,
    read_event,
    write_event,
)
from trackserve.errors import InputError
from trackserve.event import Clusters, Event, Hits, Modules, Particles, Truth

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# The first lines of an event of the challenge, shuffled and with what pandas adds. Noise hits carry
# particle 0, a padded weight and a momentum without meaning.
TRACKML = {
    "hits": """,z,y,x,hit_id,module_id,layer_id,volume_id
0,-1502.5,-7.1637,-64.4099,1,1,2,7
1,-1502.5,0.635342,-55.3361,2,1,2,7
2,-1502.5,-1.14332,-83.8305,3,1,2,7
""",
    "cells": "hit_id,ch0,ch1,value\n1,209,617,0.0138317\n1,210,617,0.0798866\n1,209,618,0.211723\n"
    "3,68,446,0.334087\n",
    "particles": "particle_id,vx,vy,vz,px,py,pz,q,nhits\n"
    "4503668346847232,-0.00928816,0.00986098,-0.0778789,-0.0552689,0.323272,-0.203492,-1,8\n"
    "22525763437723648,-0.0113825,0.00894752,-11.4703,-0.570605,0.0283904,-15.4922,1,1\n",
    "truth": "hit_id,particle_id,tx,ty,tz,tpx,tpy,tpz,weight\n"
    "3,0,-83.828,-1.14558,-1502.5,626295,-169767,-760877,     0\n"
    "2,22525763437723648,-55.3385,0.630805,-1502.5,-0.570605,0.0283904,-15.4922,9.86408e-06\n"
    "1,0,-64.4116,-7.16412,-1502.5,250710,-149908,-956385,     0\n",
}


def write_tables(folder: Path, tables: dict[str, str], event: int = 1000) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    for name, text in tables.items():
        (folder / f"event{event:09d}-{name}.csv").write_bytes(text.encode())
    return folder / f"event{event:09d}"


def replaced(table: str, old: str, new: str) -> dict[str, str]:
    assert old in TRACKML[table]
    return {**TRACKML, table: TRACKML[table].replace(old, new)}


def check_trackml_event(event: Event, *, cells: bool = False) -> None:
    hits, truth = event.hits, event.truth
    assert event.event_id == 1000
    assert hits.hit_id.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(hits.x, np.float32([-64.4099, -55.3361, -83.8305]))
    np.testing.assert_array_equal(hits.y, np.float32([-7.1637, 0.635342, -1.14332]))
    assert hits.modules is not None
    assert hits.modules.volume_id.tolist() == [7, 7, 7]
    assert truth is not None
    assert truth.particle_id.tolist() == [0, 22525763437723648, 0]
    assert truth.weight.tolist() == [0, 9.86408e-06, 0]
    assert truth.particles.particle_id.tolist() == [4503668346847232, 22525763437723648]
    assert truth.particles.vz.tolist() == [-0.0778789, -11.4703]
    assert truth.particles.primary.tolist() == [True, True]
    assert (hits.clusters is not None) == cells


def simulated_event(seed: int, *, hits: int = 50, particles: int = 8) -> SimulatedEvent:
    """An event whose numbers are random and have the digits that files keep."""
    random = np.random.default_rng(seed)
    barcode = np.unique(random.integers(1, 1 << 63, particles))
    some = (barcode, np.zeros(1, np.int64))
    ids = random.choice(np.concatenate(some), hits)

    def lengths(*shape: int) -> np.ndarray:
        return np.round(random.normal(0, 500, shape), 3)

    def numbers(*shape: int) -> np.ndarray:
        return np.round(random.normal(0, 1, shape), 4)

    x, y, z = lengths(3, hits).astype(np.float32)
    volume, layer, module = random.integers(0, 3000, (3, hits), dtype=np.int32)
    owner = np.sort(random.integers(1, hits + 1, 3 * hits)) if hits else np.zeros(0, np.int64)
    truth = Truth(
        particle_id=ids,
        weight=np.round(random.random(hits), 6),
        particles=Particles(
            barcode,
            *numbers(6, len(barcode)),
            q=random.choice([-1.0, 1.0], len(barcode)),
            primary=is_primary(barcode),
        ),
    )
    return SimulatedEvent(
        event=Event(
            seed, Hits(np.arange(1, hits + 1), x, y, z, Modules(volume, layer, module)), truth
        ),
        cells=Cells(
            owner,
            *random.integers(0, 1280, (2, len(owner)), dtype=np.int32),
            numbers(len(owner)).astype(np.float32),
        ),
        true_position=lengths(hits, 3).astype(np.float32),
        true_momentum=numbers(hits, 3).astype(np.float32),
        particle_type=random.choice(np.int32([211, -13, 2212]), len(barcode)),
    )


def assert_equal(read: object, written: object, tolerance: float = 0) -> None:
    for name, value in vars(written).items():
        other = getattr(read, name)
        if isinstance(value, np.ndarray):
            assert other.dtype == value.dtype, name
            np.testing.assert_allclose(other, value, rtol=tolerance, err_msg=name)
        elif hasattr(value, "__dataclass_fields__"):
            assert_equal(other, value, tolerance)


class TestWriteAndRead:
    @pytest.mark.parametrize("form", get_args(Form))
    @pytest.mark.parametrize("seed", [1, 2])
    def test_reading_gives_what_was_written(self, tmp_path: Path, seed: int, form: Form) -> None:
        simulated = simulated_event(seed)
        write_event(tmp_path, simulated, form)
        assert len(list(tmp_path.iterdir())) == 4
        event = read_event(tmp_path / f"event{seed:09d}", cells=True)
        hits, cells = simulated.event.hits, simulated.cells
        expected = Hits(
            hits.hit_id, hits.x, hits.y, hits.z, hits.modules, cluster_shapes(cells, hits.hit_id)
        )
        # Parquet keeps six digits as float32, which a float64 doesn't repeat exactly.
        tolerance = 1e-7 if form == "parquet" else 0
        assert_equal(event, Event(seed, expected, simulated.event.truth), tolerance)

    @pytest.mark.parametrize("form", get_args(Form))
    def test_zero_hits_and_zero_particles(self, tmp_path: Path, form: Form) -> None:
        write_event(tmp_path, simulated_event(3, hits=0, particles=0), form)
        event = read_event(tmp_path / "event000000003", cells=True)
        assert len(event.hits) == 0
        assert event.truth is not None
        assert len(event.truth.particles) == 0

    def test_the_columns_are_those_of_the_challenge(self, tmp_path: Path) -> None:
        write_event(tmp_path, simulated_event(4), "csv")
        headers = {
            path.stem.partition("-")[2]: path.read_text().partition("\n")[0]
            for path in tmp_path.iterdir()
        }
        assert headers == {
            "hits": "hit_id,x,y,z,volume_id,layer_id,module_id",
            "cells": "hit_id,ch0,ch1,value",
            "particles": "particle_id,particle_type,vx,vy,vz,px,py,pz,q,nhits",
            "truth": "hit_id,particle_id,tx,ty,tz,tpx,tpy,tpz,weight",
        }

    @pytest.mark.parametrize("form", ["csv.gz", "parquet"])
    def test_the_same_event_gives_the_same_bytes(self, tmp_path: Path, form: Form) -> None:
        for folder in ("a", "b"):
            write_event(tmp_path / folder, simulated_event(5), form)
        for path in (tmp_path / "a").iterdir():
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()

    def test_a_damaged_parquet_table_is_named(self, tmp_path: Path) -> None:
        write_event(tmp_path, simulated_event(5), "parquet")
        file = tmp_path / "event000000005-hits.parquet"
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(InputError, match=r"hits\.parquet is not a Parquet file or is damaged"):
            read_event(tmp_path / "event000000005")

    @pytest.mark.parametrize(
        ("column", "values", "message"),
        [
            ("hit_id", np.array([0.5, 1.5]), "hit_id is double .*; expected int64"),
            ("x", np.array([0.0, np.nan]), "row 2: x is nan"),
            ("volume_id", np.array([7, 2**40]), "volume_id has numbers too large for int32"),
            ("other", np.array([1, 2]), "has no column x; it has hit_id, y, z, other"),
        ],
    )
    def test_columns_of_parquet_are_checked(
        self, tmp_path: Path, column: str, values: NDArray[np.generic], message: str
    ) -> None:
        columns = {"hit_id": np.array([1, 2]), **{each: np.zeros(2) for each in "xyz"}}
        if column == "other":
            del columns["x"]
        write_table(tmp_path / "event000000001-hits.parquet", {**columns, column: values})
        with pytest.raises(InputError, match=message):
            read_event(tmp_path / "event000000001", truth=False)

    def test_nhits_counts_the_hits_of_each_particle(self, tmp_path: Path) -> None:
        simulated = simulated_event(6)
        write_event(tmp_path, simulated, "csv")
        rows = (tmp_path / "event000000006-particles.csv").read_text().splitlines()[1:]
        assert simulated.event.truth is not None
        ids = simulated.event.truth.particle_id.tolist()
        assert rows
        for row in rows:
            fields = row.split(",")
            assert int(fields[-1]) == ids.count(int(fields[0]))

    def test_positions_are_kept_to_a_micrometre_and_the_rest_to_six_digits(
        self, tmp_path: Path
    ) -> None:
        simulated = simulated_event(7, hits=1, particles=1)
        hits = simulated.event.hits
        exact = Hits(
            hits.hit_id,
            *np.float32([[12.34567], [-0.00012], [2999.9996]]),
            modules=hits.modules,
        )
        momentum = np.float32([[1.23456789, -1.2345678e-5, 123.456789]])
        write_event(
            tmp_path,
            SimulatedEvent(
                Event(7, exact, simulated.event.truth),
                simulated.cells,
                simulated.true_position,
                momentum,
                simulated.particle_type,
            ),
            "csv",
        )
        row = (tmp_path / "event000000007-hits.csv").read_text().splitlines()[1].split(",")
        assert [float(value) for value in row[1:4]] == [12.346, 0, 3000]
        row = (tmp_path / "event000000007-truth.csv").read_text().splitlines()[1].split(",")
        assert [float(value) for value in row[5:8]] == [1.23457, -1.23457e-5, 123.457]

    def test_an_event_without_truth_or_modules_is_no_simulated_event(self) -> None:
        whole = simulated_event(8)
        with pytest.raises(InputError, match="lacks truth or modules"):
            SimulatedEvent(
                Event(8, whole.event.hits),
                whole.cells,
                whole.true_position,
                whole.true_momentum,
                whole.particle_type,
            )
        with pytest.raises(
            InputError, match=r"true_momentum has shape \[49, 3\]; expected \[50, 3\]"
        ):
            SimulatedEvent(
                whole.event,
                whole.cells,
                whole.true_position,
                whole.true_momentum[1:],
                whole.particle_type,
            )


class TestRealEvent:
    def test_shuffled_columns_and_an_index_column(self, tmp_path: Path) -> None:
        check_trackml_event(read_event(write_tables(tmp_path, TRACKML)))

    def test_windows_line_ends_and_a_byte_order_mark(self, tmp_path: Path) -> None:
        tables = {name: "\ufeff" + text.replace("\n", "\r\n") for name, text in TRACKML.items()}
        check_trackml_event(read_event(write_tables(tmp_path, tables), cells=True), cells=True)

    def test_no_line_end_after_the_last_row(self, tmp_path: Path) -> None:
        tables = {name: text.rstrip("\n") for name, text in TRACKML.items()}
        check_trackml_event(read_event(write_tables(tmp_path, tables), cells=True), cells=True)

    def test_quoted_header_and_particle_type(self, tmp_path: Path) -> None:
        tables = dict(TRACKML)
        header, _, rows = tables["particles"].partition("\n")
        quoted = ",".join(f'"{name}"' for name in [*header.split(","), "particle_type"])
        typed = "".join(f"{row},211\n" for row in rows.splitlines())
        check_trackml_event(
            read_event(write_tables(tmp_path, {**tables, "particles": f"{quoted}\n{typed}"}))
        )

    def test_without_module_columns(self, tmp_path: Path) -> None:
        tables = {**TRACKML, "hits": "hit_id,x,y,z\n1,0,1,2\n2,3,4,5\n3,6,7,8\n"}
        assert read_event(write_tables(tmp_path, tables)).hits.modules is None

    def test_hits_alone_are_enough_where_no_truth_is_asked(self, tmp_path: Path) -> None:
        prefix = write_tables(tmp_path, {"hits": TRACKML["hits"]})
        assert read_event(prefix, truth=False).truth is None

    def test_particle_ids_are_exact(self, tmp_path: Path) -> None:
        odd = "9007199254740993"  # 2**53 + 1, the first integer that float64 cannot hold
        tables = {name: text.replace("22525763437723648", odd) for name, text in TRACKML.items()}
        truth = read_event(write_tables(tmp_path, tables)).truth
        assert truth is not None
        assert truth.particle_id[1] == int(odd)

    @given(
        st.permutations(["hit_id", "x", "y", "z", "volume_id", "layer_id", "module_id", "spare"])
    )
    def test_any_order_of_columns(
        self, tmp_path_factory: pytest.TempPathFactory, order: list[str]
    ) -> None:
        row = {"hit_id": "5", "x": "1.5", "y": "-2", "z": "1e3", "spare": "?"}
        row |= {"volume_id": "7", "layer_id": "2", "module_id": "11"}
        text = ",".join(order) + "\n" + ",".join(row[name] for name in order) + "\n"
        folder = tmp_path_factory.mktemp("event")
        hits = read_event(write_tables(folder, {"hits": text}), truth=False).hits
        assert hits.modules is not None
        assert (hits.hit_id[0], hits.x[0], hits.y[0], hits.z[0]) == (5, 1.5, -2, 1000)
        assert hits.modules.module_id.tolist() == [11]


class TestClusterShapes:
    def test_by_hand(self) -> None:
        cells = Cells(
            hit_id=np.array([7, 3, 7, 7]),
            ch0=np.int32([10, 4, 12, 11]),
            ch1=np.int32([100, 5, 100, 101]),
            value=np.float32([0.5, 1, 0.25, 0.125]),
        )
        shapes = cluster_shapes(cells, np.array([7, 5, 3]))
        assert_equal(
            shapes,
            Clusters(
                cells=np.int32([3, 0, 1]),
                length_u=np.int32([3, 0, 1]),
                length_v=np.int32([2, 0, 1]),
                charge=np.float32([0.875, 0, 1]),
            ),
        )

    def test_a_cell_of_no_hit(self) -> None:
        one = np.int32([1])
        with pytest.raises(InputError, match="cells row 1: hit_id 9 is not among the hits"):
            cluster_shapes(Cells(np.array([9]), one, one, np.float32([1])), np.array([7]))

    def test_columns_of_unequal_length(self) -> None:
        one = np.int32([1])
        with pytest.raises(InputError, match=r"\[1, 2\] entries"):
            Cells(np.array([9, 9]), one, one, np.float32([1]))


def barcode(vertex: int, secondary: int, particle: int, generation: int, sub: int) -> int:
    return vertex << 52 | secondary << 40 | particle << 24 | generation << 16 | sub


class TestIsPrimary:
    def test_acts_barcodes(self) -> None:
        ids = [
            (1, 0, 1, 0, 0),
            (201, 0, 4096, 0, 0),
            (1, 3, 1, 0, 0),
            (1, 0, 1, 1, 0),
            (1, 0, 1, 0, 2),
        ]
        packed = np.array([barcode(*parts) for parts in ids])
        assert is_primary(packed).tolist() == [True, True, False, False, False]

    def test_ids_of_the_challenge(self) -> None:
        ids = np.array([4503668346847232, 22525763437723648, 418835796137607168])
        assert is_primary(ids).all()

    def test_small_numbers_tell_nothing(self) -> None:
        assert is_primary(np.arange(100)).all()
        assert is_primary(np.zeros(0, dtype=np.int64)).tolist() == []


class TestFindEvents:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for event in (20, 3, 1000):
            write_tables(tmp_path / "events", TRACKML, event)
        return tmp_path / "events"

    def test_a_folder_in_order(self, folder: Path) -> None:
        (folder / "README.txt").write_text("")
        (folder / "detectors.csv").write_text("")
        assert [source.event_id for source in find_events(folder)] == [3, 20, 1000]
        assert [source.event_id for source in find_any_events(folder)] == [3, 20, 1000]
        check_trackml_event(find_events(folder)[-1].read())

    @pytest.mark.parametrize(
        "name", ["event000001000", "event000001000-hits.csv", "event000001000-truth.csv"]
    )
    def test_one_event(self, folder: Path, name: str) -> None:
        (source,) = find_any_events(folder / name)
        check_trackml_event(source.read(cells=True), cells=True)

    def test_a_zip_with_a_folder_inside(self, folder: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "train.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in folder.iterdir():
                archive.write(path, f"train_sample/{path.name}")
            archive.writestr("__MACOSX/._event000000003-hits.csv", "")
        sources = find_any_events(tmp_path / "train.zip")
        assert [source.event_id for source in sources] == [3, 20, 1000]
        check_trackml_event(sources[2].read())
        assert str(sources[0]) == f"{tmp_path / 'train.zip'}:train_sample/event000000003"

    def test_gzipped_and_plain_files_mix(self, folder: Path) -> None:
        path = folder / "event000001000-truth.csv"
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        check_trackml_event(read_event(folder / "event000001000"))

    def test_an_event_still_being_written_is_left_out(self, folder: Path) -> None:
        (folder / "event000000020-hits.csv").unlink()
        assert [source.event_id for source in find_events(folder)] == [3, 1000]
        with pytest.raises(InputError, match="20 has no hits file; it has cells, particles, truth"):
            find_events(folder / "event000000020")

    def test_an_event_that_does_not_exist(self, folder: Path) -> None:
        with pytest.raises(
            InputError, match="no event event000000021; the nearest there are event000000020"
        ):
            find_events(folder / "event000000021")

    def test_more_events_than_one(self, folder: Path) -> None:
        with pytest.raises(InputError, match="holds 3 events; expected the prefix"):
            read_event(folder)

    def test_a_folder_without_events(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="holds no events; expected files named such as event"):
            find_any_events(tmp_path)

    @pytest.mark.parametrize(
        "name", ["missing", "missing.zip", "event000000001", "gone/event000000001"]
    )
    def test_nothing_there(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(InputError, match=r"does not exist|holds no events"):
            find_any_events(tmp_path / name)

    def test_a_file_that_is_no_event(self, tmp_path: Path) -> None:
        (tmp_path / "hits.csv").write_text(TRACKML["hits"])
        with pytest.raises(InputError, match=r"hits\.csv is not named like an event"):
            find_events(tmp_path / "hits.csv")

    @pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 and then nothing"])
    def test_a_broken_zip(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "train.zip").write_bytes(content)
        with pytest.raises(InputError, match=r"train\.zip is named .zip and is not a zip archive"):
            find_events(tmp_path / "train.zip")

    def test_a_damaged_member_of_a_zip(self, tmp_path: Path) -> None:
        path = tmp_path / "train.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("event000000001-hits.csv", TRACKML["hits"])
        path.write_bytes(path.read_bytes().replace(b"-64.4099", b"-64.4098"))
        with pytest.raises(
            InputError, match=r"train.zip:event000000001-hits.csv cannot be read: Bad CRC"
        ):
            find_events(path)[0].read(truth=False)


GARBLED = {
    "nan": (
        replaced("hits", "-83.8305", "nan"),
        "-hits.csv row 3: x is nan; expected a finite number",
    ),
    "infinite": (
        replaced("hits", "-7.1637", "-1e99"),
        "-hits.csv row 1: y is -inf; expected a finite",
    ),
    "text": (
        replaced("hits", "-55.3361", "left"),
        "-hits.csv row 2: x is 'left'; expected a number",
    ),
    "empty field": (
        replaced("hits", "-55.3361", ""),
        "-hits.csv row 2: x is ''; expected a number",
    ),
    "fraction": (
        replaced("hits", ",3,1,2,7", ",3.0,1,2,7"),
        r"-hits.csv row 3: hit_id is '3.0'; expected a whole number \(int64\)",
    ),
    "too large": (
        replaced("hits", ",3,1,2,7", ",3,99999999999,2,7"),
        r"-hits.csv row 3: module_id is '99999999999'; expected a whole number \(int32\)",
    ),
    "short row": (
        replaced("hits", ",2,1,2,7", ",2,1,2"),
        "-hits.csv row 2 has 7 columns; expected 8",
    ),
    "long row": (
        replaced("truth", "-64.4116", "-64,4116"),
        "-truth.csv row 3 has 10 columns; expected 9",
    ),
    "cut off": (
        {**TRACKML, "truth": TRACKML["truth"][:-30]},
        "-truth.csv row 3 has [0-9] columns; expected 9; the file ends there, cut off",
    ),
    "cut off where unused": (
        {**TRACKML, "particles": TRACKML["particles"][:-3]},
        "-particles.csv row 2 has 8 columns; expected 9; the file ends there, cut off",
    ),
    "binary": (
        {**TRACKML, "hits": TRACKML["hits"].replace("-55.3361", "\x00\x01")},
        "-hits.csv row 2: x is",
    ),
    "same hit twice": (
        replaced("hits", ",3,1,2,7", ",1,1,2,7"),
        "-hits.csv row 3: hit_id 1 occurred before, in row 1",
    ),
    "same truth twice": (
        replaced("truth", "\n1,0", "\n2,0"),
        "-truth.csv row 3: hit_id 2 occurred before, in row 2",
    ),
    "same particle twice": (
        replaced("particles", "4503668346847232", "22525763437723648"),
        "-particles.csv row 2: particle_id 22525763437723648 occurred before, in row 1",
    ),
    "truth of no hit": (
        replaced("truth", "\n1,0", "\n9,0"),
        "-truth.csv row 3: hit_id 9 is not among the hits",
    ),
    "hit without truth": (
        {**TRACKML, "truth": TRACKML["truth"][: TRACKML["truth"].index("\n1,0") + 1]},
        "-hits.csv row 1: hit_id 1 is not among the truth",
    ),
    "unknown particle": (
        replaced("truth", "22525763437723648", "17"),
        "-truth.csv row 2: particle_id 17 is not among the particles",
    ),
    "cell of no hit": (
        replaced("cells", "\n3,68", "\n4,68"),
        "-cells.csv row 4: hit_id 4 is not among the hits",
    ),
    "missing column": (
        replaced("truth", "weight", "weigth"),
        r"-truth.csv has no column weight \(did you mean weigth\?\); it has hit_id, particle_id, tx",
    ),
    "no header": (
        {**TRACKML, "hits": TRACKML["hits"].partition("\n")[2]},
        "-hits.csv has no column hit_id.*; it has 0, -1502.5",
    ),
    "empty file": (
        {**TRACKML, "hits": ""},
        "-hits.csv is empty; expected a header with the columns hit_id",
    ),
    "no cells file": (
        {k: v for k, v in TRACKML.items() if k != "cells"},
        "has no cells file; it has hits",
    ),
    "no truth file": (
        {k: v for k, v in TRACKML.items() if k != "truth"},
        "event000001000 has no truth file; it has cells, hits, particles",
    ),
    "no particles file": (
        {k: v for k, v in TRACKML.items() if k != "particles"},
        "event000001000 has no particles file; it has cells, hits, truth",
    ),
}


class TestGarbledEvents:
    @pytest.mark.parametrize(("tables", "message"), GARBLED.values(), ids=GARBLED.keys())
    def test_one_sentence_says_where(
        self, tmp_path: Path, tables: dict[str, str], message: str
    ) -> None:
        prefix = write_tables(tmp_path, tables)
        with pytest.raises(InputError, match=message) as caught:
            read_event(prefix, cells=True)
        assert str(tmp_path / "event000001000") in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda data: data[:-20], "ends in the middle of its gzip data"),
            (lambda data: data[:10], "ends in the middle of its gzip data"),
            (lambda data: b"hit_id" + data, "is named .gz and is not a gzip file"),
            (lambda data: data[:20] + b"\xff\xff\xff" + data[23:], "cannot be read|is damaged"),
            (lambda data: data[:-8] + b"\x00" * 8, "is damaged"),
        ],
        ids=["truncated", "header alone", "not gzip", "flipped bytes", "wrong checksum"],
    )
    def test_broken_gzip(
        self, tmp_path: Path, spoil: Callable[[bytes], bytes], message: str
    ) -> None:
        text = "hit_id,x,y,z\n" + "".join(f"{i},{i}.5,0,1\n" for i in range(100))
        path = tmp_path / "event000000001-hits.csv.gz"
        path.write_bytes(spoil(gzip.compress(text.encode())))
        with pytest.raises(InputError, match=message) as caught:
            read_event(path, truth=False)
        assert str(path) in str(caught.value)

    @given(st.data())
    def test_no_garbling_escapes_as_another_error(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        text = TRACKML["hits"].encode()
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(start + 20, len(text))))
        garbled = text[:start] + data.draw(st.binary(max_size=5)) + text[end:]
        folder = tmp_path_factory.mktemp("event")
        (folder / "event000000001-hits.csv").write_bytes(garbled)
        try:
            event = read_event(folder / "event000000001", truth=False)
        except InputError as error:
            assert str(folder) in str(error)
        else:
            assert np.isfinite(event.hits.x).all()


class TestShippedEvents:
    FOLDER = Path(__file__).parents[2] / "examples" / "events"

    @pytest.mark.parametrize(("name", "hits"), [("pu20", 18330), ("pu200", 122617)])
    def test_they_are_whole(self, name: str, hits: int) -> None:
        (source,) = find_any_events(self.FOLDER / name)
        event = source.read(cells="cells" in source.tables)
        assert len(event.hits) == hits
        assert event.truth is not None
        np.testing.assert_allclose(event.truth.weight.sum(), 1, atol=1e-5)
        np.testing.assert_allclose(np.mean(event.truth.particle_id == 0), 0.15, atol=0.001)
        assert 0.7 < event.truth.particles.primary.mean() < 0.95


def test_a_folder_of_other_files_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    for name in ("a.root", "b.root", "c.root", "d.root", "notes.txt"):
        (tmp_path / name).touch()
    found = r"holds no events but a.root, b.root, c.root, d.root and 1 more; expected files"
    with pytest.raises(InputError, match=found):
        find_any_events(tmp_path)
