package manifests_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
)

// TestEachObjectIsInOneFile: whoever deletes the objects of one file deletes none of another.
func TestEachObjectIsInOneFile(t *testing.T) {
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS("."), ".", func(path string, _ fs.DirEntry, err error) error {
		if path == "chart" { // Its templates: the install files have what they render.
			return fs.SkipDir
		}
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		for _, object := range objects(t, path) {
			key := keyOf(t, object)
			if other, ok := files[key]; ok && !takesTheName(path, object) && filepath.Dir(path) != "examples" {
				t.Errorf("%s is in %s and in %s", key, other, path)
			}
			files[key] = path
		}
		return nil
	})
	if err != nil || len(files) == 0 {
		t.Fatal(len(files), err)
	}
}

func keyOf(t *testing.T, object runtime.Object) string {
	t.Helper()
	o, err := meta.Accessor(object)
	if err != nil {
		t.Fatal(err)
	}
	return object.GetObjectKind().GroupVersionKind().Kind + " " + o.GetNamespace() + "/" + o.GetName()
}

// takesTheName reports whether the object can have no name of its own: a CSIDriver has that of its driver, and a patch that of what it changes.
func takesTheName(path string, object runtime.Object) bool {
	_, ok := object.(*storagev1.CSIDriver)
	return ok && path == tokenRequests+"csidriver.yaml" || path == "options/control-plane.yaml"
}
