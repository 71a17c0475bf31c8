{{/*
Alerts of an application that is watched: (list root application). Series are told apart by namespace and pod, which a PodMonitor adds,
and any usual configuration of Prometheus. A gauge is 0 until a tick has looked: what has never been is told by NotRestorable, not as its age.
*/}}
{{- define "chkpin.alerts.watch" -}}
{{- $root := first . -}}
{{- $a := last . -}}
{{- $where := printf `namespace=%q, pod=~"%s-[0-9a-z]+-[0-9a-z]+"` $root.Release.Namespace $a.fullname -}}
{{- $which := printf "{%s}" $where -}}
name: {{ toYaml $a.fullname }}
application: {{ toYaml $a.name }}
labels:
  {{- toYaml $a.alerts.labels | nindent 2 }}
rules:
  - alert: ChkpinNotRestorable
    expr: chkpin_restorable{{ $which }} == 0
    for: 10m
    annotations:
      summary: {{ printf `%s has no pin that is known to restore.` $a.name | quote }}
      description: {{ printf `The pin in %s was never made, is gone or damaged, or could not be looked at since the pod started. chkpin doctor says what is wrong.` $a.app | quote }}
  - alert: ChkpinPinOld
    expr: time() - (chkpin_pinned_checkpoint_triggered_timestamp_seconds{{ $which }} > 0) > {{ $a.alerts.maxAgeSeconds | int64 }}
    for: 1m
    annotations:
      summary: {{ printf `The pin of %s is {{ $value | humanizeDuration }} old.` $a.name | quote }}
      description: A start from the pin repeats that much. Either the job makes no checkpoints, or they are not pinned; the log of {{ `{{ $labels.pod }}` }} says which.
  - alert: ChkpinHeld
    expr: chkpin_held{{ $which }} == 1
    for: {{ toYaml $a.alerts.heldFor }}
    annotations:
      summary: {{ printf `%s is not pinned, the running job does not come from the pin.` $a.name | quote }}
      description: It started empty or from something older, or the pin is on hold after a rollback. Restart the job from the pin, or accept it once with --accept-lineage.
  - alert: ChkpinStartedEmpty
    expr: chkpin_started_empty{{ $which }} == 1
    annotations:
      summary: {{ printf `%s started empty although state is pinned.` $a.name | quote }}
      description: Its manifest does not restore the pin, or Flink did not read the argument. Stop the job and start it with what chkpin resolve prints.
  - alert: ChkpinReplicaBehind
    expr: chkpin_replicas_behind{{ $which }} > 0
    for: 30m
    annotations:
      summary: {{ printf `A replica of the pin of %s is behind.` $a.name | quote }}
      description: The pin itself is not affected. The log of {{ `{{ $labels.pod }}` }} says which, and why.
  - alert: ChkpinTicksFail
    expr: |-
      sum(increase(chkpin_ticks_total{ {{- $where }}, result=~"damaged|ambiguous|denied|usage|failed"}[15m])) > 0
        unless sum(increase(chkpin_ticks_total{ {{- $where }}, result=~"pinned|unchanged|skipped"}[15m])) > 0
    for: 5m
    annotations:
      summary: {{ printf `Ticks of %s fail.` $a.name | quote }}
      description: For a quarter of an hour none succeeded. The log says why; docs/kubernetes.md has a runbook.
  - alert: ChkpinGone
    expr: absent(chkpin_ticks_total{{ $which }})
    for: 15m
    annotations:
      summary: {{ printf `Nobody pins %s.` $a.name | quote }}
      description: {{ printf `The pod of the Deployment %s is not there, or nobody asks it for metrics.` $a.fullname | quote }}
{{- end -}}

{{/* Alerts of an application with a CronJob: (list root application). kube-state-metrics tells when it last succeeded. */}}
{{- define "chkpin.alerts.cronjob" -}}
{{- $root := first . -}}
{{- $a := last . -}}
{{- $which := printf `{namespace=%q, cronjob=%q}` $root.Release.Namespace $a.fullname -}}
name: {{ toYaml $a.fullname }}
application: {{ toYaml $a.name }}
labels:
  {{- toYaml $a.alerts.labels | nindent 2 }}
rules:
  - alert: ChkpinTicksFail
    expr: |-
      time() - (kube_cronjob_status_last_successful_time{{ $which }} or kube_cronjob_created{{ $which }}) > {{ $a.alerts.maxAgeSeconds | int64 }}
        unless on (namespace, cronjob) kube_cronjob_spec_suspend{{ $which }} == 1
    annotations:
      summary: {{ printf `No tick of %s has succeeded for {{ $value | humanizeDuration }}.` $a.name | quote }}
      description: {{ printf `The logs of the failed Jobs of CronJob %s say why; docs/kubernetes.md has a runbook. What settings.tolerate covers counts as success.` $a.fullname | quote }}
{{- end -}}
