{{/* Where traces go; nothing when they go nowhere. */}}
{{- define "chatbot.telemetryEnv" -}}
{{- $telemetry := .Values.telemetry }}
{{- if $telemetry.otlpEndpoint }}
{{- $attributes := list (printf "service.namespace=%s" .Release.Name) (printf "k8s.namespace.name=%s" .Release.Namespace) }}
{{- range $name, $value := $telemetry.resourceAttributes }}
{{- $attributes = append $attributes (printf "%s=%s" $name $value) }}
{{- end }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ $telemetry.otlpEndpoint | quote }}
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ $telemetry.sampleRatio | quote }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ join "," $attributes | quote }}
{{- if $telemetry.headersSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom:
    secretKeyRef:
      name: {{ $telemetry.headersSecret | quote }}
      key: {{ $telemetry.headersSecretKey | quote }}
{{- end }}
{{- end }}
{{- end }}
