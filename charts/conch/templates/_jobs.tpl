{{/* What trainer and converter share: how they reach database and cluster, and the Jobs that they fill in. */}}

{{/* Settings of services.jobs. Takes (list $ component port). */}}
{{- define "conch.jobsEnv" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index $root.Values $component -}}
{{- if not (or $root.Values.database.existingSecret $root.Values.database.embedded.enabled) -}}
{{- fail (printf "database: %s needs one; set existingSecret, or embedded.enabled" $component) -}}
{{- end -}}
- name: CONCH_DATABASE_URL
  valueFrom:
    secretKeyRef:
      {{- if $root.Values.database.existingSecret }}
      name: {{ $root.Values.database.existingSecret }}
      key: {{ $root.Values.database.existingSecretKey }}
      {{- else }}
      name: {{ include "conch.fullname" $root }}-postgresql
      key: url
      {{- end }}
- name: CONCH_ARTIFACTS_URI
  value: {{ include "conch.artifactsUri" $root | quote }}
- name: CONCH_EXECUTOR
  value: kubernetes
- name: CONCH_REPORT_TO
  value: {{ printf "%s-%s.%s.svc.%s:%d" (include "conch.fullname" $root) $component $root.Release.Namespace $root.Values.clusterDomain (index . 2) }}
- name: CONCH_JOB_TEMPLATES
  value: /etc/conch/jobs
- name: CONCH_DEFAULT_PROFILE
  value: {{ $root.Values.jobs.defaultProfile | quote }}
- name: CONCH_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: CONCH_MAX_CONCURRENT_JOBS
  value: {{ $values.maxConcurrentJobs | quote }}
- name: CONCH_CANCEL_GRACE_SECONDS
  value: {{ $values.cancelGraceSeconds | quote }}
- name: CONCH_FLUSH_SECONDS
  value: {{ $values.flushSeconds | quote }}
{{- end }}

{{/* Profiles that a component offers, name -> all values, as JSON. Takes (list $ component). */}}
{{- define "conch.profiles" -}}
{{- $root := first . -}}
{{- $component := last . -}}
{{- $offered := dict -}}
{{- range $name, $own := $root.Values.jobs.profiles -}}
{{- $profile := include "conch.over" (list $root.Values.jobs.profileDefaults ($own | default dict)) | fromJson -}}
{{- if has $component $profile.services -}}
{{- $_ := set $offered $name $profile -}}
{{- end -}}
{{- end -}}
{{- if not (hasKey $offered $root.Values.jobs.defaultProfile) -}}
{{- fail (printf "jobs.defaultProfile: %q is no profile that %s offers (%s)" $root.Values.jobs.defaultProfile $component (keys $offered | sortAlpha | join ", ")) -}}
{{- end -}}
{{- toJson $offered }}
{{- end }}

{{/* The data of a component's ConfigMap of Jobs. Takes (list $ component). */}}
{{- define "conch.jobTemplates" -}}
{{- $root := first . -}}
{{- $component := last . -}}
{{- range $name, $profile := include "conch.profiles" . | fromJson -}}
{{ $name }}.yaml: |
  {{- include "conch.job" (list $root $component $profile) | nindent 2 }}
{{ end }}
{{- end }}

{{/*
A batch/v1 Job but for what services/cluster/manifests.py fills in: name, labels, command, order, number of nodes,
grace, and when it is tried again.
Takes (list $ component profile).
*/}}
{{- define "conch.job" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $profile := index . 2 -}}
apiVersion: batch/v1
kind: Job
metadata:
  labels:
    {{- include "conch.podLabels" (list $root "worker") | nindent 4 }}
    {{- with $profile.queueName }}
    kueue.x-k8s.io/queue-name: {{ . }}
    {{- end }}
spec:
  # When it is tried again and what counts as a failure is the executor's, and stands in no template.
  ttlSecondsAfterFinished: {{ $root.Values.jobs.ttlSeconds }}
  template:
    metadata:
      labels:
        {{- include "conch.podLabels" (list $root "worker") | nindent 8 }}
    spec:
      restartPolicy: Never
      serviceAccountName: {{ include "conch.serviceAccountName" (list $root "worker") }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext:
        {{- include "conch.podSecurity" $root | nindent 8 }}
      {{- with include "conch.pullSecrets" $root }}{{ . | nindent 6 }}{{ end }}
      {{- with include "conch.placement" $profile }}{{ . | nindent 6 }}{{ end }}
      containers:
        - name: worker
          image: {{ include "conch.image" (list $root (ternary $profile.converterImage $component (eq $component "converter"))) }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          securityContext:
            {{- include "conch.containerSecurity" $root | nindent 12 }}
          env:
            {{- include "conch.storageEnv" $root | nindent 12 }}
            - name: CONCH_ARTIFACTS_URI
              value: {{ include "conch.artifactsUri" $root | quote }}
            {{- with include "conch.extraEnv" $profile.env }}{{ . | nindent 12 }}{{ end }}
          {{- with include "conch.storageEnvFrom" $root }}{{ . | nindent 10 }}{{ end }}
          resources:
            {{- include "conch.gpuResources" $profile | nindent 12 }}
          volumeMounts:
            {{- include "conch.storageMounts" (list $root false) | nindent 12 }}
            - name: conch-work
              mountPath: /var/lib/conch/work
            - name: shm
              mountPath: /dev/shm
      volumes:
        {{- include "conch.storageVolumes" (list $root $profile.scratchSize) | nindent 8 }}
        # The executor knows it by this name.
        - name: conch-work
          emptyDir:
            sizeLimit: {{ $profile.scratchSize }}
        - name: shm
          emptyDir:
            medium: Memory
            sizeLimit: {{ $profile.shm }}
{{- end }}
