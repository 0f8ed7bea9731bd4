#!/usr/bin/env bash
# tests/helm/sbom.sh [DIR]: what is inside the image, as files in DIR (default: target/sbom): LICENSES, the texts of all licences, as
# helm/Dockerfile makes them; tidemill.cdx.json, a software bill of materials by CycloneDX with what is compiled from C. It builds
# cargo-cyclonedx at the first run, a minute, into the cache folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-target/sbom}
tools=${TIDEMILL_CACHE:-$HOME/.cache/tidemill-test}/sbom
mkdir -p "$out"
[ -x "$tools/bin/cargo-cyclonedx" ] || cargo install --quiet --locked --root "$tools" cargo-cyclonedx@0.5.9
PATH=$tools/bin:$PATH cargo cyclonedx --format json --spec-version 1.5 --target x86_64-unknown-linux-gnu --no-build-deps --override-filename tidemill.cdx
mv tidemill.cdx.json "$out/"
python3 helm/licences.py "$out/LICENSES" --bom "$out/tidemill.cdx.json"
