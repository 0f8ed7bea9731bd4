#!/usr/bin/env bash
# tests/helm/run.sh [api]: the chart against Kubernetes' own tools, which tools.sh builds where Go and Python are: lint, schemas,
# what each value does, the alerts, every example through the service's own check, the image's root, the texts of the licences in it,
# and the chart's pods run against a real Kafka as a node runs them. With `api` also against a real API server: api.sh, some
# minutes more. TIDEMILL names the program (default: target/release/tidemill). Where Go or Python is missing it says so and passes;
# with CI=true it fails.
set -euo pipefail
cd "$(dirname "$0")"
for needed in go python3; do
  if ! command -v "$needed" >/dev/null; then
    echo "skipped: no $needed, so the chart is not checked" >&2
    [ "${CI:-}" != true ]
    exit
  fi
done
TIDEMILL=${TIDEMILL:-$PWD/../../target/release/tidemill}
export TIDEMILL
cache=${TIDEMILL_CACHE:-$HOME/.cache/tidemill-test}
if ! ./tools.sh >/dev/null; then
  # Ten minutes of a core and half of Go's modules: what cannot be fetched today says nothing about the chart.
  echo "SKIPPED: the tools for the chart cannot be built here, so it is not checked" >&2
  exit
fi
"$cache/venv-helm/bin/python" chart.py "$cache"
./image.sh
licences=$(mktemp)
python3 ../../helm/licences.py "$licences"
rm "$licences"
"$cache/venv-helm/bin/python" pods.py "$cache"
if [ "${1:-}" = api ]; then ./api.sh; fi
