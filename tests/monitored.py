"""What a monitor wrote, beside what an audit says."""

from __future__ import annotations

import json

KEPT = ("samples", "amplitude", "resolution", "first_conflict", "input", "layers")


def events_in(folder):
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def assert_as_audited(event, audit):
    expected = json.loads(json.dumps(audit.to_dict()))
    assert {key: event[key] for key in KEPT} == {key: expected[key] for key in KEPT}
