#!/usr/bin/env bash
# tests/helm/sbom.sh [DIR]: what is inside the image, as files in DIR (default: target/sbom): LICENSES, the texts of all licences, by
# cargo-about; tidemill.cdx.json, a software bill of materials by CycloneDX; in both also what is compiled from C (carried.py). Fails
# where a licence is not accepted. It builds its two tools at the first run, some minutes, into the cache folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-target/sbom}
tools=${TIDEMILL_CACHE:-$HOME/.cache/tidemill-test}/sbom
mkdir -p "$out"
[ -x "$tools/bin/cargo-about" ] || cargo install --quiet --locked --root "$tools" --features cli cargo-about@0.9.3
[ -x "$tools/bin/cargo-cyclonedx" ] || cargo install --quiet --locked --root "$tools" cargo-cyclonedx@0.5.9
PATH=$tools/bin:$PATH
cargo about generate --locked --fail -c helm/about.toml -o "$out/LICENSES" helm/about.hbs
cargo cyclonedx --format json --spec-version 1.5 --target x86_64-unknown-linux-gnu --no-build-deps --override-filename tidemill.cdx
mv tidemill.cdx.json "$out/"
python3 tests/helm/carried.py "$out/LICENSES" "$out/tidemill.cdx.json"
packages=$(python3 -c 'import json,sys; print(len(json.load(open(sys.argv[1]))["components"]))' "$out/tidemill.cdx.json")
echo "sbom: $packages packages in $out/tidemill.cdx.json, $(wc -l <"$out/LICENSES") lines of licences"
