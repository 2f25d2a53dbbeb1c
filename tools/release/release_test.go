package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	provenancev1 "github.com/in-toto/attestation/go/predicates/provenance/v1"
	statementv1 "github.com/in-toto/attestation/go/v1"
	spdxjson "github.com/spdx/tools-golang/json"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
	"google.golang.org/protobuf/encoding/protojson"
	"helm.sh/helm/v4/pkg/chart/loader"
	chart "helm.sh/helm/v4/pkg/chart/v2"
)

// released is the version that the tests release.
const released = "0.0.1-test.1"

// TestRelease releases the checkout's commit from two clones in different directories, for the platform of this
// machine, and reads what came out.
func TestRelease(t *testing.T) {
	outs := []string{t.TempDir(), t.TempDir()}
	from := "../.." // Of which the first is a clone; the second is one of the first, for the checkout may go on.
	for i, dir := range []string{"one", "another/one"} {
		clone := filepath.Join(t.TempDir(), dir)
		run(t, from, "clone", "--quiet", ".", clone)
		from = clone
		o := options{Repository: clone, Version: released, Out: outs[i], Platforms: []string{"linux/" + runtime.GOARCH}}
		if err := release(t.Context(), o, io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	commit := run(t, from, "rev-parse", "HEAD")
	one, other := filepath.Join(outs[0], released), filepath.Join(outs[1], released)
	t.Run("twice the same bytes", func(t *testing.T) { same(t, one, other) })
	t.Run("checksums", func(t *testing.T) { checksums(t, one) })
	t.Run("chart", func(t *testing.T) { readChart(t, one) })
	t.Run("licences", func(t *testing.T) { readLicences(t, one) })
	digests := map[string]string{}
	for _, c := range contents() {
		t.Run(c.Name, func(t *testing.T) {
			index := readArchive(t, filepath.Join(one, c.Name+"-image-"+released+".tar"))
			digests[c.Name] = sum(t, index)
			holdsVersion(t, c.Name, commit, index)
		})
	}
	t.Run("SBOM", func(t *testing.T) { readSBOM(t, one, digests) })
	t.Run("provenance", func(t *testing.T) { readProvenance(t, one, commit, digests) })
}

// same holds each file of a release to that of another one.
func same(t *testing.T, one, other string) {
	t.Helper()
	files, others := names(t, one), names(t, other)
	if len(files) != 7 || !slices.Equal(files, others) {
		t.Fatalf("%v and %v", files, others)
	}
	for _, name := range files {
		if !bytes.Equal(read(t, one, name), read(t, other, name)) {
			t.Errorf("%s differs", name)
		}
	}
}

// checksums holds SHA256SUMS to the files, as sha256sum does: it has each, and no other.
func checksums(t *testing.T, dir string) {
	t.Helper()
	var listed []string
	for line := range strings.Lines(string(read(t, dir, "SHA256SUMS"))) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		listed = append(listed, name)
		if digest(read(t, dir, name)) != sum {
			t.Errorf("%s has another checksum", name)
		}
	}
	slices.Sort(listed)
	all := slices.DeleteFunc(names(t, dir), func(name string) bool { return name == "SHA256SUMS" })
	if !slices.Equal(listed, all) {
		t.Errorf("%v of %v", listed, all)
	}
}

// readChart reads the chart as Helm does.
func readChart(t *testing.T, dir string) {
	t.Helper()
	loaded, err := loader.Load(filepath.Join(dir, "mayfly-"+released+".tgz"))
	if err != nil {
		t.Fatal(err)
	}
	c := loaded.(*chart.Chart)
	if m := c.Metadata; m.Version != released || m.AppVersion != "v"+released || len(c.Templates) == 0 || c.Schema == nil {
		t.Errorf("%+v with %d templates", c.Metadata, len(c.Templates))
	}
}

// readLicences finds the licence of a module and that of Go among the licences.
func readLicences(t *testing.T, dir string) {
	t.Helper()
	found := map[string]bool{}
	untar(t, bytes.NewReader(read(t, dir, "mayfly-licences-"+released+".tar")), func(name string, content []byte) {
		found[name] = len(content) > 0
	})
	for _, name := range []string{"LICENSE-of-Go", "k8s.io/client-go/LICENSE", "google.golang.org/grpc/NOTICE.txt"} {
		if !found[name] {
			t.Errorf("there is no %s", name)
		}
	}
}

// readArchive reads an OCI archive, holds every digest in it to the bytes, and returns its only index.
func readArchive(t *testing.T, path string) v1.ImageIndex {
	t.Helper()
	dir := t.TempDir()
	packed := read(t, filepath.Dir(path), filepath.Base(path))
	if end := make([]byte, 1024); !bytes.HasSuffix(packed, end) {
		t.Errorf("%s has no end: tar(1) takes it for cut off", path)
	}
	untar(t, bytes.NewReader(packed), func(name string, content []byte) {
		if blob, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && digest(content) != blob {
			t.Errorf("%s has another digest", name)
		}
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	archive, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(archive, validate.Fast); err != nil {
		t.Fatal(err)
	}
	manifest, err := archive.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("%+v (%v)", manifest, err)
	}
	if name := manifest.Manifests[0].Annotations["io.containerd.image.name"]; !strings.HasSuffix(name, ":v"+released) {
		t.Errorf("containerd is told of %q", name)
	}
	index, err := archive.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// holdsVersion runs the program of an image, which says of what version and commit it is.
func holdsVersion(t *testing.T, name, commit string, index v1.ImageIndex) {
	t.Helper()
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != 1 || manifest.Manifests[0].Platform.String() != "linux/"+runtime.GOARCH {
		t.Fatalf("%+v", manifest.Manifests)
	}
	one, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), name)
	root := mutate.Extract(one)
	untar(t, root, func(path string, content []byte) {
		if path != name {
			t.Errorf("the image has %s, too", path)
		}
		if err := os.WriteFile(program, content, 0o700); err != nil { // #nosec G306 -- It is run.
			t.Fatal(err)
		}
	})
	said, err := exec.CommandContext(t.Context(), program, "version").Output()
	want := "version: v" + released + "\ncommit:  " + commit + "\ndate:    "
	if err != nil || !strings.HasPrefix(string(said), want) {
		t.Errorf("%s (%v), and not %s", said, err, want)
	}
}

// readSBOM reads the SBOM, and finds images, chart and modules in it, each package once.
func readSBOM(t *testing.T, dir string, digests map[string]string) {
	t.Helper()
	document, err := spdxjson.Read(bytes.NewReader(read(t, dir, "mayfly-"+released+".spdx.json")))
	if err != nil {
		t.Fatal(err)
	}
	found, known := map[string]string{}, map[string]bool{}
	for _, p := range document.Packages {
		if id := string(p.PackageSPDXIdentifier); known[id] {
			t.Errorf("%s is there twice", id)
		} else {
			known[id] = true
		}
		for _, sum := range p.PackageChecksums {
			found[p.PackageName] = sum.Value
		}
	}
	for name, digest := range digests {
		if found[name] != digest {
			t.Errorf("the SBOM has %s with digest %s, and its index has %s", name, found[name], digest)
		}
	}
	if chart := digest(read(t, dir, "mayfly-"+released+".tgz")); found["mayfly-chart"] != chart {
		t.Errorf("the SBOM has the chart with digest %s, and it has %s", found["mayfly-chart"], chart)
	}
	for _, id := range []string{"library-stdlib", "library-k8s.io-client-go", "library-google.golang.org-grpc"} {
		if !slices.ContainsFunc(document.Packages, func(p *spdx.Package) bool {
			return strings.HasPrefix(string(p.PackageSPDXIdentifier), id)
		}) {
			t.Errorf("the SBOM lacks %s", id)
		}
	}
	for _, r := range document.Relationships {
		if from := string(r.RefA.ElementRefID); !known[from] && from != "DOCUMENT" || !known[string(r.RefB.ElementRefID)] {
			t.Errorf("nobody knows an end of %+v", r)
		}
	}
}

// readProvenance reads the statement, and holds its subjects to images and files.
func readProvenance(t *testing.T, dir, commit string, digests map[string]string) {
	t.Helper()
	statement := &statementv1.Statement{}
	if err := protojson.Unmarshal(read(t, dir, "mayfly-"+released+".intoto.json"), statement); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(statement.GetPredicate().AsMap())
	if err != nil {
		t.Fatal(err)
	}
	provenance := &provenancev1.Provenance{}
	if err := errors.Join(statement.Validate(), protojson.Unmarshal(text, provenance)); err != nil {
		t.Fatal(err)
	}
	if err := provenance.Validate(); err != nil {
		t.Fatal(err)
	}
	subjects := map[string]string{}
	for _, subject := range statement.GetSubject() {
		subjects[subject.GetName()] = subject.GetDigest()["sha256"]
	}
	want := map[string]string{}
	for name, digest := range digests {
		want[name+":v"+released] = digest
	}
	for _, name := range names(t, dir) {
		if name != "SHA256SUMS" && !strings.HasSuffix(name, ".intoto.json") {
			want[name] = digest(read(t, dir, name))
		}
	}
	for name, digest := range want {
		if subjects[name] != digest {
			t.Errorf("the statement has %s with digest %q, and it has %s", name, subjects[name], digest)
		}
	}
	if len(subjects) != len(want) {
		t.Errorf("%d subjects, and there are %d", len(subjects), len(want))
	}
	source := provenance.GetBuildDefinition().GetResolvedDependencies()[0]
	if source.GetDigest()["gitCommit"] != commit {
		t.Errorf("the statement has commit %v, and the clone %s", source.GetDigest(), commit)
	}
}

// sum returns the digest of an index, without the name of its algorithm.
func sum(t *testing.T, index v1.ImageIndex) string {
	t.Helper()
	hash, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return hash.Hex
}

// run runs git in a directory.
func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := git(t.Context(), dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// names returns the files of a directory.
func names(t *testing.T, dir string) (files []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		files = append(files, e.Name())
	}
	return files
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// untar calls a function with each file of a tar file.
func untar(t *testing.T, from io.Reader, each func(name string, content []byte)) {
	t.Helper()
	for r := tar.NewReader(from); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		each(header.Name, content)
	}
}
