{{- define "chatbot.testEnv" -}}
{{- $test := .Values.test }}
{{- $ref := include "chatbot.apiKeyRef" . }}
{{- if $test.existingSecret }}
{{- $ref = dict "name" $test.existingSecret "key" $test.existingSecretKey | toYaml }}
{{- end }}
{{- include "chatbot.secretEnv" (list "API_KEY" $ref) }}
{{- end }}
