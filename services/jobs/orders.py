"""Reads an order.json: what a worker was told to do."""

from pathlib import Path

from google.protobuf import json_format

from conch.v1 import worker_pb2


def read_order(path: Path) -> worker_pb2.WorkOrder:
    """Returns the order at `path`. Raises OSError or json_format.ParseError.

    What another release wrote into it, and this one does not know, is left out: a worker may outlive its
    service by an upgrade.
    """
    return json_format.Parse(path.read_bytes(), worker_pb2.WorkOrder(), ignore_unknown_fields=True)
