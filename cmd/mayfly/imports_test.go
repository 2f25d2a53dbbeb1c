package main

import (
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/mayfly-csi/mayfly/"

// TestImportsFormAFan holds the rooms apart: cmd → driver, signer/*; driver → its steps and signer; a step → volume and the
// vocabulary of signer; a signer → signer, its decisions and CAs; the controller's rooms → these and what derives a request from a volume. client-go stays with those that talk to the API server.
func TestImportsFormAFan(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "../...", "../../driver/...", "../../signer/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		room := strings.TrimPrefix(fields[0], module)
		for _, imported := range fields[1:] {
			if own, ok := strings.CutPrefix(imported, module); ok {
				seen++
				if !mayImport(room, own) {
					t.Errorf("%s imports %s", room, own)
				}
			}
			if strings.HasPrefix(imported, "k8s.io/client-go/") && !slices.Contains([]string{"cmd/mayfly", "cmd/mayfly-controller", "driver/api", "driver/event", "driver/pod", "driver/profile", "driver/trust", "signer/certmanager", "signer/podcertificate", "signer/controller/proof", "signer/controller/review"}, room) {
				t.Errorf("%s imports %s", room, imported)
			}
		}
	}
	if seen == 0 {
		t.Error("no imports were seen")
	}
}

// mayImport reports whether one room may import another.
func mayImport(room, other string) bool {
	switch above, _ := path.Split(room); {
	case strings.HasPrefix(above, "cmd/"):
		return true
	case room == "signer/chain":
		return false
	case other == "signer/chain":
		return above == "signer/" || above == "signer/controller/" ||
			slices.Contains([]string{"driver", "driver/request", "driver/files", "driver/trust"}, room)
	case room == "driver":
		return strings.HasPrefix(other, "driver/") || other == "signer"
	case above == "driver/":
		return (other == "driver/volume" || other == "driver/api") && room != other || other == "signer"
	case above == "signer/":
		return slices.Contains([]string{"signer", "signer/ca", "signer/decision"}, other) && room != other
	case above == "signer/controller/":
		return slices.Contains([]string{"signer", "signer/ca", "signer/certmanager", "driver/volume", "driver/request", "signer/controller/policy", "signer/controller/policy/v1alpha1", "signer/controller/proof"}, other) && room != other
	}
	return false
}

// TestTheNodePluginIsSmall: what only the controller needs is not linked into it.
func TestTheNodePluginIsSmall(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	if !slices.Contains(packages, module+"driver") {
		t.Fatalf("the driver is not among the %d packages", len(packages))
	}
	for _, p := range packages {
		if strings.HasPrefix(p, module+"signer/controller/") || strings.HasPrefix(p, "sigs.k8s.io/controller-runtime/") || strings.HasPrefix(p, "k8s.io/client-go/kubernetes/") {
			t.Errorf("it has %s", p)
		}
	}
}
