{{/* Who may talk to whom. */}}

{{/* (list $ "api" "worker"): pods of these components, as peers of a policy. */}}
{{- define "chatbot.peers" -}}
{{- $root := first . }}
{{- range $component := rest . }}
- podSelector:
    matchLabels:
      {{- include "chatbot.selector" (list $root $component) | nindent 6 }}
{{- end }}
{{- end }}

{{/* (list $ "redis"): the rule that lets a pod reach a store; an external one may be anywhere, at its port. */}}
{{- define "chatbot.flowTo" -}}
{{- $root := index . 0 }}
{{- $store := index . 1 -}}
ports:
  {{- if (index $root.Values $store).enabled }}
  - port: {{ include (printf "chatbot.%sPort" $store) $root }}
to:
  {{- include "chatbot.peers" . | nindent 2 }}
  {{- else }}
  - port: {{ (index $root.Values $store).external.port | int }}
  {{- end }}
{{- end }}

{{/* The port that a URL leads to. */}}
{{- define "chatbot.portOf" -}}
{{- $url := urlParse . }}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (eq $url.scheme "http" | ternary "80" "443") }}
{{- end }}

{{- define "chatbot.upstreamPorts" -}}
{{- $ports := list (.Values.api.upstream.baseUrl | default "https://default" | include "chatbot.portOf" | int) }}
{{- range .Values.networkPolicy.upstreamPorts }}
{{- $ports = append $ports (int .) }}
{{- end }}
{{- range $ports | uniq }}
- port: {{ . }}
{{- end }}
{{- end }}
