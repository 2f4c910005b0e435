{{/* What both kinds of autoscaler say alike. */}}

{{/* A pool's autoscaling as JSON: what it says itself over `autoscaling.pools`. Takes (list $ pool). */}}
{{- define "conch.pool.autoscaling" -}}
{{- $pool := last . -}}
{{- $own := $pool.autoscaling | default dict -}}
{{- $all := deepCopy (first .).Values.autoscaling.pools -}}
{{- $merged := mergeOverwrite $all (deepCopy $own) -}}
{{- if lt (int $merged.maxReplicas) (max 1 (int $merged.minReplicas)) -}}
{{- fail (printf "pools %q: maxReplicas %d is less than minReplicas %d" $pool.name (int $merged.maxReplicas) (int $merged.minReplicas)) -}}
{{- end -}}
{{- if and (eq (first .).Values.autoscaling.kind "hpa") (eq (int $merged.minReplicas) 0) -}}
{{- fail (printf "pools %q: minReplicas 0 needs autoscaling.kind keda; an HPA keeps at least one pod" $pool.name) -}}
{{- end -}}
{{- toJson $merged }}
{{- end }}

{{/* Whether a pool's runtime writes streams, which have no tokens in its queue: "true" or nothing. */}}
{{- define "conch.pool.generates" -}}
{{- if has .runtime (list "openvino_genai" "vllm") }}true{{ end }}
{{- end }}

{{/* The gateway's autoscaling as JSON. */}}
{{- define "conch.gateway.autoscaling" -}}
{{- $scaling := .Values.autoscaling.gateway -}}
{{- if lt (int $scaling.maxReplicas) (int $scaling.minReplicas) -}}
{{- fail (printf "autoscaling.gateway: maxReplicas %d is less than minReplicas %d" (int $scaling.maxReplicas) (int $scaling.minReplicas)) -}}
{{- end -}}
{{- toJson $scaling }}
{{- end }}

{{/* Matchers of a pool's series. Takes (list $ pool). */}}
{{- define "conch.pool.matchers" -}}
{{- $root := first . -}}
{{- printf "namespace=%q,release=%q,pool=%q" $root.Release.Namespace $root.Release.Name (last .).name }}
{{- end }}

{{/* A number as Kubernetes writes quantities: 0.2 is 200m. */}}
{{- define "conch.quantity" -}}
{{- printf "%.0fm" (mulf 1000 .) }}
{{- end }}

{{/* An external metric of an HPA. Takes a dict of root, name, pool, target. */}}
{{- define "conch.externalMetric" -}}
- type: External
  external:
    metric:
      name: {{ .name }}
      selector:
        matchLabels:
          release: {{ .root.Release.Name }}
          {{- with .pool }}
          pool: {{ . }}
          {{- end }}
    target:
      {{- toYaml .target | nindent 6 }}
{{- end }}

{{/* A Prometheus trigger of KEDA. Takes a dict of root, name, type, query, threshold. */}}
{{- define "conch.prometheusTrigger" -}}
- type: prometheus
  name: {{ .name }}
  metricType: {{ .type }}
  metadata:
    serverAddress: {{ .root.Values.autoscaling.keda.prometheusAddress | quote }}
    query: {{ .query | quote }}
    threshold: {{ .threshold | toString | quote }}
    activationThreshold: "0"
    # No answer is not no load: the number of pods stays as it is.
    ignoreNullValues: "false"
  {{- with .root.Values.autoscaling.keda.authenticationRef }}
  authenticationRef:
    name: {{ . }}
  {{- end }}
{{- end }}
