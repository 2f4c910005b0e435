#!/usr/bin/env bash
# Makes everything that `make demo` and `make test` need, once: Debian packages (when root, else it
# says what to type), the services' environment in .venv, Triton's own environment in CONCH_HOME.
# A second run with nothing changed takes no time.
set -euo pipefail
cd "$(dirname "$0")/.."
export CONCH_HOME="${CONCH_HOME:-.conch}" PIP_DISABLE_PIP_VERSION_CHECK=1

need_debian() {
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" != 0 ]; then
        echo "missing Debian packages; type: sudo apt-get install ${missing[*]}" >&2
        exit 2
    fi
    echo "setup: apt-get install ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

find_python() {
    for candidate in python3.11 python3.12 python3; do
        if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "$candidate"
            return
        fi
    done
    echo "Conch needs Python 3.11 or newer; type: sudo apt-get install python3.11 python3.11-venv" >&2
    exit 2
}

services_environment() {
    local stamp
    stamp=".venv/ready-$(cat pyproject.toml constraints.txt | sha256sum | cut -c1-16)"
    [ -e "$stamp" ] && return
    echo "setup: services' environment in .venv (about a minute and a half)"
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    # torch first and by itself: pip takes a CPU wheel where one lies on the machine.
    .venv/bin/pip install --quiet torch==2.13.0
    .venv/bin/pip install --quiet --constraint constraints.txt --editable '.[dev]'
    rm -f .venv/ready-*
    touch "$stamp"
}

python=$(find_python)
# ensurepip is a package of its own on Debian; any other Python brings it along.
"$python" -c 'import ensurepip' 2>/dev/null || need_debian python3.11-venv
[ "${1:-}" = test ] && need_debian postgresql
services_environment
[ "${1:-}" = test ] && scripts/chart_tools.sh
.venv/bin/python -m services.triton.install
.venv/bin/python -m services.converter.ir_environment
