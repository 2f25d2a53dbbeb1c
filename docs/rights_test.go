package docs_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// The table of security.md has every right of the manifests, and no other.
func TestRightsAreThoseOfTheManifests(t *testing.T) {
	text, err := os.ReadFile("security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "| Manifest | Resource | Verbs |")
	_, after, _ = strings.Cut(after, "\n")
	rows := map[string]string{}
	for line := range strings.Lines(after) {
		if cells := strings.Split(line, " | "); len(cells) == 4 {
			rows[strings.Trim(cells[0], "| `")+" "+strings.Trim(cells[1], "`")] = cells[2]
		} else if !strings.HasPrefix(line, "|") && strings.TrimSpace(line) != "" {
			break
		}
	}
	for key, verbs := range grantedRights(t) {
		if want := strings.Join(verbs, ", "); rows[key] != want {
			t.Errorf("%s: the table has %q, the manifest %q", key, rows[key], want)
		}
		delete(rows, key)
	}
	for key := range rows {
		t.Errorf("no manifest grants what the table says of %s", key)
	}
}

// grantedRights are the verbs of each manifest and resource, in their order.
func grantedRights(t *testing.T) map[string][]string {
	t.Helper()
	all, root := map[string][]string{}, filepath.Join("..", "manifests")
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if path == filepath.Join(root, "chart") { // Its templates: the install files have what they render.
			return fs.SkipDir
		}
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
			var role rbacv1.ClusterRole
			if err := yaml.Unmarshal(document, &role); err != nil {
				return err
			}
			if role.Kind != "ClusterRole" && role.Kind != "Role" {
				continue
			}
			for _, rule := range role.Rules {
				for _, resource := range rule.Resources {
					key := strings.TrimPrefix(path, root+"/") + " " + resource
					for _, verb := range rule.Verbs {
						if !slices.Contains(all[key], verb) {
							all[key] = append(all[key], verb)
						}
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
