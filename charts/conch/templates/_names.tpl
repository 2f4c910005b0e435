{{/* Names and labels of everything in the chart. */}}

{{- define "conch.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* "conch" for a release named "conch", else "<release>-conch". */}}
{{- define "conch.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "conch.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "conch.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels by which a component's pods are found; never changed, a Deployment cannot be. Takes (list $ component). */}}
{{- define "conch.selectorLabels" -}}
{{- $root := first . -}}
app.kubernetes.io/name: {{ include "conch.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end }}

{{/* All labels of a component's objects. Takes (list $ component). */}}
{{- define "conch.labels" -}}
{{- $root := first . -}}
{{ include "conch.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: conch
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of a component's pods: nothing that a new chart changes, or every upgrade would make all pods anew. Takes (list $ component). */}}
{{- define "conch.podLabels" -}}
{{ include "conch.selectorLabels" . }}
{{- with (first .).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels by which the pods of one pool are found. Takes (list $ pool). */}}
{{- define "conch.pool.selectorLabels" -}}
{{ include "conch.selectorLabels" (list (first .) "triton") }}
conch/pool: {{ (last .).name }}
{{- end }}

{{/* All labels of a pool's objects. Takes (list $ pool). */}}
{{- define "conch.pool.labels" -}}
{{ include "conch.labels" (list (first .) "triton") }}
conch/pool: {{ (last .).name }}
{{- end }}

{{/* "<fullname>-triton-<pool>". Takes (list $ pool). */}}
{{- define "conch.pool.fullname" -}}
{{- printf "%s-triton-%s" (include "conch.fullname" (first .)) (last .).name }}
{{- end }}

{{/* An image of ours by its target in the Dockerfile: by digest where one is given. Takes (list $ target). */}}
{{- define "conch.image" -}}
{{- $root := first . -}}
{{- $name := printf "%s/%s/%s" $root.Values.image.registry $root.Values.image.repository (last .) -}}
{{- $digest := index $root.Values.image.digests (last .) -}}
{{- if $digest -}}
{{- printf "%s@%s" $name $digest }}
{{- else -}}
{{- printf "%s:%s" $name ($root.Values.image.tag | default $root.Chart.AppVersion) }}
{{- end }}
{{- end }}

{{/* The service account of a component. Takes (list $ component). */}}
{{- define "conch.serviceAccountName" -}}
{{- printf "%s-%s" (include "conch.fullname" (first .)) (last .) }}
{{- end }}
