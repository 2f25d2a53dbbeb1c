package main

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestVersions(t *testing.T) {
	for text, want := range map[string]string{
		"0.1.0": "v0.1.0", "v0.1.0": "v0.1.0", "1.2.3-rc.1": "v1.2.3-rc.1",
		"": "", "0.1": "", "v1": "", "vv0.1.0": "", "0.1.0+b1": "", "01.0.0": "",
		"devel": "", "49f9efd-dirty": "", "2.0.0": "",
	} {
		version, err := parseVersion(text)
		if version != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q (%v)", text, version, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "VERSION="+text+": ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestCheckouts: a release is of a commit, and of the one that has the version's tag, if there is one.
func TestCheckouts(t *testing.T) {
	dir := t.TempDir()
	commit := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, dir, "add", "file")
		run(t, dir, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message="+text)
	}
	try := func(ignoreChanges bool, want string) source {
		t.Helper()
		s, err := checkOut(t.Context(), dir, "v0.1.0", filepath.Join(t.TempDir(), "source"), ignoreChanges)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, and not %q", err, want)
		}
		return s
	}
	run(t, dir, "init", "--quiet")
	commit("one")
	run(t, dir, "tag", "v0.1.0")
	try(false, "")
	if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	try(false, "the checkout has changes that no commit has")
	if s := try(true, ""); slices.Contains(names(t, s.Dir), "new") {
		t.Error("the release has a file that no commit has")
	}
	commit("two")
	try(true, "v0.1.0 is the tag of commit")
}

// TestPlatforms: an image has an index with all of its platforms, and holds what the Dockerfile has.
func TestPlatforms(t *testing.T) {
	s := source{Version: "v" + released, Commit: "1af5", Date: time.Unix(1_790_000_000, 0).UTC()}
	var programs []program
	for _, arch := range []string{"amd64", "arm64"} {
		for _, c := range contents() {
			p := program{Name: c.Name, OS: "linux", Arch: arch, Content: []byte(arch), Info: &debug.BuildInfo{}}
			programs = append(programs, p)
		}
	}
	out := t.TempDir()
	images, err := s.writeImages(programs, out)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range contents() {
		index := readArchive(t, filepath.Join(out, images[i].Archive.Name))
		if sum(t, index) != images[i].Digest {
			t.Errorf("%s has digest %s", c.Name, images[i].Digest)
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		var platforms []string
		for _, m := range manifest.Manifests {
			platforms = append(platforms, m.Platform.String())
			one, err := index.Image(m.Digest)
			if err != nil {
				t.Fatal(err)
			}
			config, err := one.ConfigFile()
			if err != nil || !slices.Equal(append(config.Config.Entrypoint, config.Config.Cmd...), dockerfile(t, c.Name)) {
				t.Errorf("%+v (%v)", config, err)
			}
		}
		if !slices.Equal(platforms, []string{"linux/amd64", "linux/arm64"}) {
			t.Errorf("%s has %v", c.Name, platforms)
		}
	}
}

// dockerfile returns how the Dockerfile calls a program.
func dockerfile(t *testing.T, name string) []string {
	t.Helper()
	stage := regexp.MustCompile(`COPY bin/` + name + ` /` + name + `\nENTRYPOINT \["(.*)"\]\nCMD \["(.*)"\]\n`)
	found := stage.FindStringSubmatch(string(read(t, "../..", "Dockerfile")))
	if found == nil {
		t.Fatalf("the Dockerfile has no image of %s", name)
	}
	return found[1:]
}
