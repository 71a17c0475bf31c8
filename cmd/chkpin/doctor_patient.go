package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/checkpoint"
	"github.com/chkpin/chkpin/cmd/chkpin/flinkconf"
	"github.com/chkpin/chkpin/cmd/chkpin/manifest"
	"github.com/chkpin/chkpin/flinkjob"
	"github.com/chkpin/chkpin/flinkrest"
)

// patient is all that the checks look at. It is gathered first, so that checks
// are functions of it alone.
type patient struct {
	app    blobstore.URI
	layout checkpoint.Layout // as Flink names it, before relocation
	now    time.Time         // by our clock

	closed error // why the store cannot be looked at; pin, probe, rules and source are empty then
	pin    checkpoint.Survey
	probe  rightsProbe
	rules  storeRules

	replicas []replicaFacts

	cluster  *clusterFacts // nil when no JobManager was named
	source   sourceFacts   // the job's newest checkpoint, as the store has it
	tickErr  error         // of a tick that writes nothing; nil when there was none
	settings []settingsFrom
	manifest *manifest.Manifest // nil when none was named
}

// clusterFacts are what the JobManager says.
type clusterFacts struct {
	url     string
	err     error // it gave no usable answer, and all else is unknown
	version flinkrest.Version
	confErr error           // why its configuration is not known
	live    []flinkrest.Job // that fit --job and --job-id

	job      flinkrest.JobDetails
	answered time.Time // when it described the job, by our clock
	jobErr   error     // no live job, or several
	stats    flinkrest.Checkpoints
	statsErr error
	starting bool // stats say nothing yet
	config   flinkrest.CheckpointConfig
	newest   *checkpoint.Latest // nil when no checkpoint has a path

	untold       []error // calls that ticks do not need, and somebody in between refuses
	configHidden bool    // one of them is what config holds
}

// sourceFacts are about the job's newest checkpoint in the store.
type sourceFacts struct {
	err    error // why it cannot be read; blobstore.ErrNotExist may be Flink's own deletion
	format int32 // of its _metadata; 0 when not known
	empty  bool  // nothing at all is in the job's folder: it is not the folder that Flink writes to
	ahead  []int64
}

// Where settings are found. Those of the JobManager are in force; a manifest holds
// some of them only.
const (
	fromJobManager = "the JobManager's configuration"
	fromFile       = "Flink's configuration file"
	fromManifest   = "the manifest"
)

// settingsFrom is a configuration of Flink and where it was found.
type settingsFrom struct {
	from string
	flinkconf.Conf
}

// rightsProbe is what came of an object that was written below the pin.
type rightsProbe struct {
	object blobstore.URI

	write, read, remove error
	unconditional       bool      // the store wrote where an object was, although it was told not to
	written             time.Time // by our clock
	modTime             time.Time // by the store's; zero when it was not written
}

// storeRules are what the store does on its own.
type storeRules struct {
	versioned    bool
	versionedErr error
	lifecycle    []blobstore.LifecycleRule
	lifecycleErr error
}

// examine gathers the facts. What cannot be had is a fact, too; only a wrong
// command line and the end of ctx are errors.
func (c *doctorCommand) examine(ctx context.Context, env *environment) (*patient, error) {
	p := &patient{
		app:    c.App.URI,
		layout: checkpoint.LayoutOf(c.App.URI),
		rules:  storeRules{versionedErr: errors.ErrUnsupported, lifecycleErr: errors.ErrUnsupported},
	}
	var client *flinkrest.Client
	if cmp.Or(c.JobManager, env.flinkConf.JobManager()) != "" {
		var err error
		if client, err = c.client(env); err != nil {
			return nil, err
		}
	}
	if c.Manifest != "" {
		m, err := manifest.Load(c.Manifest)
		if err != nil {
			return nil, usagef("--manifest takes a file of Kubernetes resources in YAML", "%v", err)
		}
		p.manifest = &m
	}
	p.closed = listable(ctx, env.store, checkpoint.LayoutOf(env.relocations.Apply(p.app)))
	g, gctx := errgroup.WithContext(ctx)
	if p.closed == nil {
		p.lookAtStore(gctx, g, env)
	}
	replicas := p.lookAtReplicas(gctx, g, env, c.Replica)
	if client != nil {
		g.Go(func() error {
			p.ask(gctx, client, c.choice())
			if p.closed == nil && p.knowsNewest() {
				p.lookAtSource(gctx, env, flinkjob.Job{Client: client, Choice: c.choice()}, replicas)
			}
			return gctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	p.now = time.Now()
	p.settings = append(p.settings, settingsFrom{fromFile, env.flinkConf})
	if p.manifest != nil {
		p.settings = append(p.settings, settingsFrom{fromManifest, flinkconf.Of(p.manifest.Settings)})
	}
	return p, ctx.Err()
}

// lookAtStore looks at what is there, and tries what ticks do.
func (p *patient) lookAtStore(ctx context.Context, g *errgroup.Group, env *environment) {
	g.Go(func() (err error) {
		p.pin, err = checkpoint.TakeSurvey(ctx, env.store, p.app, checkpoint.SurveyOptions{Relocations: env.relocations})
		return err
	})
	g.Go(func() error {
		root := env.relocations.Apply(p.layout.Root)
		p.probe = tryRights(ctx, env.store, root)
		if reader, ok := env.store.(blobstore.RuleReader); ok {
			p.rules.versioned, p.rules.versionedErr = reader.Versioned(ctx, root)
			p.rules.lifecycle, p.rules.lifecycleErr = reader.LifecycleRules(ctx, root)
		}
		return ctx.Err()
	})
}

// ask asks the JobManager.
func (p *patient) ask(ctx context.Context, client *flinkrest.Client, choice flinkjob.Choice) {
	c := &clusterFacts{url: client.URL()}
	p.cluster = c
	jobs, err := client.Jobs(ctx)
	if c.err = err; err != nil {
		return
	}
	c.version, _ = client.Version(ctx) // shown only
	var config map[string]string
	if config, c.confErr = client.JobManagerConfig(ctx); c.confErr == nil {
		p.settings = append(p.settings, settingsFrom{fromJobManager, flinkconf.Of(config)})
	}
	for _, j := range jobs {
		if choice.Fits(j) {
			c.live = append(c.live, j)
		}
	}
	rest := flinkjob.Job{Client: client, Choice: choice}
	chosen, err := rest.Choose(ctx)
	if c.jobErr = err; err != nil {
		return
	}
	c.job, c.jobErr = client.Job(ctx, chosen.ID)
	c.answered = time.Now()
	if forbidden(c.jobErr) {
		c.untold = append(c.untold, c.jobErr)
		c.job, c.jobErr = flinkrest.JobDetails{Job: chosen}, nil
	}
	if c.jobErr != nil {
		return
	}
	if c.stats, c.starting, c.statsErr = rest.Statistics(ctx, chosen); c.statsErr != nil {
		return
	}
	if c.config, c.statsErr = client.CheckpointConfig(ctx, chosen.ID); forbidden(c.statsErr) {
		c.untold = append(c.untold, c.statsErr)
		c.statsErr, c.configHidden = nil, true
	}
	c.newest, _ = rest.Latest(c.stats) // one without a path is the check of storage's
}

// forbidden reports whether a call was refused by whoever stands between: Flink
// itself refuses nobody.
func forbidden(err error) bool {
	status, ok := errors.AsType[*flinkrest.StatusError](err)
	return ok && (status.Code == http.StatusUnauthorized || status.Code == http.StatusForbidden)
}

// lookAtSource reads the job's newest checkpoint, and asks what a tick would say.
func (p *patient) lookAtSource(ctx context.Context, env *environment, job checkpoint.Job, replicas []blobstore.URI) {
	newest := p.cluster.newest
	load := checkpoint.LoadOptions{Relocations: env.relocations}
	snap, err := checkpoint.Load(ctx, env.store, newest.Path, load)
	if err == nil {
		p.source.format = snap.Version
		p.source.ahead, err = checkpoint.LeftAhead(ctx, env.store, *newest, load)
	}
	p.source.err = err
	if errors.Is(err, blobstore.ErrNotExist) {
		p.source.empty = isEmpty(ctx, env.store, env.relocations.Apply(newest.Path.Dir()))
	}
	if p.source.empty {
		return // a tick would wait for a checkpoint that it can see
	}
	_, p.tickErr = checkpoint.Pin(ctx, env.store, p.app, job,
		checkpoint.PinOptions{DryRun: true, Timeout: dryTick, Replicas: replicas, Relocations: env.relocations, Logger: env.log})
}

// dryTick bounds the tick that writes nothing: most of what it finds, it finds
// at once.
const dryTick = 30 * time.Second

func isEmpty(ctx context.Context, store blobstore.Store, dir blobstore.URI) bool {
	for range store.List(ctx, dir, blobstore.ListOptions{Shallow: true}) {
		return false // an error is no proof
	}
	return true
}

// listable is nil where a tick could begin. On a volume that is not mounted, a
// probe would make the very folder by whose absence it is told from one where
// nothing was ever pinned.
func listable(ctx context.Context, store blobstore.Store, l checkpoint.Layout) error {
	if mounts, ok := store.(blobstore.Mounter); ok {
		if _, err := mounts.Mount(ctx, l.App); errors.Is(err, blobstore.ErrContainer) {
			return err
		}
	}
	for _, err := range store.List(ctx, l.Root, blobstore.ListOptions{Shallow: true}) {
		return err
	}
	return nil
}

// cleanUp is how long removing the probe may take after the command was told to
// end.
const cleanUp = 10 * time.Second

// tryRights tries what a tick does in the store, with an object of its own.
func tryRights(ctx context.Context, store blobstore.Store, root blobstore.URI) (p rightsProbe) {
	p.object = root.Join(".chkpin-doctor-" + strings.ToLower(rand.Text()) + ".tmp") // gc removes what is called so
	p.written = time.Now()
	const body = "a probe of chkpin doctor, to be deleted\n"
	create := blobstore.PutOptions{IfAbsent: true}
	_, p.write = store.Put(ctx, p.object, strings.NewReader(body), create)
	if errors.Is(p.write, blobstore.ErrPrecondition) {
		p.write = nil // nobody else knows the name: our own, whose answer was lost
	}
	defer func() {
		// Also what a write that failed may have left, and after ctx has ended.
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
		defer cancel()
		if err := store.Delete(ending, p.object); p.write == nil {
			p.remove = err
		}
	}()
	if p.write != nil {
		return p
	}
	_, err := store.Put(ctx, p.object, strings.NewReader(body), create)
	p.unconditional = err == nil
	data, obj, err := blobstore.ReadAll(ctx, store, p.object, 0)
	switch {
	case err != nil:
		p.read = err
	case string(data) != body:
		p.read = &blobstore.Error{Op: "read", URI: p.object, Err: errors.New("not what was written")}
	}
	p.modTime = obj.ModTime
	return p
}

// setting is the value of the first of the keys that is set, and where it was
// found: what the JobManager says wins over files.
func (p *patient) setting(keys ...string) (value, from string) {
	for _, s := range p.settings {
		if v := s.Get(keys...); v != "" {
			return v, s.from
		}
	}
	return "", ""
}

// knowsSettings reports whether a whole configuration was found, so that what is
// not set has its default.
func (p *patient) knowsSettings() bool {
	for _, s := range p.settings {
		if !s.Empty() && s.from != fromManifest {
			return true
		}
	}
	return false
}

// application reports whether the cluster runs one job from its own main
// (execution.target is embedded, measured on 1.13.6 to 2.3.0).
func (p *patient) application() bool {
	target, from := p.setting("execution.target")
	return target == "embedded" && from == fromJobManager
}

// session reports whether it is known to run what it is handed.
func (p *patient) session() bool {
	return p.cluster != nil && p.cluster.err == nil && p.cluster.confErr == nil && !p.application()
}

// knowsNewest reports whether the job has a checkpoint that a tick would pin.
func (p *patient) knowsNewest() bool { return p.asked() != nil && p.cluster.newest != nil }

// ticked reports whether a tick was tried.
func (p *patient) ticked() bool { return p.closed == nil && p.knowsNewest() && !p.source.empty }

// asked is the cluster if it answered about the job, else nil.
func (p *patient) asked() *clusterFacts {
	if c := p.cluster; c != nil && c.err == nil && c.jobErr == nil {
		return c
	}
	return nil
}
