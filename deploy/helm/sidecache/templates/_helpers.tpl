{{- define "sidecache.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "sidecache.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "sidecache.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "sidecache.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "sidecache.selector" -}}
app.kubernetes.io/name: {{ include "sidecache.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sidecache.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "sidecache.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "sidecache.image" -}}
{{- $hint := "image.repository is empty: build deploy/Dockerfile, push the image, and name it here" }}
{{- printf "%s:%s" (required $hint .Values.image.repository) (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}

{{- /* The whole proxy.toml. */ -}}
{{- define "sidecache.config" -}}
{{- .Values.config | default (.Files.Get "proxy.toml") }}
{{- end }}

{{- /* The Secret with the tokens: one that was made before, or the one of this chart. */ -}}
{{- define "sidecache.secretName" -}}
{{- .Values.existingSecret | default (include "sidecache.fullname" .) }}
{{- end }}

{{- /* "true" where proxy.toml takes a value from this variable, a comment aside, and `env` has none:
list CONTEXT NAME. */ -}}
{{- define "sidecache.needs" -}}
{{- $name := index . 1 }}
{{- $given := false }}
{{- range (index . 0).Values.env }}{{ if eq .name $name }}{{ $given = true }}{{ end }}{{ end }}
{{- $pattern := printf "(?m)^[^#\\n]*\\$\\{%s[:}]" $name }}
{{- if and (not $given) (regexMatch $pattern (include "sidecache.config" (index . 0))) }}true{{ end }}
{{- end }}

{{- /* How many there are; where something else scales them, more than one. */ -}}
{{- define "sidecache.replicas" -}}
{{- kindIs "invalid" .Values.replicas | ternary 2 .Values.replicas }}
{{- end }}

{{- define "sidecache.hasRedis" -}}
{{- if regexMatch `(?m)^\s*(\[\s*redis\s*\]|redis\s*[.=])` (include "sidecache.config" .) }}true{{ end }}
{{- end }}

{{- define "sidecache.env" -}}
- name: POD_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
- name: STATE_DIRECTORY
  value: /var/lib/sidecache
{{- with .Values.upstream }}
- name: UPSTREAM_URL
  value: {{ . | quote }}
{{- end }}
{{- range $name, $key := dict "ADMIN_TOKEN" "admin-token" "REDIS_URL" "redis-url" "SIDECACHE_SECRET" "cache-secret" }}
{{- if include "sidecache.needs" (list $ $name) }}
- name: {{ $name }}
  valueFrom: { secretKeyRef: { name: {{ include "sidecache.secretName" $ }}, key: {{ $key }} } }
{{- end }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}
