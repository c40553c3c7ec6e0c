"""Each hostile input that once ended, filled or misled a server, a reader or a check, by name.

They are made here and not kept as files, since most are a few characters many times. The campaign
(:mod:`studies.reliability.fuzz`) begins with them and comes back to them.
"""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tritonclient.grpc import service_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL = "track_finding"
INFER = f"/v2/models/{MODEL}/infer"
INFER_METHOD = "/inference.GRPCInferenceService/ModelInfer"
BINARY_HEAD = "inference-header-content-length"
DEEP = 200_000


@dataclass(frozen=True)
class Request:
    """A request by HTTP; gRPC's messages, framed, are such requests as well.

    ``chunks`` are the sizes of the pieces in which the body goes, none for one piece with its length.
    With ``raw`` the bytes of ``body`` are the whole request, and the server may close the connection.
    ``cut`` of them are sent, and then the connection is closed without waiting for an answer.
    """

    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"
    chunks: tuple[int, ...] = ()
    raw: bool = False
    cut: int | None = None


def event_json(columns: int, hits: int = 2, **more: object) -> dict[str, Any]:
    """Return a request as Triton takes it, with changes to its one input; None leaves a key out."""
    given = {"name": "HITS", "shape": [hits, columns], "datatype": "FP32"}
    given |= {"data": [10.0 * i + 31 for i in range(hits * columns)]} | more
    return {"inputs": [{name: value for name, value in given.items() if value is not None}]}


def encoded(request: object) -> bytes:
    """Return JSON as bytes."""
    return json.dumps(request).encode()


def event_message(columns: int, hits: int = 2) -> service_pb2.ModelInferRequest:
    """Return a message that Triton takes."""
    return shaped([hits, columns], b"\0\0\x20\x41" * (hits * columns))


def shaped(shape: list[int], content: bytes | None) -> service_pb2.ModelInferRequest:
    """Return a message of this shape and content, whether they agree or not."""
    message = service_pb2.ModelInferRequest(model_name=MODEL)
    message.inputs.add(name="HITS", datatype="FP32", shape=shape)
    if content is not None:
        message.raw_input_contents.append(content)
    return message


def framed(message: bytes, flag: int = 0) -> bytes:
    """Return a message in gRPC's frame."""
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


def grpc(message: bytes, method: str = INFER_METHOD, **headers: str) -> Request:
    """Return a request by gRPC."""
    return Request(
        method, framed(message), {"content-type": "application/grpc", "te": "trailers", **headers}
    )


def http_cases(columns: int) -> dict[str, Request]:
    """Return the hostile requests over HTTP."""
    good = encoded(event_json(columns))
    cases = {
        f"shape {shape}": Request(INFER, encoded(event_json(columns, shape=shape)))
        for shape in SHAPES
    }
    nested = b"[" * DEEP + b"]" * DEEP
    for path in (INFER, "/v2/repository/index", "/v2/logging", "/v2/models/exatrkx/infer"):
        cases[f"nested {path}"] = Request(path, b'{"inputs":' + nested + b"}")
    cases["nested data"] = Request(INFER, good.replace(b"[31.0", nested + b",[31.0"))
    cases["maps in maps"] = Request(INFER, b'{"a":' * DEEP)
    cases["binary, no number of bytes"] = Request(INFER, good, {BINARY_HEAD: "x"})
    cases["binary, more than all"] = Request(INFER, good, {BINARY_HEAD: "99999999999"})
    head = encoded(event_json(columns, data=None, parameters={"binary_data_size": 2**62}))
    cases["binary, 2^62 bytes"] = Request(INFER, head, {BINARY_HEAD: str(len(head))})
    cases["a bomb"] = Request(INFER, gzip.compress(b" " * 20_000_000), {"content-encoding": "gzip"})
    packed = gzip.compress(good)
    for name, damaged in {
        "cut off": packed[:-1],
        "wrong sum": packed[:-8] + b"\0" * 8,
        "not gzip": good,
        "zlib as gzip": zlib.compress(good),
    }.items():
        cases[f"gzip, {name}"] = Request(INFER, damaged, {"content-encoding": "gzip"})
    cases["one byte a chunk"] = Request(INFER, good, chunks=(1,) * len(good))
    # Names that are others once their escapes are read: what is checked must be what is used.
    far = b'"shape": [1000000000000, 3]'
    cases["escaped name"] = Request(
        INFER, good.replace(b'"shape"', far.replace(b"shape", b"sh\\u0061pe") + b', "shape"')
    )
    cases["data that count themselves"] = Request(
        INFER,
        encoded(event_json(columns, shape=[100_000, columns], data={"count": 100_000 * columns})),
    )
    cases["any shared memory"] = Request(
        INFER, encoded(event_json(columns, data=None, parameters={"shared_memory_region": "x"}))
    )
    return cases


SHAPES: tuple[list[Any], ...] = (
    [10**12, 3],
    [7, 2**31],
    [10**8, 3],
    [-(2**63), 3],
    [6148914691236517206, 3],
    [2**31, 2**31],
    [],
    [1] * 100,
    [2.5, 3],
)


def grpc_cases(columns: int) -> dict[str, Request]:
    """Return the hostile requests over gRPC."""
    cases = {}
    for shape in SHAPES:
        if all(isinstance(size, int) and size < 2**63 for size in shape):
            for content in (None, b"", b"\0" * 8):
                name = f"grpc shape {shape} {content!r}"
                cases[name] = grpc(shaped(shape, content).SerializeToString())
    good = event_message(columns).SerializeToString()
    cases["grpc, groups"] = grpc(b"\x0b" * 1000)
    cases["grpc, many inputs"] = grpc(b"\x2a\x00" * 5000)
    cases["grpc, a length beyond all"] = grpc(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f")
    cases["grpc, a name twice"] = grpc(good + b"\x0a\x01x")
    cases["grpc, a frame too short"] = Request(
        INFER_METHOD, framed(good)[:-3], cases["grpc, groups"].headers
    )
    bomb = gzip.compress(b"\0" * 20_000_000)
    cases["grpc, a bomb"] = Request(
        INFER_METHOD, framed(bomb, 1), {**cases["grpc, groups"].headers, "grpc-encoding": "gzip"}
    )
    return cases
