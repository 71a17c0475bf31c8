package main

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/chkpin/chkpin/"

// arrows says what each package may depend on, directly or not, and why not on
// more: packages of this module by name, others by the start of their path.
var arrows = map[string]struct {
	own    string
	others string
	why    string
}{
	"checkpoint/metadata":      {"", "", "the file format alone: readable without knowing stores or Flink's API"},
	"blobstore":                {"", "", "an importer of the contract gets no SDK"},
	"blobstore/storetest":      {"blobstore", "github.com/stretchr/ golang.org/x/sync/ go.yaml.in/yaml/", "the suite knows the contract, not the stores"},
	"blobstore/internal/parts": {"", "golang.org/x/sync/", "what uploads to any service have in common"},
	"blobstore/internal/stall": {"", "", "what requests to any service have in common"},
	"blobstore/s3store":        {"blobstore blobstore/internal/parts blobstore/internal/stall", "github.com/aws/ golang.org/x/sync/", "one SDK, and only who links this store has it"},
	"blobstore/cdkstore":       {"blobstore", "gocloud.dev/ github.com/google/uuid github.com/googleapis/gax-go/ github.com/go-logr/ github.com/cespare/xxhash/ go.opentelemetry.io/ golang.org/x/ google.golang.org/", "for importers with a bucket of their own: no driver, and the program does without it"},
	"blobstore/azstore":        {"blobstore blobstore/internal/parts blobstore/internal/stall", azure, "one SDK, and only who links this store has it"},
	"internal/rest":            {"", "github.com/hashicorp/", "how to call a REST server; what the answers mean is its clients' to know"},
	"flinkrest":                {"internal/rest", "github.com/hashicorp/", "REST knows neither stores nor pins; flinkjob joins them"},
	"flinkrest/replay":         {"", "", "it answers recorded bytes and nothing else"},
	"vvp":                      {"internal/rest", "github.com/hashicorp/", "the platform's REST knows nothing of pins; only transition uses it"},
	"vvp/vvptest":              {"", "", "it answers as the platform is documented to, and nothing else"},
	"checkpoint":               {"blobstore checkpoint/metadata", "golang.org/x/sync/", "what a pin is, for any store and any way of asking the JobManager"},
	"deploy":                   {"blobstore checkpoint checkpoint/metadata", "golang.org/x/sync/ go.yaml.in/yaml/ github.com/google/uuid github.com/rogpeppe/go-internal/diff", "what to start a job from, for any cluster and any way of starting"},
	"flinkjob":                 {"blobstore checkpoint checkpoint/metadata flinkrest internal/rest", "golang.org/x/sync/ github.com/hashicorp/", "what joins REST and pins, for any program: no stores, no terminal"},
	"cmd/chkpin/flinkconf":     {"", "go.yaml.in/yaml/", "Flink's configuration file, for any command"},
	"cmd/chkpin/manifest":      {"cmd/chkpin/flinkconf", "go.yaml.in/yaml/ mvdan.cc/sh/", "how Flink is started, as a manifest says it"},
	"cmd/chkpin": {"blobstore blobstore/azstore blobstore/internal/parts blobstore/internal/stall blobstore/s3store checkpoint checkpoint/metadata deploy flinkjob flinkrest internal/rest vvp " +
		"cmd/chkpin/flinkconf cmd/chkpin/manifest",
		azure + "github.com/aws/ go.yaml.in/yaml/ mvdan.cc/sh/ " +
			"github.com/prometheus/ github.com/beorn7/perks/ github.com/cespare/xxhash/ github.com/munnerz/ google.golang.org/protobuf/ " +
			"github.com/google/uuid github.com/rogpeppe/go-internal/diff golang.org/x/sys/ github.com/alecthomas/kong github.com/dustin/go-humanize github.com/hashicorp/ golang.org/x/sync/ " +
			"github.com/schollz/progressbar/ github.com/mitchellh/colorstring github.com/rivo/uniseg golang.org/x/term " +
			"github.com/jotaen/kong-completion github.com/posener/complete github.com/riywo/loginshell github.com/pkg/errors",
		"the binary holds no test helpers and no samples"},
}

// azure is the SDK of Azure Blob Storage and what it brings along.
const azure = "github.com/Azure/ github.com/AzureAD/ github.com/golang-jwt/ github.com/google/uuid github.com/kylelemons/ github.com/pkg/browser golang.org/x/ "

// helpers serve tests and demonstrations. They may use everything; nothing in
// arrows may use them.
var helpers = []string{
	"blobstore/storetest/faults", "blobstore/storetest/servers", "blobstore/storetest/volumes",
	"checkpoint/metadata/metadatatest",
	"cmd/chkpin/bench", "cmd/chkpin/demo", "cmd/chkpin/sample", "cmd/chkpin/e2e",
	"cmd/chkpin/kube",
}

func TestArrows(t *testing.T) {
	standard := map[string]bool{}
	for _, p := range goList(t, "-deps", "./...") {
		standard[p.ImportPath] = p.Standard
	}
	for _, p := range goList(t, "./...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		if isHelper(name) {
			continue
		}
		arrow, ok := arrows[name]
		if !assert.True(t, ok, "package %s has no place among the arrows", name) {
			continue
		}
		for _, dep := range p.Deps {
			own, ours := strings.CutPrefix(dep, module)
			if standard[dep] || ours && contains(arrow.own, own) || !ours && startsWith(dep, arrow.others) {
				continue
			}
			assert.Fail(t, "arrow", "%s must not depend on %s: %s", name, dep, arrow.why)
		}
	}
}

func isHelper(name string) bool {
	for _, h := range helpers {
		if name == h || strings.HasPrefix(name, h+"/") {
			return true
		}
	}
	return false
}

func contains(names, name string) bool {
	return strings.Contains(" "+names+" ", " "+name+" ")
}

func startsWith(path, prefixes string) bool {
	for prefix := range strings.FieldsSeq(prefixes) {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

type goPackage struct {
	ImportPath string
	Standard   bool
	Deps       []string
}

func goList(t *testing.T, args ...string) (packages []goPackage) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Standard,Deps"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	require.NoError(t, err)
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p goPackage
		require.NoError(t, dec.Decode(&p))
		packages = append(packages, p)
	}
	require.NotEmpty(t, packages)
	return packages
}
