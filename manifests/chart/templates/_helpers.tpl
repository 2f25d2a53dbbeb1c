{{/* The first part of the names of all objects; a mode's and an option's go on with their own. */}}
{{- define "mayfly.name" -}}
{{ .Values.fullnameOverride | default .Values.nameOverride | default "mayfly" | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "mayfly.namespace" -}}
{{ .Values.namespaceOverride | default .Release.Namespace }}
{{- end }}

{{- define "mayfly.account" -}}
{{ .Values.serviceAccount.name | default (include "mayfly.name" .) }}
{{- end }}

{{/* Who the node plugins are for the API server, and who the controller. */}}
{{- define "mayfly.pluginUser" -}}
system:serviceaccount:{{ include "mayfly.namespace" . }}:{{ include "mayfly.account" . }}
{{- end }}

{{- define "mayfly.controllerUser" -}}
system:serviceaccount:{{ include "mayfly.namespace" . }}:{{ include "mayfly.name" . }}-controller
{{- end }}

{{/* The labels of an object that has no others, from behind its name on. */}}
{{- define "mayfly.labels" -}}
{{- with .Values.commonLabels }}
  labels:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}

{{/* A mode's parts: "true" or nothing. keepRightsOf adds those of another mode while a cluster changes. */}}
{{- define "mayfly.modes" -}}
{{ list .Values.mode .Values.keepRightsOf | compact | join "," }}
{{- end }}

{{- define "mayfly.controller" -}}
{{- if or (ne .Values.mode "none") (has .Values.keepRightsOf (list "driver" "pod-certificate")) }}true{{ end }}
{{- end }}

{{- define "mayfly.podCertificates" -}}
{{- if has "pod-certificate" (list .Values.mode .Values.keepRightsOf) }}true{{ end }}
{{- end }}

{{/* The right to create CertificateRequests. */}}
{{- define "mayfly.rightsOfRequests" -}}
{{- if kindIs "bool" .Values.rbac.createRequests }}
{{- if .Values.rbac.createRequests }}true{{ end }}
{{- else if has .Values.keepRightsOf (list "driver" "none") }}true
{{- else if and (ne .Values.mode "pod-certificate") (not .Values.app.driver.useTokenRequest) }}true
{{- end }}
{{- end }}

{{/* The right to read pods: as its node, the node plugin needs none. */}}
{{- define "mayfly.readPods" -}}
{{- if .Values.rbac.readPods }}true
{{- else if and (include "mayfly.rightsOfRequests" . | or .Values.app.driver.useTokenRequest) (or .Values.app.watchPods .Values.app.driver.podReadinessGates) }}true
{{- end }}
{{- end }}

{{/* The ConfigMap with profiles, as namespace/name. */}}
{{- define "mayfly.configMap" -}}
{{- if .Values.profiles -}}
{{ include "mayfly.namespace" . }}/{{ include "mayfly.name" . }}
{{- else if contains "/" .Values.app.runtimeIssuanceConfigMap -}}
{{ .Values.app.runtimeIssuanceConfigMap }}
{{- else if .Values.app.runtimeIssuanceConfigMap -}}
{{ include "mayfly.namespace" . }}/{{ .Values.app.runtimeIssuanceConfigMap }}
{{- end }}
{{- end }}

{{- define "mayfly.readProfiles" -}}
{{- if include "mayfly.configMap" . }}true{{ end }}
{{- end }}

{{/* All names of the driver, with their dialects where the names do not say them. */}}
{{- define "mayfly.drivers" -}}
{{- $names := list "csi.mayfly.dev" }}
{{- if .Values.dropIn.csiDriver }}{{ $names = append $names "csi.cert-manager.io" }}{{ end }}
{{- if .Values.dropIn.csiDriverSpiffe }}{{ $names = append $names "spiffe.csi.cert-manager.io" }}{{ end }}
{{- $known := list "csi.mayfly.dev" "csi.cert-manager.io" "spiffe.csi.cert-manager.io" }}
{{- with .Values.app.driver.name }}{{ $names = append $names (has . $known | or (contains "=" .) | ternary . (print . "=csi-driver")) }}{{ end }}
{{- with .Values.app.name }}{{ $names = append $names (has . $known | or (contains "=" .) | ternary . (print . "=csi-driver-spiffe")) }}{{ end }}
{{- join "," (concat $names .Values.dropIn.names | uniq) }}
{{- end }}

{{/* The names alone, each once. */}}
{{- define "mayfly.driverNames" -}}
{{- $names := list }}
{{- range splitList "," (include "mayfly.drivers" .) }}{{ $names = append $names (splitList "=" . | first) }}{{ end }}
{{- join "," (uniq $names) }}
{{- end }}

{{/* An image by registry, namespace, name, tag and digest; repository stands for namespace and name. What the charts of csi-driver and csi-driver-spiffe name by default is another driver's. */}}
{{- define "mayfly.image" -}}
{{- $values := index . 0 }}{{ $chart := index . 1 }}{{ $image := index . 2 }}{{ $default := index . 3 }}
{{- $theirs := eq $values.imageNamespace "jetstack" }}
{{- $name := hasPrefix "cert-manager-csi-driver" $image.name | ternary $default ($image.name | default $default) }}
{{- $path := list ($theirs | ternary "" $values.imageNamespace) $name | compact | join "/" }}
{{- $registry := $image.registry | default $values.imageRegistry }}
{{- if and $theirs (eq $registry "quay.io") }}{{ $registry = "" }}{{ end }}
{{- if and (kindIs "string" $image.repository) $image.repository (not (contains "cert-manager-csi-driver" (toString $image.repository))) }}
{{- $path = $image.repository }}{{ $registry = $image.registry }}
{{- end }}
{{- list $registry $path | compact | join "/" }}:{{ $image.tag | default $chart.AppVersion }}
{{- with $image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* The words that the flag takes, also for csi-driver's numbers. */}}
{{- define "mayfly.logLevel" -}}
{{- $level := toString .Values.app.logLevel | lower }}
{{- if has $level (list "debug" "info" "warn" "error") }}{{ $level }}
{{- else if regexMatch "^[0-9]+$" $level }}{{ ge (int $level) 4 | ternary "debug" "info" }}
{{- else }}{{ fail (printf "app.logLevel is %q: give debug, info, warn or error, or a number from 1 to 5 as csi-driver has it" $level) }}
{{- end }}
{{- end }}

{{/* Variables that node plugin and controller share: both must know how volumes are meant. */}}
{{- define "mayfly.environment" -}}
{{- $drivers := include "mayfly.drivers" . }}
{{- $shared := dict
  "MAYFLY_DRIVER_NAME" (eq $drivers "csi.mayfly.dev" | ternary "" $drivers)
  "MAYFLY_ISSUER_NAME" .Values.app.issuer.name
  "MAYFLY_ISSUER_KIND" .Values.app.issuer.kind
  "MAYFLY_ISSUER_GROUP" .Values.app.issuer.group
  "MAYFLY_TRUST_DOMAIN" .Values.app.trustDomain
  "MAYFLY_SPIFFE_PATH" .Values.app.spiffePath
  "MAYFLY_CONFIG_MAP" (include "mayfly.configMap" .)
  "MAYFLY_LOG_LEVEL" (include "mayfly.logLevel" . | eq "info" | ternary "" (include "mayfly.logLevel" .))
  "MAYFLY_LOG_FORMAT" .Values.app.logFormat
}}
{{- range $name, $value := $shared }}
{{- with $value }}
- name: {{ $name }}
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* What can't be had is refused, in words. */}}
{{- define "mayfly.check" -}}
{{- $version := .Capabilities.KubeVersion.Version }}
{{- range $mode := list .Values.mode .Values.keepRightsOf }}
{{- if and (eq $mode "pod-certificate") (semverCompare "<1.37.0-0" $version) }}
{{- fail (printf "mode pod-certificate needs Kubernetes 1.37, and this cluster has %s: use mode driver, and change to pod-certificate once the cluster is upgraded" $version) }}
{{- end }}
{{- if and (eq $mode "driver") (semverCompare "<1.30.0-0" $version) }}
{{- fail (printf "mode driver needs Kubernetes 1.30, for ValidatingAdmissionPolicies and tokens that name their node, and this cluster has %s: use mode none, in which nobody sees to it that a node gets its own pods' certificates alone (docs/security.md)" $version) }}
{{- end }}
{{- end }}
{{- if and .Values.app.driver.useTokenRequest (eq .Values.mode "pod-certificate") }}
{{- fail "app.driver.useTokenRequest is for the modes driver and none: in mode pod-certificate the node asks, and no pod needs a right to ask" }}
{{- end }}
{{- if and .Values.allowedNamespaces.enabled (semverCompare "<1.30.0-0" $version) }}
{{- fail (printf "allowedNamespaces needs Kubernetes 1.30, for its ValidatingAdmissionPolicy, and this cluster has %s" $version) }}
{{- end }}
{{- if and .Values.allowedNamespaces.enabled (not .Values.allowedNamespaces.names) (not .Values.allowedNamespaces.labels) }}
{{- fail "allowedNamespaces is enabled and has neither names nor labels: no pod could have a volume" }}
{{- end }}
{{- if and .Values.startupTaint.enabled (not (include "mayfly.controller" .)) }}
{{- fail "startupTaint is enabled and there is no controller, which takes the taint off nodes: use another mode, or take startupTaint away and the taint off where nodes are made" }}
{{- end }}
{{- $set := list "MAYFLY_NODE_NAME" "MAYFLY_HEALTH_ADDRESS" }}
{{- if .Values.metrics.enabled }}{{ $set = append $set "MAYFLY_METRICS_ADDRESS" }}{{ end }}
{{- $byController := empty .Values.controller.goMemoryLimit | ternary $set (append $set "GOMEMLIMIT") }}
{{- range $key, $pair := dict "extraEnv" (list .Values.extraEnv $set) "controller.extraEnv" (list .Values.controller.extraEnv $byController) }}
{{- range first $pair }}
{{- if has .name (last $pair) }}
{{- fail (printf "%s has %s, which the chart sets by other values: give those" $key .name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.apiServer) }}
{{- fail "networkPolicy is enabled and networkPolicy.apiServer is empty: give the ranges in which the API server's addresses lie, such as 10.0.0.1/32 (kubectl get endpointslices -n default)" }}
{{- end }}
{{- if and .Values.profiles .Values.app.runtimeIssuanceConfigMap }}
{{- fail "profiles and app.runtimeIssuanceConfigMap are both given: Mayfly reads one ConfigMap; put the issuer's keys into profiles" }}
{{- end }}
{{- if regexMatch "/$|^[^/]" .Values.app.kubeletRootDir }}
{{- fail (printf "app.kubeletRootDir is %q: give an absolute path without a slash at its end" .Values.app.kubeletRootDir) }}
{{- end }}
{{- if eq .Values.keepRightsOf .Values.mode }}
{{- fail (printf "keepRightsOf is %s, as mode is: it is for the mode before, while the cluster changes; leave it out" .Values.mode) }}
{{- end }}
{{- end }}

{{/* The values that Mayfly does not know, one a line: of a map with a path, by files/values.txt, where a section ends with a dot. */}}
{{- define "mayfly.unknown" -}}
{{- $root := index . 0 }}{{ $values := index . 1 }}{{ $path := index . 2 }}
{{- $known := $root.Files.Lines "files/values.txt" }}
{{- $lines := list }}
{{- range $key, $value := $values }}
{{- $at := print $path $key }}
{{- if and (has (print $at ".") $known) (kindIs "map" $value) }}
{{- $lines = append $lines (include "mayfly.unknown" (list $root $value (print $at "."))) }}
{{- else if not (or (has $at $known) (has (print $at ".") $known) (eq $at "global")) }}
{{- $lines = append $lines (print "  " $at) }}
{{- end }}
{{- end }}
{{- $lines | compact | join "\n" }}
{{- end }}
