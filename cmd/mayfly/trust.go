package main

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// trustFiles are the values of --trust-file: paths by names.
type trustFiles struct {
	paths map[string]string
	over  bool // What comes next replaces what was given: the command line, the environment.
}

// String is name=path, with commas between several.
func (t *trustFiles) String() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(t.paths)) {
		all = append(all, name+"="+t.paths[name])
	}
	return strings.Join(all, ",")
}

// Set adds files.
func (t *trustFiles) Set(value string) error {
	if t.paths == nil || t.over {
		*t = trustFiles{paths: map[string]string{}}
	}
	for _, word := range strings.Split(value, ",") {
		name, path, ok := strings.Cut(strings.TrimSpace(word), "=")
		_, taken := t.paths[name]
		switch {
		case !ok:
			return errors.New("<name>=<path> is needed")
		case len(validation.IsDNS1123Label(name)) > 0:
			return fmt.Errorf("the name %q: %s", name, validation.IsDNS1123Label(name)[0])
		case !filepath.IsAbs(path) || filepath.Clean(path) != path:
			return fmt.Errorf("%s=%s: a clean absolute path is needed", name, path)
		case taken:
			return fmt.Errorf("%q is given twice", name)
		}
		t.paths[name] = path
	}
	return nil
}
