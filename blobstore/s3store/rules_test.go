package s3store_test

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
	"github.com/chkpin/chkpin/blobstore/s3store"
	"github.com/chkpin/chkpin/blobstore/storetest/faults"
	"github.com/chkpin/chkpin/blobstore/storetest/servers"
)

// says answers a request with a document of S3.
func says(document string) faults.Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "application/xml")
		io.WriteString(w, document) //nolint:errcheck // the client's to notice
	}
}

func asks(what string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.URL.Query().Has(what) }
}

// Rules that are in force and touch the folder, in the old and the new form.
func TestLifecycleRules(t *testing.T) {
	t.Parallel()
	store, proxy, root := proxied(t)
	proxy.Inject(1, asks("lifecycle"), says(`<LifecycleConfiguration>
		<Rule><ID>all</ID><Status>Enabled</Status><Filter/><Expiration><Days>90</Days></Expiration></Rule>
		<Rule><ID>old form</ID><Status>Enabled</Status><Prefix>app/</Prefix><Expiration><Date>2027-01-01T00:00:00Z</Date></Expiration></Rule>
		<Rule><ID>state only</ID><Status>Enabled</Status><Filter><Prefix>app/last-state/state/</Prefix></Filter>
			<Transition><Days>30</Days><StorageClass>STANDARD_IA</StorageClass></Transition>
			<Transition><Days>60</Days><StorageClass>GLACIER</StorageClass></Transition></Rule>
		<Rule><ID>tagged</ID><Status>Enabled</Status><Filter><And><Prefix>app/</Prefix><Tag><Key>a</Key><Value>b</Value></Tag></And></Filter>
			<Expiration><Days>1</Days></Expiration></Rule>
		<Rule><ID>old versions</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter>
			<NoncurrentVersionExpiration><NoncurrentDays>7</NoncurrentDays></NoncurrentVersionExpiration></Rule>
		<Rule><ID>off</ID><Status>Disabled</Status><Filter/><Expiration><Days>1</Days></Expiration></Rule>
		<Rule><ID>elsewhere</ID><Status>Enabled</Status><Filter><Prefix>apple/</Prefix></Filter><Expiration><Days>1</Days></Expiration></Rule>
	</LifecycleConfiguration>`))
	rules, err := store.LifecycleRules(t.Context(), root)
	require.NoError(t, err)
	assert.Equal(t, []blobstore.LifecycleRule{
		{ID: "all", DeletesAfter: 90},
		{ID: "old form", Prefix: "app/", DeletesOn: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)},
		{ID: "state only", Prefix: "app/last-state/state/", ArchivesAfter: 60, Archive: "GLACIER"},
		{ID: "tagged", Prefix: "app/", Narrowed: true, DeletesAfter: 1},
		{ID: "old versions", ClearsOld: true},
	}, rules)
}

func TestNoLifecycleRules(t *testing.T) {
	t.Parallel()
	store, proxy, root := proxied(t)
	proxy.Inject(1, asks("lifecycle"), faults.Answer(404, "NoSuchLifecycleConfiguration"))
	rules, err := store.LifecycleRules(t.Context(), root)
	require.NoError(t, err)
	assert.Empty(t, rules)
}

func TestRulesThatMayNotBeRead(t *testing.T) {
	t.Parallel()
	store, proxy, root := proxied(t)
	proxy.Inject(1, asks("lifecycle"), faults.Answer(403, "AccessDenied"))
	proxy.Inject(1, asks("versioning"), faults.Answer(403, "AccessDenied"))
	_, err := store.LifecycleRules(t.Context(), root)
	require.ErrorIs(t, err, blobstore.ErrPermission)
	assert.ErrorContains(t, err, "read lifecycle of s3://bucket/app")
	_, err = store.Versioned(t.Context(), root)
	require.ErrorIs(t, err, blobstore.ErrPermission)
	assert.ErrorContains(t, err, "read versioning of s3://bucket/app")
}

// versitygw 1.8.0 has no lifecycle rules.
func TestAServiceWithoutRules(t *testing.T) {
	t.Parallel()
	store, _, root := proxied(t)
	_, err := store.LifecycleRules(t.Context(), root)
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

// A server that keeps versions, and one that does not.
func TestVersioned(t *testing.T) {
	t.Parallel()
	store, proxy, root := proxied(t)
	on, err := store.Versioned(t.Context(), root)
	require.NoError(t, err)
	assert.False(t, on)
	proxy.Inject(1, asks("versioning"), says(`<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>`))
	on, err = store.Versioned(t.Context(), root)
	require.NoError(t, err)
	assert.True(t, on)
}

// A Mux passes the question on, and says where there are no rules.
func TestRulesThroughAMux(t *testing.T) {
	t.Parallel()
	server := servers.FakeS3(t, "bucket")
	mux := blobstore.Mux{
		blobstore.FamilyS3:   s3store.New(configFor(server, server.URL)),
		blobstore.FamilyFile: blobstore.NewFile(),
	}
	_, err := mux.Versioned(t.Context(), blobstore.MustParse("s3://bucket/app"))
	require.NoError(t, err)
	for _, uri := range []string{"file:///state", "abfs://c@a/x"} {
		_, err = mux.Versioned(t.Context(), blobstore.MustParse(uri))
		require.Error(t, err, uri)
		_, err = mux.LifecycleRules(t.Context(), blobstore.MustParse(uri))
		require.Error(t, err, uri)
		assert.Equal(t, uri == "file:///state", errors.Is(err, errors.ErrUnsupported))
	}
}
