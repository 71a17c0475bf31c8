package main

import "github.com/chkpin/chkpin/flinkjob"

// jobChoice says which of a JobManager's jobs is meant.
type jobChoice struct {
	Job   string `placeholder:"NAME" xor:"job" env:"CHKPIN_JOB" help:"The job with exactly this name, if there are several."`
	JobID string `name:"job-id" placeholder:"ID" xor:"job" env:"CHKPIN_JOB_ID" help:"The job with this id, if there are several."`
}

func (c jobChoice) choice() flinkjob.Choice { return flinkjob.Choice{Name: c.Job, ID: c.JobID} }
