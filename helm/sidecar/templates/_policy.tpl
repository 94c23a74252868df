{{- /*
What the container named sidecar must be, in CEL: said field by field out of the one definition of it, since the policy
may compare a container with no other. Left open are its size, its time to start, and which of the platform's images it
is. `c` is the container, the context the values of sidecar-lib.
*/ -}}
{{- define "sidecar.isOurs" -}}
{{- $own := include "sidecar-lib.container" . | fromYaml -}}
c.image.matches('^{{ regexQuoteMeta .image.repository | replace "\\" "\\\\" }}(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@sha256:[0-9a-f]{64})?$')
&& !has(c.command) && c.?args.orValue([]) == {{ $own.args | toJson | replace "\"" "'" }}
&& !has(c.workingDir) && !has(c.envFrom) && !has(c.volumeDevices) && !c.?stdin.orValue(false) && !c.?tty.orValue(false)
&& c.?resources.?limits.orValue({}).all(r, !r.contains('/') || r in {{ keys ($own.resources.limits | default dict) | sortAlpha | toJson | replace "\"" "'" }})
&& c.?resources.?claims.orValue([]).size() == 0 && c.?restartPolicyRules.orValue([]).size() == 0
&& c.?terminationMessagePath.orValue('') in ['', '{{ $own.terminationMessagePath }}']{{ if eq .mode "classic" }} && !has(c.restartPolicy){{ end }}
&& c.?env.orValue([]).all(e, {{ range $i, $e := $own.env }}{{ if $i }} || {{ end -}}
{{- if $e.valueFrom }}(e.name == '{{ $e.name }}' && e.?valueFrom.?fieldRef.?fieldPath.orValue('') == '{{ $e.valueFrom.fieldRef.fieldPath }}')
{{- else }}(e.name == '{{ $e.name }}' && !has(e.valueFrom) && e.?value.orValue('') == {{ toJson $e.value }})
{{- end }}{{ end }})
{{- range $own.env }}
&& c.?env.orValue([]).exists(e, e.name == '{{ .name }}')
{{- end }}
&& c.?volumeMounts.orValue([]).all(m, m.?subPath.orValue('') == '' && m.?subPathExpr.orValue('') == '' && (
(m.name.startsWith('kube-api-access-') && m.mountPath == '/var/run/secrets/kubernetes.io/serviceaccount' && m.?readOnly.orValue(false))
{{- range $own.volumeMounts }} || (m.name == '{{ .name }}' && m.mountPath == '{{ .mountPath }}'){{ end }}))
{{- range $own.volumeMounts }}
{{- if not (has .name (list "sidecar-keys" "sidecar-handle" "sidecar-door")) }}
&& c.?volumeMounts.orValue([]).exists(m, m.name == '{{ .name }}')
{{- end }}
{{- end }}
{{- range $probe := list "startupProbe" "readinessProbe" "livenessProbe" }}
{{- $get := (get $own $probe).httpGet }}
&& c.?{{ $probe }}.?httpGet.?path.orValue('') == '{{ $get.path }}' && c.{{ $probe }}.httpGet.port == {{ int $get.port }} && c.{{ $probe }}.httpGet.?host.orValue('') == ''
{{- end }}
{{- range $hook := list "postStart" "preStop" }}
{{- with get $own.lifecycle $hook }}
&& c.?lifecycle.?{{ $hook }}.?exec.?command.orValue([]).map(w, w.matches('^--wait=[1-9][0-9]{0,4}$') ? '--wait' : w) == {{ regexReplaceAll "--wait=[0-9]+" (toJson .exec.command) "--wait" | replace "\"" "'" }}
{{- else }}
&& !has(c.lifecycle.{{ $hook }})
{{- end }}
{{- end }}
&& !has(c.lifecycle.stopSignal)
{{- $context := $own.securityContext }}
&& has(c.securityContext) && c.securityContext.?runAsUser.orValue(-1) == {{ int $context.runAsUser }} && c.securityContext.?runAsGroup.orValue(-1) == {{ int $context.runAsGroup }}
&& c.securityContext.?runAsNonRoot.orValue(false) && c.securityContext.?readOnlyRootFilesystem.orValue(false)
&& !c.securityContext.?allowPrivilegeEscalation.orValue(true) && !c.securityContext.?privileged.orValue(false)
&& c.securityContext.?capabilities.?drop.orValue([]) == ['ALL'] && c.securityContext.?capabilities.?add.orValue([]) == []
&& c.securityContext.?seccompProfile.?type.orValue('') == 'RuntimeDefault' && c.securityContext.?procMount.orValue('Default') == 'Default'
&& !has(c.securityContext.appArmorProfile) && !has(c.securityContext.seLinuxOptions) && !has(c.securityContext.windowsOptions)
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
