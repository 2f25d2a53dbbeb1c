package main

import (
	"fmt"
	"os"
	"path/filepath"

	"helm.sh/helm/v4/pkg/chart/loader"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/util"
)

// writeChart writes the chart as `helm package` does. Its version has no v, as Helm has it; its appVersion, which is
// the tag of the images, has one.
func (s source) writeChart(out string) (file, error) {
	loaded, err := loader.Load(filepath.Join(s.Dir, "manifests", "chart"))
	if err != nil {
		return file{}, err
	}
	c, ok := loaded.(*chart.Chart)
	if !ok {
		return file{}, fmt.Errorf("the chart is a %T", loaded)
	}
	c.Metadata.Version, c.Metadata.AppVersion = s.number(), s.Version
	c.StampModTimes(s.Date)
	path, err := util.Save(c, out)
	if err != nil {
		return file{}, err
	}
	packed, err := os.ReadFile(path) // #nosec G304 -- It has just been written.
	return file{filepath.Base(path), digest(packed)}, err
}
