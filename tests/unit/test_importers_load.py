"""Results of load tests by k6 and JMeter."""

from __future__ import annotations

import csv
import io
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.errors import SourceError
from pawl.importers.formats import FORMATS
from pawl.importers.imported import Reject, Target, moment
from pawl.importers.load_results import percentile
from pawl.lake.records import Observation

TARGET = Target("performance", "key-1")
NOON = moment("2026-11-18T12:00:00Z")


def read(form: str, path: Path, target: Target = TARGET) -> tuple[list[Observation], list[Reject]]:
    rows = list(FORMATS[form](path, target))
    records = [r for row in rows if not isinstance(row, Reject) for r in row]
    assert all(isinstance(r, Observation) and r.kind == "load" and r.agent == "performance" for r in records)
    return [r for r in records if isinstance(r, Observation)], [r for r in rows if isinstance(r, Reject)]


# k6 run --summary-export
EXPORT = {
    "root_group": {"name": "", "path": "", "id": "d41d8cd98f00b204e9800998ecf8427e", "groups": {}, "checks": {}},
    "metrics": {
        "checks": {"passes": 190, "fails": 10, "value": 0.95},
        "data_received": {"count": 1000, "rate": 33.1},
        "http_req_blocked": {"avg": 1, "min": 0, "med": 0.1, "max": 9, "p(90)": 1, "p(95)": 2},
        "http_req_duration": {"avg": 120.5, "min": 10, "med": 100.25, "max": 900, "p(90)": 200, "p(95)": 230.123456},
        "http_req_duration{name:login}": {"avg": 50, "min": 10, "med": 40, "max": 90, "p(90)": 80, "p(95)": 85,
                                          "thresholds": {"p(95)<80": True}},
        "http_req_failed": {"passes": 4, "fails": 196, "value": 0.02},
        "http_reqs": {"count": 200, "rate": 6.6666},
        "vus": {"value": 10, "min": 10, "max": 10},
    },
}  # fmt: skip

# what handleSummary(data) gets
HANDLED = {
    "root_group": {"name": "", "groups": [], "checks": []},
    "options": {"summaryTrendStats": ["avg", "med", "p(95)", "p(99)"], "summaryTimeUnit": ""},
    "state": {"isStdOutTTY": True, "isStdErrTTY": True, "testRunDurationMs": 30_000.5},
    "metrics": {
        "http_req_duration": {"type": "trend", "contains": "time",
                              "values": {"avg": 120.5, "med": 100, "p(95)": 230, "p(99)": 400},
                              "thresholds": {"p(95)<200": {"ok": False}, "p(99)<500": {"ok": True}}},
        "http_req_failed": {"type": "rate", "contains": "default", "values": {"rate": 0.02, "passes": 4, "fails": 196}},
        "http_reqs": {"type": "counter", "contains": "default", "values": {"count": 200, "rate": 6.6666}},
    },
}  # fmt: skip


def test_a_summary_that_k6_exports(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(EXPORT, indent=4))
    (every, login), rejects = read("k6", path)
    assert rejects == [] and (every.component, login.component) == ("", "name:login")
    assert every.figures == {
        "requests": 200, "errors": 4, "error_share": 0.02, "requests_per_s": 6.6666, "p50_ms": 100.25,
        "p95_ms": 230.1235, "mean_ms": 120.5, "max_ms": 900.0,
    }  # fmt: skip
    assert every.title == "all: 200 requests, p95 230 ms, 2.0% errors" and login.title == "name:login: p95 85 ms"
    assert every.source == "import:k6" and every.at == path.stat().st_mtime


def test_a_summary_that_a_script_writes(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(HANDLED))
    (every,), rejects = read("k6", path, TARGET._replace(at=NOON))
    assert rejects == [] and every.at == NOON and every.labels == ("missed http_req_duration p(95)<200",)
    assert every.figures["p99_ms"] == 400.0 and every.figures["requests"] == 200
    os.utime(path, (5, 5))
    (again,), _ = read("k6", path)
    assert (again.at, again.id) == (5.0, every.id), "the same result, whatever time is told"
    path.write_text(json.dumps({"metrics": {"vus": {"value": 1}}}))
    assert read("k6", path)[1] == [Reject(1, "a summary without HTTP requests")]


def point(at: str, millis: Any, metric: str = "http_req_duration", **tags: str) -> dict[str, Any]:
    url = "https://shop.example/cart?id=1"
    given = {"expected_response": "true", "group": "", "method": "GET", "name": url, "proto": "HTTP/1.1",
             "scenario": "default", "status": "200", "url": url}  # fmt: skip
    return {"metric": metric, "type": "Point", "data": {"time": at, "value": millis, "tags": given | tags}}


def test_lines_of_k6_by_endpoint_and_minute(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    lines: list[Any] = [
        {"type": "Metric", "data": {"name": "http_req_duration", "type": "trend", "contains": "time", "thresholds": [],
                                    "submetrics": None}, "metric": "http_req_duration"},
        *(point(f"2026-11-18T13:00:{n % 60:02}.123456789+01:00", float(n)) for n in range(1, 121)),
        point("2026-11-18T12:00:30Z", 5.0, "http_req_blocked"),
        point("2026-11-18T12:00:30Z", 1.0, "http_reqs"),
        point("2026-11-18T12:01:10Z", 7.5, method="POST", name="pay", expected_response="false", status="500"),
        point("2026-11-18T12:01:30Z", 9.5, method="POST", name="pay", expected_response="true", status="404"),
        "{",
        point("2026-11-18T12:01:30Z", "slow"),
        point("soon", 1.0),
        {"hello": 1},
    ]  # fmt: skip
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    (cart, pay), rejects = read("k6", path)
    assert (cart.component, cart.at) == ("GET https://shop.example/cart", NOON)
    assert cart.figures == {
        "requests": 120, "errors": 0, "error_share": 0.0, "requests_per_s": round(120 / (60 - 0.123456), 4),
        "p50_ms": 60.0, "p95_ms": 114.0, "p99_ms": 119.0,
    }, "the rate counts from the first request"  # fmt: skip
    assert (pay.component, pay.at) == ("POST pay", NOON + 60)
    assert pay.figures["errors"] == 1 and pay.figures["requests_per_s"] == round(2 / 30, 4), "it ended in that minute"
    assert [(r.row, r.reason.split(":")[0]) for r in rejects] == [
        (126, "no JSON"), (127, "no duration"), (128, "'soon' is no time"),
        (129, "neither a line of k6 nor its summary"),
    ]  # fmt: skip
    assert read("k6", path)[0] == [cart, pay]
    for text, reason in (("", "empty"), ("[", "neither JSON nor")):
        path.write_text(text)
        with pytest.raises(SourceError, match=reason):
            read("k6", path)


def test_a_large_output_of_k6_is_never_held(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    with path.open("w") as out:
        for n in range(30_000):
            out.write(json.dumps(point(f"2026-11-18T12:{n % 60:02}:00Z", n % 500)) + "\n")
    tracemalloc.start()
    found, _ = read("k6", path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 60 and peak < path.stat().st_size / 4


HEADER = ["timeStamp", "elapsed", "label", "responseCode", "responseMessage", "threadName", "dataType", "success",
          "failureMessage", "bytes", "sentBytes", "grpThreads", "allThreads", "URL", "Latency", "IdleTime",
          "Connect"]  # fmt: skip


def sample(at: Any, elapsed: Any, label: str = "Cart", success: str = "true") -> list[Any]:
    return [at, elapsed, label, 200, "OK", "Users 1-1", "text", success, "", 900, 120, 1, 1, "https://shop.example/cart",
            elapsed, 0, 1]  # fmt: skip


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_jmeters_csv(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "result.jtl"
    at = int(NOON * 1000)
    rows = [HEADER, *(sample(at + n * 500, n + 1) for n in range(100)),
            sample(at + 61_000, 40, "Pay, then go", "false"), sample("2026/11/18 12:01:02.500", 60, "Pay, then go"),
            sample(at, "fast"), sample("", 1), sample(at, 1, ""),
            sample(at, 1, "Cart", "maybe"), [at]]  # fmt: skip
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    path.write_text(text.getvalue())
    (cart, pay), rejects = read("jmeter", path)
    assert (cart.component, cart.at, cart.source) == ("Cart", NOON, "import:jmeter")
    assert cart.figures == {
        "requests": 100, "errors": 0, "error_share": 0.0, "requests_per_s": round(100 / 60, 4), "p50_ms": 50.0,
        "p95_ms": 95.0, "p99_ms": 99.0,
    }  # fmt: skip
    assert (pay.component, pay.at, pay.figures["error_share"], pay.figures["p95_ms"]) == (
        "Pay, then go", NOON + 60, 0.5, 60.0,
    )  # fmt: skip
    assert [(r.row, r.reason) for r in rejects] == [
        (104, "'fast' is no duration in milliseconds"), (105, "no time"), (106, "no label"),
        (107, "'maybe' is neither true nor false"), (108, "'' is no duration in milliseconds"),
    ]  # fmt: skip
    path.write_text("1,2,3\n")
    with pytest.raises(SourceError, match="print_field_names"):
        read("jmeter", path)


def test_jmeters_xml(tmp_path: Path) -> None:
    path = tmp_path / "result.jtl"
    at = int(NOON * 1000)
    path.write_text(f"""<?xml version="1.0" encoding="UTF-8"?>
<testResults version="1.2">
<httpSample t="20" it="0" lt="19" ct="3" ts="{at}" s="true" lb="Cart" rc="200" rm="OK" tn="Users 1-1" dt="text" by="9">
  <responseHeader class="java.lang.String">HTTP/1.1 200 OK</responseHeader>
</httpSample>
<sample t="90" lt="0" ts="{at + 1000}" s="false" lb="Order" rc="" rm="2 samples in transaction" tn="Users 1-1">
  <httpSample t="40" lt="39" ts="{at + 1000}" s="true" lb="Cart" rc="200" rm="OK" tn="Users 1-1"/>
  <httpSample t="50" lt="49" ts="{at + 1040}" s="false" lb="Pay" rc="500" rm="Error" tn="Users 1-1">
    <assertionResult><name>ok</name><failure>true</failure></assertionResult>
  </httpSample>
</sample>
<httpSample t="20" ts="" s="true" lb="Cart"/>
</testResults>
""")
    (cart, order), rejects = read("jmeter", path)
    assert (cart.component, cart.figures["requests"], cart.figures["p50_ms"]) == ("Cart", 1, 20.0)
    assert (order.component, order.figures["errors"], order.figures["p99_ms"]) == ("Order", 1, 90.0)
    assert rejects == [Reject(3, "no time")]
    bomb = (
        '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;">]><testResults>&b;</testResults>'
    )
    for data in (
        bomb.encode(),
        bomb.encode("utf-16"),
        b"<testResults><httpSample",
        b"<?xml version='1.0' encoding='x'?><a/>",
    ):
        path.write_bytes(data)
        with pytest.raises(SourceError):
            read("jmeter", path)


def test_a_large_result_of_jmeter_is_never_held(tmp_path: Path) -> None:
    path = tmp_path / "result.jtl"
    one = '<httpSample t="20" ts="1795003200000" s="true" lb="Cart"><responseData>%s</responseData></httpSample>' % (
        "x" * 900
    )
    path.write_text(f"<testResults>{one * 10_000}</testResults>")
    tracemalloc.start()
    (found,), _ = read("jmeter", path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.figures["requests"] == 10_000 and peak < path.stat().st_size / 4


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([50, 95, 99]))
def test_percentiles_by_nearest_rank(values: list[float], percent: int) -> None:
    found = percentile(sorted(values), percent)
    below = sum(v <= found for v in values)
    assert found in values and below * 100 >= percent * len(values)
    assert sum(v < found for v in values) * 100 < percent * len(values)
