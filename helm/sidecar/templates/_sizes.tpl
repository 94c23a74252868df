{{- /* Maps of maps of quantities, each as a text: YAML reads some as numbers. The context is bounds or namespaces. */ -}}
{{- define "sidecar.texts" -}}
{{- $made := dict -}}
{{- range $name, $members := . -}}
{{- $texts := dict -}}
{{- range $key, $value := $members }}{{ $_ := set $texts $key (toString $value) }}{{ end -}}
{{- $_ := set $made $name $texts -}}
{{- end -}}
{{ toJson $made }}
{{- end -}}

{{- /* A size outside its bounds. The context is (dict "at" NAME "sizes" SIZES "bounds" BOUNDS). */ -}}
{{- define "sidecar.refuseSizes" -}}
{{- $at := .at -}}
{{- $bounds := .bounds -}}
{{- range $name, $value := .sizes -}}
{{- $bound := get $bounds $name -}}
{{- $size := include "sidecar-lib.quantity" $value -}}
{{- if and $size (lt (float64 $size) (include "sidecar-lib.quantity" $bound.min | float64)) }}
  {{- fail (printf "%s: %v is below injector.bounds.%s.min %v; raise it, or lower the bound" (printf $at $name) $value $name $bound.min) }}
{{- end }}
{{- if and $size (gt (float64 $size) (include "sidecar-lib.quantity" $bound.max | float64)) }}
  {{- fail (printf "%s: %v is above injector.bounds.%s.max %v; lower it, or raise the bound" (printf $at $name) $value $name $bound.max) }}
{{- end }}
{{- end -}}
{{- end -}}

{{- /* The sizes of a namespace's sidecars, as a container's resources. The context is (dict "root" $ "sizes" SIZES). */ -}}
{{- define "sidecar.resourcesWith" -}}
{{- $made := deepCopy .root.Values.sidecar.resources -}}
{{- $places := dict "cpuRequest" (list "requests" "cpu") "cpuLimit" (list "limits" "cpu") "memoryRequest" (list "requests" "memory") "memoryLimit" (list "limits" "memory") -}}
{{- range $name, $value := .sizes -}}
{{- with get $places $name -}}
{{- $kind := get $made (index . 0) | default dict -}}
{{- $_ := set $kind (index . 1) $value -}}
{{- $_ := set $made (index . 0) $kind -}}
{{- end -}}
{{- end -}}
{{ toJson $made }}
{{- end -}}
