{{/* "true" where the chart brings the database that somebody needs, nothing elsewhere. */}}
{{- define "conch.embeddedDatabase" -}}
{{- if and (or .Values.trainer.enabled .Values.converter.enabled) .Values.database.embedded.enabled (not .Values.database.existingSecret) }}true{{ end }}
{{- end }}

{{/* The embedded database's password: as set, as it was, or a new one. */}}
{{- define "conch.postgresql.password" -}}
{{- $secret := lookup "v1" "Secret" .Release.Namespace (printf "%s-postgresql" (include "conch.fullname" .)) -}}
{{- $kept := dig "data" "password" "" ($secret | default dict) | b64dec -}}
{{- coalesce .Values.database.embedded.password $kept (randAlphaNum 32) }}
{{- end }}
