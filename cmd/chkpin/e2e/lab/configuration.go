package lab

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// parallelism is that of a cluster's jobs, unless [Options].Conf or a job says otherwise.
const parallelism = 2

// configuration returns the Flink configuration of a cluster.
func configuration(o Options, rpcPort, restPort int) map[string]string {
	conf := map[string]string{
		"jobmanager.rpc.address":              "127.0.0.1",
		"jobmanager.bind-host":                "127.0.0.1",
		"jobmanager.rpc.port":                 strconv.Itoa(rpcPort),
		"rest.address":                        "127.0.0.1",
		"rest.bind-address":                   "127.0.0.1",
		"rest.port":                           strconv.Itoa(restPort),
		"taskmanager.host":                    "127.0.0.1",
		"taskmanager.bind-host":               "127.0.0.1",
		"taskmanager.resource-id":             "lab", // names the files of file merging
		"taskmanager.numberOfTaskSlots":       strconv.Itoa(parallelism),
		"parallelism.default":                 strconv.Itoa(parallelism),
		"io.tmp.dirs":                         filepath.Join(o.Dir, "tmp"),
		"execution.checkpointing.interval":    fmt.Sprintf("%d ms", o.Interval.Milliseconds()),
		"execution.checkpointing.dir":         o.Checkpoints,
		"state.backend.type":                  o.Backend,
		"execution.checkpointing.incremental": strconv.FormatBool(o.Incremental),
		"execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",

		// A TaskManager that is up before its JobManager would wait 10 s before it tries again. Without a
		// unit, every release reads milliseconds.
		"cluster.registration.error-delay": "500",

		// Otherwise a process ends when its actor system has not come up in the 10 s of an RPC (seen on a loaded
		// machine). Releases call it after Akka (AkkaOptions), newer ones after Pekko (RpcOptions).
		"akka.startup-timeout":  "60 s",
		"pekko.startup-timeout": "60 s",

		// Likewise a job fails when its TaskManager has not answered for the 10 s of an RPC.
		"akka.ask.timeout":  "60 s",
		"pekko.ask.timeout": "60 s",

		// A job that cannot restore its state ends, instead of trying for ever.
		"restart-strategy.type": "none",

		// Flink's scripts derive these from a total; a TaskManager started without them needs each one.
		"taskmanager.cpu.cores":                      "1.0",
		"taskmanager.memory.framework.heap.size":     "96m",
		"taskmanager.memory.framework.off-heap.size": "64m",
		"taskmanager.memory.task.heap.size":          "192m",
		"taskmanager.memory.task.off-heap.size":      "32m",
		"taskmanager.memory.managed.size":            "128m",
		"taskmanager.memory.network.min":             "32m",
		"taskmanager.memory.network.max":             "32m",
		"taskmanager.memory.jvm-metaspace.size":      "192m",
		"taskmanager.memory.jvm-overhead.min":        "64m",
		"taskmanager.memory.jvm-overhead.max":        "64m",
	}
	if o.Distribution.oldConfiguration() {
		for name, oldName := range map[string]string{
			"execution.checkpointing.dir":         "state.checkpoints.dir",
			"execution.checkpointing.incremental": "state.backend.incremental",
			"state.backend.type":                  "state.backend",
			"restart-strategy.type":               "restart-strategy",
		} {
			conf[oldName] = conf[name]
			delete(conf, name)
		}
	}
	maps.Copy(conf, o.Conf)
	maps.DeleteFunc(conf, func(_, value string) bool { return value == "" })
	return conf
}

// oldConfiguration reports whether d reads flink-conf.yaml and the option names of before 1.20. All of 1.x does
// both; 2.0 reads only config.yaml, which is real YAML.
func (d Distribution) oldConfiguration() bool {
	return strings.HasPrefix(d.Release, "1.")
}

// claimModeField is the field of JarRunRequestBody that has the claim mode: it was renamed with the option, in 1.20.
func (d Distribution) claimModeField() string {
	if minor, old := strings.CutPrefix(d.Release, "1."); old && !strings.HasPrefix(minor, "20.") {
		return "restoreMode"
	}
	return "claimMode"
}

const log4j = `rootLogger.level = INFO
rootLogger.appenderRef.console.ref = Console
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss,SSS} %-5p %c{1} [%t] - %m%n
`

// writeConfiguration writes a configuration folder as Flink's scripts expect it.
func writeConfiguration(dir string, flink Distribution, conf map[string]string) error {
	name := "config.yaml"
	if flink.oldConfiguration() {
		name = "flink-conf.yaml"
	}
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(conf)) {
		value := conf[key]
		if !flink.oldConfiguration() {
			// A JSON string is a YAML string. The old reader would take the quotes for part of the value.
			quoted, err := json.Marshal(value)
			if err != nil {
				return err
			}
			value = string(quoted)
		}
		fmt.Fprintf(&text, "%s: %s\n", key, value)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text.String()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "log4j.properties"), []byte(log4j), 0o644)
}
