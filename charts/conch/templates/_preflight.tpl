{{/* "true" where versions are looked at before a change: there are some, and nobody forbade it. */}}
{{- define "conch.preflight" -}}
{{- if and .Values.rollout.preflight.enabled .Values.models }}true{{ end }}
{{- end }}

{{/*
When: before every change; not before the installation that makes the volume claim, which would wait for a
claim that comes after it and find nothing on it.
*/}}
{{- define "conch.preflight.hooks" -}}
{{- if and (include "conch.claimName" .) (not .Values.storage.pvc.existingClaim) -}}
pre-upgrade
{{- else -}}
pre-install,pre-upgrade
{{- end }}
{{- end }}
