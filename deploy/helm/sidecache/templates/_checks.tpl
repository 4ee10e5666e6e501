{{- /* What would start and not work, with what to do instead. */ -}}
{{- define "sidecache.checks" -}}
{{- $config := include "sidecache.config" . }}
{{- $needsUpstream := include "sidecache.needs" (list . "UPSTREAM_URL") }}
{{- if and $needsUpstream (not .Values.upstream) }}
{{- fail "upstream is empty: name the URL of your app's Service, http://app:8000 for example" }}
{{- end }}
{{- if and .Values.upstream (not $needsUpstream) }}
{{- fail "upstream has no effect: write url = \"${UPSTREAM_URL}\" in [upstream] of config, or leave upstream empty" }}
{{- end }}
{{- range $port, $section := dict "8080" "[listen]" "9090" "[admin]" }}
{{- if not (regexMatch (printf `(?m)^[^#\n]*["'](0\.0\.0\.0|\[::\]):%s["']` $port) $config) }}
{{- fail (printf "config does not listen where the chart expects it: write address = \"0.0.0.0:%s\" in %s" $port $section) }}
{{- end }}
{{- end }}
{{- range tuple "REDIS_URL" "SIDECACHE_SECRET" }}
{{- if and (include "sidecache.needs" (list $ .)) (not $.Values.existingSecret) }}
{{- fail (printf "config uses ${%s}: name a Secret with the keys admin-token, redis-url and cache-secret in existingSecret" .) }}
{{- end }}
{{- end }}
{{- if .Values.standalone }}
{{- if and (gt (int (include "sidecache.replicas" .)) 1) (not (include "sidecache.hasRedis" .)) }}
{{- fail "several replicas need [redis] in config: without it a write through one is not purged in the others" }}
{{- end }}
{{- else if or .Values.podMonitor.enabled .Values.state.persistent }}
{{- fail "podMonitor and state.persistent are for standalone: true; the chart of your app decides on both" }}
{{- end }}
{{- end }}
