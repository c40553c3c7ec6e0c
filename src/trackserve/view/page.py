"""The page of the event display: one file with everything inside, to keep or to send to somebody."""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_OURS = files("trackserve.view")
_THREE = _OURS / "three"


def event_page(blocks: Sequence[bytes] = (), *, live: Sequence[str] = ()) -> str:
    """Return the page as HTML, with the events of these blocks (:func:`.scene.pack_scene`) inside.

    ``live`` names events that the page fetches from the server that it came from, in place of blocks.
    """
    modules = {
        "three": _module((_THREE / "three.module.min.js").read_text(encoding="utf-8")),
        "three/core": _module((_THREE / "three.core.min.js").read_text(encoding="utf-8")),
        "three/orbit": _module((_THREE / "OrbitControls.js").read_text(encoding="utf-8")),
    }
    inside = "\n".join(
        f'<script type="application/octet-stream" class="event">{base64.b64encode(block).decode()}</script>'
        for block in blocks
    )
    page = (_OURS / "page.html").read_text(encoding="utf-8")
    for place, text in {
        "/* STYLE */": (_OURS / "page.css").read_text(encoding="utf-8"),
        "{ MODULES }": json.dumps({"imports": modules}),
        "[ LIVE ]": json.dumps(list(live)).replace("<", "\\u003c"),
        "<!-- EVENTS -->": inside,
        "/* SCRIPT */": (_OURS / "page.js").read_text(encoding="utf-8"),
    }.items():
        page = page.replace(place, text, 1)
    return page


def _module(source: str) -> str:
    """Return a module of JavaScript as an address; names of other modules in it become absolute."""
    source = source.replace("./three.core.min.js", "three/core")
    return "data:text/javascript;base64," + base64.b64encode(source.encode()).decode()
