package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// home is where the project lives. Documents name it.
const home = "https://github.com/mayfly-csi/mayfly"

// options say what is released.
type options struct {
	Repository    string
	Version       string
	Out           string
	Platforms     []string // Each OS/architecture.
	IgnoreChanges bool
}

// A file is one of the release, by its name and the SHA-256 of its bytes.
type file struct{ Name, Digest string }

// release writes the files of a release, and prints their digests. They are there whole or not at all.
func release(ctx context.Context, o options, to io.Writer) error {
	version, err := parseVersion(o.Version)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "mayfly-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	s, err := checkOut(ctx, o.Repository, version, filepath.Join(work, "source"), o.IgnoreChanges)
	if err != nil {
		return err
	}
	out := filepath.Join(o.Out, s.number())
	if err := os.MkdirAll(o.Out, 0o755); err != nil { // #nosec G301 -- It is for all.
		return err
	}
	unfinished, err := os.MkdirTemp(o.Out, ".unfinished-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(unfinished)
	if err := s.write(ctx, o.Platforms, work, unfinished, to); err != nil {
		return err
	}
	if err := os.Chmod(unfinished, 0o755); err != nil { // #nosec G302 -- It is for all.
		return err
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	return os.Rename(unfinished, out)
}

// write writes each file of the release to the directory out, with the directory work for what is on the way.
func (s source) write(ctx context.Context, platforms []string, work, out string, to io.Writer) error {
	built, err := s.build(ctx, platforms, filepath.Join(work, "programs"))
	if err != nil {
		return err
	}
	images, err := s.writeImages(built, out)
	if err != nil {
		return fmt.Errorf("write the images: %w", err)
	}
	chart, err := s.writeChart(out)
	if err != nil {
		return fmt.Errorf("write the chart: %w", err)
	}
	licences, err := s.writeLicences(ctx, filepath.Join(work, "licences"), out)
	if err != nil {
		return fmt.Errorf("write the licences: %w", err)
	}
	sbom, err := s.writeSBOM(images, chart, built, out)
	if err != nil {
		return fmt.Errorf("write the SBOM: %w", err)
	}
	files := []file{chart, licences, sbom}
	for _, i := range images {
		files = append(files, i.Archive)
	}
	provenance, err := s.writeProvenance(images, files, built, out)
	if err != nil {
		return fmt.Errorf("write the provenance: %w", err)
	}
	for _, i := range images {
		fmt.Fprintf(to, "image %s:%s@sha256:%s\n", i.Name, s.Version, i.Digest)
	}
	return writeSums(append(files, provenance), out, to)
}

// writeSums writes the checksums of files, in the form of sha256sum, and prints them.
func writeSums(files []file, out string, to io.Writer) error {
	var sums strings.Builder
	for _, f := range files {
		fmt.Fprintf(&sums, "%s  %s\n", f.Digest, f.Name)
	}
	if _, err := writeFile(out, "SHA256SUMS", []byte(sums.String())); err != nil {
		return err
	}
	_, err := io.WriteString(to, sums.String())
	return err
}

// writeFile writes a file of the release.
func writeFile(out, name string, content []byte) (file, error) {
	err := os.WriteFile(filepath.Join(out, name), content, 0o644) // #nosec G306 -- It is for all.
	return file{name, digest(content)}, err
}

// digest returns the SHA-256 of a content, in hexadecimal digits.
func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
