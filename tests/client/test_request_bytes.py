"""A request written by hand is the one that protobuf reads."""

from __future__ import annotations

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from trackserve.client.connection import request_bytes
from trackserve.contract.tensors import TRACK_FINDING
from trackserve.contract.wanted import LABELS_ONLY, Wanted


# Lengths of one, two and three bytes in protobuf.
@pytest.mark.parametrize("hits", [0, 10, 11, 1365, 1366, 20_000])
def test_protobuf_reads_what_was_written(hits):
    table = np.random.default_rng(hits).normal(size=(hits, 3)).astype(np.float32)
    wanted = Wanted(parameters=True, min_quality=0.25, bundle="second")
    data = request_bytes(TRACK_FINDING, table, "run7", wanted)
    request = service_pb2.ModelInferRequest.FromString(data)
    assert (request.model_name, request.id) == ("track_finding", "run7")
    (given,) = request.inputs
    assert (given.name, given.datatype, list(given.shape)) == ("HITS", "FP32", [hits, 3])
    assert list(request.raw_input_contents) == [table.tobytes()]
    assert request.parameters["track_parameters"].bool_param
    assert request.parameters["min_quality"].double_param == 0.25
    assert request.parameters["bundle"].string_param == "second"


def test_rows_of_any_layout_are_sent_in_order():
    table = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(4, 3))
    data = request_bytes(TRACK_FINDING, table, "", LABELS_ONLY)
    request = service_pb2.ModelInferRequest.FromString(data)
    assert list(request.raw_input_contents) == [table.tobytes()]
    assert not request.parameters
