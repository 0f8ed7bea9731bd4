#!/usr/bin/env bash
# tests/helm/tools.sh [NAME...]: builds helm, kubeconform and promtool with Go alone, and fetches the schemas of Kubernetes'
# own kinds with pip, into $TIDEMILL_CACHE (default ~/.cache/tidemill-test). What is there already is kept. Prints where
# the programs are. From nothing that takes ten minutes of one core, most of it promtool.
set -euo pipefail
cache=${TIDEMILL_CACHE:-$HOME/.cache/tidemill-test}
bin=$cache/bin
mkdir -p "$bin"
export CGO_ENABLED=0
GOFLAGS="$(go env GOFLAGS) -buildvcs=false -trimpath"
export GOFLAGS
helm=v3.22.0 kubeconform=v0.8.0 prometheus=v0.308.0 kubernetes=1.37.0

# build NAME MODULE VERSION PACKAGE LDFLAGS [TAGS]: through a small module that carries over the replace lines, because
# `go install` refuses those.
build() {
  [ ! -x "$bin/$1" ] || return 0
  local work gomod
  work=$(mktemp -d)
  gomod=$(cd / && go mod download -json "$2@$3" | python3 -c 'import json, sys; print(json.load(sys.stdin)["GoMod"])')
  (
    cd "$work"
    go mod init local/tool 2>/dev/null
    go mod edit -json "$gomod" | python3 -c '
import json, sys
module = json.load(sys.stdin)
for line in module.get("Replace") or []:
    old, new = line["Old"], line["New"]
    if new.get("Version"):
        print("replace", old["Path"], old.get("Version", ""), "=>", new["Path"], new["Version"])
for line in module.get("Exclude") or []:
    print("exclude", line["Path"], line["Version"])' >>go.mod
    go mod edit -require="$2@$3"
    printf 'package tool\n\nimport _ "%s"\n' "$4" >tool.go
    go mod tidy -e >/dev/null 2>&1
    go build -tags "${6:-}" -ldflags "-s -w $5" -o "$bin/$1" "$4"
  ) >&2
  rm -rf "$work"
}

[ $# -gt 0 ] || set -- helm kubeconform promtool schemas
for name in "$@"; do
  case $name in
  helm)
    # Without these a helm that Go alone has built takes the cluster for v1.20.
    version="-X helm.sh/helm/v3/internal/version.version=$helm"
    for package in chartutil lint/rules; do
      version="$version -X helm.sh/helm/v3/pkg/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/$package.k8sVersionMinor=37"
    done
    build helm helm.sh/helm/v3 $helm helm.sh/helm/v3/cmd/helm "$version"
    ;;
  kubeconform) build kubeconform github.com/yannh/kubeconform $kubeconform github.com/yannh/kubeconform/cmd/kubeconform "" ;;
  promtool)
    build promtool github.com/prometheus/prometheus $prometheus github.com/prometheus/prometheus/cmd/promtool "" remove_all_sd
    ;;
  schemas)
    schemas=$cache/schemas-$kubernetes
    if [ ! -d "$schemas" ]; then
      python3 -m venv "$cache/venv-helm" >&2
      "$cache/venv-helm/bin/pip" install -q kubernetes-validate==$kubernetes pyyaml==6.0.3 >&2
      "$cache/venv-helm/bin/python" "$(dirname "$0")/schemas.py" "$schemas" $kubernetes >&2
    fi
    ;;
  *) echo "tests/helm/tools.sh: $name is none of helm, kubeconform, promtool, schemas" >&2; exit 64 ;;
  esac
done
echo "$bin"
