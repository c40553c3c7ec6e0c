"""The dashboard and the alerts: of metrics that there are, and alerts that fire when they should."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tiny_bundle import straight_tracks
from trackserve.client import Client
from trackserve.client.statistics import read_page
from trackserve.serving.fleet.remote import RemoteFleet

FILES = Path(__file__).parents[2] / "deploy/helm/trackserve/files"
METRIC = re.compile(r"\b((?:trackserve|nv)_\w+)")


def queries() -> list[str]:
    """Every PromQL expression of dashboard and alerts."""
    dashboard = json.loads((FILES / "dashboard.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    alerts = (FILES / "alerts.yaml").read_text()
    return [*found, *re.findall(r"expr: (?:>-\n)?((?:.*\n)(?: {10}.*\n)*)", alerts)]


@pytest.mark.service
def test_a_live_server_and_front_have_every_metric(monolith, tiny_bundle, tmp_path):
    listed = tmp_path / "servers"
    listed.write_text(f"127.0.0.1:{monolith.ports['grpc']}\n")
    with RemoteFleet(str(listed), tiny_bundle, folder=tmp_path / "f", port=0) as front:
        deadline = time.monotonic() + 20
        while not front.room:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with Client(front.address) as client:
            client.find_tracks(straight_tracks(tracks=5))
        page = ""
        while "trackserve_tracks_total" not in page:  # reported twice a second
            assert time.monotonic() < deadline
            page = read_page(monolith.metrics_url) + read_page(f"{front.urls['http']}/metrics")
    there = set(re.findall(r"^# TYPE (\w+)", page, re.MULTILINE))
    there |= set(re.findall(r"^(\w+)", page, re.MULTILINE))
    asked = {name for query in queries() for name in METRIC.findall(query)}
    assert len(asked) > 8
    assert asked <= there
    # The labels that queries sum by or select.
    for query in queries():
        for name, labels in re.findall(r"((?:trackserve|nv)_\w+)\{([^}]*)\}", query):
            for label in re.findall(r"(\w+)=", labels):
                if label != "namespace":
                    assert re.search(rf"^{name}\{{[^}}]*\b{label}=", page, re.MULTILINE), (
                        name,
                        label,
                    )


def test_alerts_fire_when_they_should():
    promtool = shutil.which("promtool")
    if promtool is None:
        if os.environ.get("REQUIRE_PROMTOOL"):
            pytest.fail("promtool isn't there")
        pytest.skip("no promtool (Debian's package prometheus)")
    subprocess.run(
        [promtool, "check", "rules", FILES / "alerts.yaml"], check=True, capture_output=True
    )
    test = Path(__file__).with_name("alerts_test.yaml")
    run = subprocess.run(
        [promtool, "test", "rules", test], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    alerts = set(re.findall(r"alert: (\w+)", (FILES / "alerts.yaml").read_text()))
    assert alerts == set(re.findall(r"alertname: (\w+)", test.read_text()))
