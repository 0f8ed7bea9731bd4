{{/* What is given beside the chart's own, and would stand there twice, or would not be seen by the templates: Kubernetes takes a
list with a name twice once, and refuses or garbles the next upgrade, rollback or server-side apply. */}}
{{- define "tidemill.validateExtras" -}}
{{- include "tidemill.validateVariables" . -}}
{{- include "tidemill.validateVolumes" . -}}
{{- include "tidemill.validateLabels" . -}}
{{- $containers := dict "tidemill" "the service" "check" "the check of the configuration" -}}
{{- with .Values.models.init.image }}{{ $_ := set $containers "models" "models.init" }}{{ end -}}
{{- range $value := list "extraInitContainers" "extraContainers" -}}
{{- range index $.Values $value -}}
{{- with get . "name" -}}
{{- if hasKey $containers . }}{{ fail (printf "%s has a container %s, which is also the name of %s: give it another name" $value . (get $containers .)) }}{{ end -}}
{{- $_ := set $containers . (printf "one of %s" $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Keys of `config` that templates read, for ports, probes, topics, KEDA, policies. `tests/helm/chart.py` looks for others. */}}
{{- define "tidemill.readKeys" -}}
http.listen input.topics output.topic dead_letters.topic manifest.topic model.uri registry.root limits.drain log kafka.group
schema_registry.urls logging.endpoint traces.endpoint metrics.endpoint kafka.common.bootstrap.servers kafka.common.security.protocol
kafka.common.group.protocol kafka.consumer.group.protocol
{{- end -}}

{{- define "tidemill.validateVariables" -}}
{{- $read := regexSplit "\\s+" (include "tidemill.readKeys" .) -1 -}}
{{- range $value, $variables := dict "extraEnv" .Values.extraEnv "models.init.env" .Values.models.init.env -}}
{{- $seen := dict -}}
{{- range $variables -}}
{{- $name := get . "name" | toString -}}
{{- if hasKey $seen $name }}{{ fail (printf "%s has %s twice: leave one of them" $value $name) }}{{ end -}}
{{- $_ := set $seen $name true -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- $name := get . "name" | toString -}}
{{- if eq $name "POD_NAME" -}}
{{- fail "extraEnv has POD_NAME, which the chart sets to the pod's own name, a replica's name in Kafka: leave it out; another name is config.kafka.instance" -}}
{{- end -}}
{{- if hasPrefix "TIDEMILL_" $name -}}
{{- $key := $name | trimPrefix "TIDEMILL_" | lower | replace "__" "." -}}
{{- $section := regexFind "^kafka\\.(common|consumer|producer)\\." $key -}}
{{- with $section }}{{ $key = trimPrefix . $key | replace "_" "." | printf "%s%s" . }}{{ end -}}
{{- if or (has $key $read) (regexMatch "^kafka\\.common\\.(sasl|ssl)\\." $key) -}}
{{- $secret := ne "" $section | ternary "; of a secret write ${env:NAME} there, and NAME in extraEnv" "" -}}
{{- fail (printf "extraEnv sets %s, which the chart does not see where it goes by config.%s: write config.%s instead%s" $name $key $key $secret) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tidemill.validateVolumes" -}}
{{- $volumes := dict "config" "the configuration" "state" "the journal" -}}
{{- $paths := dict "/etc/tidemill/tidemill.yaml" "the configuration" "/var/lib/tidemill" "the journal" -}}
{{- range .Values.secrets -}}
{{- $_ := set $volumes (printf "secret-%s" .name) (printf "the secret %s" .name) -}}
{{- $_ := set $paths (printf "/etc/tidemill/secrets/%s" .name) (printf "the secret %s" .name) -}}
{{- end -}}
{{- if include "tidemill.hasModels" . -}}
{{- $_ := set $volumes "models" "the models" -}}
{{- $_ := set $paths (trimSuffix "/" .Values.models.mountPath) "the models" -}}
{{- end -}}
{{- if .Values.tests.records -}}
{{- $_ := set $volumes "helm-test" "helm test" -}}
{{- $_ := set $volumes "helm-test-tmp" "helm test" -}}
{{- $_ := set $paths "/helm-test" "helm test" -}}
{{- end -}}
{{- range .Values.extraVolumes -}}
{{- $name := get . "name" | toString -}}
{{- if hasKey $volumes $name }}{{ fail (printf "extraVolumes has a volume %s, which is also the name of that of %s: give it another name" $name (get $volumes $name)) }}{{ end -}}
{{- $_ := set $volumes $name "another of them" -}}
{{- end -}}
{{- range .Values.extraVolumeMounts -}}
{{- $path := get . "mountPath" | toString | trimSuffix "/" -}}
{{- if hasKey $paths $path }}{{ fail (printf "extraVolumeMounts has %s, where the chart mounts %s: give it another mountPath" $path (get $paths $path)) }}{{ end -}}
{{- $_ := set $paths $path "another of them" -}}
{{- end -}}
{{- end -}}

{{/* Labels by which services, budgets, monitors and policies find the pods. */}}
{{- define "tidemill.validateLabels" -}}
{{- range $value := list "commonLabels" "podLabels" -}}
{{- range $label := list "name" "instance" "component" -}}
{{- $label = printf "app.kubernetes.io/%s" $label -}}
{{- if hasKey (get $.Values $value | default dict) $label -}}
{{- fail (printf "%s has %s, by which this release finds its pods: leave it out; nameOverride and the release's name say what stands there" $value $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
