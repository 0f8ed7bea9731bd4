#!/usr/bin/env python3
"""chart.py CACHE: what the chart renders, by helm, kubeconform, promtool and the service's own check.

chart.py CACHE --write: writes the table of values into the chart's README."""

import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

from twice import twice

HERE = pathlib.Path(__file__).parent.resolve()
CHART = HERE.parent.parent / "helm" / "tidemill"
CACHE = pathlib.Path(sys.argv[1])
VERSION = "1.37.0"
LEAST = yaml.safe_load((CHART / "examples" / "quickstart.yaml").read_text())
EXAMPLES = [file for file in sorted((CHART / "examples").glob("*.yaml")) if not file.name.startswith("with-")]
# Those that say how a cluster is reached; others show a shape of the service.
BROKERS = ("quickstart", "strimzi", "msk", "msk-scram", "confluent-cloud", "redpanda", "event-hubs")
# Laid over each of them: a GPU, a job, both.
OVERLAYS = [("gpu",), ("job",), ("gpu", "job")]

failures, count = [], 0


def expect(good, what):
    global count
    count += 1
    if not good:
        failures.append(what)


def run(*command, **more):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, **more)


def merged(base, over):
    """Values over values, as helm merges them."""
    both = dict(base)
    for key, value in over.items():
        both[key] = merged(both[key], value) if isinstance(value, dict) and isinstance(both.get(key), dict) else value
    return both


def template(values, *arguments, release="r"):
    """What helm says, and what it renders, as text."""
    done = run(CACHE / "bin/helm", "template", release, CHART, "-n", "default", "-f", "-", *arguments, input=json.dumps(values))
    return done.stderr, done.stdout if done.returncode == 0 else None


def objects(values, **more):
    said, text = template(values, **more)
    if text is None:
        raise AssertionError(said)
    return [item for item in yaml.safe_load_all(text) if item]


def one(rendered, kind, suffix=""):
    found = [item for item in rendered if item["kind"] == kind and item["metadata"]["name"].endswith(suffix)]
    return found[0] if found else None


def pods(rendered):
    for item in rendered:
        spec = item.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        spec = spec.get("template", item).get("spec", {})
        if "containers" in spec:
            yield item, spec


def at(value, path):
    """`spec.template.spec.containers[0].image`; nothing where it leads nowhere. `["a.b"]` is a key with a dot."""
    for key in re.findall(r"\[\"[^\"]+\"\]|\[\d+\]|[^.\[\]]+", path):
        if key.startswith('["'):
            key = key[2:-2]
        elif key.startswith("["):
            key = int(key[1:-1])
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


SASL = {"security.protocol": "SASL_SSL", "sasl.mechanisms": "PLAIN", "sasl.username": "u", "sasl.password": "${env:PASSWORD}"}
AMAZON = {"bootstrap.servers": "k.example.com:9098", "security.protocol": "SASL_SSL", "sasl.mechanisms": "AWS_MSK_IAM"}
MSK = {**AMAZON, "bootstrap.servers": "b-1.e.a.c2.kafka.eu-west-1.amazonaws.com:9098"}
OIDC = {"security.protocol": "SASL_SSL", "sasl.mechanisms": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": "https://id.example.com:8443/token", "sasl.oauthbearer.client.id": "tidemill",
        "sasl.oauthbearer.client.secret": "${file:/etc/tidemill/secrets/id/secret}"}
POD = "spec.template.spec"
MAIN = f"{POD}.containers[0]"

# What values give: values over the least, kind, path, what stands there.
GIVES = [
    ({}, "StatefulSet", "spec.podManagementPolicy", "Parallel"),
    ({}, "StatefulSet", "spec.replicas", 1),
    ({"replicaCount": 0}, "StatefulSet", "spec.replicas", 0),
    ({"keda": {"enabled": True}}, "StatefulSet", "spec.replicas", None),
    ({"autoscaling": {"enabled": True}}, "StatefulSet", "spec.replicas", None),
    ({"autoscaling": {"enabled": True}}, "HorizontalPodAutoscaler", "spec.scaleTargetRef.kind", "StatefulSet"),
    ({"cronJob": {"enabled": True}}, "StatefulSet", "kind", None),
    ({"cronJob": {"enabled": True}}, "CronJob", "spec.concurrencyPolicy", "Forbid"),
    ({"cronJob": {"enabled": True}}, "CronJob", "spec.jobTemplate.spec.podReplacementPolicy", "Failed"),
    ({"cronJob": {"enabled": True, "deadline": "5h"}}, "CronJob", f"spec.jobTemplate.{MAIN}.args",
     ["run", "--config", "/etc/tidemill/tidemill.yaml", "--until-end", "--deadline", "5h"]),
    ({"cronJob": {"enabled": True, "deadline": "5h", "backoffLimit": 0}}, "CronJob", "spec.jobTemplate.spec.activeDeadlineSeconds", 18060),
    # One window for all tries, however many.
    ({"cronJob": {"enabled": True, "backoffLimit": 5}}, "CronJob", "spec.jobTemplate.spec.activeDeadlineSeconds", 3360),
    ({"cronJob": {"enabled": True}, "config": {"limits": {"drain": "2m"}}}, "CronJob", "spec.jobTemplate.spec.activeDeadlineSeconds", 3450),
    ({}, "PodDisruptionBudget", "spec.unhealthyPodEvictionPolicy", "AlwaysAllow"),
    ({}, "StatefulSet", f"{POD}.terminationGracePeriodSeconds", 60),
    ({"config": {"limits": {"drain": "2m"}}}, "StatefulSet", f"{POD}.terminationGracePeriodSeconds", 150),
    ({"config": {"limits": {"drain": "45500ms"}}}, "StatefulSet", f"{POD}.terminationGracePeriodSeconds", 76),
    ({"terminationGracePeriodSeconds": 300}, "StatefulSet", f"{POD}.terminationGracePeriodSeconds", 300),
    ({"image": {"tag": "1"}}, "StatefulSet", f"{MAIN}.image", "ghcr.io/tidemill/tidemill:1"),
    ({"global": {"imageRegistry": "mirror.example"}}, "StatefulSet", f"{MAIN}.image", "mirror.example/ghcr.io/tidemill/tidemill:0.1.0"),
    ({"image": {"digest": "sha256:" + "a" * 64}}, "StatefulSet", f"{MAIN}.image", "ghcr.io/tidemill/tidemill@sha256:" + "a" * 64),
    ({"gpu": {"enabled": True}}, "StatefulSet", f"{MAIN}.image", "ghcr.io/tidemill/tidemill:0.1.0-cuda"),
    ({"gpu": {"enabled": True, "count": 2}}, "StatefulSet", f"{MAIN}.resources.limits", {"memory": "1Gi", "nvidia.com/gpu": "2"}),
    ({"gpu": {"enabled": True}}, "StatefulSet", f"{POD}.tolerations[0].key", "nvidia.com/gpu"),
    ({"gpu": {"enabled": True}}, "StatefulSet", f"{POD}.initContainers[0].resources.limits", {"memory": "512Mi", "nvidia.com/gpu": "1"}),
    ({"gpu": {"enabled": True, "runtimeClassName": "n"}}, "Pod", "spec.runtimeClassName", "n"),
    ({"gpu": {"enabled": True}}, "Pod", "spec.containers[0].resources.limits", {"memory": "1Gi", "nvidia.com/gpu": "1"}),
    ({"gpu": {"enabled": True, "count": 2}, "cronJob": {"enabled": True}}, "CronJob", f"spec.jobTemplate.{MAIN}.resources.requests",
     {"cpu": "1", "memory": "512Mi", "nvidia.com/gpu": "2"}),
    ({"gpu": {"enabled": True, "nodeSelector": {"a": "b"}}, "cronJob": {"enabled": True}}, "CronJob", f"spec.jobTemplate.{POD}.nodeSelector", {"a": "b"}),
    ({"gpu": {"enabled": True}, "cronJob": {"enabled": True}}, "CronJob", f"spec.jobTemplate.{POD}.tolerations[0].key", "nvidia.com/gpu"),
    # OpenShift gives users and groups itself: what is null is left out.
    ({"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None, "fsGroupChangePolicy": None}}, "StatefulSet",
     f"{POD}.securityContext", {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}),
    ({}, "StatefulSet", 'spec.template.metadata.annotations["cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"]', "models,state"),
    ({}, "Pod", "spec.containers[0].args[0]", "check"),
    ({}, "Pod", "spec.containers[0].volumeMounts[2]", {"name": "state", "mountPath": "/var/lib/tidemill"}),
    ({"imagePullSecrets": ["a", {"name": "b"}]}, "StatefulSet", f"{POD}.imagePullSecrets", [{"name": "a"}, {"name": "b"}]),
    ({}, "StatefulSet", f"{POD}.initContainers[0].args", ["check", "--offline", "--config", "/etc/tidemill/tidemill.yaml"]),
    ({}, "StatefulSet", f"{MAIN}.env[1].name", "TIDEMILL_MODEL__WORKERS"),
    ({"config": {"model": {"workers": 3}}}, "StatefulSet", f"{MAIN}.env[1]", None),
    ({"resources": {"limits": {"cpu": "2"}}}, "StatefulSet", f"{MAIN}.env[1]", None),
    # What may be given stands there once: the chart's own goes.
    ({"extraEnv": [{"name": "TIDEMILL_MODEL__WORKERS", "value": "2"}]}, "StatefulSet", f"{MAIN}.env[2]", None),
    ({"podAnnotations": {"checksum/config": "0", "kubectl.kubernetes.io/default-container": "s"}}, "StatefulSet",
     'spec.template.metadata.annotations["kubectl.kubernetes.io/default-container"]', "s"),
    ({"commonLabels": {"app.kubernetes.io/version": "7"}}, "StatefulSet", 'metadata.labels["app.kubernetes.io/version"]', "7"),
    ({"global": {"imagePullSecrets": ["a"]}, "imagePullSecrets": [{"name": "a"}]}, "StatefulSet", f"{POD}.imagePullSecrets", [{"name": "a"}]),
    ({"config": {"http": {"listen": "[::]:9000"}}}, "StatefulSet", f"{MAIN}.ports[0].containerPort", 9000),
    ({"config": {"http": {"listen": "[::]:9000"}}}, "Service", "spec.ports[0].port", 9000),
    ({"secrets": [{"name": "a", "existingSecret": "s"}]}, "StatefulSet", f"{POD}.volumes[1].secret", {"secretName": "s", "defaultMode": 0o440}),
    ({"state": {"persistence": {"enabled": True}}}, "StatefulSet", "spec.volumeClaimTemplates[0].metadata.name", "state"),
    ({"state": {"persistence": {"enabled": True}}}, "StatefulSet", f"{POD}.volumes[2]", None),
    ({}, "StatefulSet", f"{POD}.topologySpreadConstraints[0].labelSelector.matchLabels",
     {"app.kubernetes.io/name": "tidemill", "app.kubernetes.io/instance": "r"}),
    ({"keda": {"enabled": True}}, "ScaledObject", "spec.triggers[0].metadata.offsetResetPolicy", "earliest"),
    ({"keda": {"enabled": True}}, "ScaledObject", "spec.triggers[0].metadata.excludePersistentLag", "false"),
    ({"keda": {"enabled": True}, "config": {"input": {"topics": ["a", "b"]}}}, "ScaledObject", "spec.triggers[1].metadata.topic", "b"),
    ({"keda": {"enabled": True, "lagThreshold": 2000000}}, "ScaledObject", "spec.triggers[0].metadata.lagThreshold", "2000000"),
    ({"keda": {"enabled": True}, "config": {"kafka": {"common": {"bootstrap.servers": "k1:9092, k2.kafka:9093"}}}}, "ScaledObject",
     "spec.triggers[0].metadata.bootstrapServers", "k1.default.svc:9092,k2.kafka:9093"),
    ({"keda": {"enabled": True}, "config": {"kafka": {"common": SASL}},
      "extraEnv": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}}]}, "TriggerAuthentication",
     "spec.secretTargetRef[0]", {"parameter": "password", "name": "s", "key": "p"}),
    ({"keda": {"enabled": True, "authenticationRef": {"name": "mine"}}, "config": {"kafka": {"common": SASL}}}, "ScaledObject",
     "spec.triggers[0].authenticationRef.name", "mine"),
    ({"keda": {"enabled": True, "authenticationRef": {"name": "mine"}}, "config": {"kafka": {"common": SASL}}}, "TriggerAuthentication", "kind", None),
    ({"keda": {"enabled": True}, "config": {"kafka": {"common": MSK}}}, "ScaledObject", "spec.triggers[0].metadata.awsRegion", "eu-west-1"),
    ({"keda": {"enabled": True}, "config": {"kafka": {"common": MSK}}}, "ScaledObject", "spec.triggers[0].metadata.sasl", "aws_msk_iam"),
    ({"keda": {"enabled": True}, "config": {"kafka": {"common": MSK}}}, "ScaledObject", "spec.triggers[0].authenticationRef.name", "r-tidemill"),
    ({"keda": {"enabled": True}, "config": {"kafka": {"common": MSK}}}, "TriggerAuthentication", "spec", {"podIdentity": {"provider": "aws"}}),
    ({"keda": {"enabled": True}, "config": {"kafka": {"common": OIDC}}, "secrets": [{"name": "id", "existingSecret": "s"}]}, "TriggerAuthentication",
     "spec.secretTargetRef[1]", {"parameter": "password", "name": "s", "key": "secret"}),
    ({"networkPolicy": {"enabled": True}, "config": {"kafka": {"common": OIDC}}}, "NetworkPolicy", "spec.egress[2].ports[0].port", 8443),
    ({"networkPolicy": {"enabled": True}, "config": {"traces": {"endpoint": "http://c:4318"}, "metrics": {"endpoint": "https://c/x"}}},
     "NetworkPolicy", "spec.egress[2].ports", [{"port": 4318, "protocol": "TCP"}, {"port": 443, "protocol": "TCP"}]),
    ({"networkPolicy": {"enabled": True}}, "NetworkPolicy", "spec.podSelector.matchExpressions[0].values", ["tidemill", "tidemill-test"]),
    ({"networkPolicy": {"enabled": True}, "config": {"kafka": {"common": MSK}}}, "NetworkPolicy", "spec.egress[2].ports[0].port", 443),
    ({"networkPolicy": {"enabled": True}}, "NetworkPolicy", "spec.egress[1].ports", [{"port": 9092, "protocol": "TCP"}]),
    ({"networkPolicy": {"enabled": True}, "config": {"schema_registry": {"urls": ["https://a/b", "http://c:8081", "https://d"]}}}, "NetworkPolicy",
     "spec.egress[2].ports", [{"port": 443, "protocol": "TCP"}, {"port": 8081, "protocol": "TCP"}]),
    ({"metrics": {"podMonitor": {"enabled": True, "labels": {"release": "p"}}}}, "PodMonitor", "metadata.labels.release", "p"),
    ({"strimzi": {"cluster": "c", "topics": {"enabled": True}}, "config": {"output": {"topic": "My_out"}}}, "KafkaTopic",
     "spec.topicName", "My_out"),
    ({"strimzi": {"cluster": "c", "namespace": "k", "user": {"enabled": True}}}, "KafkaUser", "metadata.namespace", "k"),
    ({"strimzi": {"cluster": "c", "topics": {"enabled": True, "except": ["reviews-predictions"]}}}, "KafkaTopic", "spec.topicName",
     "reviews-predictions-manifest"),
    ({"keda": {"enabled": True}}, "ScaledObject", "spec.fallback.behavior", "currentReplicasIfHigher"),
    ({"keda": {"enabled": True}, "config": {"kafka": {"common": {"security.protocol": "SSL"}}}, "secrets": [{"name": "ca", "existingSecret": "s"}],
      "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/etc/tidemill/secrets/ca/ca.crt"}]}, "TriggerAuthentication",
     "spec.secretTargetRef[0]", {"parameter": "ca", "name": "s", "key": "ca.crt"}),
    ({"keda": {"enabled": True}, "config": {"kafka": {"common": {"security.protocol": "SSL", "ssl.ca.location": "probe"}}}}, "Secret", "kind", None),
    ({"global": {"imageRegistry": "mirror.example/"}, "models": {"existingClaim": "", "init": {"image": "m:1"}}}, "StatefulSet",
     f"{POD}.initContainers[1].image", "mirror.example/m:1"),
    ({"podAnnotations": {"a": "1"}, "commonAnnotations": {"a": "2", "b": "3"}}, "StatefulSet", "spec.template.metadata.annotations.a", "1"),
    ({"fullnameOverride": "x" * 80}, "StatefulSet", "metadata.name", "x" * 52),
    ({"nameOverride": "y"}, "StatefulSet", "metadata.name", "r-y"),
    ({"serviceAccount": {"create": False, "name": "mine"}}, "StatefulSet", f"{POD}.serviceAccountName", "mine"),
]

# What the service's file has: values over the least, path, what stands there.
CONFIGURES = [
    ({}, "state.dir", "/var/lib/tidemill/journal"),
    ({}, "registry.root", "/models"),
    ({"config": {"model": {"uri": "/models/minilm"}}}, "registry", None),
    ({"config": {"registry": {"root": "/models/here"}}}, "registry.root", "/models/here"),
    ({}, "kafka.on_stop", "stay"),
    ({"keda": {"enabled": True}}, "kafka.on_stop", "leave"),
    ({"keda": {"enabled": True}, "leaveOnStop": "never"}, "kafka.on_stop", "stay"),
    ({"keda": {"enabled": True}, "config": {"kafka": {"consumer": {"group.protocol": "consumer"}}}}, "kafka.on_stop", "stay"),
    ({"config": {"kafka": {"on_stop": "leave"}}}, "kafka.on_stop", "leave"),
    ({"cronJob": {"enabled": True}}, "kafka.instance", "r-tidemill"),
    ({"gpu": {"enabled": True, "count": 2}}, "model.device", "cuda:0,cuda:1"),
    ({"config": {"batch": {"max_tokens": 20000000}}}, "batch.max_tokens", 20000000),
    ({"config": {"kafka": {"common": {"client.rack": "012345"}}}}, 'kafka.common["client.rack"]', "012345"),
    ({"config": {"kafka": {"common": {"client.rack": "1e5"}}}}, 'kafka.common["client.rack"]', "1e5"),
]

# What is refused, and in which words.
REFUSES = [
    ({"config": {"kafka": {"group": ""}}}, "config.kafka.group is required"),
    ({"config": None}, "config.kafka.group is required"),
    ({"config": {"model": {"uri": ""}}}, "config.model.uri is required"),
    ({"tests": {"records": ["a,b\nc: d"]}}, "with a line break"),
    ({"strimzi": {"cluster": "c", "topics": {"enabled": True, "except": ["review-dlq"]}}}, "which is none of this release's topics: reviews, "),
    ({"keda": {"enabled": True}, "config": {"kafka": {"common": {"security.protocol": "SSL"}}},
      "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/ca/ca.crt"}]}, "KEDA cannot find the authorities that /ca/ca.crt names"),
    ({"keda": {"enabled": True}, "config": {"kafka": {"common": {"security.protocol": "SSL", "ssl.ca.location": "/ca/ca.crt"}}}},
     "with `ca`"),
    ({"config": {"batch": {"max_wait": 50}}}, "max_wait"),
    ({"config": {"batch": {"maxWait": "50ms"}}}, "maxWait"),
    ({"config": {"kafka": {"on_stop": "flee"}}}, "on_stop"),
    ({"config": {"kafka": {"common": {"sasl.password": "hunter2"}}}}, "no place for a secret"),
    ({"config": {"schema_registry": {"urls": ["https://a"], "token": "hunter2"}}}, "no place for a secret"),
    ({"replicas": 2}, "replicas"),
    ({"replicaCount": -1}, "replicaCount"),
    ({"autoscaling": {"enabled": True}, "keda": {"enabled": True}}, "choose one"),
    ({"cronJob": {"enabled": True}, "keda": {"enabled": True}}, "does not go together"),
    ({"cronJob": {"enabled": True}, "metrics": {"serviceMonitor": {"enabled": True}}}, "use metrics.podMonitor"),
    ({"models": {"existingClaim": ""}}, "none is mounted"),
    ({"models": {"volume": {"emptyDir": {}}}}, "models come from one place"),
    ({"terminationGracePeriodSeconds": 30}, "leaves its transaction open"),
    ({"config": {"limits": {"drain": "2m"}}, "terminationGracePeriodSeconds": 120}, "150 s"),
    ({"state": {"existingClaim": "c"}}, "replicas cannot share a journal"),
    ({"strimzi": {"topics": {"enabled": True}}}, "strimzi.cluster is required"),
    ({"secrets": [{"name": "a", "existingSecret": "s"}, {"name": "a", "existingSecret": "t"}]}, "has a twice"),
    ({"keda": {"enabled": True}, "config": {"kafka": {"common": SASL}}}, "KEDA cannot find password"),
    ({"keda": {"enabled": True}, "config": {"kafka": {"common": {"security.protocol": "sasl_ssl", "sasl.mechanisms": "GSSAPI"}}}},
     "keda.authenticationRef is required"),
    ({"keda": {"enabled": True}, "config": {"kafka": {"common": AMAZON}}}, "keda.metadata.awsRegion is required"),
    ({"tests": {"records": [{"text": "a"}]}, "config": {"kafka": {"common": MSK}}}, "which get no tokens for AWS_MSK_IAM"),
    ({"extraEnv": [{"name": "POD_NAME", "value": "x"}]}, "extraEnv has POD_NAME"),
    ({"extraEnv": [{"name": "A", "value": "b"}, {"name": "A", "value": "c"}]}, "extraEnv has A twice"),
    ({"extraEnv": [{"name": "TIDEMILL_LIMITS__DRAIN", "value": "2m"}]}, "write config.limits.drain instead"),
    ({"extraEnv": [{"name": "TIDEMILL_LOG", "value": "sqlite"}]}, "write config.log instead"),
    ({"extraEnv": [{"name": "TIDEMILL_KAFKA__COMMON__SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL", "value": "https://a"}]},
     "write config.kafka.common.sasl.oauthbearer.token.endpoint.url instead; of a secret"),
    ({"models": {"existingClaim": "", "init": {"image": "m", "env": [{"name": "A"}, {"name": "A"}]}}}, "models.init.env has A twice"),
    ({"extraVolumes": [{"name": "state", "emptyDir": {}}]}, "also the name of that of the journal"),
    ({"extraVolumes": [{"name": "v"}, {"name": "v"}]}, "also the name of that of another of them"),
    ({"secrets": [{"name": "a", "existingSecret": "s"}], "extraVolumes": [{"name": "secret-a", "emptyDir": {}}]}, "of the secret a"),
    ({"extraVolumeMounts": [{"name": "v", "mountPath": "/models/"}]}, "extraVolumeMounts has /models, where the chart mounts the models"),
    ({"extraVolumeMounts": [{"name": "v", "mountPath": "/var/lib/tidemill"}]}, "give it another mountPath"),
    ({"extraContainers": [{"name": "tidemill", "image": "s"}]}, "also the name of the service"),
    ({"extraInitContainers": [{"name": "s", "image": "i"}], "extraContainers": [{"name": "s", "image": "s"}]}, "also the name of one of extraInit"),
    ({"commonLabels": {"app.kubernetes.io/name": "x"}}, "commonLabels has app.kubernetes.io/name"),
    ({"podLabels": {"app.kubernetes.io/component": "x"}}, "podLabels has app.kubernetes.io/component"),
    ({"resources": {"limits": {"memory": "1Pi"}}, "metrics": {"prometheusRule": {"enabled": True}}}, "resources.limits.memory"),
]

EVERYTHING = {
    "secrets": [{"name": "a", "existingSecret": "s", "items": [{"key": "k", "path": "p"}]}],
    "extraEnv": [{"name": "A", "value": "b"}, {"name": "TIDEMILL_MODEL__WORKERS", "value": "1"}], "extraEnvFrom": [{"configMapRef": {"name": "c"}}],
    "extraVolumes": [{"name": "tmp", "emptyDir": {}}], "extraVolumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    "extraInitContainers": [{"name": "i", "image": "i"}], "extraContainers": [{"name": "s", "image": "s"}],
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-x"}, "data": {"a": "b"}},
                     "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\n"],
    "commonLabels": {"team": "a", "app.kubernetes.io/version": "7"}, "commonAnnotations": {"b": "c"}, "podLabels": {"d": "e", "team": "b"},
    "podAnnotations": {"f": "g", "checksum/config": "0"},
    "affinity": {"nodeAffinity": {}}, "tolerations": [{"operator": "Exists"}], "nodeSelector": {"a": "b"},
    "priorityClassName": "p", "schedulerName": "s", "dnsPolicy": "ClusterFirst", "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}], "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
    "gpu": {"enabled": True, "runtimeClassName": "nvidia"}, "imagePullSecrets": ["x"], "minReadySeconds": 5,
    "models": {"existingClaim": "", "init": {"image": "m", "command": ["cp"], "args": ["a"], "env": [{"name": "A", "value": "b"}],
                                             "resources": {"limits": {"memory": "1Gi"}}}},
    "networkPolicy": {"enabled": True, "ingressFrom": [{"namespaceSelector": {}}], "kafkaTo": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
                      "extraIngress": [{"ports": [{"port": 1}]}], "extraEgress": [{"ports": [{"port": 2}]}]},
    "keda": {"enabled": True, "triggers": [{"type": "cron", "metadata": {"timezone": "UTC", "start": "0 8 * * *", "end": "0 9 * * *",
                                                                         "desiredReplicas": "2"}}],
             "advanced": {"restoreToOriginalReplicaCount": False}, "annotations": {"autoscaling.keda.sh/paused": "true"}},
    "metrics": {"serviceMonitor": {"enabled": True, "namespace": "m", "labels": {"team": "m"}, "relabelings": [{"action": "keep", "regex": "a"}],
                                   "metricRelabelings": [{"action": "drop", "regex": "b"}]},
                "prometheusRule": {"enabled": True, "namespace": "m", "alertLabels": {"team": "a"}},
                "dashboard": {"enabled": True, "annotations": {"grafana_folder": "a"}}},
    "state": {"persistence": {"enabled": True, "storageClassName": "fast"}},
    "strimzi": {"cluster": "c", "topics": {"enabled": True, "input": True}, "user": {"enabled": True, "authentication": "tls"}},
    "tests": {"records": [{"text": "it's good"}, "{\"text\": \"bad\"}"]},
}


def values():
    """What each value does."""
    for over, kind, path, stands in GIVES:
        found = at(one(objects(merged(LEAST, over)), kind) or {}, path)
        expect(found == stands, f"{json.dumps(over)}: {kind} {path} is {found!r}, not {stands!r}")
    for over, path, stands in CONFIGURES:
        found = at(yaml.safe_load(one(objects(merged(LEAST, over)), "ConfigMap")["data"]["tidemill.yaml"]), path)
        expect(found == stands, f"{json.dumps(over)}: the service's {path} is {found!r}, not {stands!r}")
    for over, words in REFUSES:
        said, text = template(merged(LEAST, over))
        expect(text is None and words in said, f"{json.dumps(over)}: {words!r} is not what helm says: {said or 'nothing, it renders'}")
    changed = [at(one(objects(merged(LEAST, over)), "StatefulSet"), 'spec.template.metadata.annotations["checksum/config"]')
               for over in ({}, {}, {"config": {"batch": {"max_records": 7}}})]
    changed.append(at(one(objects(merged(LEAST, {"podAnnotations": {"checksum/config": "0"}})), "StatefulSet"),
                      'spec.template.metadata.annotations["checksum/config"]'))
    expect(changed[0] == changed[1] == changed[3] != changed[2], "checksum/config does not follow the configuration")


def restricted(rendered, name):
    """What the standard `restricted` asks for, of every container that is the chart's."""
    for item, pod in pods(rendered):
        expect(at(pod, "securityContext.runAsUser") == 65532, f"{name}: {item['kind']} runs as another user")
        for container in pod["containers"] + pod.get("initContainers", []):
            context = container.get("securityContext")
            good = context and context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
            good = good and context["capabilities"] == {"drop": ["ALL"]} and context["seccompProfile"] == {"type": "RuntimeDefault"}
            expect(good or container["image"] in ("i", "s"), f"{name}: {item['kind']} {container['name']} may do too much")
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            claims = {claim["metadata"]["name"] for claim in item["spec"].get("volumeClaimTemplates", [])}
            missing = mounts - {volume["name"] for volume in pod["volumes"]} - claims
            expect(not missing, f"{name}: {item['kind']} {container['name']} mounts {missing}, which are no volumes")


def variables():
    """No template reads a key of `config` that a variable of `extraEnv` could set unseen."""
    keys = set()
    for file in (CHART / "templates").rglob("*.*"):
        text = file.read_text()
        for words in re.findall(r'"tidemill.configured" \(list [.$]+ ((?:"[\w.]+" ?)+)\)', text):
            keys.add(".".join(re.findall(r'"([\w.]+)"', words)))
        keys.update(f"kafka.common.{name}" for name in re.findall(r'"tidemill.property" \(list [.$(first)]+ "([\w.]+)"\)', text))
        keys.update(re.findall(r"\.Values\.config\.([a-z_]+(?:\.[a-z_]+)+)", text))
    keys -= {"kafka.common", "model.workers"}  # a section; left to the variable
    expect({"limits.drain", "kafka.group", "kafka.common.ssl.ca.location"} <= keys, f"the templates read {keys}")
    for key in keys:
        section = next((section for section in ("kafka.common.", "kafka.consumer.") if key.startswith(section)), "")
        variable = f"{section.replace('.', '__')}{key.removeprefix(section).replace('.', '_' if section else '__')}".upper()
        said, text = template(merged(LEAST, {"extraEnv": [{"name": f"TIDEMILL_{variable}", "value": "x"}]}))
        expect(text is None and f"write config.{key} instead" in said, f"TIDEMILL_{variable} is not refused, and templates read {key}")


def own_check(rendered, name):
    """The service's own look at its file, with the secrets that the pod would see."""
    text = one(rendered, "ConfigMap")["data"]["tidemill.yaml"]
    with tempfile.TemporaryDirectory() as folder:
        for path in set(re.findall(r"/etc/tidemill/secrets/([-\w./]+)", text)):
            file = pathlib.Path(folder) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("hunter2")
            file.chmod(0o440)
        file = pathlib.Path(folder) / "tidemill.yaml"
        file.write_text(text.replace("/etc/tidemill/secrets", folder))
        env = {"POD_NAME": "r-tidemill-0", "TIDEMILL_MODEL__WORKERS": "1"}
        done = run(os.environ["TIDEMILL"], "check", "--offline", "--config", file, env=env)
        expect(done.returncode == 0 and "warning" not in done.stdout, f"{name}: tidemill check --offline: {done.stdout}{done.stderr}")


def shaped(rendered, name):
    """What an overlay makes of an example: one of service and job, and where a GPU is asked for, each container has it."""
    kinds = {item["kind"] for item in rendered}
    expect(("CronJob" in kinds) == ("job" in name) and ("StatefulSet" in kinds) != ("CronJob" in kinds), f"{name}: {kinds}")
    if " with gpu" in name:
        for item, pod in pods(rendered):
            for container in pod["containers"] + pod.get("initContainers", []):
                ours = "tidemill:" in container["image"]
                expect(not ours or container["resources"]["limits"].get("nvidia.com/gpu") == "1", f"{name}: {container['name']} has no GPU")
    # helm test --logs asks for the log of a pod by each hook's name, and fails where there is none.
    hooks = {item["kind"] for item in rendered if "helm.sh/hook" in item["metadata"].get("annotations", {})}
    expect(hooks == {"Pod"}, f"{name}: the tests are {hooks}")


def texts():
    """Names that YAML would take for numbers stay texts."""
    def scalars(value):
        if isinstance(value, (dict, list)):
            for each in value.values() if isinstance(value, dict) else value:
                yield from scalars(each)
        else:
            yield value
    case = merged(LEAST, merged(EVERYTHING, {"fullnameOverride": "31", "nameOverride": "37", "models": {"init": {"image": "m"}}}))
    number = [value for value in scalars(objects(case, release="1e9")) if value in (31, 37, 1e9) and not isinstance(value, str)]
    expect(not number, f"names became numbers: {number}")


def renders(folder):
    """Lint, schemas, security and the service's own check, of each example and of everything at once."""
    cases = {file.name: yaml.safe_load(file.read_text()) for file in EXAMPLES}
    for file in EXAMPLES:
        if file.stem in BROKERS:
            for over in OVERLAYS:
                laid = [yaml.safe_load((CHART / "examples" / f"with-{name}.yaml").read_text()) for name in over]
                cases[" with ".join((file.name,) + over)] = functools.reduce(merged, laid, cases[file.name])
    cases["README"] = yaml.safe_load((CHART / "README.md").read_text().split("```yaml\n")[1].split("```")[0])
    cases["everything"] = merged(LEAST, EVERYTHING)
    cases["everything as a job"] = merged(merged(LEAST, EVERYTHING), {
        "cronJob": {"enabled": True}, "keda": {"enabled": False}, "state": {"existingClaim": "c", "persistence": {"enabled": False}},
        "metrics": {"serviceMonitor": {"enabled": False}, "podMonitor": {"enabled": True}}})
    for name, case in cases.items():
        lint = run(CACHE / "bin/helm", "lint", "--strict", CHART, "-f", "-", input=json.dumps(case))
        expect(lint.returncode == 0, f"{name}: helm lint --strict: {lint.stdout}{lint.stderr}")
        said, text = template(case)
        expect(text is not None, f"{name}: {said}")
        if text is None:
            continue
        (folder / f"{re.sub(r'[^a-z]+', '-', name)}.yaml").write_text(text)
        for complaint in twice(text, pods):
            expect(False, f"{name}: {complaint}")
        rendered = [item for item in yaml.safe_load_all(text) if item]
        restricted(rendered, name)
        own_check(rendered, name)
        shaped(rendered, name)
        names = [(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in rendered]
        expect(len(names) == len(set(names)), f"{name}: two objects have one name: {names}")
        rules = one(rendered, "PrometheusRule")
        if rules:
            expect(len(rules["spec"]["groups"][0]["rules"]) <= 10, f"{name}: more than ten alerts")
    schemas = CACHE / f"schemas-{VERSION}"
    done = run(CACHE / "bin/kubeconform", "-strict", "-summary", "-schema-location", f"{schemas}/builtin/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json",
               "-schema-location", f"{schemas}/{{{{ .Group }}}}/{{{{ .ResourceKind }}}}_{{{{ .ResourceAPIVersion }}}}.json", *folder.glob("*.yaml"))
    expect(done.returncode == 0, f"kubeconform: {done.stdout}{done.stderr}")


def nulls():
    """A value that somebody empties (`extraEnv:` and nothing behind it) is its emptiest; a section that is missing, as with
    --reuse-values of an older chart, is named, and is no nil pointer in a template."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    full = merged(merged(LEAST, EVERYTHING), {"config": {"kafka": {"common": SASL}},
                  "extraEnv": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}}]})

    def sections(node, path=()):
        for key, value in node["properties"].items():
            if key == "config":
                continue
            closed = value.get("type") == "object" and value.get("additionalProperties") is False
            if value.get("type") in ("object", "array"):
                yield path + (key,), key in node.get("required", [])
            if closed:
                yield from sections(value, path + (key,))
    for path, named in sections(schema):
        case = functools.reduce(lambda inner, key: {key: inner}, reversed(path), None)
        said, text = template(merged(full, case))
        if named:
            expect(text is None and f"missing property '{path[-1]}'" in said, f"{'.'.join(path)} is null: {said or 'nothing is said'}")
        else:
            own = path == ("extraEnv",)  # where the password comes from
            expect(own or text is not None, f"{'.'.join(path)} is null: {said}")


def context():
    """The image's build is given each file that the code takes in."""
    top = CHART.parent.parent
    let_in = {line[1:].strip() for line in (top / "helm/Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    for file in (top / "src").rglob("*.rs"):
        for path in re.findall(r'"((?:\.\./)+[^"]+)"', file.read_text()):
            place = (file.parent / path).resolve()
            if place.exists() and place.is_relative_to(top) and not place.is_relative_to(top / "src"):
                folder = place.relative_to(top).parts[0]
                expect(folder in let_in, f"{file.relative_to(top)} takes {path} in, and Dockerfile.dockerignore keeps {folder} out")


def script():
    """The script of `helm test` is one that a shell reads."""
    text = one(objects(merged(LEAST, EVERYTHING)), "ConfigMap", "-test")["data"]["test.sh"]
    done = run("sh", "-n", input=text)
    expect(done.returncode == 0, f"test.sh: {done.stderr}")
    records = ["a,b: c", "  {'text': '<x>'}\n", {"text": "y"}]
    lines = one(objects(merged(LEAST, {"tests": {"records": records}})), "ConfigMap", "-test")["data"]["records"]
    expect(lines == "a,b: c\n  {'text': '<x>'}\n{\"text\":\"y\"}\n", f"the records of helm test are {lines!r}")


def alerts(folder):
    """The rules' syntax, each alert on made-up series, and the dashboard's queries."""
    rules = {"metrics": {"prometheusRule": {"enabled": True}}}
    job = {"cronJob": {"enabled": True}}
    short = {"cronJob": {"enabled": True, "deadline": "5m"}}
    for file, over, release in (("service.yaml", {}, "r"), ("job.yaml", job, "j"), ("short.yaml", short, "s")):
        spec = one(objects(merged(merged(LEAST, rules), over), release=release), "PrometheusRule")["spec"]
        (folder / file).write_text(yaml.safe_dump(spec))
    (folder / "alerts_test.yaml").write_text((HERE / "alerts_test.yaml").read_text())
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    plain = lambda text: re.sub(r"\$\w+", ".*", text.replace("$__rate_interval", "5m").replace("$__range", "1h"))
    queries = [plain(target["expr"]) for panel in panels for target in panel["targets"]]
    named = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    (folder / "dashboard.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": named}]}))
    for command in (["check", "rules", "service.yaml", "job.yaml", "short.yaml", "dashboard.yaml"], ["test", "rules", "alerts_test.yaml"]):
        done = run(CACHE / "bin/promtool", *command, cwd=folder)
        expect(done.returncode == 0, f"promtool {' '.join(command)}: {done.stdout}{done.stderr}")
    ids = [panel["id"] for panel in dashboard["panels"]]
    expect(len(ids) == len(set(ids)), "the dashboard has an id twice")
    cells = set()
    for panel in dashboard["panels"]:
        grid = panel["gridPos"]
        own = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
        expect(grid["x"] + grid["w"] <= 24 and not own & cells, f"{panel['title']} lies over another panel")
        cells |= own
        if panel["type"] != "row":
            expect(panel["fieldConfig"]["defaults"].get("unit"), f"{panel['title']} has no unit")
            expect(panel.get("description"), f"{panel['title']} is not described")


def documented():
    """Each value with its default and its words, from values.yaml: (path, default, words)."""
    rows, path, words = [], [], []
    lines = (CHART / "values.yaml").read_text().splitlines()
    defaults = yaml.safe_load("\n".join(lines))
    for line in lines:
        text, depth = line.strip(), (len(line) - len(line.lstrip())) // 2
        if text.startswith("# -- "):
            words = [text[5:]]
        elif text.startswith("# ") and words:
            words.append(text[2:])
        elif match := re.match(r"\s*(\w+):", line):
            path = path[:depth] + [match.group(1)]
            if words:
                rows.append((".".join(path), at(defaults, ".".join(path)), " ".join(words)))
            words = []
    return rows


def leaves(defaults, path=""):
    for key, value in defaults.items():
        own = f"{path}.{key}" if path else key
        yield own
        if isinstance(value, dict):
            yield from leaves(value, own)


def documents():
    """README has the table of values, and each value is in the schema with the same words."""
    rows = documented()
    table = ["| Key | Type | Default | Description |", "|-----|------|---------|-------------|"]
    kinds = {dict: "object", list: "list", str: "string", bool: "bool", int: "int", float: "float", type(None): "int"}
    for path, default, words in rows:
        table.append(f"| {path} | {kinds[type(default)]} | `{json.dumps(default)}` | {words} |")
    assert not any("|" in row.strip("| ").replace(" | ", "") for row in table[2:]), "a value's words have a bar in them"
    readme = CHART / "README.md"
    text = readme.read_text()
    before, rest = text.split("<!-- values -->\n", 1)
    after = rest.split("<!-- /values -->\n", 1)[1]
    fresh = f"{before}<!-- values -->\n" + "\n".join(table) + f"\n<!-- /values -->\n{after}"
    if "--write" in sys.argv:
        readme.write_text(fresh)
    else:
        expect(fresh == text, f"{readme}: the table of values is stale: tests/helm/chart.py CACHE --write")
    schema = json.loads((CHART / "values.schema.json").read_text())
    told = {path for path, *_ in rows}
    for path, _, words in rows:
        at_schema = schema
        for key in path.split("."):
            at_schema = (at_schema or {}).get("properties", {}).get(key)
        expect(at_schema is not None, f"values.schema.json does not have {path}")
        if at_schema is not None and path != "config":
            expect(at_schema.get("description") == words, f"values.schema.json says something else of {path}")
    for path in leaves(yaml.safe_load((CHART / "values.yaml").read_text())):
        around = any(path.startswith(f"{other}.") or other.startswith(f"{path}.") for other in told)
        expect(path in told or around, f"values.yaml does not say what {path} is")


if not pathlib.Path(os.environ["TIDEMILL"]).exists():
    sys.exit(f"there is no {os.environ['TIDEMILL']}: build the service, or name it by TIDEMILL")
with tempfile.TemporaryDirectory() as place:
    documents()
    values()
    texts()
    nulls()
    variables()
    context()
    script()
    for part in (renders, alerts):
        own = pathlib.Path(place) / part.__name__
        own.mkdir()
        part(own)
print(f"{count - len(failures)} passed, {len(failures)} failed")
for failure in failures:
    print(f"- {failure}")
sys.exit(bool(failures))
