{{- /*
The sidecar's container. The context is the values of this chart. Every field that the API server would fill in is
written out, so that the injector finds a container that it made itself exactly as it made it.
*/ -}}

{{- define "sidecar-lib.container" -}}
{{- include "sidecar-lib.refuse" . -}}
name: sidecar
image: {{ include "sidecar-lib.image" .image | quote }}
imagePullPolicy: {{ .image.pullPolicy }}
args:
  - run
  - --config=/etc/sidecar/settings/sidecar.yaml
  {{- if .platform }}
  - --platform=/etc/sidecar/platform/platform.yaml
  {{- end }}
  {{- if gt (int .workers) 1 }}
  - --workers={{ int .workers }}
  {{- end }}
env:
  - {name: SIDECAR__PROBE__LISTEN, value: {{ printf "0.0.0.0:%d" (int .ports.probe) | quote }}}
  - {name: SIDECAR__ADMIN__SOCKET, value: /run/sidecar/admin.sock}
  - {name: SPIFFE_ENDPOINT_SOCKET, value: {{ printf "unix:///spiffe-workload-api/%s" .workloadApi.socket | quote }}}
  {{- include "sidecar-lib.facts" . | nindent 2 }}
  {{- range .extraEnv }}
  - {name: {{ .name }}, value: {{ .value | toJson }}}
  {{- end }}
ports:
  - {name: sidecar-mesh, containerPort: {{ int .ports.inbound }}, protocol: TCP}
  - {name: sidecar-probe, containerPort: {{ int .ports.probe }}, protocol: TCP}
  {{- if .ports.plain }}
  - {name: sidecar-plain, containerPort: {{ int .ports.plain }}, protocol: TCP}
  {{- end }}
  {{- if .ports.door }}
  - {name: sidecar-door, containerPort: {{ int .ports.door }}, protocol: TCP}
  {{- end }}
startupProbe:
  httpGet: {path: /readyz, port: {{ int .ports.probe }}, scheme: HTTP}
  periodSeconds: 1
  timeoutSeconds: 2
  successThreshold: 1
  failureThreshold: {{ int .startup.seconds }}
readinessProbe:
  httpGet: {path: /readyz, port: {{ int .ports.probe }}, scheme: HTTP}
  periodSeconds: 5
  timeoutSeconds: 2
  successThreshold: 1
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /livez, port: {{ int .ports.probe }}, scheme: HTTP}
  periodSeconds: 10
  timeoutSeconds: 5
  successThreshold: 1
  failureThreshold: 6
{{- if eq .mode "native" }}
restartPolicy: Always
lifecycle:
  # Before the agent is told to stop, or at the same moment: callers learn to call other pods.
  preStop: {exec: {command: [python3, -Ic, "import os, signal; os.kill(1, signal.SIGUSR1)"]}}
{{- else }}
lifecycle:
  # The kubelet starts the next container when this has ended: an agent never meets a sidecar that is not ready.
  postStart: {exec: {command: [python3, -m, sidecar.cli, healthcheck, {{ printf "--probe=127.0.0.1:%d" (int .ports.probe) | quote }}, {{ printf "--wait=%d" (int .startup.seconds) | quote }}]}}
  preStop: {exec: {command: [python3, -Ic, {{ printf "import os, signal, time; os.kill(1, signal.SIGUSR1); time.sleep(%d)" (int .classicStopDelaySeconds) | quote }}]}}
{{- end }}
resources: {{ toYaml .resources | nindent 2 }}
securityContext:
  {{- include "sidecar-lib.restricted" .uid | nindent 2 }}
terminationMessagePath: /dev/termination-log
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  - {name: sidecar-workload-api, mountPath: /spiffe-workload-api, readOnly: true}
  - {name: sidecar-settings, mountPath: /etc/sidecar/settings, readOnly: true}
  {{- if .platform }}
  - {name: sidecar-platform, mountPath: /etc/sidecar/platform, readOnly: true}
  {{- end }}
  - {name: sidecar-run, mountPath: /run/sidecar}
  {{- if .keys }}
  - {name: sidecar-keys, mountPath: /var/run/keys, readOnly: true}
  {{- end }}
  {{- if .workloadHandle }}
  - {name: sidecar-handle, mountPath: /run/sidecar-handle}
  {{- end }}
  {{- if .door }}
  - {name: sidecar-door, mountPath: /etc/sidecar/door, readOnly: true}
  {{- end }}
{{- end -}}

{{- /* For `volumeMounts` of the agent's container, and of no other. */ -}}
{{- define "sidecar-lib.handleMount" -}}
{{- if .workloadHandle }}- {name: sidecar-handle, mountPath: /run/sidecar-handle, readOnly: true}{{ end -}}
{{- end -}}

{{- /* For `env` of every other container of the pod: where the agent makes its calls. */ -}}
{{- define "sidecar-lib.agentEnv" -}}
- {name: SIDECAR_OUTBOUND_URL, value: {{ printf "http://127.0.0.1:%d" (int .ports.outbound) | quote }}}
{{- end -}}

{{- /* Where it runs: told in the record that a run begins with. */ -}}
{{- define "sidecar-lib.facts" -}}
- {name: POD_NAME, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.name}}}
- {name: POD_NAMESPACE, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}}
- {name: POD_SERVICE_ACCOUNT, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: spec.serviceAccountName}}}
- {name: NODE_NAME, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: spec.nodeName}}}
{{- end -}}

{{- define "sidecar-lib.volumes" -}}
- name: sidecar-workload-api
  csi: {driver: {{ .workloadApi.driver | quote }}, readOnly: true}
- name: sidecar-settings
  configMap: {name: {{ required "settings: name the ConfigMap with the workload's sidecar.yaml" .settings | quote }}, defaultMode: 420}
{{- if .platform }}
- name: sidecar-platform
  configMap: {name: {{ .platform | quote }}, defaultMode: 420}
{{- end }}
- name: sidecar-run
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- if .keys }}
- name: sidecar-keys
  secret: {secretName: {{ .keys | quote }}, defaultMode: 288}
{{- end }}
{{- if .workloadHandle }}
- name: sidecar-handle
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- end }}
{{- if .door }}
- name: sidecar-door
  secret: {secretName: {{ .door | quote }}, defaultMode: 288}
{{- end }}
{{- end -}}

{{- /* For `initContainers`: the sidecar if it is native, else nothing; and the other way round for `containers`. */ -}}
{{- define "sidecar-lib.native" -}}
{{- if eq .mode "native" }}- {{ include "sidecar-lib.container" . | nindent 2 | trim }}{{ end -}}
{{- end -}}

{{- define "sidecar-lib.classic" -}}
{{- if eq .mode "classic" }}- {{ include "sidecar-lib.container" . | nindent 2 | trim }}{{ end -}}
{{- end -}}

{{- /* All that Pod Security *restricted* asks of a container, and a read-only root. The context is the user's id. */ -}}
{{- define "sidecar-lib.restricted" -}}
runAsUser: {{ int . }}
runAsGroup: {{ int . }}
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
privileged: false
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "sidecar-lib.image" -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end -}}
{{- end -}}

{{- /* Variables that the chart sets, so that `extraEnv` may not. */ -}}
{{- define "sidecar-lib.ownEnv" -}}
{{ toJson (list "SIDECAR__PROBE__LISTEN" "SIDECAR__ADMIN__SOCKET" "SPIFFE_ENDPOINT_SOCKET" "POD_NAME" "POD_NAMESPACE" "POD_SERVICE_ACCOUNT" "NODE_NAME") }}
{{- end -}}

{{- /* A variable set twice: Kubernetes would take the last. The context is (dict "at" NAME "env" VARIABLES). */ -}}
{{- define "sidecar-lib.refuseEnv" -}}
{{- $at := .at -}}
{{- $own := include "sidecar-lib.ownEnv" . | fromJsonArray -}}
{{- $seen := dict -}}
{{- range .env -}}
{{- if has .name $own }}
  {{- fail (printf "%s: the chart sets %s; leave it out" $at .name) }}
{{- end }}
{{- if hasKey $seen .name }}
  {{- fail (printf "%s: %s is there twice; leave one out" $at .name) }}
{{- end }}
{{- $_ := set $seen .name true -}}
{{- end -}}
{{- end -}}

{{- /* Every port of the sidecar, as JSON. */ -}}
{{- define "sidecar-lib.ports" -}}
{{- $ports := list (int .ports.inbound) (int .ports.outbound) (int .ports.probe) -}}
{{- if .ports.plain }}{{ $ports = append $ports (int .ports.plain) }}{{ end -}}
{{- if .ports.door }}{{ $ports = append $ports (int .ports.door) }}{{ end -}}
{{- toJson $ports -}}
{{- end -}}

{{- /* A quantity of Kubernetes' as a number; empty for a unit that is not among the usual ones. */ -}}
{{- define "sidecar-lib.quantity" -}}
{{- $units := dict "" 1.0 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $unit := regexReplaceAll "^[0-9.]+" (toString .) "" -}}
{{- if hasKey $units $unit }}{{ mulf (regexFind "^[0-9.]+" (toString .) | float64) (get $units $unit) }}{{ end -}}
{{- end -}}

{{- /* Every pod with more requests than limits is refused by the API server. The context is (dict "at" NAME "resources" RESOURCES). */ -}}
{{- define "sidecar-lib.refuseResources" -}}
{{- $limits := .resources.limits | default dict -}}
{{- range $name, $request := .resources.requests | default dict -}}
{{- $asked := include "sidecar-lib.quantity" $request -}}
{{- $limit := include "sidecar-lib.quantity" (get $limits $name) -}}
{{- if and (hasKey $limits $name) $asked $limit (gt (float64 $asked) (float64 $limit)) }}
  {{- fail (printf "%s: requests.%s %v is above limits.%s %v; raise the limit, too" $.at $name $request $name (get $limits $name)) }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "sidecar-lib.refuse" -}}
{{- include "sidecar-lib.refuseResources" (dict "at" "resources" "resources" .resources) -}}
{{- $ports := include "sidecar-lib.ports" . | fromJsonArray -}}
{{- include "sidecar-lib.refuseEnv" (dict "at" "extraEnv" "env" .extraEnv) -}}
{{- $memory := include "sidecar-lib.quantity" (get (.resources.limits | default dict) "memory") -}}
{{- if and (gt (int .workers) 1) $memory (lt (float64 $memory) (mulf 73400320.0 (add 1 (int .workers)))) }}
  {{- fail (printf "workers: %d and their parent need 70Mi each; set resources.limits.memory to %dMi or more" (int .workers) (mul 70 (add 1 (int .workers)))) }}
{{- end }}
{{- if ne (len ($ports | uniq)) (len $ports) }}
  {{- $names := list "inbound" "outbound" "probe" }}
  {{- range tuple "plain" "door" }}{{ if get $.ports . }}{{ $names = append $names . }}{{ end }}{{ end }}
  {{- fail (printf "ports: %s and %s are one port twice; give each a number of its own" (initial $names | join ", ") (last $names)) }}
{{- end }}
{{- if and .door (not .ports.door) }}
  {{- fail "door: the sidecar has no port for it; set ports.door to that of entry.door.listen, or leave it empty" }}
{{- end }}
{{- if and .ports.plain (not .platform) }}
  {{- fail "ports.plain: only a platform file with plain: true allows a port without TLS; name its ConfigMap in platform" }}
{{- end }}
{{- if has (int .uid) (list 0 1337 2102) }}
  {{- fail (printf "uid: %d is root's, or exempt from a service mesh (Istio 1337, Linkerd 2102); take another, such as 2747" (int .uid)) }}
{{- end }}
{{- if and (not .image.tag) (not .image.digest) }}
  {{- fail "image: neither tag nor digest says which one; set image.tag or image.digest" }}
{{- end }}
{{- end -}}
