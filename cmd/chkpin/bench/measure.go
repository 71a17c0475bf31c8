package main

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/chkpin/chkpin/blobstore/storetest/faults"
)

const (
	app       = "s3://bucket/orders"
	inlineApp = "s3://bucket/inline"
	scriptApp = "s3://bucket/script"

	fewFiles = 10 // of the job
	newFiles = 4  // of its next checkpoint

	history = 3000 // objects of earlier checkpoints
)

// benchmark measures, and collects what it finds.
type benchmark struct {
	*site
	report
	runs     int // of each tick
	files    int // of the first pin
	fileRuns int
	targets  int            // of a fleet
	only     *regexp.Regexp // the parts to measure
	progress func(format string, args ...any)

	small []string // the files of the job's next checkpoint
}

func (b *benchmark) run(ctx context.Context) error {
	for _, part := range []struct {
		name    string
		measure func(context.Context) error
	}{
		{"requests", b.requests}, {"ticks", b.ticks}, {"starts", b.starts}, {"first-pin", b.firstPin}, {"copies-s3", b.movesS3},
		{"copies-azure", b.movesAzure}, {"listings", b.listings}, {"fleet", b.fleetTicks},
	} {
		if !b.only.MatchString(part.name) {
			continue
		}
		if err := part.measure(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if len(b.rows) == 0 {
		return fmt.Errorf("no part is named %q", b.only)
	}
	return nil
}

// change lets the job complete a checkpoint that has n new files.
func (b *benchmark) change(ctx context.Context, n int) error {
	files, err := b.write(ctx, fmt.Sprintf("%s/shared/%d", b.folder(), b.next), n)
	if err != nil {
		return err
	}
	b.small = append(b.small, files...)
	b.small = b.small[max(0, len(b.small)-fewFiles):]
	return b.complete(ctx, b.small)
}

// requests counts what a tick asks for, without history and with it.
func (b *benchmark) requests(ctx context.Context) error {
	if err := b.change(ctx, fewFiles); err != nil {
		return err
	}
	if _, err := b.pin(app).run(ctx); err != nil {
		return err
	}
	none, err := b.countTicks(ctx)
	if err != nil {
		return err
	}
	b.progress("writing %d objects of history", history)
	if _, err := b.write(ctx, b.folder()+"/shared/history", history); err != nil {
		return err
	}
	much, err := b.countTicks(ctx)
	if err != nil {
		return err
	}
	if err := b.remove(b.folder() + "/shared/history"); err != nil {
		return err
	}
	for _, h := range []struct {
		what string
		ticks
	}{{"no history", none}, {fmt.Sprintf("%d objects", history), much}} {
		b.fact("unchanged, "+h.what, h.unchanged.String(), h.script.String(), "2 S3 in 1 step, 2 REST",
			h.unchanged.s3 == 2 && h.unchanged.steps == 1 && h.unchanged.rest == 2)
		b.fact("changed, no files, "+h.what, h.inline.String(), h.script.String(), "at most 8 S3 in 6 steps, 2 REST",
			h.inline.s3 <= 8 && h.inline.steps <= 6 && h.inline.rest == 2)
		most := 8 + newFiles + 1 + 1
		b.fact(fmt.Sprintf("changed, %d new files, %s", newFiles, h.what), h.changed.String(), h.script.String(),
			fmt.Sprintf("at most 8+%d+2 S3, 1 HEAD", newFiles), h.changed.s3 <= most && h.changed.heads == 1)
	}
	return nil
}

// ticks is what each kind of tick asks for.
type ticks struct{ unchanged, inline, changed, script traffic }

func (b *benchmark) countTicks(ctx context.Context) (t ticks, err error) {
	b.progress("counting requests")
	for _, n := range []int{newFiles, 0} {
		if err := b.change(ctx, n); err != nil {
			return t, err
		}
		kind := &t.changed
		if n == 0 {
			kind = &t.unchanged
			// The second look at one checkpoint.
			if _, err := b.pin(app).run(ctx); err != nil {
				return t, err
			}
		}
		if *kind, err = b.count(ctx, b.pin(app)); err != nil {
			return t, err
		}
	}
	if t.script, err = b.count(ctx, b.copyByScript(scriptApp)); err != nil {
		return t, err
	}
	if err := b.complete(ctx, nil); err != nil {
		return t, err
	}
	if _, err := b.pin(inlineApp).run(ctx); err != nil {
		return t, err
	}
	if err := b.complete(ctx, nil); err != nil {
		return t, err
	}
	t.inline, err = b.count(ctx, b.pin(inlineApp))
	return t, err
}

// ticks measures whole ticks beside the script, in turn.
func (b *benchmark) ticks(ctx context.Context) error {
	b.progress("measuring ticks, %d of each", b.runs)
	var unchanged, changed, byScript usages
	for range b.runs {
		if err := b.change(ctx, newFiles); err != nil {
			return err
		}
		for _, m := range []struct {
			of      *usages
			program program
		}{{&changed, b.pin(app)}, {&byScript, b.copyByScript(scriptApp)}, {&unchanged, b.pin(app)}} {
			u, err := m.program.run(ctx)
			if err != nil {
				return err
			}
			*m.of = append(*m.of, u)
		}
	}
	const most = 32 << 20
	script := byScript.median()
	for _, m := range []struct {
		what string
		usage
	}{{"unchanged tick", unchanged.median()}, {"changed tick", changed.median()}} {
		b.times(m.what+", CPU", m.CPU, script.CPU, 1.0/20, "at most 1/20 of the script")
		b.times(m.what+", wall", m.Wall, script.Wall, 0, "")
		b.memory(m.what+", RSS", m.RSS, script.RSS, most)
	}
	return nil
}

// starts measures how long programs take from their start to their first request.
func (b *benchmark) starts(ctx context.Context) error {
	runs := 3 * b.runs // they are short
	b.progress("measuring starts, %d of each", runs)
	var bare, pin, resolve []time.Duration
	for range runs {
		for _, m := range []struct {
			of      *[]time.Duration
			program program
			proxy   *faults.Proxy
		}{
			{&bare, b.program(b.s3.URL, b.bare, bucket, "orders/chkpin.json"), b.s3},
			{&pin, b.pin(app), b.rest},
			{&resolve, b.program(b.s3.URL, b.chkpin, "resolve", app), b.s3},
		} {
			b.forget()
			u, err := m.program.run(ctx)
			if err != nil {
				return err
			}
			*m.of = append(*m.of, m.proxy.Requests()[0].At.Sub(u.Started))
		}
	}
	itself := func(d time.Duration) time.Duration { return d }
	b.times("start to the first REST request (pin)", median(pin, itself), median(bare, itself), 2, "at most twice the bare program")
	b.times("start to the first S3 request (resolve)", median(resolve, itself), median(bare, itself), 2, "at most twice the bare program")
	return nil
}

// firstPin measures the first pin of many files beside a copy of the same files
// by s5cmd, in turn and without the proxy.
func (b *benchmark) firstPin(ctx context.Context) error {
	b.progress("writing %d files", b.files)
	folder := b.folder() + "/shared/large"
	files, err := b.write(ctx, folder, b.files)
	if err != nil {
		return err
	}
	if err := b.complete(ctx, files); err != nil {
		return err
	}
	b.progress("measuring the first pin, %d times", b.fileRuns)
	const target, copied = "s3://bucket/first", "s3://bucket/copied"
	var pinned, byS5cmd usages
	for i := range b.fileRuns {
		u, err := b.program(b.server.URL, b.chkpin, "pin", target, b.rest.URL).run(ctx)
		if err != nil {
			return err
		}
		if err := b.prove(ctx, target, b.files); err != nil {
			return err
		}
		pinned = append(pinned, u)
		v, err := b.program(b.server.URL, "s5cmd", "--log", "error", "cp", folder+"/*", copied+"/").run(ctx)
		if err != nil {
			return err
		}
		byS5cmd = append(byS5cmd, v)
		b.progress("run %d: chkpin %v wall, %v CPU, %v; s5cmd %v wall, %v CPU, %v", i+1,
			milliseconds(u.Wall), milliseconds(u.CPU), size(u.RSS), milliseconds(v.Wall), milliseconds(v.CPU), size(v.RSS))
		for _, dir := range []string{target, copied} {
			if err := b.remove(dir); err != nil {
				return err
			}
		}
	}
	first, beside := pinned.median(), byS5cmd.median()
	what := fmt.Sprintf("first pin of %d files", b.files)
	b.times(what+", wall", first.Wall, beside.Wall, 1, "at most s5cmd cp's")
	b.times(what+", CPU", first.CPU, beside.CPU, 1, "at most s5cmd cp's")
	b.memory(what+", RSS", first.RSS, beside.RSS, 64<<20)
	b.fact(what+", sizes", "proved", "not looked at", "proved", true)
	return nil
}
