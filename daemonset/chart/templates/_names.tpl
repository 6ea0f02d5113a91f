{{- define "ambient.image" -}}
image: {{ .Values.image.reference | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- define "ambient.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "ambient.labels" -}}
app.kubernetes.io/part-of: ambient
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* The token with which a node's part asks the control plane. */}}
{{- define "ambient.token" -}}
- name: token
  projected:
    sources:
    - serviceAccountToken: {path: istio-token, audience: istio-ca, expirationSeconds: 43200}
- name: root
  configMap: {name: istio-ca-root-cert, optional: true}
{{- end }}

{{- define "ambient.env" -}}
{{- range $name, $value := . }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
