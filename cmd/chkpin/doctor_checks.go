package main

// checks are all that chkpin doctor looks at. Among findings of one severity the
// order is that of the table. docs/doctor.md has a section for each, which
// TestEveryCheckIsDocumented holds.
var checks = []struct {
	name string
	look func(*patient) []finding // none where there is nothing to say
}{
	// What is pinned, and whether ticks can pin.
	{"pin", pinRestores},
	{"permissions", rightsAreThere},
	{"jobmanager", jobManagerAnswers},
	{"job", jobIsOne},
	{"checkpointing", checkpointsComplete},
	{"storage", checkpointsHaveAPath},
	{"format", formatIsKnown},
	{"app", appIsBesideTheJob},
	{"source", sourceIsReadable},
	{"hold", pinIsNotOnHold},
	{"lineage", jobContinuesThePin},
	{"pin-age", pinFollowsTheJob},
	{"generations", generationsRestore},
	{"replicas", replicasFollow},
	{"foreign", pinIsOurs},
	{"writers", oneWriter},

	// Whether the next start will use it.
	{"arguments", argumentsReachFlink},
	{"restore-path", startsFromThePin},
	{"high-availability", pinIsNotIgnored},
	{"claim-mode", pinIsNotClaimed},
	{"changelog", stateIsRestorable},
	{"job-id", jobIDIsNew},
	{"numbering", numbersAreFree},

	// What makes it worse than it need be.
	{"retention", checkpointsAreRetained},
	{"num-retained", checkpointsLiveLongEnough},
	{"merging", mergedFilesAreThere},
	{"entropy", entropyIsConfigured},
	{"lifecycle", bucketKeepsThePin},
	{"versioning", versionsArePruned},
	{"clocks", clocksAgree},
}
