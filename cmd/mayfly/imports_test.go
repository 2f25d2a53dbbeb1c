package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/mayfly-csi/mayfly/"

// imports says which packages of ours each package may import, and whether it may import client-go: those that talk to
// the API server do. docs/architecture.md says what each is for.
func imports() map[string]struct {
	ours     string
	clientGo bool
} {
	type may = struct {
		ours     string
		clientGo bool
	}
	return map[string]may{
		"driver": {"driver/event driver/issue driver/pod driver/registration driver/renew driver/resolve driver/service " +
			"driver/store driver/trust driver/volume signer signer/spec", false},
		"driver/service": {"driver/issue driver/renew driver/store driver/volume signer signer/chain " +
			"signer/message signer/spec", false},
		"driver/issue": {"driver/event driver/renew driver/request driver/store driver/volume signer signer/chain " +
			"signer/message signer/spec", false},
		"driver/resolve": {"driver/event driver/pod driver/store driver/volume signer", false},
		"driver/trust": {"driver/event driver/renew driver/request driver/store driver/volume signer signer/api " +
			"signer/chain signer/message", true},
		"driver/store":        {"driver/files driver/mount driver/request driver/volume", false},
		"driver/event":        {"driver/renew driver/volume signer signer/message signer/object", true},
		"driver/pod":          {"driver/volume signer signer/api signer/message signer/spec", true},
		"driver/files":        {"driver/volume signer/chain", false},
		"driver/request":      {"driver/volume signer signer/chain signer/message signer/spec", false},
		"driver/renew":        {"driver/volume signer", false},
		"driver/volume":       {"signer/message signer/problem signer/spec", false},
		"driver/mount":        {"", false},
		"driver/registration": {"signer/message", false},

		"signer":                      {"signer/message", false},
		"signer/chain":                {"signer/message", false},
		"signer/message":              {"", false},
		"signer/problem":              {"signer/message", false},
		"signer/spec":                 {"signer signer/message signer/problem", false},
		"signer/api":                  {"signer/message signer/object", true},
		"signer/object":               {"", true},
		"signer/profile":              {"signer/api", true},
		"signer/ca":                   {"signer signer/chain", false},
		"signer/decision":             {"signer signer/message signer/object", true},
		"signer/local":                {"signer signer/ca signer/chain", false},
		"signer/certmanager":          {"signer signer/decision signer/object", true},
		"signer/podcertificate":       {"signer signer/chain signer/decision signer/object", true},
		"signer/signertest":           {"signer", false},
		"signer/controller/placement": {"", false},
		"signer/controller/startup":   {"", false},
		"signer/controller/admission": {"", false},
		"signer/controller/authority": {"signer/ca signer/chain", false},
		"signer/controller/policy": {"signer signer/controller/policy/v1alpha1 signer/decide signer/message signer/problem " +
			"signer/spec", false},
		"signer/controller/policy/v1alpha1":     {"", false},
		"signer/decide":                         {"signer signer/message signer/problem signer/spec", false},
		"signer/controller/cluster":             {"signer signer/controller/audit signer/controller/policy signer/decide signer/spec", true},
		"signer/controller/certificaterequests": {"signer signer/controller/audit signer/controller/cluster signer/decide", true},
		"signer/controller/audit":               {"signer signer/message", true},
		"signer/controller/audit/audittest":     {"signer/controller/audit", false},
		"signer/controller/podcertificaterequests": {"signer signer/ca signer/certmanager signer/chain " +
			"signer/controller/audit signer/controller/cluster signer/decide signer/message signer/object signer/spec", true},
		"signer/controller/status": {"signer signer/controller/policy signer/controller/policy/v1alpha1 signer/message", false},
		"signer/controller/review": {"signer signer/controller/policy/v1alpha1 signer/decide signer/spec", true},
	}
}

// TestImports holds the packages apart: only those imports are allowed, and each of them is used.
func TestImports(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`,
		"../../driver/...", "../../signer/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	allowed := imports()
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		name := strings.TrimPrefix(fields[0], module)
		may, ok := allowed[name]
		if !ok {
			t.Errorf("%s is not in the table", name)
		}
		delete(allowed, name)
		var ours []string
		for _, imported := range fields[1:] {
			if own, ok := strings.CutPrefix(imported, module); ok {
				ours = append(ours, own)
			} else if strings.HasPrefix(imported, "k8s.io/client-go/") && !may.clientGo {
				t.Errorf("%s imports %s", name, imported)
			}
		}
		if got := strings.Join(ours, " "); got != may.ours {
			t.Errorf("%s imports %s; the table says %s", name, got, may.ours)
		}
	}
	for name := range allowed {
		t.Errorf("there is no %s", name)
	}
}

// TestTimeZonesAreLinked: the image has none.
func TestTimeZonesAreLinked(t *testing.T) {
	if !slices.Contains(dependencies(t, "."), "time/tzdata") {
		t.Error("the node plugin has no time zones")
	}
}

// TestTheControllerHasNothingOfTheNodePlugin: what it trusts can be read in one sitting.
func TestTheControllerHasNothingOfTheNodePlugin(t *testing.T) {
	packages := dependencies(t, "../mayfly-controller")
	if !slices.Contains(packages, module+"signer/spec") {
		t.Fatalf("signer/spec is not among the %d packages", len(packages))
	}
	for _, p := range packages {
		if p == module+"driver" || strings.HasPrefix(p, module+"driver/") {
			t.Errorf("it has %s", p)
		}
	}
}

// dependencies lists the packages of a program.
func dependencies(t *testing.T, program string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", program).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// TestTheNodePluginIsSmall: what only the controller needs is not linked into it.
func TestTheNodePluginIsSmall(t *testing.T) {
	packages := dependencies(t, ".")
	if !slices.Contains(packages, module+"driver") {
		t.Fatalf("the driver is not among the %d packages", len(packages))
	}
	for _, p := range packages {
		if strings.HasPrefix(p, module+"signer/controller/") || strings.HasPrefix(p, "sigs.k8s.io/controller-runtime/") ||
			strings.HasPrefix(p, "k8s.io/client-go/kubernetes/") || strings.HasPrefix(p, "k8s.io/api/") ||
			p == "golang.org/x/crypto/x509roots/fallback" { // It sets the roots of the whole process.
			t.Errorf("it has %s", p)
		}
	}
}
