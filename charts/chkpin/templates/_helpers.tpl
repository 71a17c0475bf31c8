{{/* The name of everything in the release. */}}
{{- define "chkpin.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name -}}
{{- end -}}
{{- end -}}

{{/* A name that fits a CronJob, whose Jobs add 11 characters to it. What is cut off is told apart by a digest. */}}
{{- define "chkpin.shorten" -}}
{{- if gt (len .) 52 -}}
{{- printf "%s-%s" (trunc 43 . | trimSuffix "-") (sha256sum . | trunc 8) -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* Merges two maps, as JSON: maps by key, everything else as a whole. (mergeOverwrite of Sprig keeps what would become false, 0 or empty.) */}}
{{- define "chkpin.merge" -}}
{{- $out := deepCopy (first .) -}}
{{- range $key, $value := last . -}}
{{- $below := index $out $key -}}
{{- if and (kindIs "map" $value) (kindIs "map" $below) -}}
{{- $_ := set $out $key (include "chkpin.merge" (list $below $value) | fromJson) -}}
{{- else -}}
{{- $_ := set $out $key $value -}}
{{- end -}}
{{- end -}}
{{- toJson $out -}}
{{- end -}}

{{/*
The applications of the release, as JSON: {"applications": […]}. Each has all values, its own merged over those of the release, and in
addition "fullname", "selector" (labels) and "serviceAccountName".
*/}}
{{- define "chkpin.applications" -}}
{{- $root := . -}}
{{- $fullname := include "chkpin.fullname" . -}}
{{- $all := list -}}
{{- $names := dict -}}
{{- $folders := dict -}}
{{- range .Values.applications | default (list dict) -}}
{{- $a := include "chkpin.merge" (list (omit $root.Values "applications") .) | fromJson -}}
{{- $name := default $root.Release.Name .name -}}
{{- if and (eq $name "fleet") .name -}}
{{- fail "applications: call none \"fleet\"" -}}
{{- end -}}
{{- if hasKey $names $name -}}
{{- fail (printf "applications: two have the name %q" $name) -}}
{{- end -}}
{{- $_ := set $names $name true -}}
{{- if not $a.app -}}
{{- fail (printf "application %q: set app to its folder, such as s3://bucket/orders" $name) -}}
{{- end -}}
{{- if not (or $a.jobmanager $a.flinkConfigMap (get $a.settings "flink-conf")) -}}
{{- fail (printf "application %q: set jobmanager, such as http://%s-jobmanager:8081, or flinkConfigMap" $name $name) -}}
{{- end -}}
{{- if and (eq $a.mode "watch") (get $a.settings "all") -}}
{{- fail (printf "application %q: mode watch pins one job; take mode cronjob for settings.all" $name) -}}
{{- end -}}
{{- $folder := trimSuffix "/" $a.app -}}
{{- if hasKey $folders $folder -}}
{{- fail (printf "applications %q and %q have the same app: one would hold the other" (get $folders $folder) $name) -}}
{{- end -}}
{{- $_ := set $folders $folder $name -}}
{{- $_ := set $a "name" $name -}}
{{- $_ := set $a "fullname" (include "chkpin.shorten" (ternary (printf "%s-%s" $fullname $name) $fullname (hasKey . "name"))) -}}
{{- $owner := ternary (include "chkpin.fleetName" $root) $a.fullname (eq $a.mode "fleet") -}}
{{- $_ := set $a "serviceAccountName" ($a.serviceAccount.name | default (ternary $owner "default" $a.serviceAccount.create)) -}}
{{- $_ := set $a "selector" (dict "app.kubernetes.io/name" "chkpin" "app.kubernetes.io/instance" $root.Release.Name "chkpin/application" $name) -}}
{{- $all = append $all $a -}}
{{- end -}}
{{- dict "applications" $all | toJson -}}
{{- end -}}

{{/* Labels of the user's, but those that are the chart's. */}}
{{- define "chkpin.otherLabels" -}}
{{- with omit (. | default dict) "app.kubernetes.io/name" "app.kubernetes.io/instance" "chkpin/application" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart" }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/* Labels of everything that is an application's: (list root application). */}}
{{- define "chkpin.labels" -}}
{{- $root := first . -}}
{{- $a := last . -}}
{{- with include "chkpin.otherLabels" $a.labels }}{{ . }}
{{ end -}}
{{ toYaml $a.selector }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ toYaml $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Labels of what is the release's. */}}
{{- define "chkpin.releaseLabels" -}}
{{- with include "chkpin.otherLabels" .Values.labels }}{{ . }}
{{ end -}}
app.kubernetes.io/name: chkpin
app.kubernetes.io/instance: {{ toYaml .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* A duration such as 1h30m in seconds. */}}
{{- define "chkpin.seconds" -}}
{{- $units := dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001 -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9.]+(h|ms|m|s)" . -1 -}}
{{- $number := regexFind "[0-9.]+" . -}}
{{- $sum = addf $sum (mulf (float64 $number) (get $units (trimPrefix $number .))) -}}
{{- end -}}
{{- ceil $sum | int64 -}}
{{- end -}}

{{/* A setting as chkpin reads it from its environment: lists with commas, numbers as they were written. */}}
{{- define "chkpin.value" -}}
{{- if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . }}{{ $items = append $items (toString . | replace "," "\\,") }}{{ end -}}
{{- join "," $items -}}
{{- else if kindIs "float64" . -}}
{{- int64 . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* The environment of an application: its settings, then env, which so wins. Settings that are empty are not rendered. */}}
{{- define "chkpin.env" -}}
{{- $settings := omit .settings "relocated" -}}
{{- if and .flinkConfigMap (not (get .settings "flink-conf")) -}}
{{- $_ := set $settings "flink-conf" "/opt/flink/conf" -}}
{{- end -}}
{{- $env := list -}}
{{- $given := dict -}}
{{- range .env }}{{ $_ := set $given .name true }}{{ end -}}
{{- range $flag := keys $settings | sortAlpha -}}
{{- $value := get $settings $flag -}}
{{- $name := printf "CHKPIN_%s" ($flag | upper | replace "-" "_") -}}
{{- if hasKey $given $name -}}
{{- else if kindIs "map" $value -}}
{{- $env = append $env (dict "name" $name "valueFrom" $value) -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- with include "chkpin.value" $value -}}
{{- $env = append $env (dict "name" $name "value" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .targets -}}
{{- $env = append $env (dict "name" "CHKPIN_SHARD" "valueFrom" (dict "fieldRef" (dict "fieldPath" "metadata.annotations['batch.kubernetes.io/job-completion-index']"))) -}}
{{- end -}}
{{- concat $env .env | toYaml -}}
{{- end -}}

{{/* The command line: (list application command). --relocated is the one flag that has no variable. */}}
{{- define "chkpin.args" -}}
{{- $a := first . -}}
{{- $args := list (last .) -}}
{{- with get $a.settings "relocated" -}}
{{- range ternary . (list .) (kindIs "slice" .) -}}
{{- $args = append $args (printf "--relocated=%s" .) -}}
{{- end -}}
{{- end -}}
{{- if not $a.targets -}}
{{- $args = append $args $a.app -}}
{{- with $a.jobmanager }}{{ $args = append $args . }}{{ end -}}
{{- end -}}
{{- toYaml $args -}}
{{- end -}}

{{/*
What runs ticks, as JSON {"workloads": […]}: each application as above, but those with "mode: fleet", which are one together. That has the
release's values and "targets", the entries of the file of --targets.
*/}}
{{- define "chkpin.workloads" -}}
{{- $workloads := list -}}
{{- $targets := list -}}
{{- $serviceAccountName := "" -}}
{{- range $a := (include "chkpin.applications" . | fromJson).applications -}}
{{- if eq $a.mode "fleet" -}}
{{- $target := dict "name" $a.name "app" $a.app "jobmanager" (required (printf "application %q: with mode fleet set jobmanager" $a.name) $a.jobmanager) -}}
{{- range $field, $flag := dict "job" "job" "jobId" "job-id" "all" "all" "replicas" "replica" -}}
{{- with get $a.settings $flag -}}{{- $_ := set $target $field . -}}{{- end -}}
{{- end -}}
{{- if kindIs "string" $target.replicas -}}{{- $_ := set $target "replicas" (splitList "," $target.replicas) -}}{{- end -}}
{{- $targets = append $targets $target -}}
{{- $serviceAccountName = $a.serviceAccountName -}}
{{- else -}}
{{- $workloads = append $workloads $a -}}
{{- end -}}
{{- end -}}
{{- if $targets -}}
{{- $settings := merge (dict "targets" "/etc/chkpin/targets.yaml" "shards" .Values.fleet.shards) (omit .Values.settings "job" "job-id" "all" "replica") -}}
{{- $fleet := merge (dict "name" "fleet" "mode" "cronjob" "targets" $targets "settings" $settings) (omit .Values "applications" "settings" "mode") -}}
{{- $_ := set $fleet "fullname" (include "chkpin.fleetName" .) -}}
{{- $_ := set $fleet "serviceAccountName" $serviceAccountName -}}
{{- $_ := set $fleet "selector" (dict "app.kubernetes.io/name" "chkpin" "app.kubernetes.io/instance" .Release.Name "chkpin/application" "fleet") -}}
{{- $workloads = append $workloads $fleet -}}
{{- end -}}
{{- dict "workloads" $workloads | toJson -}}
{{- end -}}

{{- define "chkpin.fleetName" -}}
{{- include "chkpin.shorten" (printf "%s-fleet" (include "chkpin.fullname" .)) -}}
{{- end -}}

{{/* The name of a claim's volume, which may have no dots and 63 characters, where the claim's own may have both more. */}}
{{- define "chkpin.claimVolume" -}}
{{- if or (contains "." .) (gt (len .) 57) -}}
{{- printf "claim-%s-%s" (replace "." "-" . | trunc 48 | trimSuffix "-") (sha256sum . | trunc 8) -}}
{{- else -}}
claim-{{ . }}
{{- end -}}
{{- end -}}

{{/* The labels of pods: (list application), and more: (list application map). */}}
{{- define "chkpin.podLabels" -}}
{{- $a := first . -}}
{{- toYaml (merge (dict) $a.selector (ternary (last .) (dict) (gt (len .) 1)) $a.podLabels) -}}
{{- end -}}

{{- define "chkpin.image" -}}
{{- $root := first . -}}
{{- $image := (last .).image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The spec of a pod that runs a command for an application: (dict "root" . "application" $a "command" "pin" "restartPolicy" "Never"). */}}
{{- define "chkpin.podSpec" -}}
{{- $a := .application -}}
{{- with .restartPolicy }}
restartPolicy: {{ . }}
{{- end }}
serviceAccountName: {{ toYaml $a.serviceAccountName }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ $a.terminationGracePeriodSeconds | int64 }}
{{- range $key := list "imagePullSecrets" "nodeSelector" "affinity" "tolerations" "priorityClassName" }}
{{- with get $a $key }}
{{ dict $key . | toYaml }}
{{- end }}
{{- end }}
securityContext:
  {{- toYaml $a.podSecurityContext | nindent 2 }}
containers:
  - name: chkpin
    image: {{ include "chkpin.image" (list .root $a) | toYaml }}
    {{- with $a.image.pullPolicy }}
    imagePullPolicy: {{ . }}
    {{- end }}
    args:
      {{- include "chkpin.args" (list $a .command) | nindent 6 }}
    {{- with include "chkpin.env" $a | fromYamlArray }}
    env:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $a.envFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if eq .command "watch" }}
    ports:
      - name: metrics
        containerPort: {{ include "chkpin.port" $a }}
    livenessProbe:
      httpGet:
        path: /healthz
        port: metrics
      periodSeconds: 30
    readinessProbe:
      httpGet:
        path: /readyz
        port: metrics
    {{- end }}
    resources:
      {{- toYaml $a.resources | nindent 6 }}
    securityContext:
      {{- toYaml $a.securityContext | nindent 6 }}
    {{- if or $a.flinkConfigMap $a.targets $a.claims $a.volumeMounts }}
    volumeMounts:
      {{- if $a.flinkConfigMap }}
      - name: flink-conf
        mountPath: /opt/flink/conf
        readOnly: true
      {{- end }}
      {{- if $a.targets }}
      - name: targets
        mountPath: /etc/chkpin
        readOnly: true
      {{- end }}
      {{- range $a.claims }}
      - name: {{ include "chkpin.claimVolume" .claimName }}
        mountPath: {{ toYaml .mountPath }}
        {{- with .subPath }}
        subPath: {{ toYaml . }}
        {{- end }}
      {{- end }}
      {{- with $a.volumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- end }}
{{- if or $a.flinkConfigMap $a.targets $a.claims $a.volumes }}
volumes:
  {{- with $a.flinkConfigMap }}
  - name: flink-conf
    configMap:
      name: {{ toYaml . }}
  {{- end }}
  {{- if $a.targets }}
  - name: targets
    configMap:
      name: {{ toYaml $a.fullname }}
  {{- end }}
  {{- $claims := dict }}
  {{- range $a.claims }}{{ $_ := set $claims .claimName true }}{{ end }}
  {{- range keys $claims | sortAlpha }}
  - name: {{ include "chkpin.claimVolume" . }}
    persistentVolumeClaim:
      claimName: {{ toYaml . }}
  {{- end }}
  {{- with $a.volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Where watch listens, of settings.listen. */}}
{{- define "chkpin.port" -}}
{{- get .settings "listen" | default ":9464" | splitList ":" | last -}}
{{- end -}}
