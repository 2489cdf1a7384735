{{/* The settings that the promises rest on (docs/operations.md); both processes refuse others at their start. */}}
{{- define "chatbot.redisConfiguration" -}}
dir /data
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
save ""
maxmemory {{ include "chatbot.maxmemory" . }}
maxmemory-policy volatile-ttl
aclfile /run/redis/users.acl
{{- end }}

{{- define "chatbot.maxmemory" -}}
{{- div (mul (include "chatbot.bytes" .Values.redis.resources.limits.memory | int64) (.Values.redis.maxmemoryPercent | int64)) 100 }}
{{- end }}

{{/* Writes the users' file, which has hashes only, into memory. KEDA's user may do what its scaler does and no more. */}}
{{- define "chatbot.redisStart" -}}
set -eu
umask 077
hash() { printf %s "$1" | sha256sum | cut -d ' ' -f 1; }
{
  echo "user default on #$(hash "$REDISCLI_AUTH") ~* &* +@all"
  if [ -n "${KEDA_REDIS_PASSWORD:-}" ]; then
    echo "user keda on #$(hash "$KEDA_REDIS_PASSWORD") resetchannels ~chatQueue* -@all +eval +type +llen +ping"
  fi
} > /run/redis/users.acl
unset REDISCLI_AUTH KEDA_REDIS_PASSWORD
exec redis-server /etc/redis/redis.conf
{{- end }}
