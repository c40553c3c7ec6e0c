{{- define "trackserve.name" -}}
{{- printf "%s" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- define "trackserve.labels" -}}
app.kubernetes.io/name: trackserve
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}
{{- define "trackserve.selector" -}}
app.kubernetes.io/name: trackserve
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}
{{- define "trackserve.image" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}
{{- define "trackserve.pod" -}}
automountServiceAccountToken: false
terminationGracePeriodSeconds: 60
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
{{- /* The scheme of what a probe or Prometheus asks. */ -}}
{{- define "trackserve.scheme" -}}
{{ ternary "HTTPS" "HTTP" (ne .Values.tls.secret "") }}
{{- end -}}
{{- /* Options that servers and front share: what a request may be. */ -}}
{{- define "trackserve.limits" -}}
- --instances={{ .Values.server.instances }}
- --max-queue={{ .Values.server.maxQueue }}
- --max-hits={{ .Values.server.maxHits | int64 }}
{{- with .Values.trace.collector }}
- --trace={{ . }}
- --trace-share={{ $.Values.trace.share }}
{{- end }}
{{- if .Values.bundle.volume }}
- --bundle=/bundle
{{- end }}
{{- if .Values.tls.secret }}
- --certificate=/tls/tls.crt
- --key=/tls/tls.key
{{- end }}
{{- end -}}
{{- define "trackserve.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .Values.bundle.volume }}
- {name: bundle, mountPath: /bundle, readOnly: true}
{{- end }}
{{- if .Values.tls.secret }}
- {name: tls, mountPath: /tls, readOnly: true}
{{- end }}
{{- if .Values.serverToken.secret }}
- {name: server-token, mountPath: /server-token, readOnly: true}
{{- end }}
{{- end -}}
{{- define "trackserve.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- with .Values.bundle.volume }}
- name: bundle
{{ toYaml . | indent 2 }}
{{- end }}
{{- with .Values.tls.secret }}
- name: tls
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- end -}}
