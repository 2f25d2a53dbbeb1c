// Command generate writes what comes from the chart: the install files of manifests, and the chart's own schema, list
// of values and alerts.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mayfly-csi/mayfly/test/chart"
)

func main() {
	repository := flag.String("repository", "../..", "the repository's directory")
	flag.Parse()
	if err := run(*repository); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run writes the chart's own files first: the others are rendered with them.
func run(repository string) error {
	manifests := filepath.Join(repository, "manifests")
	for path, text := range map[string]func(string) (string, error){
		"values.schema.json": chart.Schema, "files/values.txt": chart.Known, "files/alerts.yaml": chart.Alerts,
	} {
		content, err := text(repository)
		if err != nil {
			return err
		}
		if err := write(filepath.Join(manifests, "chart", path), content); err != nil {
			return err
		}
	}
	files, err := chart.InstallFiles(repository)
	if err != nil {
		return err
	}
	for path, text := range files {
		if err := write(filepath.Join(manifests, path), text); err != nil {
			return err
		}
	}
	return nil
}

func write(path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil { //nolint:gosec // All may read it.
		return fmt.Errorf("write what is generated: %w", err)
	}
	return nil
}
