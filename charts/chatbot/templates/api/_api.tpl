{{- define "chatbot.apiReplicas" -}}
{{- kindIs "invalid" .Values.api.replicas | ternary 2 .Values.api.replicas | int }}
{{- end }}

{{/* The most pods that are surely there. */}}
{{- define "chatbot.apiMinimum" -}}
{{- .Values.api.autoscaling.enabled | ternary .Values.api.autoscaling.minReplicas (include "chatbot.apiReplicas" . | int) | int }}
{{- end }}

{{/* The ConfigMap with the file of the upstreams, or nothing. */}}
{{- define "chatbot.upstreamsConfigMap" -}}
{{- $file := .Values.api.upstream.file }}
{{- $file.existingConfigMap | default ($file.content | empty | ternary "" (printf "%s-upstreams" (include "chatbot.fullname" .))) }}
{{- end }}

{{- define "chatbot.upstreamsKey" -}}
{{- $file := .Values.api.upstream.file }}
{{- if $file.existingConfigMap }}{{ $file.key }}{{ else }}upstreams.toml{{ end }}
{{- end }}

{{/* An entry takes about 1 KB: the queue may fill three quarters of the chart's Redis, the rest is for hot conversations. */}}
{{- define "chatbot.queueLimit" -}}
{{- if not (kindIs "invalid" .Values.api.queueLimit) }}
{{- .Values.api.queueLimit | int64 }}
{{- else if .Values.redis.enabled }}
{{- min 100000000 (div (include "chatbot.maxmemory" . | int64) 1365) }}
{{- else -}}
1000000
{{- end }}
{{- end }}

{{- define "chatbot.apiEnv" -}}
{{- $api := .Values.api -}}
{{- if not $api.auth.enabled }}
- name: AUTH
  value: none
{{- else if $api.auth.keysFile.existingSecret }}
- name: KEYS_FILE
  value: /etc/chatbot/keys/{{ $api.auth.keysFile.key }}
{{- end }}
{{- include "chatbot.secretEnv" (list "API_KEY" (include "chatbot.apiKeyRef" .)) }}
{{- if include "chatbot.upstreamsConfigMap" . }}
- name: UPSTREAMS_FILE
  value: /etc/chatbot/upstreams/{{ include "chatbot.upstreamsKey" . }}
{{- end }}
{{- with $api.upstream.baseUrl }}
- name: OPENAI_BASE_URL
  value: {{ . | quote }}
{{- end }}
{{- include "chatbot.secretEnv" (list "OPENAI_API_KEY" (include "chatbot.upstreamKeyRef" .)) }}
{{- with $api.upstream.model }}
- name: MODEL
  value: {{ . | quote }}
{{- end }}
{{- with $api.upstream.contextTokens }}
- name: MODEL_CONTEXT_TOKENS
  value: {{ . | int64 | quote }}
{{- end }}
- name: QUEUE_LIMIT
  value: {{ include "chatbot.queueLimit" . | quote }}
- name: IDEMPOTENCY_SECONDS
  value: {{ $api.idempotencySeconds | int64 | quote }}
- name: BODY_LIMIT_BYTES
  value: {{ $api.bodyLimitBytes | int64 | quote }}
- name: WEBSOCKET_SECONDS
  value: {{ $api.websocketSeconds | int64 | quote }}
- name: SLOW_CLIENT_SECONDS
  value: {{ $api.slowClientSeconds | int64 | quote }}
- name: DRAIN_SECONDS
  value: {{ $api.drainSeconds | int64 | quote }}
{{- end }}
