"""The drawings of a result: well-formed, readable without seeing them, and with the figures of the result."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bench.load import SHARES, distribution
from bench.plots import charts, draw
from bench.processes import ROOT
from bench.svg import Bars, Chart, Curves, drawn

SVG = "{http://www.w3.org/2000/svg}"


def summary(value: float) -> dict[str, float]:
    return {"median": value, "min": value, "max": value}


def result(**extra: Any) -> dict[str, Any]:
    plain = {f"{name}_us": summary(100.0 + number) for number, name in enumerate(SHARES)} | {"per_s": summary(4321.0)}
    streamed = {"chunks_per_s": summary(8765.0), "first_p50_us": summary(250.0)}
    rows = {"plain_c1": plain, "plain_c32": plain, "stream_c1": streamed, "stream_c32": streamed}
    machine = {"date": "2026-11-23T00:00:00", "commit": "abc", "cores": 2, "cpu": "<fast & cheap>"}
    plan = {"rounds": 3, "duration_s": 0.8}
    return {"machine": machine, "plan": plan, "medians": {"direct": rows, "penstock": rows}, "too_loaded": None} | extra


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter()]


def test_every_drawing_is_xml_with_a_title_a_description_and_the_figures() -> None:
    for name, chart in charts(result()).items():
        root = ElementTree.fromstring(drawn(chart))
        assert root.get("role") == "img"
        assert root.findtext(f"{SVG}title") == chart.title
        assert str(root.findtext(f"{SVG}desc")).count("penstock") >= 1, name
    assert "4,321" in texts(drawn(charts(result())["throughput"]))
    assert "8,765" in texts(drawn(charts(result())["streams"]))
    assert "p50 104" in str(ElementTree.fromstring(drawn(charts(result())["latency"])).findtext(f"{SVG}desc"))


def test_a_drawing_follows_the_reader_s_colour_scheme() -> None:
    assert "prefers-color-scheme: dark" in drawn(charts(result())["throughput"])


def test_a_drawing_of_a_loaded_machine_says_that_it_is_provisional() -> None:
    drawing = drawn(charts(result(too_loaded="the load average was 9"))["throughput"])
    assert any("provisional" in text for text in texts(drawing))
    assert not any("provisional" in text for text in texts(drawn(charts(result())["throughput"])))


def test_what_was_not_measured_is_not_drawn_and_its_older_drawing_stays(tmp_path: Path) -> None:
    (tmp_path / "growth.svg").write_text("older")
    told = result(measures={"growth": None, "stall_free": None})
    assert sorted(path.name for path in draw(told, tmp_path)) == ["latency.svg", "streams.svg", "throughput.svg"]
    assert (tmp_path / "growth.svg").read_text() == "older"


def test_the_growth_curve_and_the_stall_free_streams_are_drawn_where_they_were_measured(tmp_path: Path) -> None:
    sizes = {
        "1": {"cpu_us_per_request": 210.0, "per_s": 4000.0},
        "100000": {"cpu_us_per_request": 214.0, "per_s": 3950.0},
    }
    measures = {"growth": {"sizes": sizes}, "stall_free": {"carried": {"direct": 640, "penstock": None}}}
    written = {path.name: path.read_text() for path in draw(result(measures=measures), tmp_path)}
    described = str(ElementTree.fromstring(written["growth.svg"]).findtext(f"{SVG}desc"))
    assert "penstock 1 210, 100,000 214" in described
    assert "640" in texts(written["streams.svg"])


def test_a_contestant_without_figures_has_no_bar_and_no_curve() -> None:
    told = result()
    told["medians"]["litellm"] = {"plain_c1": {}}
    throughput = charts(told)["throughput"]
    assert all("litellm" not in panel.values for panel in throughput.panels if isinstance(panel, Bars))
    curves = Curves("t", "x", "y", [(0.0, "0"), (1.0, "1")], {"direct": [(0.0, 0.0)]})
    assert "<circle" not in drawn(Chart("t", "n", ("direct",), [curves]))


def test_the_percentiles_of_a_run_are_those_of_its_latencies() -> None:
    found = distribution([number * 1000 for number in range(1000)])
    assert list(found) == [f"{name}_us" for name in SHARES]
    assert (found["p1_us"], found["p50_us"], found["p99_9_us"]) == (10.0, 500.0, 999.0)


def test_the_tool_draws_from_a_result_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "latest.json").write_text(json.dumps(result()))
    command = [sys.executable, "-m", "bench.plots", str(tmp_path / "latest.json"), "--to", str(tmp_path / "drawn")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "drawn" / "latency.svg").exists()
    command[3] = str(tmp_path / "nothing.json")
    assert subprocess.run(command, capture_output=True, timeout=60, check=False, cwd=ROOT).returncode == 1
