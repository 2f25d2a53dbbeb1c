package trust

import (
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPublicDate: the version of the module has the date of the list.
func TestPublicDate(t *testing.T) {
	const module = "golang.org/x/crypto/x509roots/fallback"
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Version}}", module).Output()
	if err != nil {
		t.Fatal(err)
	}
	date := func(versions ...string) string {
		info := &debug.BuildInfo{Deps: []*debug.Module{{Path: "golang.org/x/crypto", Version: "v0.57.0"}}}
		for _, version := range versions {
			info.Deps = append(info.Deps, &debug.Module{Path: module, Version: version})
		}
		return publicDate(info)
	}
	if at, err := time.Parse(time.DateOnly, date(strings.TrimSpace(string(out)))); err != nil || at.Year() < 2026 {
		t.Errorf("%s: %s (%v)", out, at, err)
	}
	got := []string{date("v0.0.0-20261030153154-30a33513ff6d"), date("v1.2.0"), date("(devel)"), date(), publicDate(nil)}
	if !slices.Equal(got, []string{"2026-10-30", "v1.2.0", "(devel)", "unknown", "unknown"}) {
		t.Error(got)
	}
}
