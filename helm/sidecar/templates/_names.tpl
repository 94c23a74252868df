{{- /* Labels of one part of the release. The context is (dict "root" $ "part" "sts"). */ -}}
{{- define "sidecar.labels" -}}
{{ include "sidecar.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimAll "-_." | quote }}
{{- end -}}

{{- define "sidecar.selector" -}}
app.kubernetes.io/name: sidecar
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "sidecar.name" -}}
{{ printf "%s-%s" (trunc 40 (.root.Values.nameOverride | default .root.Release.Name) | trimSuffix "-") .part }}
{{- end -}}

{{- /* All replicas of the token service: the name has the address of each. */ -}}
{{- define "sidecar.replicasUrl" -}}
https://{{ include "sidecar.name" (dict "root" . "part" "sts") }}-replicas.{{ .Release.Namespace }}.svc:7444{{ (urlParse (toString .Values.sts.settings.issuer)).path | trimSuffix "/" }}
{{- end -}}

{{- /* What the pods of every part have in common. */ -}}
{{- define "sidecar.pod" -}}
{{- $part := get .root.Values .part -}}
serviceAccountName: {{ include "sidecar.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ int .root.Values.sidecar.uid }}
  runAsGroup: {{ int .root.Values.sidecar.uid }}
  fsGroup: {{ int .root.Values.sidecar.uid }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with $part.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
affinity:
{{- if $part.affinity }}
  {{- toYaml $part.affinity | nindent 2 }}
{{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector: {matchLabels: {{ include "sidecar.selector" . | fromYaml | toJson }}}
{{- end }}
{{- with $part.topologySpreadConstraints }}
topologySpreadConstraints:
{{- range . }}
  - {{ mustMerge (deepCopy .) (dict "labelSelector" (dict "matchLabels" (include "sidecar.selector" $ | fromYaml))) | toJson }}
{{- end }}
{{- end }}
{{- with $part.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{- /* Labels and annotations of the pods of one part. The context is (dict "root" $ "part" "sts" "annotations" OURS). */ -}}
{{- define "sidecar.podMetadata" -}}
{{- $part := get .root.Values .part -}}
{{- $labels := include "sidecar.labels" . | fromYaml -}}
{{- range $kind, $own := dict "podLabels" $labels "podAnnotations" .annotations -}}
{{- range $key, $_ := get $part $kind -}}
{{- if hasKey $own $key }}
  {{- fail (printf "%s.%s: the chart sets %s; leave it out" $.part $kind $key) }}
{{- end }}
{{- end -}}
{{- end -}}
labels: {{ mustMerge $labels (deepCopy ($part.podLabels | default dict)) | toYaml | nindent 2 }}
annotations: {{ mustMerge .annotations (deepCopy ($part.podAnnotations | default dict)) | toYaml | nindent 2 }}
{{- end -}}

{{- /* The variables of one part's container. The context is (dict "root" $ "part" "sts"). */ -}}
{{- define "sidecar.env" -}}
{{- $extra := (get .root.Values .part).extraEnv -}}
{{- include "sidecar-lib.refuseEnv" (dict "at" (printf "%s.extraEnv" .part) "env" $extra) -}}
{{ include "sidecar-lib.facts" . }}
{{- with $extra }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* The probes of a container that serves them on the port named `probe`. */ -}}
{{- define "sidecar.probes" -}}
startupProbe: {httpGet: {path: /livez, port: probe}, periodSeconds: 1, timeoutSeconds: 2, failureThreshold: 60}
readinessProbe: {httpGet: {path: /readyz, port: probe}, periodSeconds: 5, timeoutSeconds: 2, failureThreshold: 2}
livenessProbe: {httpGet: {path: /livez, port: probe}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6}
{{- end -}}

{{- /* Selects the namespaces that asked for sidecars, and never our own: the injector could not start without itself. */ -}}
{{- /* Whoever calls a Service learns a little later than a pod that it stops: until then it serves on. */ -}}
{{- define "sidecar.stopDelay" -}}
lifecycle: {preStop: {exec: {command: [python3, -Ic, "import time; time.sleep(5)"]}}}
{{- end -}}

{{- define "sidecar.namespaceSelector" -}}
matchLabels: {delegation-sidecar.io/inject: enabled}
matchExpressions:
  - {key: kubernetes.io/metadata.name, operator: NotIn, values: [{{ .Release.Namespace | quote }}, kube-system]}
{{- end -}}

{{- /* An image by its digest as a node reports it: a name without a registry is Docker Hub's. The context is `image`. */ -}}
{{- define "sidecar.imageOfNode" -}}
{{- $name := .repository -}}
{{- $first := splitList "/" $name | first -}}
{{- if not (contains "/" $name) }}{{ $name = printf "docker.io/library/%s" $name }}
{{- else if not (or (contains "." $first) (contains ":" $first) (eq $first "localhost")) }}{{ $name = printf "docker.io/%s" $name }}{{ end -}}
{{ $name }}@{{ .digest }}
{{- end -}}

{{- /* A ClusterSPIFFEID is in no namespace, and a workload of the cluster has one: its name is what it is about. */ -}}
{{- define "sidecar.spiffeIDName" -}}
{{ printf "%s.delegation-sidecar.io-%s" .part (sha256sum (toJson .of) | trunc 12) }}
{{- end -}}

{{- /* There is one in a cluster, whatever the release is called: webhook and policy are asked about all labelled namespaces. */ -}}
{{- define "sidecar.clusterName" -}}
injector.delegation-sidecar.io
{{- end -}}

{{- /* A value that every ceiling among these values forbids. The context is (dict "root" $ "at" VALUE "key" KEY "fix" LINE). */ -}}
{{- define "sidecar.refuseCeiling" -}}
{{- $named := list -}}
{{- $allowed := false -}}
{{- range .root.Values.platforms -}}
{{- if eq .name (toString $.root.Values.sidecar.platform) -}}
{{- $named = append $named .namespace -}}
{{- $allowed = or $allowed (get .settings $.key) -}}
{{- end -}}
{{- end -}}
{{- if and $named (not $allowed) }}
  {{- fail (printf "%s: platforms: %s forbids it in %s; write `%s` there" .at .root.Values.sidecar.platform (join ", " $named) .fix) }}
{{- end }}
{{- end -}}

{{- define "sidecar.policyWanted" -}}
{{- $mode := .Values.admissionPolicy.mode -}}
{{- $can := semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version -}}
{{- if and (eq $mode "enabled") (not $can) }}
  {{- fail (printf "admissionPolicy.mode: Kubernetes %s has no ValidatingAdmissionPolicy of v1; set it to auto or disabled" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if or (eq $mode "enabled") (and (eq $mode "auto") .Values.injector.enabled $can) }}yes{{ end -}}
{{- end -}}
