{{/*
A file of rules for this release. The files are plain: promtool reads them as they lie there, for a release
"conch" in a namespace "conch". Takes (list $ path).
*/}}
{{- define "conch.rules" -}}
{{- $root := first . -}}
{{- $rules := $root.Values.monitoring.rules -}}
{{- $root.Files.Get (last .)
  | replace "namespace=\"conch\"" (printf "namespace=%q" $root.Release.Namespace)
  | replace "release=\"conch\"" (printf "release=%q" $root.Release.Name)
  | replace "=~\"conch-" (printf "=~\"%s-" (include "conch.fullname" $root))
  | replace "(1 - 0.999)" (printf "(1 - %v)" $rules.objective)
  | replace "docs/alerts.md#" (printf "%s#" $rules.runbooks) }}
{{- end }}

{{/* A PodMonitor of one component. Takes (list $ component). */}}
{{- define "conch.podMonitor" -}}
{{- $root := first . -}}
{{- $component := last . -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ include "conch.fullname" $root }}-{{ $component }}
  labels:
    {{- include "conch.labels" (list $root $component) | nindent 4 }}
    {{- with $root.Values.monitoring.scrape.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      {{- include "conch.selectorLabels" (list $root $component) | nindent 6 }}
  podMetricsEndpoints:
    - port: metrics
      interval: {{ $root.Values.monitoring.scrape.interval }}
      # By these the rules, the autoscalers and the dashboard tell releases, components and pools apart.
      relabelings:
        - sourceLabels: [__meta_kubernetes_pod_label_app_kubernetes_io_instance]
          targetLabel: release
        - sourceLabels: [__meta_kubernetes_pod_label_app_kubernetes_io_component]
          targetLabel: component
        {{- if eq $component "triton" }}
        - sourceLabels: [__meta_kubernetes_pod_label_conch_pool]
          targetLabel: pool
        {{- end }}
{{- end }}
