{{/* Variables of the service and of what looks at its configuration. */}}
{{- define "tidemill.env" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.name}}
{{- $resources := .Values.resources | default dict }}
{{- $cpu := ($resources.requests | default dict).cpu }}
{{- if and $cpu (not ($resources.limits | default dict).cpu) (not .Values.gpu.enabled) (not (include "tidemill.configured" (list . "model" "workers"))) (not (include "tidemill.hasVariable" (list . "TIDEMILL_MODEL__WORKERS"))) }}
- name: TIDEMILL_MODEL__WORKERS
  valueFrom: {resourceFieldRef: {containerName: tidemill, resource: requests.cpu, divisor: "1"}}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Whether `extraEnv` has a variable. Context: list of root and name. */}}
{{- define "tidemill.hasVariable" -}}
{{- $name := last . -}}
{{- range (first .).Values.extraEnv }}{{ if eq (get . "name") $name }}yes{{ end }}{{ end -}}
{{- end -}}

{{/* Where configuration and secrets are mounted. */}}
{{- define "tidemill.mounts" -}}
- {name: config, mountPath: /etc/tidemill/tidemill.yaml, subPath: tidemill.yaml, readOnly: true}
{{- range .Values.secrets }}
- {name: {{ printf "secret-%s" .name }}, mountPath: {{ printf "/etc/tidemill/secrets/%s" .name }}, readOnly: true}
{{- end }}
{{- if include "tidemill.hasModels" . }}
- {name: models, mountPath: {{ .Values.models.mountPath }}, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tidemill.hasModels" -}}
{{- if or .Values.models.existingClaim .Values.models.volume .Values.models.init.image }}yes{{ end -}}
{{- end -}}

{{/* A container of the service's image. Context: root, name, args, resources. */}}
{{- define "tidemill.container" -}}
name: {{ .name }}
image: {{ include "tidemill.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: {{ toJson .args }}
env:
  {{- include "tidemill.env" .root | nindent 2 }}
{{- with .root.Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .root.Values.securityContext | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  {{- include "tidemill.mounts" .root | nindent 2 }}
{{- end -}}

{{/* Resources of a container of the service's image, with the GPUs. The program for GPUs needs the driver's library to start at all,
which a node gives only to containers that ask for one; those that run one after the other share the pod's. Context: root, resources. */}}
{{- define "tidemill.resources" -}}
{{- $resources := deepCopy (.resources | default dict) -}}
{{- with .root.Values.gpu -}}
{{- if .enabled -}}
{{- $gpu := dict .resource (.count | toString) -}}
{{- $resources = mergeOverwrite $resources (dict "limits" $gpu "requests" $gpu) -}}
{{- end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* Everything of a pod beside its containers. */}}
{{- define "tidemill.podFields" -}}
serviceAccountName: {{ include "tidemill.serviceAccountName" . | quote }}
automountServiceAccountToken: {{ .Values.serviceAccount.automount }}
enableServiceLinks: false
{{- with concat (.Values.global.imagePullSecrets | default list) (.Values.imagePullSecrets | default list) }}
imagePullSecrets:
  {{- $secrets := list }}
  {{- range . }}{{ $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) }}{{ end }}
  {{- uniq $secrets | toYaml | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with merge (dict) (.Values.nodeSelector | default dict) (.Values.gpu.enabled | ternary .Values.gpu.nodeSelector dict | default dict) }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat (.Values.tolerations | default list) (.Values.gpu.enabled | ternary .Values.gpu.tolerations list | default list) }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.gpu }}
{{- if and .enabled .runtimeClassName }}
runtimeClassName: {{ .runtimeClassName }}
{{- end }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.schedulerName }}
schedulerName: {{ . | quote }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Volumes of the configuration, the secrets and the models. */}}
{{- define "tidemill.volumes" -}}
- name: config
  configMap: {name: {{ include "tidemill.fullname" . | quote }}}
{{- range .Values.secrets }}
- name: {{ printf "secret-%s" .name }}
  secret:
    secretName: {{ .existingSecret | quote }}
    defaultMode: 0440
    {{- with .items }}
    items:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}
{{- if .Values.models.existingClaim }}
- name: models
  persistentVolumeClaim: {claimName: {{ .Values.models.existingClaim | quote }}, readOnly: true}
{{- else if .Values.models.volume }}
- name: models
  {{- toYaml .Values.models.volume | nindent 2 }}
{{- else if .Values.models.init.image }}
- name: models
  emptyDir: {sizeLimit: {{ .Values.models.sizeLimit }}}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The pod of the service or of a job. Context: root, args, job. */}}
{{- define "tidemill.pod" -}}
{{- $root := .root -}}
{{- with .root -}}
metadata:
  labels:
    {{- include "tidemill.selectorLabels" . | nindent 4 }}
    app.kubernetes.io/component: predictor
    {{- with merge (dict) (.Values.podLabels | default dict) (.Values.commonLabels | default dict) }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    {{- $sums := dict "checksum/config" (include "tidemill.config" . | sha256sum) }}
    {{- range $secret := .Values.secrets }}
    {{- with lookup "v1" "Secret" $root.Release.Namespace .existingSecret }}
    {{- $_ := set $sums (printf "checksum/secret-%s" $secret.name) .metadata.resourceVersion }}
    {{- end }}
    {{- end }}
    {{- /* A drained node's pods end in order: without this the cluster autoscaler keeps a node for its emptyDirs. */}}
    {{- $own := dict "kubectl.kubernetes.io/default-container" "tidemill" "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes" "models,state" }}
    {{- merge $sums (.Values.podAnnotations | default dict) (.Values.commonAnnotations | default dict) $own | toYaml | nindent 4 }}
spec:
  {{- include "tidemill.podFields" . | nindent 2 }}
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds | default (include "tidemill.stop" .) | int64 }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    {{- $labels := dict "labelSelector" (dict "matchLabels" (include "tidemill.selectorLabels" $root | fromYaml)) }}
    - {{ merge (deepCopy .) $labels | toYaml | nindent 6 | trim }}
    {{- end }}
  {{- end }}
  {{- if $.job }}
  restartPolicy: Never
  {{- end }}
  initContainers:
    - {{- include "tidemill.container" (dict "root" . "name" "check" "args" (list "check" "--offline" "--config" "/etc/tidemill/tidemill.yaml")) | nindent 6 }}
      resources:
        {{- $memory := .Values.gpu.enabled | ternary "512Mi" "64Mi" }}
        {{- $check := dict "requests" (dict "cpu" "10m" "memory" $memory) "limits" (dict "memory" $memory) }}
        {{- include "tidemill.resources" (dict "root" . "resources" $check) | nindent 8 }}
    {{- include "tidemill.modelsInit" . | nindent 4 }}
    {{- with .Values.extraInitContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  containers:
    - {{- include "tidemill.container" (dict "root" . "name" "tidemill" "args" $.args) | nindent 6 }}
        - {name: state, mountPath: /var/lib/tidemill}
      ports:
        - {name: http, containerPort: {{ include "tidemill.port" . }}, protocol: TCP}
      resources:
        {{- include "tidemill.resources" (dict "root" . "resources" .Values.resources) | nindent 8 }}
      {{- if not $.job }}
      {{- with .Values.startupProbe }}
      startupProbe:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.readinessProbe }}
      readinessProbe:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.lifecycle }}
      lifecycle:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- end }}
      {{- with .Values.livenessProbe }}
      livenessProbe:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "tidemill.volumes" . | nindent 4 }}
    {{- if not .Values.state.persistence.enabled }}
    - name: state
      {{- if .Values.state.existingClaim }}
      persistentVolumeClaim: {claimName: {{ .Values.state.existingClaim | quote }}}
      {{- else }}
      emptyDir: {sizeLimit: {{ .Values.state.persistence.size }}}
      {{- end }}
    {{- end }}
{{- end -}}
{{- end -}}

{{/* The container that copies the models, where there is one. */}}
{{- define "tidemill.modelsInit" -}}
{{- with .Values.models.init }}
{{- if .image -}}
- name: models
  image: {{ include "tidemill.from" (list $ .image) | quote }}
  {{- with .command }}
  command: {{ toJson . }}
  {{- end }}
  {{- with .args }}
  args: {{ toJson . }}
  {{- end }}
  {{- with .env }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml $.Values.securityContext | nindent 4 }}
  volumeMounts:
    - {name: models, mountPath: {{ $.Values.models.mountPath }}}
{{- end }}
{{- end }}
{{- end -}}
