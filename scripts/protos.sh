#!/usr/bin/env bash
# Generates the Python code of protos/conch/v1 beside the .proto files and lints the contract.
# With --check: generates elsewhere and fails if what is committed differs.
# The compiler has an environment of its own: the grpcio-tools that fits protobuf 6 is older than the
# grpcio that we run.
set -euo pipefail
cd "$(dirname "$0")/.."
tools="${CONCH_HOME:-.conch}/protoc-1.80.0"
out=protos
if [ "${1:-}" = --check ]; then
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
fi
if [ ! -e "$tools/ready" ]; then
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check grpcio-tools==1.80.0 protobuf==6.33.6 \
        mypy-protobuf==3.7.0 types-protobuf==7.35.1.20260906 googleapis-common-protos==1.76.0
    touch "$tools/ready"
fi
site=$(echo "$tools"/lib/python3*/site-packages)
[ "$out" = protos ] && rm -f protos/conch/v1/*_pb2*.py protos/conch/v1/*_pb2*.pyi
PATH="$(realpath "$tools/bin"):$PATH" python -m grpc_tools.protoc -I protos -I "$site" \
    --python_out="$out" --grpc_python_out="$out" --mypy_out=quiet:"$out" --mypy_grpc_out=quiet:"$out" \
    --include_imports --include_source_info --descriptor_set_out="$tools/conch.binpb" \
    protos/conch/v1/*.proto
.venv/bin/buf lint "$tools/conch.binpb" --path conch/v1
[ "$out" = protos ] && exit
if ! diff -r --brief -x '*.proto' -x __init__.py -x __pycache__ "$out/conch/v1" protos/conch/v1; then
    echo "the generated code is not that of the .proto files; type: make protos" >&2
    exit 1
fi
