{{- /*
Refuses an upgrade that takes the identity from pods that serve: each of their calls would end. Only where a cluster
answers (`helm upgrade`, Flux); what is rendered without one is held by spiffeIDs.images alone, which must name the image
that is set. The context is `$`.
*/ -}}
{{- define "sidecar.refuseWithdrawal" -}}
{{- $ids := .Values.spiffeIDs -}}
{{- $asked := .Release.IsUpgrade -}}
{{- if and $asked (not $ids.enabled) -}}
{{- $ids = dict "images" list "workloads" list "withdraw" $ids.withdraw -}}
{{- $asked = false -}}
{{- if .Capabilities.APIVersions.Has "spire.spiffe.io/v1alpha1/ClusterSPIFFEID" -}}
{{- range (lookup "spire.spiffe.io/v1alpha1" "ClusterSPIFFEID" "" "").items -}}
{{- if eq (get (.metadata.labels | default dict) "app.kubernetes.io/instance") $.Release.Name }}{{ $asked = true }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $asked -}}
{{- range (lookup "v1" "Namespace" "" "").items -}}
{{- $own := eq .metadata.name $.Release.Namespace -}}
{{- if or $own (eq (get (.metadata.labels | default dict) "delegation-sidecar.io/inject") "enabled") -}}
{{- range (lookup "v1" "Pod" .metadata.name "").items -}}
{{- include "sidecar.refuseWithdrawalOf" (dict "ids" $ids "mode" $.Values.sidecar.mode "pod" . "name" (ternary "sts" "sidecar" $own)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The same for one pod; `name` is that of the container with the identity. One that is not ready has none to lose. */ -}}
{{- define "sidecar.refuseWithdrawalOf" -}}
{{- $ids := .ids -}}
{{- $where := printf "%s/%s" .pod.metadata.namespace .pod.metadata.name -}}
{{- $account := printf "%s/%s" .pod.metadata.namespace .pod.spec.serviceAccountName -}}
{{- $ready := false -}}
{{- $status := .pod.status | default dict -}}
{{- range concat ($status.containerStatuses | default list) ($status.initContainerStatuses | default list) -}}
{{- if eq .name $.name }}{{ $ready = .ready }}{{ end -}}
{{- end -}}
{{- $image := "" -}}
{{- $mode := "" -}}
{{- $beside := dict "containers" list "initContainers" list -}}
{{- range $kind, $_ := $beside -}}
{{- range get $.pod.spec $kind | default list -}}
{{- if ne .name $.name }}{{ $_ := set $beside $kind (append (get $beside $kind) .image) }}
{{- else if contains "@" .image -}}
{{- $image = include "sidecar.imageOfNode" (dict "repository" (regexReplaceAll ":[^/:]*$" (splitList "@" .image | first) "") "digest" (splitList "@" .image | last)) | trim -}}
{{- $mode = ternary "classic" "native" (eq $kind "containers") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $withdrawn := has $account $ids.withdraw -}}
{{- range concat (list $image) $beside.containers }}{{ $withdrawn = or $withdrawn (has . $ids.withdraw) }}{{ end -}}
{{- if and $ready $image (not $withdrawn) -}}
{{- if not (has $image $ids.images) }}
  {{- fail (printf "spiffeIDs.images: the pod %s runs %s, and its calls would end with this upgrade; leave that image there until its pods are replaced, or name it in spiffeIDs.withdraw" $where $image) }}
{{- end }}
{{- $listed := or (not $ids.workloads) (eq .name "sts") -}}
{{- range $ids.workloads -}}
{{- if eq $account (printf "%s/%s" .namespace .serviceAccount) -}}
{{- $same := and (eq $mode $.mode) (eq (sortAlpha .images | toJson) (sortAlpha $beside.containers | toJson)) (eq (sortAlpha (.initImages | default list) | toJson) (sortAlpha $beside.initContainers | toJson)) -}}
{{- if or (not .images) $same }}{{ $listed = true }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if not $listed }}
  {{- fail (printf "spiffeIDs.workloads: no entry is for the pod %s of %s with the images %s, and its calls would end with this upgrade; keep its entry until its pods are replaced, or name %s in spiffeIDs.withdraw" $where $account (concat $beside.containers $beside.initContainers | join ", ") $account) }}
{{- end }}
{{- end -}}
{{- end -}}
