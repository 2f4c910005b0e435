"""What each part of Conch asks of a cluster, as recorded in tests/golden/cluster_calls.json.

The chart's tests hold its rights against that file: a call more needs a right more. `make golden` writes it.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden" / "cluster_calls.json"


def check(section: str, calls: Sequence[str]) -> None:
    """Fails unless `calls` ("verb resource", sorted) are those recorded of this part."""
    recorded = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    if os.environ.get("CONCH_GOLDEN"):
        recorded[section] = list(calls)
        GOLDEN.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    assert list(calls) == recorded.get(section)
