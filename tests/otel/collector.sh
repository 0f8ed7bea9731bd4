#!/usr/bin/env bash
# collector.sh: builds a small OpenTelemetry Collector with Go alone, once, and prints where it is. From nothing that takes
# ten minutes of one core.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${TIDEMILL_CACHE:-$HOME/.cache/tidemill-test}/bin
if [ ! -x "$bin/otelcol" ]; then
  version=v0.165.0
  mkdir -p "$bin"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  export CGO_ENABLED=0
  GOFLAGS="$(go env GOFLAGS) -buildvcs=false -trimpath"
  export GOFLAGS
  (
    cp "$here/collector.yaml" "$work"
    cd "$work"
    GOBIN=$work go install -ldflags "-s -w" go.opentelemetry.io/collector/cmd/builder@$version
    # Its own `go mod tidy` wants what only the tests of the components need: the code alone is taken from it.
    ./builder --config collector.yaml --skip-compilation --skip-get-modules
    cd _build
    go mod init local/otelcol
    sed -n 's/.*gomod: *//p' ../collector.yaml | while read -r module version; do
      go mod edit -require="$module@$version"
    done
    go build -mod=mod -ldflags "-s -w" -o otelcol .
    mv otelcol "$bin/otelcol"
  ) >&2
fi
echo "$bin/otelcol"
