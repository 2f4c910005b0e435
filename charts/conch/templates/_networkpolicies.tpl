{{/* Rules that several NetworkPolicies have. */}}

{{/* Out: names are looked up wherever the cluster's DNS runs. */}}
{{- define "conch.egress.dns" -}}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- end }}

{{/* Out: the store and the Kubernetes API. */}}
{{- define "conch.egress.outside" -}}
- to:
    {{- range .Values.networkPolicy.egressCidrs }}
    - ipBlock:
        cidr: {{ . | quote }}
    {{- end }}
  ports:
    {{- range .Values.networkPolicy.egressPorts }}
    - port: {{ . }}
    {{- end }}
{{- end }}

{{/* Out: pods of one component. Takes (list $ component port). */}}
{{- define "conch.egress.to" -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "conch.selectorLabels" (list (index . 0) (index . 1)) | nindent 10 }}
  ports:
    - port: {{ index . 2 }}
{{- end }}

{{/* Out: the jobs' database. */}}
{{- define "conch.egress.database" -}}
{{- if include "conch.embeddedDatabase" . -}}
{{- include "conch.egress.to" (list . "postgresql" 5432) }}
{{- else -}}
- to:
    {{- range .Values.networkPolicy.egressCidrs }}
    - ipBlock:
        cidr: {{ . | quote }}
    {{- end }}
  ports:
    - port: {{ .Values.networkPolicy.databasePort }}
{{- end }}
{{- end }}

{{/* In: who reads metrics. Takes (list $ port). */}}
{{- define "conch.ingress.metrics" -}}
- from:
    {{- toYaml ((first .).Values.networkPolicy.metricsFrom | default (list (dict "namespaceSelector" dict))) | nindent 4 }}
  ports:
    - port: {{ last . }}
{{- end }}

{{/* In: who calls trainer or converter. Takes (list $ port). */}}
{{- define "conch.ingress.jobs" -}}
- from:
    {{- toYaml ((first .).Values.networkPolicy.jobsFrom | default (list (dict "podSelector" dict))) | nindent 4 }}
    - podSelector:
        matchLabels:
          {{- include "conch.selectorLabels" (list (first .) "worker") | nindent 10 }}
    - podSelector:
        matchLabels:
          {{- include "conch.selectorLabels" (list (first .) "test") | nindent 10 }}
  ports:
    - port: {{ last . }}
{{- end }}
