{{/* How the stores are reached. */}}

{{- define "chatbot.redisHost" -}}
{{- .Values.redis.enabled | ternary (printf "%s-redis" (include "chatbot.fullname" .)) .Values.redis.external.host }}
{{- end }}

{{- define "chatbot.redisPort" -}}
{{- .Values.redis.enabled | ternary 6379 .Values.redis.external.port }}
{{- end }}

{{- define "chatbot.postgresqlPort" -}}
{{- .Values.postgresql.enabled | ternary 5432 .Values.postgresql.external.port }}
{{- end }}

{{- define "chatbot.redisEnv" -}}
- name: REDIS_HOST
  value: {{ include "chatbot.redisHost" . | quote }}
- name: REDIS_PORT
  value: {{ include "chatbot.redisPort" . | quote }}
{{- if not .Values.redis.enabled }}
{{- $external := .Values.redis.external }}
{{- with $external.username }}
- name: REDIS_USERNAME
  value: {{ . | quote }}
{{- end }}
{{- if $external.tls.enabled }}
- name: REDIS_TLS
  value: "true"
{{- if $external.tls.caSecret }}
- name: REDIS_TLS_CA_FILE
  value: /etc/chatbot/redis-ca/{{ $external.tls.caSecretKey }}
{{- end }}
{{- end }}
- name: REDIS_APPENDFSYNC
  value: {{ $external.appendfsync | quote }}
{{- end }}
{{- include "chatbot.secretEnv" (list "REDIS_PASSWORD" (include "chatbot.passwordRef" (list . "redis"))) }}
{{- end }}

{{- define "chatbot.postgresqlEnv" -}}
{{- $place := .Values.postgresql.enabled | ternary .Values.postgresql .Values.postgresql.external -}}
- name: PG_HOST
  value: {{ .Values.postgresql.enabled | ternary (printf "%s-postgresql" (include "chatbot.fullname" .)) $place.host | quote }}
- name: PG_PORT
  value: {{ include "chatbot.postgresqlPort" . | quote }}
- name: PG_USER
  value: {{ $place.user | quote }}
- name: PG_DATABASE
  value: {{ $place.database | quote }}
{{- if and (not .Values.postgresql.enabled) (ne $place.tls.mode "disable") }}
- name: PG_TLS
  value: {{ $place.tls.mode }}
{{- if $place.tls.caSecret }}
- name: PG_TLS_CA_FILE
  value: /etc/chatbot/postgresql-ca/{{ $place.tls.caSecretKey }}
{{- end }}
{{- end }}
{{- include "chatbot.secretEnv" (list "PG_PASSWORD" (include "chatbot.passwordRef" (list . "postgresql"))) }}
{{- end }}

{{/* The stores whose certificates must be mounted, as JSON: {redis: {secret, key}}. */}}
{{- define "chatbot.authorities" -}}
{{- $found := dict }}
{{- range $store := list "redis" "postgresql" }}
{{- $values := index $.Values $store }}
{{- $tls := $values.external.tls }}
{{- if and (not $values.enabled) $tls.caSecret (or $tls.enabled (ne ($tls.mode | default "disable") "disable")) }}
{{- $_ := set $found $store (dict "secret" $tls.caSecret "key" $tls.caSecretKey) }}
{{- end }}
{{- end }}
{{- $found | toJson }}
{{- end }}

{{- define "chatbot.authorityMounts" -}}
{{- range $store, $_ := include "chatbot.authorities" . | fromJson }}
- name: {{ $store }}-ca
  mountPath: /etc/chatbot/{{ $store }}-ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "chatbot.authorityVolumes" -}}
{{- range $store, $authority := include "chatbot.authorities" . | fromJson }}
- name: {{ $store }}-ca
  secret:
    secretName: {{ $authority.secret | quote }}
    items:
      - key: {{ $authority.key | quote }}
        path: {{ $authority.key | quote }}
{{- end }}
{{- end }}

{{/* A memory quantity of Kubernetes in bytes. A number of YAML is a float, which would be written with an exponent. */}}
{{- define "chatbot.bytes" -}}
{{- $text := kindIs "string" . | ternary . (. | int64) | toString }}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text | float64 }}
{{- $unit := regexReplaceAll "^[0-9.]+" $text "" }}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- if not (hasKey $units $unit) }}
{{- fail (printf "redis.resources.limits.memory is %q: maxmemory is computed from it, so write it as a number with Ki, Mi, Gi, Ti, k, M, G, T or nothing behind" $text) }}
{{- end }}
{{- mulf $number (index $units $unit) | floor | int64 }}
{{- end }}
