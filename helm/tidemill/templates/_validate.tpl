{{/* What no schema can say, each with its remedy. */}}
{{- define "tidemill.validate" -}}
{{- $required := list (list "input" "topics") (list "output" "topic") (list "model" "uri") -}}
{{- if not (include "tidemill.configured" (list . "log")) -}}
{{- $required = concat (list (list "kafka" "group") (list "kafka" "common" "bootstrap.servers")) $required -}}
{{- end -}}
{{- range $path := $required -}}
{{- if not (include "tidemill.configured" (concat (list $) $path)) -}}
{{- $key := join "." $path -}}
{{- fail (printf "config.%s is required; config/quickstart.yaml of the service and the chart's examples show the least" $key) -}}
{{- end -}}
{{- end -}}
{{- range $section := list "common" "consumer" "producer" -}}
{{- range $name, $value := (get ($.Values.config.kafka | default dict) $section | default dict) -}}
{{- if and (regexMatch "(password|secret|pem$)" $name) (not (hasPrefix "${" (toString $value))) (ne $name "ssl.ca.pem") (ne $name "ssl.certificate.pem") -}}
{{- fail (printf "config.kafka.%s.%s would stand in a ConfigMap, which is no place for a secret: name the Secret under `secrets` and write ${file:/etc/tidemill/secrets/<name>/<key>}" $section $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name := list "password" "token" -}}
{{- $value := include "tidemill.configured" (list $ "schema_registry" $name) -}}
{{- if and $value (not (hasPrefix "${" $value)) -}}
{{- fail (printf "config.schema_registry.%s would stand in a ConfigMap, which is no place for a secret: set TIDEMILL_SCHEMA_REGISTRY__%s by extraEnv, with a secretKeyRef" $name (upper $name)) -}}
{{- end -}}
{{- end -}}
{{- include "tidemill.validateExtras" . -}}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled -}}
{{- fail "autoscaling.enabled and keda.enabled are both true, and would undo each other: choose one" -}}
{{- end -}}
{{- if and .Values.cronJob.enabled (or .Values.autoscaling.enabled .Values.keda.enabled) -}}
{{- fail "cronJob.enabled does not go together with autoscaling or keda: a job is one replica at fixed times" -}}
{{- end -}}
{{- if and .Values.cronJob.enabled .Values.state.persistence.enabled -}}
{{- fail "state.persistence makes a claim for each replica of a service; a job takes state.existingClaim" -}}
{{- end -}}
{{- if and .Values.state.existingClaim (not .Values.cronJob.enabled) -}}
{{- fail "state.existingClaim is for the CronJob: replicas cannot share a journal, so use state.persistence" -}}
{{- end -}}
{{- $sources := list -}}
{{- with .Values.models.existingClaim }}{{ $sources = append $sources "models.existingClaim" }}{{ end -}}
{{- with .Values.models.volume }}{{ $sources = append $sources "models.volume" }}{{ end -}}
{{- with .Values.models.init.image }}{{ $sources = append $sources "models.init.image" }}{{ end -}}
{{- if gt (len $sources) 1 -}}
{{- fail (printf "%s are all set: models come from one place" (join " and " $sources)) -}}
{{- end -}}
{{- if and (not $sources) (hasPrefix "models:/" (include "tidemill.configured" (list . "model" "uri"))) (not (include "tidemill.configured" (list . "registry" "root"))) -}}
{{- fail "config.model.uri names a version of a registry, and none is mounted: set models.existingClaim, models.volume or models.init.image" -}}
{{- end -}}
{{- $stop := include "tidemill.stop" . | int64 -}}
{{- with .Values.terminationGracePeriodSeconds -}}
{{- if lt (int64 .) $stop -}}
{{- fail (printf "terminationGracePeriodSeconds is %d: a stop may take config.limits.drain and 30 s more, %d s; a pod that is killed before leaves its transaction open" (int64 .) $stop) -}}
{{- end -}}
{{- end -}}
{{- $names := dict -}}
{{- range .Values.secrets -}}
{{- if hasKey $names .name }}{{ fail (printf "secrets has %s twice: each is a folder of its own" .name) }}{{ end -}}
{{- $_ := set $names .name true -}}
{{- end -}}
{{- $mechanism := include "tidemill.property" (list . "sasl.mechanisms") | default (include "tidemill.property" (list . "sasl.mechanism")) | upper -}}
{{- if and .Values.tests.records (has $mechanism (list "AWS_MSK_IAM" "OAUTHBEARER")) -}}
{{- fail (printf "tests.records are sent by Kafka's own programs, which get no tokens for %s here: leave them out, and helm test looks at the cluster, the permissions and the model" $mechanism) -}}
{{- end -}}
{{- if and (or .Values.strimzi.topics.enabled .Values.strimzi.user.enabled) (not .Values.strimzi.cluster) -}}
{{- fail "strimzi.cluster is required for KafkaTopics and KafkaUsers: the name of the Kafka object" -}}
{{- end -}}
{{- end -}}
