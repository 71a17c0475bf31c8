package flinkrest

import (
	"context"
	"fmt"
)

// Version is the release of a cluster's Flink.
type Version struct {
	Flink    string // such as 1.20.5
	Revision string // such as "0980485 @ 2026-06-08T09:21:06+02:00"
}

// before reports whether the release is older than major.minor. One that cannot be read is not.
func (v Version) before(major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(v.Flink, "%d.%d", &a, &b); n < 2 {
		return false
	}
	return a < major || a == major && b < minor
}

// Version reads which Flink the JobManager runs (GET /config).
func (c *Client) Version(ctx context.Context) (Version, error) {
	const path = "config"
	var answer struct {
		Version  string `json:"flink-version"`
		Revision string `json:"flink-revision"`
	}
	if err := c.get(ctx, path, &answer); err != nil {
		return Version{}, err
	}
	if answer.Version == "" {
		return Version{}, c.lacks(path, "flink-version")
	}
	return Version{Flink: answer.Version, Revision: answer.Revision}, nil
}

// JobManagerConfig reads the JobManager's configuration (GET /jobmanager/config). Keys are spelled as the user did,
// so a setting stands under its old or its new name; a value that Flink takes for a secret is `******`
// (GlobalConfiguration).
func (c *Client) JobManagerConfig(ctx context.Context) (map[string]string, error) {
	const path = "jobmanager/config"
	var answer []struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	if err := c.get(ctx, path, &answer); err != nil {
		return nil, err
	}
	if answer == nil {
		return nil, c.lacks(path, "settings")
	}
	config := make(map[string]string, len(answer))
	for _, entry := range answer {
		config[entry.Key] = entry.Value
	}
	return config, nil
}
