#!/usr/bin/env bash
# tests/helm/kube.sh build | up | down: a real Kubernetes control plane on loopback, with kwok playing the nodes: admission,
# defaults, controllers and scheduling are real, containers never run.
#   build   etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubectl, kwok and helm by Go alone: 20 minutes of one core
#   up      starts them (15 s); KUBECONFIG is $TIDEMILL_CACHE/run/kube/kubeconfig
#   down    ends them and forgets everything
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${TIDEMILL_CACHE:-$HOME/.cache/tidemill-test}
bin=$cache/bin
run=$cache/run/kube
version=v1.37.2 kwok=v0.8.0
api=16443 store=12379

build() {
  local work=$cache/kube-mod-$version minor=${version#v1.} published=v0.${version#v1.} package=k8s.io/component-base/version gomod
  mkdir -p "$bin" "$work/etcd"
  export CGO_ENABLED=0
  GOFLAGS="$(go env GOFLAGS) -buildvcs=false -trimpath"
  export GOFLAGS
  cd "$work"
  if [ ! -f go.sum ]; then
    gomod=$(cd / && go mod download -json "k8s.io/kubernetes@$version" | python3 -c 'import json, sys; print(json.load(sys.stdin)["GoMod"])')
    rm -f go.mod
    go mod init local/kube 2>/dev/null
    # Kubernetes asks for its own parts at v0.0.0; each has a published tag.
    { echo "replace ("; grep -oE '^\s*k8s\.io/\S+ v0\.0\.0$' "$gomod" | sort -u | while read -r part _; do echo "	$part => $part $published"; done; echo ")"; } >>go.mod
    go mod edit -require="k8s.io/kubernetes@$version"
    {
      printf 'package tools\n\n'
      for program in kube-apiserver kube-controller-manager kube-scheduler kubectl; do echo "import _ \"k8s.io/kubernetes/cmd/$program\""; done
    } >tools.go
    sed -i '1i //go:build tools\n' tools.go
    printf 'package main\n\nimport (\n\t"os"\n\n\t"go.etcd.io/etcd/server/v3/etcdmain"\n)\n\nfunc main() { etcdmain.Main(os.Args) }\n' >etcd/main.go
    go mod tidy
  fi
  [ -x "$bin/etcd" ] || go build -ldflags "-s -w" -o "$bin/etcd" ./etcd
  for program in kube-apiserver kube-controller-manager kube-scheduler kubectl; do
    [ -x "$bin/$program" ] || go build -o "$bin/$program" \
      -ldflags "-s -w -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*} -X $package.gitTreeState=clean" \
      "k8s.io/kubernetes/cmd/$program"
  done
  [ -x "$bin/kwok" ] || GOBIN=$bin go install -ldflags "-s -w" "sigs.k8s.io/kwok/cmd/kwok@$kwok"
}

start() {
  local name=$1
  shift
  setsid "$@" >"$run/$name.log" 2>&1 </dev/null &
  echo "$!" >>"$run/pids"
}

wait_for() {
  local end=$((SECONDS + 120))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "kube.sh: gave up on: $*" >&2; tail -n 5 "$run"/*.log >&2; exit 1; }
    sleep 0.2
  done
}

up() {
  [ ! -e "$run/pids" ] || { echo "kube.sh: it is up, or an attempt was left behind: $0 down" >&2; exit 1; }
  mkdir -p "$run"
  cd "$run"
  local token
  token=$(openssl rand -hex 16)
  openssl genrsa -out sa.key 2048 2>/dev/null
  openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
  openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=test -keyout ca.key -out ca.crt 2>/dev/null
  openssl req -newkey rsa:2048 -nodes -subj /CN=kube-apiserver -keyout tls.key -out tls.csr 2>/dev/null
  openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -out tls.crt \
    -extfile <(echo "subjectAltName=IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc") 2>/dev/null
  echo "$token,admin,admin,\"system:masters\"" >tokens.csv
  cat >kubeconfig <<Y
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:$api", certificate-authority: $run/ca.crt}}]
users: [{name: u, user: {token: $token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
Y
  local peers="http://127.0.0.1:$((store + 1))"
  start etcd "$bin/etcd" --data-dir "$run/etcd" --unsafe-no-fsync --listen-client-urls "http://127.0.0.1:$store" \
    --advertise-client-urls "http://127.0.0.1:$store" --listen-peer-urls "$peers" --initial-advertise-peer-urls "$peers" \
    --initial-cluster "default=$peers"
  wait_for curl -fsS "http://127.0.0.1:$store/health"
  start kube-apiserver "$bin/kube-apiserver" --etcd-servers "http://127.0.0.1:$store" --bind-address 127.0.0.1 --advertise-address 127.0.0.1 \
    --secure-port $api --tls-cert-file tls.crt --tls-private-key-file tls.key --token-auth-file tokens.csv --authorization-mode Node,RBAC \
    --service-cluster-ip-range 10.96.0.0/16 --endpoint-reconciler-type none --service-account-key-file sa.pub \
    --service-account-signing-key-file sa.key --service-account-issuer https://kubernetes.default.svc
  export KUBECONFIG=$run/kubeconfig
  wait_for "$bin/kubectl" get --raw /readyz
  start kube-controller-manager "$bin/kube-controller-manager" --kubeconfig kubeconfig --leader-elect=false --bind-address 127.0.0.1 \
    --secure-port $((api + 1)) --cert-dir "$run/kcm" --service-account-private-key-file sa.key --root-ca-file ca.crt --use-service-account-credentials
  start kube-scheduler "$bin/kube-scheduler" --kubeconfig kubeconfig --leader-elect=false --bind-address 127.0.0.1 --secure-port $((api + 2)) \
    --cert-dir "$run/ks"
  start kwok "$bin/kwok" --kubeconfig kubeconfig --manage-all-nodes=true --node-ip 127.0.0.1 --node-lease-duration-seconds 40 --config "$here/kwok.yaml"
  for node in node-0 node-1; do
    "$bin/kubectl" apply -f - >/dev/null <<Y
apiVersion: v1
kind: Node
metadata: {name: $node, labels: {kubernetes.io/os: linux, kubernetes.io/hostname: $node, topology.kubernetes.io/zone: zone-$node}}
status:
  allocatable: &all {cpu: "32", memory: 64Gi, pods: "110", ephemeral-storage: 100Gi, nvidia.com/gpu: "8"}
  capacity: *all
Y
  done
  wait_for "$bin/kubectl" wait --for=condition=Ready node --all --timeout=1s
  wait_for "$bin/kubectl" get serviceaccount default
}

down() {
  if [ -e "$run/pids" ]; then
    # The state is thrown away: nothing needs a graceful end.
    tac "$run/pids" | while read -r pid; do kill -KILL "$pid" 2>/dev/null || true; done
    while read -r pid; do while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done; done <"$run/pids"
  fi
  rm -rf "$run"
}

case ${1:-} in
build | up | down) "$1" ;;
*) sed -n '2,7p' "$0" >&2; exit 64 ;;
esac
