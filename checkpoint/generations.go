package checkpoint

import (
	"cmp"
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/chkpin/chkpin/blobstore"
)

// generationNames lists the generations, finished or not, newest first.
func generationNames(ctx context.Context, store blobstore.Store, l Layout) ([]string, error) {
	var names []string
	for o, err := range store.List(ctx, l.Generations, blobstore.ListOptions{Shallow: true}) {
		if err != nil {
			return nil, err
		}
		if o.Dir && sequenceOf(o.URI.Base()) > 0 {
			names = append(names, o.URI.Base())
		}
	}
	sortGenerations(names)
	return names, nil
}

func sortGenerations(names []string) { slices.SortFunc(names, compareGenerations) }

// compareGenerations is the order newest first.
func compareGenerations(a, b string) int {
	aSeq, aID := splitGeneration(a)
	bSeq, bID := splitGeneration(b)
	return cmp.Or(cmp.Compare(bSeq, aSeq), cmp.Compare(bID, aID))
}

// readManifests reads the records of all finished generations, newest first.
func readManifests(ctx context.Context, store blobstore.Store, l Layout) ([]Record, error) {
	names, err := generationNames(ctx, store, l)
	if err != nil {
		return nil, err
	}
	records := make([]Record, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for i, name := range names {
		g.Go(func() error {
			r, ok, err := readManifest(ctx, store, l.generation(name))
			if ok {
				records[i], records[i].Generation = r, name
			}
			return err
		})
	}
	err = g.Wait()
	return slices.DeleteFunc(records, func(r Record) bool { return r.Generation == "" }), err
}

// history is the way that led to a generation: this one, the one that was
// published when it was made, and so on. What a rollback left behind is not on
// it, nor what a tick wrote and did not publish. all are records newest first.
func history(generation string, all []Record) (way []Record) {
	byName := map[string]Record{}
	for _, r := range all {
		byName[r.Generation] = r
	}
	for r, ok := byName[generation]; ok && len(way) < len(all); r, ok = byName[r.Parent] {
		if r.Parent == "" { // the first one, or made before parents were written down
			r.Parent = nextOlder(r.Generation, all)
		}
		way = append(way, r)
	}
	return way
}

func nextOlder(generation string, all []Record) string {
	for _, r := range all {
		if sequenceOf(r.Generation) < sequenceOf(generation) {
			return r.Generation
		}
	}
	return ""
}

// wayBack orders generations by how good they are in the place of the published
// one: its history, then what lies beside that, newest first.
func wayBack(published string, all []Record) []Record {
	way := history(published, all)
	for _, r := range all {
		if !slices.ContainsFunc(way, func(w Record) bool { return w.Generation == r.Generation }) {
			way = append(way, r)
		}
	}
	return way
}
