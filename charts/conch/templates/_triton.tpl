{{/* What a pod of Triton is started with. */}}

{{/* resources with GPUs, which may be named as limits only. Takes a dict of resources, gpus, gpuResource. */}}
{{- define "conch.gpuResources" -}}
{{- $resources := deepCopy .resources -}}
{{- if gt (int .gpus) 0 -}}
{{- $limits := $resources.limits | default dict -}}
{{- $_ := set $limits .gpuResource (int .gpus | toString) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- toYaml $resources }}
{{- end }}

{{/* Arguments of tritonserver. Takes (list $ pool). */}}
{{- define "conch.triton.args" -}}
{{- $pool := last . -}}
{{- $configuration := include "conch.pool.runtime" $pool -}}
- --model-repository=/staged
# Everything that was staged and nothing else; a pod never changes what it holds.
- --model-control-mode=none
# A version that does not load leaves the pod running and not ready: an update stops there, with its log.
- --exit-on-error=false
- --strict-readiness=true
{{- if ne $configuration "onnxruntime" }}
- --model-config-name={{ $configuration }}
{{- end }}
{{- if eq $pool.runtime "openvino_genai" }}
- --backend-directory=/backends
{{- end }}
- --http-port=8000
- --grpc-port=8001
- --metrics-port=8002
- --allow-gpu-metrics={{ gt (int $pool.gpus) 0 }}
- --exit-timeout-secs={{ include "conch.longestDeadline" (first .) }}
- --log-format=ISO8601
# Gateways ping idle channels so that a Triton that vanished is noticed; without leave for that Triton answers
# the third ping with GOAWAY.
- --grpc-keepalive-permit-without-calls=1
- --grpc-http2-min-recv-ping-interval-without-data=5000
{{- range $pool.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}
