{{- define "chatbot.workerReplicas" -}}
{{- kindIs "invalid" .Values.worker.replicas | ternary 1 .Values.worker.replicas | int }}
{{- end }}

{{/* The most pods that are surely there. */}}
{{- define "chatbot.workerMinimum" -}}
{{- .Values.worker.keda.enabled | ternary .Values.worker.keda.minReplicas (include "chatbot.workerReplicas" . | int) | int }}
{{- end }}

{{/* From another namespace. */}}
{{- define "chatbot.kedaRedisAddress" -}}
{{- if .Values.redis.enabled -}}
{{ include "chatbot.redisHost" . }}.{{ .Release.Namespace }}.svc:6379
{{- else -}}
{{- $host := .Values.redis.external.host -}}
{{ $host }}{{ if not (contains "." $host) }}.{{ .Release.Namespace }}.svc{{ end }}:{{ .Values.redis.external.port | int }}
{{- end }}
{{- end }}

{{/* What KEDA reads from Secrets; nothing when an external Redis has neither a password nor an authority. */}}
{{- define "chatbot.kedaPasswordRef" -}}
{{- if .Values.redis.enabled -}}
- parameter: password
  name: {{ include "chatbot.secretName" . | quote }}
  key: keda-redis-password
{{- else }}
{{- with include "chatbot.passwordRef" (list . "redis") -}}
- parameter: password
  {{- . | nindent 2 }}
{{- end }}
{{- with (include "chatbot.authorities" . | fromJson).redis }}
- parameter: ca
  name: {{ .secret | quote }}
  key: {{ .key | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "chatbot.workerEnv" -}}
- name: BATCH_ENTRIES
  value: {{ .Values.worker.batchEntries | int64 | quote }}
{{- end }}
