"""Reading a bundle: what fits is read as it is, what doesn't is refused with file, tensor, expectation."""

from __future__ import annotations

import re
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import trackserve.bundle
from tiny_bundle import straight_tracks, write_tiny_bundle
from trackserve.bundle import BUNDLE_FILE, NETWORKS, read_bundle, shipped_bundle
from trackserve.engines.reference import ReferencePipeline
from trackserve.errors import BundleError, InputError
from trackserve.pipeline.check import check_answers
from trackserve.pipeline.features import hit_features


@pytest.fixture
def folder(tiny_bundle, tmp_path):
    """A copy of the tiny bundle, to be damaged."""
    return shutil.copytree(tiny_bundle.path, tmp_path / "bundle")


def refusal(folder, check=read_bundle) -> str:
    with pytest.raises(BundleError) as raised:
        check(folder)
    message = str(raised.value)
    assert "\n" not in message
    return message


def describe(folder, old: str, new: str) -> None:
    path = folder / BUNDLE_FILE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def write_network(folder, name, nodes, *, dtype="float", edges="int64[2, e]", width=3, output):
    """Replace a network by these nodes, in ONNX's textual form."""
    inputs = f"{dtype}[n, {width}] features" + (f", {edges} edges" if name != "embedding" else "")
    header = '<ir_version: 9, opset_import: ["": 18]>'
    text = f"{header} net ({inputs}) => ({output}) {{ {nodes} }}"
    onnx.save(onnx.parser.parse_model(text), folder / f"{name}.onnx")


# ---- what fits


@pytest.mark.parametrize("features", range(3, 13))
def test_networks_of_other_sizes_load_and_run(features, tmp_path):
    bundle = write_tiny_bundle(
        tmp_path / "bundle",
        features=features,
        dimension=1 + features % 5,
        width=3 + 5 * features,
        logit_column=features % 2 == 0,
        radius=2.0,
        method="walk" if features % 3 else "components",
    )
    assert len(bundle.features.columns) == features
    check_answers(bundle)
    hits = straight_tracks(tracks=30, noise=20)
    out = ReferencePipeline(bundle).run(hit_features(hits, bundle.features))
    assert out.embedding.shape == (320, bundle.embedding_dimension)
    assert out.candidates.edges.shape[1] >= out.filtered.edges.shape[1] == len(out.scored.scores)
    assert out.candidates.edges.shape[1] > 100


def test_every_setting_is_read(folder):
    describe(
        folder,
        "limit = 4",
        "limit = 9\n[neighbours.cuts]\nslope = 1e-3\nz0 = 200\ndphi = 0.1\ndcot = 0.2",
    )
    describe(folder, "cut = 0.5", "cut = 0.5\nmin_hits = 4")
    describe(folder, 'name = "tiny"', 'name = "tiny"\nprecision = "bfloat16"')
    with (folder / BUNDLE_FILE).open("a") as file:
        file.write("[provenance]\nseed = 3\n[provenance.anything]\ngoes = true\n")
    bundle = read_bundle(folder)
    assert (bundle.name, bundle.detector, bundle.precision) == (
        "tiny",
        "made for a test",
        "bfloat16",
    )
    assert bundle.features.columns == ("r", "phi", "z")
    assert bundle.features.scales == (1000.0, 3.2, 1000.0)
    assert (bundle.radius, bundle.neighbour_limit, bundle.filter_cut) == (1.0, 9, 0.2)
    assert vars(bundle.doublet_cuts) == {"slope": 1e-3, "z0": 200.0, "dphi": 0.1, "dcot": 0.2}
    builder = bundle.track_builder
    assert (builder.method, builder.cut, builder.min_hits) == ("components", 0.5, 4)
    assert bundle.provenance == {"seed": 3, "anything": {"goes": True}}


SECOND = """
[second_pass.neighbours.cuts]
z0 = 400.0

[second_pass.tracks]
cut = 0.25
"""


def test_the_second_pass_is_the_bundle_with_some_settings_changed(folder):
    describe(folder, "[tracks]", "[extent]\nr = [30.0, 1000.0]\nz = 3000.0\n\n[tracks]")
    path = folder / BUNDLE_FILE
    path.write_text(path.read_text() + SECOND)
    bundle = read_bundle(folder)
    second = bundle.second_pass
    assert second is not None
    assert (bundle.doublet_cuts.z0, second.doublet_cuts.z0) == (np.inf, 400.0)
    assert (bundle.track_builder.cut, second.track_builder.cut) == (0.5, 0.25)
    assert second.track_builder.method == bundle.track_builder.method
    assert (second.radius, second.filter_cut) == (bundle.radius, bundle.filter_cut)
    assert second.second_pass is None
    assert bundle.budget.extent.known
    assert not second.budget.extent.known, "left over hits may lie anywhere in the detector"
    changed = bundle.with_budget({"edges": 7.0})
    assert changed.second_pass is not None
    assert (changed.budget.edges, changed.second_pass.budget.edges) == (7.0, 7.0)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("[second_pass.tracks]", "[second_pass.features]", "second_pass.features is not a table"),
        ("[second_pass.tracks]", "[second_pass.triplets]", "second_pass.triplets is not a table"),
        ("[second_pass.tracks]", "[second_pass.second_pass.tracks]", "second_pass.second_pass is"),
        ("z0 = 400.0", "z = 400.0", "in second_pass, neighbours.cuts.z is not a setting"),
        ("cut = 0.25", "cut = 2.5", "in second_pass, track builder has cut 2.5"),
        ("cut = 0.25", "min_quality = 0.5", "in second_pass, tracks.join is 0"),
    ],
)
def test_a_second_pass_that_cannot_be(folder, old, new, reason):
    path = folder / BUNDLE_FILE
    path.write_text(path.read_text() + SECOND.replace(old, new))
    assert reason in refusal(folder)


def test_digest_follows_the_contents(folder, tiny_bundle):
    assert read_bundle(folder).digest() == tiny_bundle.digest()
    describe(folder, "cut = 0.5", "cut = 0.6")
    assert read_bundle(folder).digest() != tiny_bundle.digest()


def test_weights_may_be_among_the_inputs(folder):
    """As exporters for old versions of the format write them."""
    model = onnx.load(folder / "embedding.onnx")
    for weight in model.graph.initializer:
        value = helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        model.graph.input.append(value)
    onnx.save(model, folder / "embedding.onnx")
    check_answers(read_bundle(folder))


# ---- the folder


@pytest.mark.parametrize("member", [BUNDLE_FILE, *(f"{name}.onnx" for name in NETWORKS)])
def test_a_missing_member(folder, member):
    (folder / member).unlink()
    assert refusal(folder).startswith(f"{folder / member} is missing; a bundle has")


def test_no_folder(tmp_path, folder):
    assert "is not a folder; a bundle is a folder with" in refusal(tmp_path / "nowhere")
    assert "is not a folder" in refusal(folder / BUNDLE_FILE)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("damage", ["empty", "truncated", "text"])
def test_a_corrupt_network(folder, name, damage):
    path = folder / f"{name}.onnx"
    content = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "truncated": content[: len(content) // 2], "text": b"not a network"}[damage]
    )
    assert refusal(folder).startswith(f"{path} is not a valid ONNX network: ")


def test_an_oversized_member(folder, monkeypatch):
    monkeypatch.setattr(trackserve.bundle, "MAX_MEMBER_BYTES", 700)
    size = (folder / "embedding.onnx").stat().st_size
    assert size > 700
    expected = f"{folder / 'embedding.onnx'} has {size:,} bytes; expected at most 700"
    assert refusal(folder) == expected


def test_the_real_limit_refuses_a_sparse_file_without_reading_it(folder):
    with (folder / "gnn.onnx").open("r+b") as file:
        file.truncate(2**40)
    assert "gnn.onnx has 1,099,511,627,776 bytes; expected at most 268,435,456" in refusal(folder)


def test_weights_outside_the_file(folder):
    path = folder / "gnn.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, size_threshold=0)
    assert refusal(folder) == (
        f"{path} keeps weights outside the file; export it with its weights inside"
    )


def test_weights_outside_the_file_hidden_in_a_node(folder, monkeypatch):
    weight = onnx.numpy_helper.from_array(np.ones((3, 4), np.float32), "w")
    onnx.external_data_helper.set_external_data(weight, "secret")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 18]>'
        "net (float[n, 3] features) => (float[n, 4] embedding)"
        "{ w = Constant<value = float[1] {0}>() embedding = MatMul(features, w) }"
    )
    model.graph.node[0].attribute[0].t.CopyFrom(weight)
    onnx.save(model, folder / "embedding.onnx")
    (folder / "secret").write_bytes(np.ones((3, 4), np.float32).tobytes())
    monkeypatch.chdir(folder)
    assert "keeps weights outside the file" in refusal(folder)


def test_an_unknown_shipped_bundle(tmp_path, monkeypatch):
    with pytest.raises(BundleError, match="no bundle named 'atlas' comes with this package"):
        shipped_bundle("atlas")
    monkeypatch.setattr(trackserve.bundle, "SHIPPED", tmp_path)
    with pytest.raises(BundleError, match=r"there is: none$"):
        read_bundle()


# ---- bundle.toml


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("format = 1", "format = 2", "format is 2; this version of trackserve reads format 1"),
        ("format = 1", "", "format is missing; expected int"),
        ('name = "tiny"', "name = 3", "name is 3; expected str"),
        (
            'name = "tiny"',
            'name = "tiny"\nprecision = "bf16"',
            "precision is 'bf16'; expected one of float32, bfloat16, int8",
        ),
        ('detector = "made for a test"', "", "detector is missing; expected str"),
        ("dimension = 4", "dimension = 4.0", "embedding.dimension is 4.0; expected int"),
        ("dimension = 4", "dimension = true", "embedding.dimension is True; expected int"),
        ("dimension = 4", "dimension = 0", "embedding dimension 0, .* expected at least 1"),
        ("radius = 1.0", 'radius = "1"', "neighbours.radius is '1'; expected int or float"),
        ("radius = 1.0", "radius = -1", "radius -1.0, .* expected a positive radius"),
        ("radius = 1.0", "radius = nan", "radius nan, .* expected a positive radius"),
        ("limit = 4", "limit = 0", "neighbour limit 0; expected at least 1"),
        ("limit = 4", "limt = 4", "neighbours.limit is missing; expected int"),
        (
            "limit = 4",
            "limit = 4\nlimits = 4",
            r"neighbours.limits is not a setting of a bundle; did you mean neighbours.limit\?",
        ),
        ("[filter]", "[colour]\nred = 1\n[filter]", "colour.red is not a setting of a bundle"),
        (
            "limit = 4",
            "limit = 4\n[neighbours.cuts]\nslope = 0",
            "doublet cuts are .*; expected positive slope",
        ),
        ("cut = 0.2", "cut = 1.0", "filter cut 1.0; expected .* a cut between 0 and 1"),
        (
            'method = "components"',
            'method = "magic"',
            "track builder 'magic' is unknown; known are components and walk",
        ),
        ("cut = 0.5", "cut = 1.5", "track builder has cut 1.5 .*; expected a score in"),
        ("cut = 0.5", "cut = 0.5\nmin_hits = 0", "min_hits 0; expected .* at least 1"),
        ("'phi'", "'colour'", "unknown feature column 'colour'; known are x, y, z, "),
        ("'phi'", "['phi']", r"unknown feature column \['phi'\]"),
        ("3.2", "-1.0", "expected one positive, finite scale for each column"),
        ("3.2", "inf", "expected one positive, finite scale for each column"),
        ("3.2", "'wide'", "features: could not convert string to float: 'wide'"),
        (", 3.2", "", r"3 feature columns with scales \[1000.0, 1000.0\]; expected one"),
        ("'phi'", "'theta'", "expected x, y, z or r, phi, z among them"),
        ("absent = {", "absent = { charge = inf", "charge is inf where absent; expected a finite"),
        ("absent = {", "absent = 3 #", "features.absent is 3; expected dict"),
        ("[filter]", "[filter", "is not valid TOML: "),
        ("[filter]", "[extent]\nr = 1\nz = 2\n[filter]", "expected r = .least, greatest."),
        (
            "[filter]",
            "[extent]\nr = [9, 1]\nz = 2\n[filter]",
            "expected the least and the greatest r",
        ),
        (
            "[filter]",
            "[budget]\nedge = 2\n[filter]",
            "budget.edge is 2; expected a number for one of",
        ),
        (
            "[filter]",
            "[budget]\nedges = 0\n[filter]",
            "budget.edges is 0; expected a positive number",
        ),
        ("[filter]", "[budget]\noutside = 'no'\n[filter]", "'no'; expected refuse or warn"),
    ],
)
def test_a_description_that_cannot_be_used(folder, old, new, reason):
    describe(folder, old, new)
    message = refusal(folder)
    assert message.startswith(str(folder / BUNDLE_FILE))
    assert re.search(reason, message), message


def test_a_description_that_is_not_text(folder):
    (folder / BUNDLE_FILE).write_bytes(b"\xff\xfe\x00")
    assert "is not valid TOML" in refusal(folder)


# ---- what the networks declare


@pytest.mark.parametrize(
    ("name", "tensor", "found", "expected", "changes"),
    [
        ("embedding", "features", "FLOAT [-, 5]", "FLOAT [-, 3]", {"width": 5}),
        ("embedding", "features", "DOUBLE [-, 3]", "FLOAT [-, 3]", {"dtype": "double"}),
        ("filter", "features", "FLOAT [-, 4]", "FLOAT [-, 3]", {"width": 4}),
        ("filter", "edges", "INT32 [2, -]", "INT64 [2, -]", {"edges": "int32[2, e]"}),
        ("gnn", "edges", "INT64 [3, -]", "INT64 [2, -]", {"edges": "int64[3, e]"}),
        ("gnn", "edges", "INT64 [-]", "INT64 [2, -]", {"edges": "int64[e]"}),
        ("embedding", "out", "FLOAT [-, 8]", "FLOAT [-, 4]", {"output": "float[n, 8] out"}),
        ("gnn", "out", "INT64 [-]", "FLOAT [-]", {"output": "int64[e] out"}),
        ("gnn", "out", "FLOAT [-, 2]", "FLOAT [-]", {"output": "float[e, 2] out"}),
    ],
)
def test_a_tensor_that_does_not_fit(folder, name, tensor, found, expected, changes):  # noqa: PLR0917
    # What the networks do doesn't matter here, what they declare does.
    good = {"output": "float[n, 4] out" if name == "embedding" else "float[e] out"}
    write_network(folder, name, "out = Declared(features)", **(good | changes))
    model = onnx.load(folder / f"{name}.onnx")
    model.graph.node[0].domain = "test"
    model.opset_import.append(helper.make_opsetid("test", 1))
    onnx.save(model, folder / f"{name}.onnx")
    assert refusal(folder) == (
        f"{folder / name}.onnx: tensor '{tensor}' is {found}; expected {expected}"
    )


def test_inputs_of_another_name(folder):
    shutil.copy(folder / "embedding.onnx", folder / "filter.onnx")
    assert refusal(folder) == (
        f"{folder / 'filter.onnx'} has inputs features; expected features, edges"
    )


def test_several_outputs(folder):
    nodes = "out = Identity(features) more = Identity(features)"
    write_network(folder, "embedding", nodes, output="float[n, 4] out, float[n, 4] more")
    assert refusal(folder).endswith("embedding.onnx has 2 outputs; expected one")


# ---- what the networks answer


@pytest.mark.parametrize(
    ("name", "nodes", "reason"),
    [
        (
            "embedding",
            "out = Identity(features)",
            "answers features [0, 3] with float32 [0, 3]; expected float32 [0, 4]",
        ),
        (
            "embedding",
            "x = Concat<axis = 1>(features, features) i = Constant<value_ints = [0, 1, 2, 3]>() "
            "y = Gather<axis = 1>(x, i) z = Sub(y, y) out = Div(z, z)",
            "answers features [1, 3] with nan; expected finite numbers",
        ),
        (
            "filter",
            "one = Constant<value_ints = [1]>() out = ReduceSum(features, one)",
            "answers features [300, 3] and edges [2, 299] with float32 [300, 1]; "
            "expected float32 [299]",
        ),
        (
            "gnn",
            "s = Constant<value_ints = [1, -1]>() x = Reshape(edges, s) out = Cast<to = 1>(x)",
            "answers features [300, 3] and edges [2, 299] with float32 [1, 598]; "
            "expected float32 [299]",
        ),
        (
            "gnn",
            "s = Constant<value_ints = [7]>() x = Reshape(features, s) out = Identity(x)",
            "fails on features [300, 3] and edges [2, 299]: ",
        ),
    ],
)
def test_a_network_that_answers_otherwise_than_it_declares(folder, name, nodes, reason):
    write_network(folder, name, nodes, output="float[a, b] out")
    if name != "embedding":
        model = onnx.load(folder / f"{name}.onnx")
        del model.graph.output[0].type.tensor_type.shape.dim[1]
        onnx.save(model, folder / f"{name}.onnx")
    message = refusal(read_bundle(folder), check_answers)
    assert message.startswith(f"{folder / name}.onnx {reason}")


def test_an_operator_that_onnxruntime_does_not_know(folder):
    magic = helper.make_node("Magic", ["features"], ["out"], domain="elsewhere")
    graph = helper.make_graph(
        [magic],
        "net",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 4])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("elsewhere", 1)]
    onnx.save(
        helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "embedding.onnx"
    )
    bundle = read_bundle(folder)
    message = refusal(bundle, ReferencePipeline)
    assert message.startswith(f"{folder / 'embedding.onnx'} can't be opened by onnxruntime: ")


def test_the_sound_bundle_is_found_sound(tiny_bundle):
    check_answers(tiny_bundle)


# ---- what a bundle refuses of its caller


def test_features_that_do_not_fit(tiny_bundle):
    pipeline = ReferencePipeline(tiny_bundle)
    for features, reason in (
        (np.zeros((4, 2), np.float32), r"float32 \[4, 2\]; expected float32 of shape \[N, 3\]: r"),
        (np.zeros((4, 3)), r"float64 \[4, 3\]; expected float32"),
        (np.zeros(3, np.float32), r"float32 \[3\]; expected float32"),
        (np.full((4, 3), np.nan, np.float32), "row 0: r is nan"),
    ):
        with pytest.raises(InputError, match=reason):
            pipeline.find_tracks_from_features(features)


def test_threads_must_be_positive(tiny_bundle):
    with pytest.raises(InputError, match="threads is 0; expected at least 1"):
        ReferencePipeline(tiny_bundle, threads=0)


# ---- what a stranger may have put into it


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a = " + "9" * 5000, "cannot be read"),
        ("# " + "x" * 2**20, "expected at most 1,048,576"),
    ],
    ids=["deep", "digits", "long"],
)
def test_a_description_that_only_costs_time_is_refused(folder, text, expected):
    (folder / BUNDLE_FILE).write_text(text)
    assert expected in refusal(folder)


@pytest.mark.parametrize("limit", ["10000000000000000000000", "2147483648"])
def test_a_number_beyond_32_bits_is_refused(folder, limit):
    describe(folder, "limit = 4", f"limit = {limit}")
    assert "neighbours.limit" in refusal(folder)


@pytest.mark.parametrize("value", ["inf", "-1.0", "1e300"])
def test_a_radius_that_is_no_distance_is_refused(folder, value):
    describe(folder, "radius = 1.0", f"radius = {value}")
    assert "radius" in refusal(folder)


def test_a_network_with_a_loop_is_refused(folder):
    model = onnx.load(folder / "embedding.onnx")
    body = onnx.parser.parse_graph(
        "body (int64 i, bool again, float[n] x) => (bool go_on, float[n] y) "
        "{ go_on = Identity (again) y = Identity (x) }"
    )
    forever = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    most = helper.make_tensor("most", TensorProto.INT64, [], [2**60])
    model.graph.initializer.extend([forever, most])
    model.graph.node.insert(
        0, helper.make_node("Loop", ["most", "true", "most"], ["unused"], body=body)
    )
    onnx.save(model, folder / "embedding.onnx")
    assert "has the operator Loop" in refusal(folder)
