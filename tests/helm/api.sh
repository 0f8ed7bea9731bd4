#!/usr/bin/env bash
# tests/helm/api.sh: the chart on a real API server, by kube.sh: installed, upgraded, rolled back, tested, uninstalled, in a
# namespace that enforces the standard `restricted`; applied twice without a difference; every example accepted. Two minutes once
# the programs are built, which takes twenty.
set -euo pipefail
cd "$(dirname "$0")"
cache=${TIDEMILL_CACHE:-$HOME/.cache/tidemill-test}
chart=$PWD/../../helm/tidemill
./tools.sh helm >/dev/null
./kube.sh build
export PATH=$cache/bin:$PATH KUBECONFIG=$cache/run/kube/kubeconfig
work=$(mktemp -d)
trap './kube.sh down; rm -rf "$work"' EXIT
./kube.sh up
passed=0
ok() { passed=$((passed + 1)); echo "ok $passed: $*"; }
fail() { echo "api.sh: $*" >&2; exit 1; }
get() { kubectl get -n predictions "$@"; }

kubectl apply --server-side -f crds >/dev/null
kubectl wait --for=condition=Established crd --all --timeout=20s >/dev/null
kubectl create namespace predictions >/dev/null
kubectl label namespace predictions pod-security.kubernetes.io/{enforce,warn,audit}=restricted >/dev/null
kubectl create secret generic user -n predictions --from-literal=password=one >/dev/null
kubectl apply -n predictions -f - >/dev/null <<Y
apiVersion: v1
kind: PersistentVolume
metadata: {name: models}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadOnlyMany], claimRef: {namespace: predictions, name: models}, nfs: {server: nfs, path: /}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: models}
spec: {accessModes: [ReadOnlyMany], storageClassName: "", resources: {requests: {storage: 1Gi}}, volumeName: models}
Y

# What a pod is refused without, and a template is not.
for name in x-tidemill reviews-sentiment; do kubectl create --save-config serviceaccount "$name" -n predictions >/dev/null; done
kubectl apply -f - >/dev/null <<Y
{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: nvidia}, handler: nvidia}
Y

# The standard, and what Kubernetes warns of, of every example and of what Kubernetes itself refuses.
for example in "$chart"/examples/*.yaml; do
  values=(-f "$example")
  case $example in */with-*) values=(-f "$chart/examples/quickstart.yaml" -f "$example") ;; esac
  helm template x "$chart" -n predictions "${values[@]}" >"$work/x.yaml"
  kubectl apply -n predictions --dry-run=server -f "$work/x.yaml" >"$work/out" 2>"$work/said" || fail "$example: $(cat "$work/said")"
  # A namespace of another object is its own.
  ! grep -i "warning" "$work/said" || fail "$example: Kubernetes warns"
  ok "${example##*/} is accepted without a warning"
done
cat >"$work/wrong.yaml" <<Y
securityContext: {allowPrivilegeEscalation: true}
Y
helm template x "$chart" -n predictions -f "$chart/examples/quickstart.yaml" -f "$work/wrong.yaml" |
  kubectl apply -n predictions --dry-run=server -f - >"$work/out" 2>&1 || true
grep -q 'would violate PodSecurity' "$work/out" || fail "the namespace does not look at pods"
ok "a pod that may do more is warned of here: the check above sees"

# The life of a release.
cat >"$work/values.yaml" <<Y
replicaCount: 3
secrets: [{name: user, existingSecret: user}]
config:
  kafka: {common: {security.protocol: SASL_PLAINTEXT, sasl.mechanisms: PLAIN, sasl.username: u, sasl.password: "\${file:/etc/tidemill/secrets/user/password}"}}
metrics: {serviceMonitor: {enabled: true}, prometheusRule: {enabled: true}, dashboard: {enabled: true}}
networkPolicy: {enabled: true}
strimzi: {cluster: events, topics: {enabled: true}, user: {enabled: true}}
Y
release=(reviews "$chart" -n predictions -f "$chart/examples/quickstart.yaml" -f "$work/values.yaml" --wait --timeout 60s)
helm install "${release[@]}" >"$work/notes" 2>&1 || fail "install: $(cat "$work/notes")"
! grep -i warning "$work/notes" || fail "helm install warns"
[ "$(get statefulset reviews-tidemill -o jsonpath='{.status.readyReplicas}')" = 3 ] || fail "not three replicas"
ok "installed: three replicas"
revision() { get statefulset reviews-tidemill -o jsonpath='{.status.updateRevision}'; }
first=$(revision)
helm upgrade "${release[@]}" >/dev/null
[ "$(revision)" = "$first" ] || fail "an upgrade without a change replaces pods"
ok "an upgrade without a change leaves the pods alone"
kubectl create secret generic user -n predictions --from-literal=password=two --dry-run=client -o yaml | kubectl apply -f - >/dev/null 2>&1
helm upgrade "${release[@]}" >/dev/null
second=$(revision)
[ "$second" != "$first" ] || fail "a secret that has changed does not replace pods"
ok "a secret that has changed replaces them"
helm upgrade "${release[@]}" --set config.batch.max_records=64 --set image.tag=0.2.0 >/dev/null
[ "$(revision)" != "$second" ] || fail "a configuration that has changed does not replace pods"
configured() { get configmap reviews-tidemill -o jsonpath='{.data.tidemill\.yaml}' >"$work/configured"; grep -q "$1" "$work/configured"; }
configured 'max_records: 64' || fail "the configuration is not the new one"
ok "so does a configuration"
helm rollback reviews 3 -n predictions --wait --timeout 60s >/dev/null
! configured max_records || fail "the rollback does not bring the configuration back"
[ "$(get statefulset reviews-tidemill -o jsonpath='{.spec.template.spec.containers[0].image}')" = ghcr.io/tidemill/tidemill:0.1.0 ] || fail "the rollback does not bring the image back"
ok "rolled back"
for key in replicas=2 config.batch.max_record=64; do
  ! helm upgrade "${release[@]}" --set "$key" >"$work/out" 2>&1 || fail "$key is no key, and an upgrade takes it"
  name=${key%=*}
  grep -q "${name##*.}" "$work/out" || fail "an upgrade with $key does not say what is wrong: $(cat "$work/out")"
done
[ "$(helm list -n predictions -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["status"])')" = deployed ] || fail "a refused upgrade leaves its mark"
ok "a key that has another name is refused, and nothing is changed"
helm test reviews -n predictions --timeout 60s >/dev/null || fail "helm test"
ok "tested"

# Autoscaling: who sets the replicas keeps them.
helm upgrade "${release[@]}" --set keda.enabled=true >/dev/null
kubectl scale statefulset reviews-tidemill -n predictions --replicas=0 >/dev/null
helm upgrade "${release[@]}" --set keda.enabled=true --set config.batch.max_records=65 >/dev/null
[ "$(get statefulset reviews-tidemill -o jsonpath='{.spec.replicas}')" = 0 ] || fail "an upgrade wakes what KEDA has put to sleep"
ok "an upgrade leaves the replicas to KEDA, also at zero"
kubectl scale statefulset reviews-tidemill -n predictions --replicas=2 >/dev/null
kubectl rollout status statefulset reviews-tidemill -n predictions --timeout=60s >/dev/null || fail "not back from zero"
ok "and back"

helm uninstall reviews -n predictions --wait >/dev/null
left=$(get statefulset,service,configmap,poddisruptionbudget,networkpolicy,scaledobject,servicemonitor,prometheusrule,kafkauser,cronjob \
  -l app.kubernetes.io/instance=reviews -o name)
[ -z "$left" ] || fail "an uninstall leaves $left"
[ "$(get kafkatopic -o name | wc -l)" = 3 ] || fail "an uninstall deletes topics"
ok "uninstalled, but for the topics"
kubectl delete kafkatopic -n predictions --all >/dev/null

# A job.
helm install nightly "$chart" -n predictions -f "$chart/examples/cronjob.yaml" >/dev/null
kubectl create job -n predictions --from=cronjob/nightly-tidemill now >/dev/null
kubectl wait -n predictions --for=create pod -l job-name=now --timeout=30s >/dev/null || fail "the job makes no pod"
[ "$(get cronjob nightly-tidemill -o jsonpath='{.spec.concurrencyPolicy}')" = Forbid ] || fail "two jobs may run at once"
ok "a CronJob is installed, and a job made of it"
helm uninstall nightly -n predictions >/dev/null

# GitOps: applied twice by the server, nothing is different the second time.
for example in quickstart strimzi cronjob gpu hpa; do
  helm template twice "$chart" -n predictions -f "$chart/examples/$example.yaml" --set strimzi.namespace=predictions --no-hooks >"$work/x.yaml"
  kubectl apply -n predictions --server-side --field-manager=gitops -f "$work/x.yaml" >/dev/null
  before=$(kubectl get -n predictions -f "$work/x.yaml" -o jsonpath='{range .items[*]}{.kind}/{.metadata.name} {.metadata.generation} {end}')
  kubectl diff -n predictions --server-side --field-manager=gitops -f "$work/x.yaml" >"$work/diff" || fail "$example differs from itself: $(cat "$work/diff")"
  kubectl apply -n predictions --server-side --field-manager=gitops -f "$work/x.yaml" >/dev/null
  after=$(kubectl get -n predictions -f "$work/x.yaml" -o jsonpath='{range .items[*]}{.kind}/{.metadata.name} {.metadata.generation} {end}')
  [ "$before" = "$after" ] || fail "$example: a second apply changes something: $before -> $after"
  kubectl delete -n predictions -f "$work/x.yaml" --wait=false >/dev/null
  ok "$example applied twice is the same"
done
echo "$passed passed, 0 failed"
