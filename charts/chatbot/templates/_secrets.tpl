{{/*
The passwords. Each is what values.yaml gives, else what the live Secret has, else a new one. They are made up once per
rendering and kept in .Values, since several templates need them.
*/}}

{{/* The chart's own Secret as JSON, plain text by key; an empty one is not rendered. */}}
{{- define "chatbot.secret" -}}
{{- if not (hasKey .Values "madeSecret") }}
{{- $made := dict }}
{{- $live := (lookup "v1" "Secret" .Release.Namespace (include "chatbot.fullname" .)).data | default dict }}
{{- $wanted := include "chatbot.wantedSecret" . | fromJson }}
{{- range $key, $given := $wanted.given }}
{{- $_ := set $made $key $given }}
{{- end }}
{{- range $key := $wanted.made }}
{{- $_ := set $made $key (hasKey $live $key | ternary (index $live $key | default "" | b64dec) "" | default (randAlphaNum 40)) }}
{{- end }}
{{- /* What is not needed at the moment stays: the volume of a PostgreSQL that is switched off may come back. */}}
{{- if $made }}
{{- range $key := list "api-key" "redis-password" "postgresql-password" "keda-redis-password" }}
{{- if and (hasKey $live $key) (not (hasKey $made $key)) }}
{{- $_ := set $made $key (index $live $key | b64dec) }}
{{- end }}
{{- end }}
{{- end }}
{{- $_ := set .Values "madeSecret" (toJson $made) }}
{{- end }}
{{- .Values.madeSecret }}
{{- end }}

{{/* {given: {key: text}, made: [key]} of the chart's own Secret, as JSON. */}}
{{- define "chatbot.wantedSecret" -}}
{{- $given := dict }}
{{- $made := list }}
{{- if not .Values.existingSecret }}
{{- $auth := .Values.api.auth }}
{{- if and $auth.enabled (not $auth.existingSecret) (not $auth.keysFile.existingSecret) }}
{{- if $auth.apiKey }}{{ $_ := set $given "api-key" $auth.apiKey }}{{ else }}{{ $made = append $made "api-key" }}{{ end }}
{{- end }}
{{- $upstream := .Values.api.upstream }}
{{- if and $upstream.apiKey (not $upstream.existingSecret) }}
{{- $_ := set $given "openai-api-key" $upstream.apiKey }}
{{- end }}
{{- range $store := list "redis" "postgresql" }}
{{- $values := index $.Values $store }}
{{- $key := printf "%s-password" $store }}
{{- if and $values.enabled (not $values.existingSecret) }}
{{- if $values.password }}{{ $_ := set $given $key $values.password }}{{ else }}{{ $made = append $made $key }}{{ end }}
{{- else if and (not $values.enabled) $values.external.password (not $values.external.existingSecret) }}
{{- $_ := set $given $key $values.external.password }}
{{- end }}
{{- end }}
{{- if and .Values.worker.keda.enabled .Values.redis.enabled }}
{{- $password := .Values.worker.keda.redisPassword }}
{{- if $password }}{{ $_ := set $given "keda-redis-password" $password }}{{ else }}{{ $made = append $made "keda-redis-password" }}{{ end }}
{{- end }}
{{- end }}
{{- dict "given" $given "made" $made | toJson }}
{{- end }}

{{/* Where secrets are: each gives {name, key} as YAML, or nothing where there is none. */}}
{{- define "chatbot.secretName" -}}
{{ .Values.existingSecret | default (include "chatbot.fullname" .) }}
{{- end }}

{{- define "chatbot.apiKeyRef" -}}
{{- $auth := .Values.api.auth }}
{{- if and $auth.enabled (not $auth.keysFile.existingSecret) -}}
name: {{ $auth.existingSecret | default (include "chatbot.secretName" .) | quote }}
key: {{ if $auth.existingSecret }}{{ $auth.existingSecretKey | quote }}{{ else }}api-key{{ end }}
{{- end }}
{{- end }}

{{- define "chatbot.upstreamKeyRef" -}}
{{- $upstream := .Values.api.upstream }}
{{- if $upstream.existingSecret -}}
name: {{ $upstream.existingSecret | quote }}
key: {{ $upstream.existingSecretKey | quote }}
{{- else if $upstream.apiKey -}}
name: {{ include "chatbot.secretName" . | quote }}
key: openai-api-key
{{- else if .Values.existingSecret -}}
name: {{ .Values.existingSecret | quote }}
key: openai-api-key
optional: true
{{- end }}
{{- end }}

{{/* (list $ "redis"): the password of a store. An external one may have none. */}}
{{- define "chatbot.passwordRef" -}}
{{- $root := index . 0 }}
{{- $store := index . 1 }}
{{- $values := index $root.Values $store }}
{{- $place := $values.enabled | ternary $values $values.external }}
{{- if $place.existingSecret -}}
name: {{ $place.existingSecret | quote }}
key: {{ $place.existingSecretKey | quote }}
{{- else if or $values.enabled $place.password $root.Values.existingSecret -}}
name: {{ include "chatbot.secretName" $root | quote }}
key: {{ $store }}-password
{{- end }}
{{- end }}

{{/* (list $ "api-key" …): a hash of these keys of the chart's own Secret, so that pods follow a change. */}}
{{- define "chatbot.secretHash" -}}
{{- $secret := include "chatbot.secret" (first .) | fromJson }}
{{- $picked := dict }}
{{- range $key := rest . }}
{{- if hasKey $secret $key }}
{{- $_ := set $picked $key (index $secret $key) }}
{{- end }}
{{- end }}
{{- $picked | toJson | sha256sum }}
{{- end }}
