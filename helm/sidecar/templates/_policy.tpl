{{- /*
What the container named sidecar must be, in CEL: said field by field out of the one definition of it, since the policy
may compare a container with no other. A field that the definition gains is compared without a change here. Left open
are its size, its time to start, which of the platform's images it is, and a pull that is made each time. `c` is the
container, the context the values of sidecar-lib.
*/ -}}
{{- define "sidecar.isOurs" -}}
{{- $own := include "sidecar-lib.container" . | fromYaml -}}
{{- $held := omit $own "name" "image" "imagePullPolicy" "resources" "volumeMounts" -}}
{{- $_ := set $held "startupProbe" (omit $own.startupProbe "failureThreshold") -}}
{{- $_ := set $held "lifecycle" (omit $own.lifecycle "postStart") -}}
c.image.matches('^{{ regexQuoteMeta .image.repository | replace "\\" "\\\\" }}(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@sha256:[0-9a-f]{64})?$')
&& c.?imagePullPolicy.orValue('') in ['Always', '{{ $own.imagePullPolicy }}']
{{- include "sidecar.sameAs" (dict "at" "c" "value" $held) }}
&& !has(c.command) && !has(c.workingDir) && !has(c.envFrom) && !has(c.volumeDevices) && !has(c.stdin) && !has(c.stdinOnce) && !has(c.tty)
&& c.?resources.?limits.orValue({}).all(r, !r.contains('/') || r in {{ keys ($own.resources.limits | default dict) | sortAlpha | toJson | replace "\"" "'" }})
&& c.?resources.?claims.orValue([]).size() == 0 && c.?restartPolicyRules.orValue([]).size() == 0
&& c.?resizePolicy.orValue([]).all(p, p.restartPolicy == 'NotRequired'){{ if eq .mode "classic" }} && !has(c.restartPolicy){{ end }}
&& c.?ports.orValue([]).all(p, !has(p.hostPort) && !has(p.hostIP))
&& c.?volumeMounts.orValue([]).all(m, !has(m.subPath) && !has(m.subPathExpr) && !has(m.mountPropagation) && !has(m.recursiveReadOnly) && (
(m.name.startsWith('kube-api-access-') && m.mountPath == '/var/run/secrets/kubernetes.io/serviceaccount' && m.?readOnly.orValue(false))
{{- range $own.volumeMounts }} || (m.?readOnly.orValue(false) == {{ .readOnly | default false }}{{ include "sidecar.sameAs" (dict "at" "m" "value" (omit . "readOnly")) }}){{ end }}))
{{- range $own.volumeMounts }}
&& ({{ if has .name (list "sidecar-keys" "sidecar-handle" "sidecar-door") }}!variables.volumes.exists(v, v.name == '{{ .name }}') || {{ end }}c.?volumeMounts.orValue([]).exists(m, m.name == '{{ .name }}'))
{{- end }}
{{- range $probe := list "startupProbe" "readinessProbe" "livenessProbe" }}
&& !has(c.{{ $probe }}.httpGet.host) && !has(c.{{ $probe }}.httpGet.httpHeaders) && c.{{ $probe }}.?initialDelaySeconds.orValue(0) == 0 && !has(c.{{ $probe }}.terminationGracePeriodSeconds)
{{- end }}
{{- with $own.lifecycle.postStart }}
&& c.?lifecycle.?postStart.?exec.?command.orValue([]).map(w, w.matches('^--wait=[1-9][0-9]{0,4}$') ? '--wait' : w) == {{ regexReplaceAll "--wait=[0-9]+" (toJson .exec.command) "--wait" | replace "\"" "'" }}
{{- else }}
&& !has(c.lifecycle.postStart)
{{- end }}
&& !has(c.lifecycle.stopSignal)
&& c.securityContext.?capabilities.?add.orValue([]) == [] && c.securityContext.?procMount.orValue('Default') == 'Default'
&& !has(c.securityContext.appArmorProfile) && !has(c.securityContext.seLinuxOptions) && !has(c.securityContext.windowsOptions)
{{- end -}}

{{- /*
Conditions in CEL, each behind an `&&`, that the place `at` has every member of `value`, at any depth. Lists of objects
hold as many, in any order.
*/ -}}
{{- define "sidecar.sameAs" -}}
{{- $at := .at -}}
{{- if kindIs "map" .value -}}
{{- range $name, $inner := .value }}{{ include "sidecar.sameAs" (dict "at" (printf "%s.?%s" $at $name) "value" $inner) }}{{ end -}}
{{- else if and (kindIs "slice" .value) (kindIs "map" (first .value)) }}
&& {{ $at }}.orValue([]).size() == {{ len .value }}
{{- range .value }}
&& {{ $at }}.orValue([]).exists(x, true{{ include "sidecar.sameAs" (dict "at" "x" "value" .) }})
{{- end -}}
{{- else }} && {{ $at }} == optional.of({{ toJson .value }})
{{- end -}}
{{- end -}}

{{- /* The sidecar's share of cpu and memory within the bounds, in CEL. A missing request is the limit, as for the API server. */ -}}
{{- define "sidecar.sizeFits" -}}
{{- range $at, $name := list "cpuLimit" "memoryLimit" "cpuRequest" "memoryRequest" }}
{{- $kind := ternary "limits" "requests" (hasSuffix "Limit" $name) }}
{{- $of := ternary "cpu" "memory" (hasPrefix "cpu" $name) }}
{{- $bound := get $.bounds $name }}
{{- $due := hasKey (get $.resources $kind | default dict) $of }}
{{- if $at }} && {{ end -}}
[c.?resources.?{{ $kind }}[?'{{ $of }}']{{ if eq $kind "requests" }}.or(c.?resources.?limits[?'{{ $of }}']){{ end }}].all(q, q.hasValue()
? (quantity(string(q.value())).compareTo(quantity('{{ $bound.min }}')) >= 0 && quantity(string(q.value())).compareTo(quantity('{{ $bound.max }}')) <= 0) : {{ not $due }})
{{- end }}
{{- end -}}
