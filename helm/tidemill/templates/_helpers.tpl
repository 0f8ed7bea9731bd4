{{/* The chart's name. */}}
{{- define "tidemill.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The release's name in the names of objects. 52 signs: a CronJob's pods and a StatefulSet's revisions add to it. */}}
{{- define "tidemill.fullname" -}}
{{- $name := include "tidemill.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "tidemill.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tidemill.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "tidemill.labels" -}}
{{- $own := include "tidemill.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- $_ := set $own "app.kubernetes.io/version" (.Values.image.tag | default .Chart.AppVersion | trunc 63 | trimSuffix "-") -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service -}}
{{- merge (dict) (.Values.commonLabels | default dict) $own | toYaml -}}
{{- end -}}

{{/* name, namespace, labels and annotations. Context: root, and optionally name, namespace, labels, annotations. */}}
{{- define "tidemill.metadata" -}}
name: {{ .name | default (include "tidemill.fullname" .root) | quote }}
namespace: {{ .namespace | default .root.Release.Namespace | quote }}
labels:
  {{- include "tidemill.labels" .root | fromYaml | merge (dict) (.labels | default dict) | toYaml | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) (.root.Values.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "tidemill.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "tidemill.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "tidemill.image" -}}
{{- $registry := .Values.global.imageRegistry | default .Values.image.registry -}}
{{- $tag := .Values.image.tag | default (printf "%s%s" .Chart.AppVersion (ternary "-cuda" "" .Values.gpu.enabled)) -}}
{{- with $registry }}{{ . | trimSuffix "/" }}/{{ end -}}
{{- .Values.image.repository -}}
{{- with .Values.image.digest }}@{{ . }}{{ else }}:{{ $tag }}{{ end -}}
{{- end -}}

{{/* An image from the registry of all images, where there is one. Context: list of root and image. */}}
{{- define "tidemill.from" -}}
{{- with (first .).Values.global.imageRegistry }}{{ . | trimSuffix "/" }}/{{ end -}}
{{- last . -}}
{{- end -}}

{{/* Seconds, rounded up, of a duration as the service writes it. */}}
{{- define "tidemill.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "h" }}{{ mul $number 3600 -}}
{{- else if eq $unit "m" }}{{ mul $number 60 -}}
{{- else if eq $unit "s" }}{{ $number -}}
{{- else }}{{ div (add $number 999) (get (dict "ms" 1000 "us" 1000000 "ns" 1000000000) $unit) -}}
{{- end -}}
{{- end -}}

{{/* Bytes of a Kubernetes quantity. */}}
{{- define "tidemill.bytes" -}}
{{- $text := . | toString -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- if not (hasKey $units $unit) }}{{ fail (printf "resources.limits.memory is %s: write a number with one of Ki, Mi, Gi, Ti, k, M, G, T" $text) }}{{ end -}}
{{- mulf (trimSuffix $unit $text | float64) (get $units $unit) | int64 -}}
{{- end -}}

{{/* A value at a path of keys in `config`, or nothing. Context: list of root and keys. */}}
{{- define "tidemill.configured" -}}
{{- $at := (first .).Values.config -}}
{{- range rest . -}}
{{- $at = kindIs "map" $at | ternary (get (kindIs "map" $at | ternary $at dict) .) "" -}}
{{- end -}}
{{- if not (kindIs "invalid" $at) }}{{ $at }}{{ end -}}
{{- end -}}

{{/* A librdkafka property of `kafka.common`. Context: list of root and name. */}}
{{- define "tidemill.property" -}}
{{- include "tidemill.configured" (list (first .) "kafka" "common" (last .)) -}}
{{- end -}}

{{/* Whether something scales the replicas. */}}
{{- define "tidemill.scaled" -}}
{{- if and (not .Values.cronJob.enabled) (or .Values.autoscaling.enabled .Values.keda.enabled) }}yes{{ end -}}
{{- end -}}

{{- define "tidemill.listen" -}}
{{- include "tidemill.configured" (list . "http" "listen") | default "0.0.0.0:8080" -}}
{{- end -}}

{{- define "tidemill.port" -}}
{{- include "tidemill.listen" . | regexFind "[0-9]+$" -}}
{{- end -}}

{{/* The service's file: what the chart knows, and over it what `config` says. */}}
{{- define "tidemill.config" -}}
{{- $ours := dict
  "http" (dict "listen" (include "tidemill.listen" .))
  "logging" (dict "format" "json")
  "state" (dict "dir" "/var/lib/tidemill/journal")
  "kafka" dict "registry" dict "model" dict -}}
{{- if hasPrefix "models:/" (include "tidemill.configured" (list . "model" "uri")) -}}
{{- $_ := set $ours.registry "root" .Values.models.mountPath -}}
{{- end -}}
{{- if .Values.gpu.enabled -}}
{{- $devices := list -}}
{{- range until (int .Values.gpu.count) }}{{ $devices = append $devices (printf "cuda:%d" .) }}{{ end -}}
{{- $_ := set $ours.model "device" (join "," $devices) -}}
{{- end -}}
{{- if .Values.cronJob.enabled -}}
{{- $_ := set $ours.kafka "instance" (include "tidemill.fullname" .) -}}
{{- else -}}
{{- $brokers := eq "consumer" (include "tidemill.property" (list . "group.protocol") | default (include "tidemill.configured" (list . "kafka" "consumer" "group.protocol"))) -}}
{{- $leave := or (eq .Values.leaveOnStop "always") (and (eq .Values.leaveOnStop "auto") (include "tidemill.scaled" .) (not $brokers)) -}}
{{- $_ := set $ours.kafka "on_stop" (ternary "leave" "stay" (not (not $leave))) -}}
{{- end -}}
{{- $config := mergeOverwrite $ours (deepCopy .Values.config) -}}
{{- range $key, $value := $config }}{{ if and (kindIs "map" $value) (not $value) }}{{ $_ := unset $config $key }}{{ end }}{{ end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* Seconds that a stop may take: what is finished and committed, 20 s to leave a cluster that does not answer, and some. */}}
{{- define "tidemill.stop" -}}
{{- $drain := include "tidemill.configured" (list . "limits" "drain") | default "30s" -}}
{{- max 60 (add 30 (include "tidemill.seconds" $drain | int64)) -}}
{{- end -}}

{{/* Seconds that a job may take with all its tries. */}}
{{- define "tidemill.jobSeconds" -}}
{{- add (include "tidemill.seconds" .Values.cronJob.deadline | int64) (include "tidemill.stop" . | int64) -}}
{{- end -}}

{{/* The topics that are written, one a line. */}}
{{- define "tidemill.written" -}}
{{- $output := include "tidemill.configured" (list . "output" "topic") -}}
{{- $dead := include "tidemill.configured" (list . "dead_letters" "topic") -}}
{{- $topics := list $output (include "tidemill.configured" (list . "manifest" "topic") | default (printf "%s-manifest" $output)) -}}
{{- range .Values.config.input.topics }}{{ $topics = append $topics ($dead | default (printf "%s-dlq" .)) }}{{ end -}}
{{- $topics | uniq | join "\n" -}}
{{- end -}}

{{/* A topic's name as an object's name; one that had to be changed gets a mark of its own. */}}
{{- define "tidemill.objectName" -}}
{{- $name := regexReplaceAll "[^a-z0-9.-]" (lower .) "-" | trimAll "-." -}}
{{- ternary $name (printf "%s-%s" $name (. | sha256sum | trunc 8)) (eq $name .) -}}
{{- end -}}

{{/* Pods of this release in Prometheus. A job made by hand has a word where a scheduled one has its time; pods of `helm test` have no
such end. */}}
{{- define "tidemill.pods" -}}
{{- $pod := ternary "[a-z0-9]+-[a-z0-9]{5}" "[0-9]+" .Values.cronJob.enabled -}}
namespace="{{ .Release.Namespace }}",pod=~"{{ include "tidemill.fullname" . }}-{{ $pod }}"
{{- end -}}
