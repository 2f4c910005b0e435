{{/* "true" where the chart brings the database that somebody needs, nothing elsewhere. */}}
{{- define "conch.embeddedDatabase" -}}
{{- if and (or .Values.trainer.enabled .Values.converter.enabled) .Values.database.embedded.enabled (not .Values.database.existingSecret) }}true{{ end }}
{{- end }}

{{/* The embedded database's password: as set, as it was, or a new one. */}}
{{- define "conch.postgresql.password" -}}
{{- $name := printf "%s-postgresql" (include "conch.fullname" .) -}}
{{- $existing := lookup "v1" "Secret" .Release.Namespace $name -}}
{{- if .Values.database.embedded.password -}}
{{- .Values.database.embedded.password }}
{{- else if $existing -}}
{{- index $existing.data "password" | b64dec }}
{{- else -}}
{{- randAlphaNum 32 }}
{{- end }}
{{- end }}
