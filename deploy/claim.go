package deploy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/chkpin/chkpin/blobstore"
)

// claim is the right to work on a job and the record of what was about to be
// done, in deploying/<name>.yaml beside the stored manifests. Whoever has it
// writes it anew with every beat, and each write is on the condition that the
// object is still the last one: so of two deploys one has it, and a claim that
// does not beat any more was left behind by a deploy that ended.
type claim struct {
	store blobstore.Store
	at    blobstore.URI

	writing chan struct{} // holds one while somebody writes: the beat does, too

	mu     sync.Mutex
	tag    string // of the object; "" when there is none
	record record
}

// last is what was written last, and the tag of the object.
func (c *claim) last() (record, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.record, c.tag
}

// record is what a claim says to the next deploy.
type record struct {
	Run      string `yaml:"run"`      // whose claim it is
	Beat     int    `yaml:"beat"`     // makes every write another content
	Stored   string `yaml:"stored"`   // digest of the stored manifest that all this is about; "" for none
	Deployed string `yaml:"deployed"` // the manifest of the job Live, or of the last one; "" for a new job
	Live     string `yaml:"live"`     // id of the job that was live
	Since    int64  `yaml:"since"`    // its start, in ms: with high availability, all jobs of an application have one id
	Wanted   string `yaml:"wanted"`   // the manifest that was to be started
	Started  bool   `yaml:"started"`  // the command was, or was about to be
	Ended    bool   `yaml:"ended"`    // the deploy failed, and is not at work any more
}

// readClaim reads what an earlier deploy left behind, or another one holds.
func (d *Deployer) readClaim(ctx context.Context, name string) (*claim, error) {
	c := &claim{store: d.Store, at: d.Manifests.Join("deploying", name+".yaml"), writing: make(chan struct{}, 1)}
	data, obj, err := blobstore.ReadAll(ctx, d.Store, c.at, maxManifest)
	switch {
	case errors.Is(err, blobstore.ErrNotExist):
		return c, nil
	case err != nil:
		return nil, err
	}
	if err := yaml.Unmarshal(data, &c.record); err != nil {
		return nil, syntaxError(c.at.String(), data, err)
	}
	c.tag = obj.Tag
	return c, nil
}

// about reports whether the record is about what is stored now. Otherwise the
// deploy was completed, or another tool has deployed since.
func (c *claim) about(stored []byte) bool {
	r, tag := c.last()
	return tag != "" && r.Stored == digest(stored)
}

func digest(stored []byte) string {
	if stored == nil {
		return ""
	}
	sum := sha256.Sum256(stored)
	return hex.EncodeToString(sum[:])
}

// alive reports whether somebody may be at work with it.
func (c *claim) alive() bool {
	r, tag := c.last()
	return tag != "" && !r.Ended
}

// take makes the claim one's own, if nobody else has it. One that was left behind
// by a deploy that was killed is given the time to beat.
func (c *claim) take(ctx context.Context, r record, patience time.Duration) error {
	if c.alive() {
		select {
		case <-time.After(patience):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return c.write(ctx, func(mine *record) { *mine = r })
}

// write changes the record, if it is still the last one written. One of the same
// run is: the answer to an earlier write, or to the first try of this one, was lost.
func (c *claim) write(ctx context.Context, change func(*record)) error {
	select {
	case c.writing <- struct{}{}:
		defer func() { <-c.writing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	next, last := c.last()
	beat := next.Beat + 1
	change(&next)
	next.Beat = beat
	data, err := yaml.Marshal(next)
	if err != nil {
		return err
	}
	put := func(tag string) (blobstore.Object, error) {
		return c.store.Put(ctx, c.at, bytes.NewReader(data), blobstore.PutOptions{IfAbsent: tag == "", IfTag: tag})
	}
	obj, err := put(last)
	if errors.Is(err, blobstore.ErrPrecondition) {
		if tag := c.writtenBy(ctx, next.Run); tag != "" {
			obj, err = put(tag)
		}
	}
	if errors.Is(err, blobstore.ErrPrecondition) {
		return fmt.Errorf("%w: %s was written by another", ErrOtherDeploy, c.at)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tag, c.record = obj.Tag, next
	return nil
}

// writtenBy is the tag of the claim if this run wrote it, "" else.
func (c *claim) writtenBy(ctx context.Context, run string) string {
	data, obj, err := blobstore.ReadAll(ctx, c.store, c.at, maxManifest)
	var there record
	if err != nil || yaml.Unmarshal(data, &there) != nil || there.Run != run {
		return ""
	}
	return obj.Tag
}

// hold writes the claim again and again, until release. The context ends when the
// claim is lost: then another deploy is at work.
func (c *claim) hold(ctx context.Context, every time.Duration) (held context.Context, release func()) {
	held, cancel := context.WithCancelCause(ctx)
	var beats sync.WaitGroup
	beats.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-held.Done():
				return
			case <-ticker.C:
			}
			if err := c.write(held, func(*record) {}); errors.Is(err, ErrOtherDeploy) {
				cancel(err)
			}
		}
	})
	return held, func() { cancel(nil); beats.Wait() }
}

// drop removes the claim: all is done.
func (c *claim) drop(ctx context.Context) error { return c.store.Delete(ctx, c.at) }
