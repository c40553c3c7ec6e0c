"""The tables of docs/client.md, made from the JSON results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from studies.markdown import markdown

if TYPE_CHECKING:
    from collections.abc import Callable


def hit_encodings(record: dict[str, Any]) -> str:
    """Return bytes, time and physics of each encoding of hits, on real events and the shipped one."""
    real, shipped = record["folders"]["real"], record["folders"]["pu200"]
    hits = real["events"] * real["hits"]
    rows = [
        (
            *("encoding", "MB an event", "MB, shipped event", "write + read, ms"),
            *("headline", "0.5-1 GeV", "fakes", "hits whose track changed"),
        )
    ]
    for name, found in real["hits by codec"].items():
        same = found["changed"] == 0
        rows.append(
            (
                name,
                f"{found['bytes'] / 1e6:.3f}",
                f"{shipped['hits by codec'][name]['bytes'] / 1e6:.3f}",
                _both_ways(found),
                "same" if same else f"{found['found_headline']:,}",
                "same" if same else f"{found['found_low_pt']:,}",
                "same" if same else f"{found['fakes']:,}",
                f"{100 * found['changed'] / hits:.2f} %",
            )
        )
    first = real["hits by codec"]["float32"]
    note = (
        f"{real['events']} real events of {real['hits']:,.0f} hits; as they are, {record['bundle']} "
        f"finds {first['found_headline']:,} of {first['total_headline']:,} headline targets, "
        f"{first['found_low_pt']:,} of {first['total_low_pt']:,} from 0.5 to 1 GeV, and {first['fakes']:,} fakes "
        f"among {first['tracks']:,} tracks."
    )
    return f"{markdown(rows)}\n\n{note}"


def label_encodings(record: dict[str, Any]) -> str:
    """Return bytes and time of each encoding of labels."""
    real, shipped = record["folders"]["real"], record["folders"]["pu200"]
    rows = [("encoding", "MB an event", "MB, shipped event", "write + read, ms")]
    rows += [
        (
            name,
            f"{found['bytes'] / 1e6:.3f}",
            f"{shipped['labels by codec'][name]['bytes'] / 1e6:.3f}",
            _both_ways(found),
        )
        for name, found in real["labels by codec"].items()
    ]
    return markdown(rows)


def spent(record: dict[str, Any]) -> str:
    """Return processor and wall time of an event, by who finds its tracks, and the share of the first way."""
    head = (
        "tracks found by",
        "processor time, ms",
        "share",
        "wall, ms",
        "wall beyond the server, ms",
    )
    rows = [head]
    whole = next(iter(record["spent"].values()))["processor"]["median"]
    for name, row in record["spent"].items():
        beyond = row.get("beyond the server")
        processor = row["processor"]
        rows.append(
            (
                name,
                f"{1e3 * processor['median']:,.1f} ({1e3 * processor['low']:,.1f}-{1e3 * processor['high']:,.1f})",
                f"{100 * processor['median'] / whole:,.2f} %",
                f"{1e3 * row['wall']['median']:,.0f}",
                "" if beyond is None else f"{1e3 * beyond['median']:,.0f}",
            )
        )
    note = (
        f"An event of {record['hits']:,} hits; medians of {record['rounds']} requests, quartiles in brackets; for "
        f"C++ the mean. Measured on {record['installation']['processor']}."
    )
    return f"{markdown(rows)}\n\n{note}"


def feeding(record: dict[str, Any]) -> str:
    """Return rate and time of a request by the number of clients, and the client cores that a server keeps busy."""
    clients = [("clients", "in step, events/s", "time, s", "out of step, events/s", "time, s")]
    for number in sorted({row["clients"] for row in record["rows"]}):
        both = [row for row in record["rows"] if row["clients"] == number]
        both.sort(key=lambda row: not row["in step"])
        cells = (f"{x:.2f}" for row in both for x in (row["rate"], row["seconds"]["median"]))
        clients.append((str(number), *cells))
    head = ("tracking's share of a client's work", *(f"{100 * s:.0f} %" for s in record["shares"]))
    cores = [
        (
            f"client cores kept busy by {name}",
            *(f"{n:,.0f}" if n >= 10 else f"{n:.1f}" for n in kept),
        )
        for name, kept in record["cores"].items()
    ]
    note = (
        f"An event of {record['hits']:,} hits; a client works {record['work']:g} s between two of them. In a client "
        f"seeding and CKF take {record['tracking']:.2f} s. Measured on {record['installation']['processor']}."
    )
    return f"{markdown(clients)}\n\n{markdown([head, *cores])}\n\n{note}"


def _both_ways(found: dict[str, Any]) -> str:
    write, read = (1e3 * found[way]["median"] for way in ("encode", "decode"))
    return f"{write:.1f} + {read:.1f}"


SPENT: dict[str, Callable[[dict[str, Any]], str]] = {"client-spent": spent}
FEEDING: dict[str, Callable[[dict[str, Any]], str]] = {"client-feeding": feeding}
ENCODINGS: dict[str, Callable[[dict[str, Any]], str]] = {
    "hit-encodings": hit_encodings,
    "label-encodings": label_encodings,
}
