{{/* Pools and routes as the other templates need them: defaults filled in, references checked. */}}

{{/*
Defaults with what somebody says himself in their place, as JSON. Each value as a whole: mergeOverwrite would keep
the default's limits below somebody's own requests. Takes (list defaults own).
*/}}
{{- define "conch.over" -}}
{{- $all := deepCopy (first .) -}}
{{- range $key, $value := last . -}}
{{- $_ := set $all $key $value -}}
{{- end -}}
{{- toJson $all }}
{{- end }}

{{/* All pools as a JSON list, each with poolDefaults below what it says itself. */}}
{{- define "conch.pools" -}}
{{- $pools := list -}}
{{- range .Values.pools -}}
{{- $pools = append $pools (include "conch.over" (list $.Values.poolDefaults .) | fromJson) -}}
{{- end -}}
{{- toJson $pools }}
{{- end }}

{{/* The name of a model's pool: its own, or the only one. Takes (list $ model-name model). */}}
{{- define "conch.poolOf" -}}
{{- $root := index . 0 -}}
{{- $names := list -}}
{{- range $root.Values.pools }}{{ $names = append $names .name }}{{ end -}}
{{- $wanted := (index . 2).pool | default (ternary (first $names) "" (eq (len $names) 1)) -}}
{{- if not (has $wanted $names) -}}
{{- fail (printf "models.%s.pool: %q is none of the pools (%s)" (index . 1) $wanted (join ", " $names)) -}}
{{- end -}}
{{- $wanted }}
{{- end }}

{{/* The route of one model as an object of conch.v1.Route. Takes (list $ model-name model). */}}
{{- define "conch.route" -}}
{{- $versions := list -}}
{{- range (index . 2).versions -}}
{{- $versions = append $versions (dict "version" (int64 .version | toString) "weight" (int64 .weight)) -}}
{{- end -}}
{{- $route := dict "model" (index . 1) "versions" $versions "pool" (include "conch.poolOf" .) -}}
{{- with (index . 2).shadow -}}
{{- $_ := set $route "shadow" (int64 . | toString) -}}
{{- end -}}
{{- toJson $route }}
{{- end }}

{{/* conch.v1.Routes as JSON, by model: of the pool, or of all where the pool's name is empty. Takes (list $ pool-name). */}}
{{- define "conch.routes" -}}
{{- $root := first . -}}
{{- $wanted := last . -}}
{{- $routes := list -}}
{{- range $name, $model := $root.Values.models -}}
{{- $route := include "conch.route" (list $root $name $model) | fromJson -}}
{{- if or (not $wanted) (eq $route.pool $wanted) -}}
{{- $routes = append $routes $route -}}
{{- end -}}
{{- end -}}
{{- dict "routes" $routes | toPrettyJson }}
{{- end }}

{{/* "model@version" of everything that a pool holds, sorted, by commas: what its pods are made anew for. Takes (list $ pool-name). */}}
{{- define "conch.pool.versions" -}}
{{- $held := list -}}
{{- range (include "conch.routes" . | fromJson).routes -}}
{{- $model := .model -}}
{{- range .versions }}{{ $held = append $held (printf "%s@%s" $model .version) }}{{ end -}}
{{- with .shadow }}{{ $held = append $held (printf "%s@%s" $model .) }}{{ end -}}
{{- end -}}
{{- $held | uniq | sortAlpha | join "," }}
{{- end }}

{{/* The runtime that the code knows a pool by: openvino_genai is openvino with backends of ours beside it. */}}
{{- define "conch.pool.runtime" -}}
{{- ternary "openvino" .runtime (eq .runtime "openvino_genai") }}
{{- end }}

{{/* The gateway's CONCH_POOLS. */}}
{{- define "conch.gatewayPools" -}}
{{- $pools := dict -}}
{{- range include "conch.pools" . | fromJsonArray -}}
{{- /* The final dot: looked up as it stands, not below each search domain of the pod first. */ -}}
{{- $address := printf "%s.%s.svc.%s.:8001" (include "conch.pool.fullname" (list $ .)) $.Release.Namespace $.Values.clusterDomain -}}
{{- $_ := set $pools .name (dict "address" $address "runtime" (include "conch.pool.runtime" .)) -}}
{{- end -}}
{{- toJson $pools }}
{{- end }}

{{/* The CONCH_POOLS of preflight: what is known of the pools before any pod runs. */}}
{{- define "conch.preflightPools" -}}
{{- $pools := dict -}}
{{- range include "conch.pools" . | fromJsonArray -}}
{{- $facts := dict "runtime" (include "conch.pool.runtime" .) "own_backends" (eq .runtime "openvino_genai") -}}
{{- $_ := set $facts "compute_capability" .computeCapability -}}
{{- $_ := set $facts "tensorrt_version" .tensorrtVersion -}}
{{- $_ := set $pools .name $facts -}}
{{- end -}}
{{- toJson $pools }}
{{- end }}

{{/* Whether something else than the chart owns the number of a pool's replicas: "true" or nothing. Takes (list $ pool). */}}
{{- define "conch.pool.autoscaled" -}}
{{- if and (ne (first .).Values.autoscaling.kind "none") (not (last .).fixedReplicas) }}true{{ end }}
{{- end }}

{{/* The same of the gateway. */}}
{{- define "conch.gateway.autoscaled" -}}
{{- if ne .Values.autoscaling.kind "none" }}true{{ end }}
{{- end }}
