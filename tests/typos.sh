#!/usr/bin/env bash
# typos.sh: the spelling checker `typos` out of its PyPI package, once. Prints its path. Needs python3 with pip.
set -euo pipefail
version=1.52.0
to=${TIDEMILL_CACHE:-$HOME/.cache/tidemill-test}/typos-$version
if [ ! -x "$to" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  python3 -m pip download -q --no-deps --only-binary :all: --dest "$work" typos==$version >&2
  python3 -m zipfile -e "$work"/typos-*.whl "$work/wheel"
  mkdir -p "$(dirname "$to")"
  chmod +x "$work"/wheel/typos-*.data/scripts/typos
  mv "$work"/wheel/typos-*.data/scripts/typos "$to"
fi
echo "$to"
