package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The versions of the builds between which stories upgrade, as the images' tags have them.
const (
	thisVersion = "devel"
	nextVersion = "next"
)

// nextTag is the version that the programs of the next version have from the go command. From v2 on it would need another module path.
const nextTag = "v1.999.0"

// nextImages builds the programs once more, as another version, and gives the nodes their images.
func (s *story) nextImages() {
	s.Helper()
	dir := s.nextSources()
	build := exec.CommandContext(s.Context(), "make", "build")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOFLAGS=-buildvcs=true") // The version comes from the tag, whatever go env has.
	if out, err := build.CombinedOutput(); err != nil {
		s.Fatalf("build the next version: %v: %s", err, out)
	}
	for image, options := range map[string][]string{
		"mayfly:" + nextVersion: nil, "mayfly-controller:" + nextVersion: {"--target", "controller"},
	} {
		archive, err := shared.BuildImage(s.Context(), image, dir, options...)
		if err != nil {
			s.Fatal(err)
		}
		if err := shared.Import(s.Context(), archive); err != nil {
			s.Fatal(err)
		}
	}
}

// nextSources copies what the programs are made of into a repository that has the tag of the next version.
func (s *story) nextSources() (dir string) {
	s.Helper()
	dir = s.temporary()
	s.types(checkout, `git ls-files -z --cached --others --exclude-standard \
  Makefile Dockerfile .dockerignore .gitignore go.mod go.sum cmd driver signer manifests |
  xargs --null cp --parents --target-directory=`+dir)
	s.types(dir, `git init --quiet
git add .
git -c user.name=mayfly -c user.email=mayfly@example.org commit --quiet --message="The next version"
git tag `+nextTag)
	return dir
}

// nextChart returns a checkout of the next version's manifests.
func (s *story) nextChart() (dir string) {
	s.Helper()
	dir = s.temporary()
	s.types(checkout, "cp --recursive manifests "+dir+`
sed --in-place 's/^appVersion: `+thisVersion+`$/appVersion: `+nextVersion+`/' `+dir+"/manifests/chart/Chart.yaml")
	return dir
}

// temporary makes a directory that goes at the end of the test.
func (s *story) temporary() (dir string) {
	s.Helper()
	dir, err := os.MkdirTemp("", "checkout-")
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// runs demands that node plugins and controllers have the image of a version, and that the programs in them are that
// build.
func (s *story) runs(version string) {
	s.Helper()
	want := nextTag
	if version == thisVersion {
		want = versionIn(s.types(checkout, "bin/mayfly version"))
		if want == nextTag {
			s.Fatalf("both builds are %s", want)
		}
	}
	pods, err := shared.Client.CoreV1().Pods(mayfly).List(s.Context(), metav1.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	for _, pod := range pods.Items {
		if pod.DeletionTimestamp != nil {
			continue
		}
		container := pod.Spec.Containers[0]
		if !strings.HasSuffix(container.Image, ":"+version) {
			s.Errorf("pod %s has the image %s, want %s", pod.Name, container.Image, version)
		}
		err := eventually(s.Context(), fmt.Sprintf("pod %s to run %s", pod.Name, want), func(ctx context.Context) error {
			out, err := shared.Kubectl(ctx, "--namespace", mayfly, "exec", pod.Name, "--", "/"+container.Name, "version")
			if got := versionIn(out); err == nil && got != want {
				err = fmt.Errorf("it runs %s", got)
			}
			return err
		})
		if err != nil {
			s.Error(err)
		}
	}
}

// versionIn returns the version of what `mayfly version` prints.
func versionIn(text string) string {
	_, after, _ := strings.Cut(text, "version: ")
	version, _, _ := strings.Cut(after, "\n")
	return version
}
