package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chkpin/chkpin/checkpoint"
)

// metrics are what watch tells Prometheus.
type metrics struct {
	registry *prometheus.Registry

	ticks       *prometheus.CounterVec
	duration    prometheus.Histogram
	lastSuccess prometheus.Gauge
	pinnedID    prometheus.Gauge
	pinnedAt    prometheus.Gauge
	lag         prometheus.Gauge
	restorable  prometheus.Gauge
	held        prometheus.Gauge
	empty       prometheus.Gauge
	behind      prometheus.Gauge
	copied      prometheus.Counter
	reused      prometheus.Counter
	bytes       prometheus.Counter
}

func newMetrics() *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "chkpin_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "chkpin_" + name, Help: help})
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		ticks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chkpin_ticks_total", Help: "Ticks by result, the words of pin's JSON.",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "chkpin_tick_duration_seconds", Help: "How long ticks took.",
			Buckets: prometheus.ExponentialBuckets(0.01, 3, 10),
		}),
		lastSuccess: gauge("last_success_timestamp_seconds", "When a tick last pinned or found nothing to do."),
		pinnedID:    gauge("pinned_checkpoint_id", "The checkpoint that is pinned."),
		pinnedAt:    gauge("pinned_checkpoint_triggered_timestamp_seconds", "When the pinned checkpoint was triggered; its age is time() minus this."),
		lag:         gauge("lag_checkpoints", "How many checkpoints the job is ahead of the pin."),
		restorable:  gauge("restorable", "1 if the pin is there and was proved when it was published."),
		held:        gauge("held", "1 if the last tick was held: the job does not descend from the pin, or the pin is on hold."),
		empty:       gauge("started_empty", "1 if the job started empty although state is pinned."),
		behind:      gauge("replicas_behind", "How many of --replica do not have what is pinned."),
		copied:      counter("copied_files_total", "State files copied."),
		reused:      counter("reused_files_total", "State files that an earlier tick had copied."),
		bytes:       counter("copied_bytes_total", "Bytes of the copied files."),
	}
	m.registry.MustRegister(m.ticks, m.duration, m.lastSuccess, m.pinnedID, m.pinnedAt, m.lag, m.restorable, m.held, m.empty, m.behind, m.copied, m.reused, m.bytes)
	return m
}

// observe counts a tick. What a failed tick could not see stays as it was.
func (m *metrics) observe(p checkpoint.Pinned, v verdict, took time.Duration) {
	result := v.result
	if v.code == done.code {
		result = p.Result
		m.lastSuccess.SetToCurrentTime()
	}
	m.ticks.WithLabelValues(result).Inc()
	m.duration.Observe(took.Seconds())
	m.held.Set(number(v.result == held.result))
	if p.RestoredFrom != "" { // the job was seen
		m.empty.Set(number(p.StartedEmpty))
	}
	late := 0
	for _, r := range p.Replicas {
		if r.Err != nil {
			late++
		}
	}
	if p.Replicas != nil {
		m.behind.Set(float64(late))
	}
	if p.Result == checkpoint.ResultPinned {
		m.copied.Add(float64(p.Copied))
		m.reused.Add(float64(p.Reused))
		m.bytes.Add(float64(p.BytesCopied))
	}
	if v.code != done.code && v.code != damaged.code && p.Generation == "" {
		return // nobody looked at the pin
	}
	m.restorable.Set(number(p.Restorable))
	m.pinnedID.Set(float64(p.Published.ID))
	if !p.Published.Triggered.IsZero() {
		m.pinnedAt.Set(float64(p.Published.Triggered.Unix()))
	}
	if p.CheckpointID > 0 {
		m.lag.Set(float64(p.CheckpointID - p.Published.ID))
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
