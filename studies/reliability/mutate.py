"""Requests that are nearly right: valid ones, changed in a few places by somebody who knows their structure."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.reliability.corpus import (
    BINARY_HEAD,
    INFER,
    INFER_METHOD,
    Request,
    event_json,
    framed,
    grpc,
    shaped,
)
from trackserve.contract.compact import HEAD, encode_hits
from trackserve.contract.tensors import COMPACT_HITS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

NUMBERS: tuple[Any, ...] = (
    0, 1, -1, 2, 3, 7, 255, 256, 65_535, 500_001, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53,
    2**53 + 1, 2**62, 2**63 - 1, 2**63, -(2**63), 2**64, 2**64 + 2, 10**12, 10**30, 0.5, -0.0,
    1e-320, 1e38, 3.5e38, 1e308,
)  # fmt: skip
WHOLE = [n for n in NUMBERS if isinstance(n, int) and -(2**63) <= n < 2**63]
TEXTS: tuple[str, ...] = (
    "", "HITS", "FEATURES", "LABELS", "track_finding", "exatrkx", "hits_to_tracks", "FP32", "FP64",
    "BYTES", "INT64", "BOOL", "x" * 300, "x" * 5000, "\0", "\n", "\x7f", "é", "😀", "../..",
    "%2e%2e", "${x}", "'", '"', "\\",
)  # fmt: skip
NAMES = (
    "inputs", "outputs", "id", "parameters", "name", "shape", "datatype", "data",
    "binary_data_size", "binary_data", "binary_data_output", "classification",
    "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size", "priority",
    "timeout", "sequence_id", "sequence_start", "count", "is_list",
)  # fmt: skip
PATHS = (
    "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats", "/v2/models/track_finding",
    "/v2/models/track_finding/config", "/v2/models/track_finding/stats", "/v2/models/exatrkx/infer",
    INFER, "/v2/models/track_finding/versions/1/infer",
    "/v2/models/track_finding/versions/99999999999999999999/infer",
    "/v2/models/hits_to_tracks/infer", "/v2/repository/index", "/v2/repository/models/x/load",
    "/v2/logging", "/v2/trace/setting", "/v2/systemsharedmemory/region/x/register",
    "/v2/cudasharedmemory/status", "/metrics", "/fleet/roll", "/fleet/status", "/", "//v2",
    "/v2/../v2/health/live", "/v2/%6dodels", "/v2/models/track_finding/generate",
)  # fmt: skip
METHODS = (
    "ModelInfer", "ModelStreamInfer", "ServerLive", "ServerReady", "ModelReady", "ServerMetadata",
    "ModelMetadata", "ModelStatistics", "RepositoryIndex", "ModelConfig", "RepositoryModelLoad",
    "RepositoryModelUnload", "SystemSharedMemoryStatus", "SystemSharedMemoryRegister",
    "CudaSharedMemoryRegister", "TraceSetting", "LogSettings", "None", "",
)  # fmt: skip


def request(rng: random.Random, columns: int) -> Request:
    """Return a request that is probably wrong somewhere, over HTTP or gRPC."""
    makers = (json_request, grpc_request, compact_request, other_request)
    make = rng.choices(makers, (5, 5, 1, 1))[0]
    made = make(rng, columns)
    if rng.random() < 0.1:
        made = _other_headers(rng, made)
    if rng.random() < 0.05 and made.body:
        made = replace(made, cut=rng.randrange(len(made.body)))
    return made


def event(rng: random.Random, columns: int) -> list[float]:
    """Return the numbers of a small event, with some of what detectors and mistakes produce."""
    hits = rng.choice((0, 1, 2, 3, 10, 50))
    numbers = [rng.uniform(-1000, 1000) for _ in range(hits * columns)]
    kind = rng.randrange(6)
    if numbers and kind == 1:  # all in one place
        numbers = numbers[:columns] * hits
    elif kind == 2:  # other units
        scale = 10.0 ** rng.randrange(-30, 36)
        numbers = [n * scale for n in numbers]
    elif kind == 3:
        for _ in range(rng.randrange(4)):
            if numbers:
                odd = rng.choice((float("nan"), float("inf"), -float("inf"), 0.0, 1e-42, 3e38))
                numbers[rng.randrange(len(numbers))] = odd
    return numbers


def _floats(numbers: list[float]) -> bytes:
    whole = [max(-3e38, min(3e38, n)) if abs(n) < float("inf") else n for n in numbers]
    return struct.pack(f"<{len(whole)}f", *whole)


def json_request(rng: random.Random, columns: int) -> Request:
    """Return an inference request by HTTP: JSON, alone or before binary data, changed as a tree or as text."""
    numbers = event(rng, columns)
    hits, tail, headers = len(numbers) // columns, b"", {}
    tree: Any = event_json(columns, hits, data=numbers)
    if rng.random() < 0.3:
        tail = _floats(numbers)
        tree = event_json(columns, hits, data=None, parameters={"binary_data_size": len(tail)})
    elif rng.random() < 0.3:
        rows = [numbers[i : i + columns] for i in range(0, len(numbers), columns)]
        tree = event_json(columns, hits, data=rows)
    if rng.random() < 0.3:
        tree["outputs"] = [{"name": "LABELS", "parameters": {"binary_data": rng.random() < 0.5}}]
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        tree = _changed_tree(rng, tree)
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.8).encode(errors="replace")
    if rng.random() < 0.3:
        text = _changed_text(rng, text)
    if tail or rng.random() < 0.05:
        length = len(text) if rng.random() < 0.9 else len(text) + rng.randrange(-3, 4)
        headers[BINARY_HEAD] = str(length)
    if tail and rng.random() < 0.2:
        tail = changed_bytes(rng, tail)
    path = INFER if rng.random() < 0.9 else "/v2/models/exatrkx/infer"
    return _packed(rng, Request(path, text + tail, headers))


def grpc_request(rng: random.Random, columns: int) -> Request:
    """Return an inference request by gRPC: a message changed by fields, by its wire form or its frame."""
    numbers = event(rng, columns)
    content: bytes | None = _floats(numbers)
    message = shaped([len(numbers) // columns, columns], content)
    given = message.inputs[0]
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        change: Callable[[], object] = rng.choice(
            (
                lambda: given.shape.append(rng.choice(WHOLE)),
                lambda: given.shape.__setitem__(slice(None), [rng.choice(WHOLE), columns]),
                lambda: given.shape.__setitem__(
                    slice(None), [rng.choice(WHOLE) for _ in range(rng.randrange(5))]
                ),
                lambda: setattr(given, "name", rng.choice(TEXTS)),
                lambda: setattr(given, "datatype", rng.choice(TEXTS)),
                lambda: setattr(message, "model_name", rng.choice(TEXTS)),
                lambda: setattr(
                    message, "model_version", rng.choice(("1", "2", "-1", "9" * 30, "x"))
                ),
                lambda: setattr(message, "id", rng.choice(TEXTS)),
                lambda: message.inputs.add(name="HITS", datatype="FP32", shape=[1, columns]),
                lambda: message.outputs.add(name=rng.choice(("LABELS", "HITS", ""))),
                lambda: message.raw_input_contents.append(b"\0" * rng.randrange(50)),
                lambda: message.ClearField("raw_input_contents"),
                lambda: given.contents.fp32_contents.extend(numbers[:50]),
                lambda: given.contents.int64_contents.append(rng.choice(WHOLE)),
                lambda: given.contents.bytes_contents.append(b"x" * rng.randrange(100)),
                lambda: setattr(
                    given.parameters[rng.choice(NAMES)], "int64_param", rng.choice(WHOLE)
                ),
                lambda: setattr(
                    message.parameters[rng.choice(NAMES)], "string_param", rng.choice(TEXTS)
                ),
                lambda: setattr(
                    message.parameters[rng.choice(NAMES)], "int64_param", rng.choice(WHOLE)
                ),
            )
        )
        change()
    wire = message.SerializeToString()
    if rng.random() < 0.4:
        wire = changed_bytes(rng, wire)
    method = INFER_METHOD
    if rng.random() < 0.1:
        method = f"/inference.GRPCInferenceService/{rng.choice(METHODS)}"
    made = grpc(wire, method)
    if rng.random() < 0.1:
        flag = rng.choice((0, 1, 1, 1, 2, 255))
        packed = rng.choice((wire, gzip.compress(wire, 1), zlib.compress(wire, 1)))
        encoding = rng.choice(("gzip", "deflate", "identity", "snappy", ""))
        made = replace(
            made, body=framed(packed, flag), headers={**made.headers, "grpc-encoding": encoding}
        )
    elif rng.random() < 0.1:
        made = replace(made, body=changed_bytes(rng, made.body))
    return made


def compact_request(rng: random.Random, columns: int) -> Request:
    """Return a request by gRPC with HITS_COMPACT: its head, its blocks' bits or any of its bytes changed."""
    table = np.array(event(rng, columns), np.float64).reshape(-1, columns).astype(np.float32)
    encoded = encode_hits(np.nan_to_num(np.clip(table, -1e4, 1e4)), 10.0 ** rng.randrange(-2, 3))
    data = b"" if encoded is None else encoded.tobytes()
    kind = rng.randrange(4)
    if kind == 0 and data:  # more hits than came, other columns, odd steps
        version, _, block, hits, step = HEAD.unpack(data[: HEAD.size])
        hits = rng.choice((hits, hits + 1, 32 * hits, 10**6, 2**31, 2**32 - 1))
        step = rng.choice((step, 0.0, -1.0, float("nan"), float("inf"), 1e-300, 1000.0))
        data = (
            HEAD.pack(version, rng.choice((0, 2, columns, 255)), block, hits, step)
            + data[HEAD.size :]
        )
        data += b"\0" * rng.choice((0, 0, 12, 5000, 100_000))
    elif kind <= 2:
        data = changed_bytes(rng, data)
    message = shaped([], data)
    given = message.inputs[0]
    given.name, given.datatype = COMPACT_HITS.name, COMPACT_HITS.dtype
    given.shape[:] = [len(data) if rng.random() < 0.9 else rng.choice(WHOLE)]
    if rng.random() < 0.3:
        message.outputs.add(name=rng.choice(("LABELS", "LABELS_COMPACT", "TRACKS")))
    return grpc(message.SerializeToString())


def other_request(rng: random.Random, columns: int) -> Request:
    """Return a request to any path, with any method and a body that may not belong there."""
    method = rng.choice(("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "X", "get"))
    body = rng.choice(
        (b"", b"{}", b"[]", b"null", json.dumps(event_json(columns)).encode(), b"\0" * 100)
    )
    path = rng.choice(PATHS)
    if rng.random() < 0.3:
        at = rng.randrange(1, len(path) + 1)
        path = (
            path[:at]
            + rng.choice(("/", "%", "%00", "%2f", "?a=b", "#", ";", ".", "..", "é", "x" * 3000))
            + path[at:]
        )
    if rng.random() < 0.1:
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        )
        return Request(path, changed_bytes(rng, head + body), raw=True)
    return Request(path, body, method=method)


def _changed_tree(rng: random.Random, tree: Any) -> Any:
    """Return the tree with one node changed."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        inner = node.items() if isinstance(node, dict) else enumerate(node[:20])
        for key, value in inner:
            places.append((node, key))
            if isinstance(value, dict | list):
                walk(value)

    if not isinstance(tree, dict | list) or rng.random() < 0.02:
        return _anything(rng)
    walk(tree)
    if not places:
        return _anything(rng)
    node, key = rng.choice(places)
    kind = rng.randrange(7)
    if kind <= 2:
        node[key] = _anything(rng)
    elif kind == 3:
        del node[key]
    elif kind == 4 and isinstance(node, dict):
        node[rng.choice(NAMES)] = node.pop(key)
    elif kind == 5 and isinstance(node, list):
        node.insert(key, node[key])
    elif kind == 5:
        node[rng.choice(NAMES)] = _anything(rng)
    else:
        for _ in range(rng.choice((1, 2, 20, 300))):
            node[key] = [node[key]] if rng.random() < 0.5 else {rng.choice(NAMES): node[key]}
    return tree


def _anything(rng: random.Random) -> Any:
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return rng.choice(TEXTS)
    if kind == 2:
        return rng.choice((None, True, False, [], {}))
    if kind == 3:
        return [rng.choice(NUMBERS) for _ in range(rng.randrange(12))]
    if kind == 4:
        return {rng.choice(NAMES): rng.choice(NUMBERS + TEXTS) for _ in range(rng.randrange(4))}
    return [rng.choice(TEXTS) for _ in range(rng.randrange(4))]


PIECES = (
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\u0061", b"\\ud800", b"null", b"NaN", b"-",
    b"0", b"00", b"1e999", b"-0", b"+1", b".5", b"1.", b"0x10", b"9" * 100, b"\xff", b"\x00",
    b"\xed\xa0\x80", b"//", b"/**/", b" " * 500, b"\xef\xbb\xbf",
)  # fmt: skip


def _changed_text(rng: random.Random, text: bytes) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(text) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            text = text[:at] + rng.choice(PIECES) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + rng.randrange(1, 10) :]
        elif kind == 2:  # a name written otherwise
            name = rng.choice(NAMES).encode()
            text = text.replace(b'"' + name, b'"\\u%04x' % name[0] + name[1:], 1)
        else:  # a pair twice
            name = rng.choice(NAMES)
            pair = json.dumps({name: _anything(rng)})[1:-1].encode()
            text = text.replace(b"{", b"{" + pair + b",", 1)
    return text


def changed_bytes(rng: random.Random, content: bytes) -> bytes:
    """Return bytes changed in a few places: flipped, inserted, removed, repeated."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        kind, at = rng.randrange(5), rng.randrange(len(changed) + 1)
        if kind == 0 and changed:
            changed[at % len(changed)] = rng.randrange(256)
        elif kind == 1 and changed:
            changed[at % len(changed)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            changed[at:at] = rng.choice(
                (
                    b"\xff" * 9 + b"\x01",
                    b"\x80" * 9,
                    b"\0",
                    b"\x3a\x00",
                    b"\x2a\x7f",
                    b"\r\n",
                    rng.randbytes(5),
                )
            )
        elif kind == 3:
            del changed[at : at + rng.choice((1, 1, 4, 50))]
        else:
            size = rng.randrange(1, 20)
            changed[at:at] = changed[at : at + size]
    return bytes(changed)


def _packed(rng: random.Random, made: Request) -> Request:
    """Compress the body or send it in chunks, now and then, and damage it then."""
    if rng.random() < 0.15:
        encoding = rng.choice(("gzip", "deflate", "gzip", "deflate", "br", "identity"))
        body = gzip.compress(made.body, 1) if rng.random() < 0.5 else zlib.compress(made.body, 1)
        if rng.random() < 0.5:
            body = changed_bytes(rng, body)
        made = replace(made, body=body, headers={**made.headers, "content-encoding": encoding})
    if rng.random() < 0.15 and made.body:
        size = rng.choice((1, 7, 100, len(made.body)))
        made = replace(made, chunks=(size,) * -(-len(made.body) // size))
    return made


ODD_HEADERS = (
    ("content-encoding", "GZIP"), ("content-encoding", "gzip, gzip"),
    ("transfer-encoding", "identity"), (BINARY_HEAD, "0"), (BINARY_HEAD, "-1"),
    (BINARY_HEAD, "1e3"), (BINARY_HEAD, " 5"), (BINARY_HEAD, "0" * 30), ("accept-encoding", "gzip"),
    ("accept", "x" * 3000), ("expect", "100-continue"), ("connection", "close"),
    ("grpc-timeout", "1n"), ("grpc-timeout", "99999999H"), ("grpc-timeout", "x"),
    ("grpc-accept-encoding", "gzip"), ("content-type", "application/grpc-web"),
    ("content-type", "application/grpc+json"), ("content-type", "text/html"),
    ("triton-request-id", "x" * 500), ("x-request-id", "\x01"), ("x-trackserve-retry", "1"),
    ("x-guard-details", "overflow"), ("upgrade", "h2c"), ("authorization", "Bearer x"),
    ("host", ""), ("x-envoy-retry-on", "5xx"), ("x", "y" * 40_000),
    ("x-envoy-upstream-rq-timeout-ms", "1"), ("x-envoy-original-path", "/v2/logging"),
    ("x-http-method-override", "GET"),
)  # fmt: skip


def _other_headers(rng: random.Random, made: Request) -> Request:
    return replace(
        made, headers={**made.headers, **dict(rng.sample(ODD_HEADERS, rng.randrange(1, 3)))}
    )
