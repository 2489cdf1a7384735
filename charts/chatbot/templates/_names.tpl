{{/* Names and labels. */}}

{{- define "chatbot.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/*
At most 40 characters: a StatefulSet's pods carry its name and a hash in a label of 63, and the longest suffix has 17. A
longer name is cut, with a hash of the whole behind, so that two long names stay two. Helm allows dots, a Service does not.
*/}}
{{- define "chatbot.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $whole := .Values.fullnameOverride | default (contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name)) | replace "." "-" }}
{{- if gt (len $whole) 40 }}
{{- printf "%s-%s" ($whole | trunc 31 | trimSuffix "-") (sha256sum $whole | trunc 8) }}
{{- else }}
{{- $whole | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What never changes with a version: (list $ "api"). */}}
{{- define "chatbot.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "chatbot.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Of an object: (list $ "api"). The chart's own go before the user's. */}}
{{- define "chatbot.labels" -}}
{{- $root := index . 0 -}}
{{- $own := include "chatbot.selector" . | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/part-of" "chatbot" }}
{{- $_ := set $own "app.kubernetes.io/version" $root.Chart.AppVersion }}
{{- $_ := set $own "app.kubernetes.io/managed-by" $root.Release.Service }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- merge $own $root.Values.commonLabels | toYaml }}
{{- end }}

{{/* Of a pod: (list $ "api" $.Values.api). Without versions, so that a new chart alone restarts no store. */}}
{{- define "chatbot.podLabels" -}}
{{- $root := index . 0 -}}
{{- $own := dict "app.kubernetes.io/part-of" "chatbot" "app.kubernetes.io/managed-by" $root.Release.Service }}
{{- $own = merge (include "chatbot.selector" . | fromYaml) $own ((index . 2).podLabels | default dict) $root.Values.commonLabels }}
{{- toYaml $own }}
{{- end }}

{{/* The metadata of an object: (list $ "api" "name" [annotations]). */}}
{{- define "chatbot.metadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 2 | quote }}
namespace: {{ $root.Release.Namespace | quote }}
labels:
  {{- include "chatbot.labels" . | nindent 2 }}
{{- $annotations := dict }}
{{- if gt (len .) 3 }}
{{- $annotations = index . 3 | default dict }}
{{- end }}
{{- with merge (deepCopy $annotations) $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* (list $ "api"): the name of a component's service account. */}}
{{- define "chatbot.serviceAccount" -}}
{{- $root := index . 0 -}}
{{- $own := (index $root.Values (index . 1) | default dict).serviceAccount | default dict }}
{{- $own.name | default (printf "%s-%s" (include "chatbot.fullname" $root) (index . 1)) }}
{{- end }}

{{/* (list $ $.Values.api.image): repository[:tag][@digest]. */}}
{{- define "chatbot.image" -}}
{{- $image := index . 1 }}
{{- $tag := $image.tag | default (index . 0).Chart.AppVersion }}
{{- if $image.digest -}}
{{ $image.repository }}{{ if $image.tag }}:{{ regexReplaceAll "@.*$" $image.tag "" }}{{ end }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $tag }}
{{- end }}
{{- end }}
