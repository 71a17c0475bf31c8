package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/chkpin/chkpin/blobstore"
)

// Newest finds the newest checkpoint in a job's folder
// (<checkpoints.dir>/<job id>) that loads and verifies, among those with a
// number of at most upTo. Numbers decide, not text order and not times: chk-10 is
// newer than chk-9. It is [ErrNoCheckpoint] when there is none.
//
// Numbers are in the order of time only within one run: under a constant job id
// a restore of something older leaves higher numbers of an earlier run behind,
// which upTo leaves out.
func Newest(ctx context.Context, store blobstore.Store, folder blobstore.URI, upTo int64, opts LoadOptions) (*Latest, error) {
	ids, err := checkpointIDs(ctx, store, opts.Relocations.Apply(folder))
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if id > upTo {
			continue
		}
		s, err := Load(ctx, store, folder.Join("chk-"+strconv.FormatInt(id, 10)), opts)
		if err == nil {
			var report Report
			if report, err = Verify(ctx, store, s); err == nil && report.OK() {
				return &Latest{ID: s.CheckpointID, Path: s.URI.Dir()}, nil
			}
		}
		if damaged := (*DamagedError)(nil); err != nil && !errors.As(err, &damaged) && !errors.Is(err, blobstore.ErrNotExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w below %s", ErrNoCheckpoint, folder)
}

// checkpointIDs lists the numbers of the chk- folders, highest first.
func checkpointIDs(ctx context.Context, store blobstore.Store, folder blobstore.URI) ([]int64, error) {
	var ids []int64
	for o, err := range store.List(ctx, folder, blobstore.ListOptions{Shallow: true}) {
		if err != nil {
			return nil, err
		}
		number, ok := strings.CutPrefix(o.URI.Base(), "chk-")
		if !ok || !o.Dir {
			continue
		}
		if id, err := strconv.ParseInt(number, 10, 64); err == nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	slices.Reverse(ids)
	return ids, nil
}
