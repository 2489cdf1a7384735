{{/* What all pods have in common. */}}

{{/* (list $ "api" $.Values.api 10001): the start of a pod's spec. */}}
{{- define "chatbot.podSpec" -}}
{{- $root := index . 0 }}
{{- $component := index . 1 }}
{{- $values := index . 2 }}
{{- $user := index . 3 -}}
serviceAccountName: {{ include "chatbot.serviceAccount" (list $root $component) | quote }}
automountServiceAccountToken: false
# Else a Service named `redis` or `pg` in the namespace would set REDIS_PORT or PG_PORT.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $user }}
  runAsGroup: {{ $user }}
  fsGroup: {{ $user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- range $name := list "nodeSelector" "tolerations" "affinity" }}
{{- with index $values $name }}
{{ $name }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- if has $component (list "api" "worker") }}
topologySpreadConstraints:
  {{- if kindIs "slice" $values.topologySpreadConstraints }}
  {{- toYaml $values.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "chatbot.selector" . | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "chatbot.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: {{ . }}
capabilities:
  drop: [ALL]
{{- end }}

{{/* (list path port): a start may take 300 s, for instance until an image's files are read from a slow disk. */}}
{{- define "chatbot.startupProbe" -}}
startupProbe:
  httpGet:
    path: {{ index . 0 }}
    port: {{ index . 1 }}
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 300
livenessProbe:
  httpGet:
    path: {{ index . 0 }}
    port: {{ index . 1 }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}

{{/* (list "NAME" ref): an environment variable from a Secret, or nothing. */}}
{{- define "chatbot.secretEnv" -}}
{{- with index . 1 }}
- name: {{ index $ 0 }}
  valueFrom:
    secretKeyRef:
      {{- . | nindent 6 }}
{{- end }}
{{- end }}

{{/* (list $ "redis" persistence): the volume of a store, with labels that never change. */}}
{{- define "chatbot.claim" -}}
{{- $persistence := index . 2 -}}
- apiVersion: v1
  kind: PersistentVolumeClaim
  metadata:
    name: data
    labels:
      {{- include "chatbot.selector" . | nindent 6 }}
  spec:
    accessModes: [ReadWriteOnce]
    {{- with $persistence.storageClass }}
    storageClassName: {{ . | quote }}
    {{- end }}
    resources:
      requests:
        storage: {{ $persistence.size }}
{{- end }}

{{- define "chatbot.commonEnv" -}}
- name: EXPIRATION_TIME
  value: {{ .Values.expirationSeconds | int64 | quote }}
{{ include "chatbot.logEnv" . }}
{{- end }}

{{- define "chatbot.logEnv" -}}
- name: LOG_LEVEL
  value: {{ .Values.logLevel }}
{{- end }}

{{/* (list $ (list "chatbot.redisEnv" …) extraEnv): the variables of these templates and the user's own, which replace them. */}}
{{- define "chatbot.env" -}}
{{- $root := index . 0 }}
{{- $own := index . 2 }}
{{- $taken := list }}
{{- range $own }}
{{- $taken = append $taken .name }}
{{- end }}
{{- $all := list }}
{{- range $template := index . 1 }}
{{- range include $template $root | fromYamlArray }}
{{- if not (has .name $taken) }}
{{- $all = append $all . }}
{{- end }}
{{- end }}
{{- end }}
{{- concat $all $own | toYaml }}
{{- end }}
