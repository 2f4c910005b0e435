{{/* Fragments that every pod of ours has: security, storage, environment, spread. */}}

{{/* securityContext of a pod. */}}
{{- define "conch.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.security.uid }}
runAsGroup: {{ .Values.security.uid }}
fsGroup: {{ .Values.security.uid }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* securityContext of a container. */}}
{{- define "conch.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* imagePullSecrets, where there are any. */}}
{{- define "conch.pullSecrets" -}}
{{- with .Values.image.pullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Name of the volume claim, or nothing where everything lies in object storage. */}}
{{- define "conch.claimName" -}}
{{- if or (not .Values.storage.repositoryUri) (not .Values.storage.artifactsUri) -}}
{{- .Values.storage.pvc.existingClaim | default (printf "%s-storage" (include "conch.fullname" .)) }}
{{- end }}
{{- end }}

{{- define "conch.repositoryUri" -}}
{{- .Values.storage.repositoryUri | default "/var/lib/conch/storage/repository" }}
{{- end }}

{{- define "conch.artifactsUri" -}}
{{- .Values.storage.artifactsUri | default "/var/lib/conch/storage/artifacts" }}
{{- end }}

{{/* Environment of everything that reads the repository. */}}
{{- define "conch.storageEnv" -}}
- name: CONCH_REPOSITORY_URI
  value: {{ include "conch.repositoryUri" . | quote }}
- name: CONCH_HOME
  value: /var/lib/conch/home
- name: CONCH_LOG_LEVEL
  value: {{ .Values.logLevel | quote }}
{{- range $name, $value := .Values.storage.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* envFrom of everything that reads the repository. */}}
{{- define "conch.storageEnvFrom" -}}
{{- with .Values.storage.credentialsSecret }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end }}

{{/* Volume mounts of everything that reads the repository. Takes (list $ read-only). */}}
{{- define "conch.storageMounts" -}}
- name: home
  mountPath: /var/lib/conch/home
- name: tmp
  mountPath: /tmp
{{- if include "conch.claimName" (first .) }}
- name: storage
  mountPath: /var/lib/conch/storage
  readOnly: {{ last . }}
{{- end }}
{{- end }}

{{/* The volumes of those mounts. Takes (list $ scratch-size). */}}
{{- define "conch.storageVolumes" -}}
- name: home
  emptyDir:
    sizeLimit: {{ last . }}
- name: tmp
  emptyDir:
    sizeLimit: {{ last . }}
{{- with include "conch.claimName" (first .) }}
- name: storage
  persistentVolumeClaim:
    claimName: {{ . }}
{{- end }}
{{- end }}

{{/* What operators add to a component's environment, by name. */}}
{{- define "conch.extraEnv" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* Spread over nodes and zones, each revision by itself. Takes the selector's labels. */}}
{{- define "conch.spread" -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- . | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
- maxSkew: 1
  topologyKey: topology.kubernetes.io/zone
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- . | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
{{- end }}

{{/* Where pods may run. Takes what has nodeSelector, tolerations, affinity and priorityClassName. */}}
{{- define "conch.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Seconds that calls may go on once a pod was told to stop: the longest deadline there is. */}}
{{- define "conch.longestDeadline" -}}
{{- max (int .Values.gateway.deadlineSeconds) (int .Values.gateway.streamDeadlineSeconds) }}
{{- end }}

{{/* A service account's token as a volume, for the one container of a pod that speaks with the API. */}}
{{- define "conch.tokenVolume" -}}
- name: api-token
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: 3600
      - configMap:
          name: kube-root-ca.crt
          items:
            - key: ca.crt
              path: ca.crt
      - downwardAPI:
          items:
            - path: namespace
              fieldRef:
                fieldPath: metadata.namespace
{{- end }}
