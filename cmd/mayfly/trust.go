package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// A trustFile is one of the values of --trust-file.
type trustFile struct{ name, path string }

// String returns name=path.
func (f trustFile) String() string { return f.name + "=" + f.path }

func readTrustFile(text string) (trustFile, error) {
	name, path, ok := strings.Cut(text, "=")
	switch {
	case !ok:
		return trustFile{}, errors.New("<name>=<path> is needed")
	case len(validation.IsDNS1123Label(name)) > 0:
		return trustFile{}, fmt.Errorf("the name %q: %s", name, validation.IsDNS1123Label(name)[0])
	case !filepath.IsAbs(path) || filepath.Clean(path) != path:
		return trustFile{}, fmt.Errorf("%s=%s: a clean absolute path is needed", name, path)
	}
	return trustFile{name, path}, nil
}

// trustFiles returns the paths by their names.
func (o *options) trustFiles() map[string]string {
	paths := map[string]string{}
	for _, f := range o.TrustFiles.Values {
		paths[f.name] = f.path
	}
	return paths
}
