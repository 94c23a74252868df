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
{{ printf "%s-%s" (trunc 40 .root.Release.Name | trimSuffix "-") .part }}
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
{{- with $part.priorityClassName }}
priorityClassName: {{ . | quote }}
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

{{- define "sidecar.policyWanted" -}}
{{- $mode := .Values.admissionPolicy.mode -}}
{{- $can := semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version -}}
{{- if and (eq $mode "enabled") (not $can) }}
  {{- fail (printf "admissionPolicy.mode: Kubernetes %s has no ValidatingAdmissionPolicy of v1; set it to auto or disabled" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if or (eq $mode "enabled") (and (eq $mode "auto") .Values.injector.enabled $can) }}yes{{ end -}}
{{- end -}}
