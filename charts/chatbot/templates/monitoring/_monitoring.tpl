{{/* (list $ "api" labels): the metadata of what Prometheus Operator looks for by labels. */}}
{{- define "chatbot.monitorMetadata" -}}
{{- include "chatbot.labelled" (list (index . 0) (index . 1) (printf "%s-%s" (include "chatbot.fullname" (index . 0)) (index . 1)) (index . 2) dict) }}
{{- end }}

{{/* (list $ "api" "name" labels annotations): metadata with labels of the user's. */}}
{{- define "chatbot.labelled" -}}
{{- $metadata := include "chatbot.metadata" (list (index . 0) (index . 1) (index . 2) (index . 4)) | fromYaml }}
{{- $_ := set $metadata "labels" (merge $metadata.labels (index . 3)) }}
{{- toYaml $metadata }}
{{- end }}

{{/* (list $ "api"): which pods or Services, and that their labels are told apart by component. */}}
{{- define "chatbot.monitorSpec" -}}
selector:
  matchLabels:
    {{- include "chatbot.selector" . | nindent 4 }}
namespaceSelector:
  matchNames: [{{ (index . 0).Release.Namespace | quote }}]
{{- end }}
