#!/usr/bin/env bash
# Generates the Python code of protos/conch/v1 beside the .proto files. The compiler lives in an
# environment of its own: the grpcio-tools that fits protobuf 6 is older than the grpcio we run.
set -euo pipefail
cd "$(dirname "$0")/.."
env="${CONCH_HOME:-.conch}/protoc"
if [ ! -e "$env/ready" ]; then
    python3 -m venv "$env"
    "$env/bin/pip" install --quiet --disable-pip-version-check \
        grpcio-tools==1.80.0 protobuf==6.33.6 mypy-protobuf==3.7.0 googleapis-common-protos==1.76.0
    touch "$env/ready"
fi
site=$(echo "$env"/lib/python3*/site-packages)
rm -f protos/conch/v1/*_pb2*.py protos/conch/v1/*_pb2*.pyi
PATH="$(realpath "$env")/bin:$PATH" "$env/bin/python" -m grpc_tools.protoc -I protos -I "$site" \
    --python_out=protos --grpc_python_out=protos --mypy_out=quiet:protos --mypy_grpc_out=quiet:protos \
    --include_imports --include_source_info --descriptor_set_out="$env/conch.binpb" \
    protos/conch/v1/*.proto
