{{- /* The container, and the volumes of its pod. In the pod of an app, from the app's own chart, which
has this one as a dependency with standalone: false:

  containers:
    {{- include "sidecache.container" .Subcharts.sidecache | nindent 4 }}
  volumes:
    {{- include "sidecache.volumes" .Subcharts.sidecache | nindent 4 }}
*/ -}}
{{- define "sidecache.container" -}}
- name: sidecache
  image: {{ include "sidecache.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: ["serve", "--config", "/etc/sidecache/proxy.toml"]
  # Names that an app in the same pod has not taken.
  ports:
    - { name: sidecache, containerPort: 8080 }
    - { name: sidecache-admin, containerPort: 9090 }
  env:
    {{- include "sidecache.env" . | nindent 4 }}
  startupProbe:
    httpGet: { path: /live, port: sidecache-admin }
    periodSeconds: 1
    failureThreshold: 30
  livenessProbe:
    httpGet: { path: /live, port: sidecache-admin }
    periodSeconds: 10
    timeoutSeconds: 3
    failureThreshold: 3
  # 200 without Redis as well, because a sidecar without Redis still serves. 503 while it drains.
  readinessProbe:
    httpGet: { path: /ready, port: sidecache-admin }
    periodSeconds: 2
    timeoutSeconds: 2
    failureThreshold: 2
  lifecycle:
    # Until every node knows that the pod takes no more requests. SIGTERM and the drain follow.
    preStop: { sleep: { seconds: 5 } }
  resources:
    {{- toYaml .Values.resources | nindent 4 }}
  securityContext:
    {{- toYaml .Values.securityContext | nindent 4 }}
  volumeMounts:
    # The whole folder: with `subPath` the file would never change.
    - { name: sidecache-rules, mountPath: /etc/sidecache, readOnly: true }
    - { name: sidecache-state, mountPath: /var/lib/sidecache }
    {{- with .Values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{- define "sidecache.volumes" -}}
- name: sidecache-rules
  configMap: { name: {{ include "sidecache.fullname" . }} }
{{- if not .Values.state.persistent }}
# The journal survives the container, not the pod.
- name: sidecache-state
  emptyDir: { sizeLimit: {{ .Values.state.size }} }
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
