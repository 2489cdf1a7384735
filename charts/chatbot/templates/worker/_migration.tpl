{{- define "chatbot.migrationSpec" -}}
{{- $migration := .Values.migration }}
{{- $worker := .Values.worker -}}
backoffLimit: {{ $migration.backoffLimit | int }}
{{- with $migration.ttlSecondsAfterFinished }}
ttlSecondsAfterFinished: {{ . | int }}
{{- end }}
template:
  metadata:
    labels:
      {{- include "chatbot.podLabels" (list . "migrate" $migration) | nindent 6 }}
    {{- with $migration.podAnnotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    {{- include "chatbot.podSpec" (list . "migrate" $migration 10001) | nindent 4 }}
    # Not OnFailure: that counts no failure until the last, and takes the log of each away.
    restartPolicy: Never
    # Each file of the schema is one transaction; nothing is lost with it.
    terminationGracePeriodSeconds: 10
    containers:
      - name: migrate
        image: {{ include "chatbot.image" (list . $worker.image) | quote }}
        imagePullPolicy: {{ $worker.image.pullPolicy }}
        command: [python, -m, worker]
        args: [migrate, --wait-seconds, {{ $migration.waitSeconds | int | quote }}]
        env:
          {{- include "chatbot.env" (list . (list "chatbot.logEnv" "chatbot.postgresqlEnv") $worker.extraEnv) | nindent 10 }}
        resources:
          {{- toYaml $migration.resources | nindent 10 }}
        securityContext:
          {{- include "chatbot.containerSecurity" true | nindent 10 }}
        volumeMounts:
          - name: tmp
            mountPath: /tmp
          {{- with include "chatbot.authorityMounts" . }}
          {{- . | trim | nindent 10 }}
          {{- end }}
    volumes:
      - name: tmp
        emptyDir: {}
      {{- with include "chatbot.authorityVolumes" . }}
      {{- . | trim | nindent 6 }}
      {{- end }}
{{- end }}
