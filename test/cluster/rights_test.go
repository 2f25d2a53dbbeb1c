package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// A right is one verb on one resource that a role of the manifests grants.
type right struct {
	file, resource, verb string
	rule                 rbacv1.PolicyRule // That right alone.
}

// String is "rbac.yaml: create certificaterequests.cert-manager.io", with the names that it is bound to at the end.
func (r right) String() string {
	return strings.Join(append([]string{r.file + ": " + r.verb, r.resource}, r.rule.ResourceNames...), " ")
}

// A role is a Role or a ClusterRole of the manifests.
type role struct {
	kind, name string
	rights     []right
}

// rolesOf are the roles of a manifest.
func rolesOf(t *testing.T, file string) (all []role) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "manifests", file))
	if err != nil {
		t.Fatal(err)
	}
	for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var o rbacv1.ClusterRole // A Role has the same fields.
		if err := yaml.Unmarshal(document, &o); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if o.Kind == "Role" || o.Kind == "ClusterRole" {
			r := role{kind: o.Kind, name: o.Name}
			for _, rule := range o.Rules {
				r.rights = append(r.rights, single(file, rule)...)
			}
			all = append(all, r)
		}
	}
	return all
}

// single are the rights of a rule.
func single(file string, rule rbacv1.PolicyRule) (all []right) {
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				one := rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, ResourceNames: rule.ResourceNames, Verbs: []string{verb}}
				all = append(all, right{file, strings.TrimSuffix(resource+"."+group, "."), verb, one})
			}
		}
	}
	return all
}

// granted are all rights of the manifests.
func granted(t *testing.T) map[string]right {
	t.Helper()
	all, root := map[string]right{}, filepath.Join("..", "..", "manifests")
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if path == filepath.Join(root, "chart") { // Its templates: the install files have what they render.
			return fs.SkipDir
		}
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		file, err := filepath.Rel(root, path)
		for _, role := range rolesOf(t, file) {
			for _, r := range role.rights {
				if _, twice := all[r.String()]; twice {
					t.Errorf("%s is granted twice", r)
				}
				all[r.String()] = r
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestRights takes each right of the manifests away, alone, and shows what breaks and what the pod's author or the operator reads. A right without a row fails the
// test, and so does one that nobody misses.
func TestRights(t *testing.T) {
	all := granted(t)
	tables := []map[string]func(*loss){nodePluginsRights(), podsRights(), allNodesRights(), nodesRights(), deciderRights(), signerRights()}
	rows := map[string]func(*loss){}
	for _, table := range tables {
		maps.Copy(rows, table)
	}
	for name := range all {
		if rows[name] == nil {
			t.Errorf("there is no row for %s", name)
		}
	}
	for name := range rows {
		if _, ok := all[name]; !ok {
			t.Errorf("no manifest grants %s", name)
		}
	}
	lose(t, "mode driver", all, tables[0])
	lose(t, "token requests", all, tables[1])
	lose(t, "nodes", all, tables[2])
	lose(t, "mode pod-certificate", all, tables[3])
	t.Run("what watches show", stolenWatches)
	byHand(t, func() { // The controller decides, not cert-manager's approver.
		prepareControllers(t)
		lose(t, "controller", all, tables[4])
		lose(t, "signing controller", all, tables[5])
	})
}

// lose runs the rows of a table.
func lose(t *testing.T, name string, all map[string]right, table map[string]func(*loss)) {
	t.Run(name, func(t *testing.T) {
		for _, right := range slices.Sorted(maps.Keys(table)) {
			t.Run(strings.NewReplacer("/", "_", ": ", " ").Replace(right), func(t *testing.T) {
				if name != "signing controller" { // There is one bundle of the own CA.
					t.Parallel()
				}
				table[right](&loss{T: t, right: all[right]})
			})
		}
	})
}

// A loss is a test of who has all rights of some manifests but one.
type loss struct {
	*testing.T
	right right

	unrecorded bool // The controller keeps no audit record: it has no Role of controller/rbac.yaml.
}

// Context ends before the test binary's time is over: what waits for ever fails by itself.
func (l *loss) Context() context.Context {
	ctx, cancel := context.WithTimeout(l.T.Context(), 3*time.Minute)
	l.Cleanup(cancel)
	return ctx
}

// kubeconfig is one for a user of the test's own, with the rights of the files but the lost one; those of Roles in the namespace.
func (l *loss) kubeconfig(namespace string, files ...string) string {
	l.Helper()
	user := "rights-" + namespace
	for _, file := range files {
		for i, role := range rolesOf(l.T, file) {
			if l.unrecorded && file == "controller/rbac.yaml" && role.kind == "Role" {
				continue
			}
			l.grant(user, fmt.Sprintf("%s-%d-%s", user, i, strings.ReplaceAll(strings.TrimSuffix(file, ".yaml"), "/", "-")), namespace, role)
		}
	}
	text, err := shared.UserKubeconfig(user)
	if err != nil {
		l.Fatal(err)
	}
	return write(l.T, text)
}

// grant gives the user a role under another name, without the lost right, and waits until the API server knows of it.
func (l *loss) grant(user, name, namespace string, of role) {
	l.Helper()
	var rules []rbacv1.PolicyRule
	for _, r := range of.rights {
		if r.String() != l.right.String() {
			rules = append(rules, r.rule)
		}
	}
	if len(rules) == 0 {
		return
	}
	api, meta := shared.Client.RbacV1(), metav1.ObjectMeta{Name: name}
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}
	subjects := []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: user}}
	if _, err := api.ClusterRoles().Create(l.Context(), &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{}); err != nil {
		l.Fatal(err)
	}
	var err error
	if of.kind == "Role" {
		_, err = api.RoleBindings(namespace).Create(l.Context(), &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects}, metav1.CreateOptions{})
	} else {
		_, err = api.ClusterRoleBindings().Create(l.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects}, metav1.CreateOptions{})
	}
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		_ = api.ClusterRoles().Delete(context.Background(), name, metav1.DeleteOptions{})
		_ = api.ClusterRoleBindings().Delete(context.Background(), name, metav1.DeleteOptions{})
	})
	until(l.T, "the API server knows the rights", func() bool { return l.may(user, namespace, rules[len(rules)-1]) })
}

// may asks the API server whether the user has a right.
func (l *loss) may(user, namespace string, rule rbacv1.PolicyRule) bool {
	l.Helper()
	resource, sub, _ := strings.Cut(rule.Resources[0], "/")
	asked := &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: rule.Verbs[0], Group: rule.APIGroups[0], Resource: resource, Subresource: sub}
	if len(rule.ResourceNames) > 0 {
		asked.Name = rule.ResourceNames[0]
	}
	review, err := shared.Client.AuthorizationV1().SubjectAccessReviews().Create(l.Context(), &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: asked},
	}, metav1.CreateOptions{})
	if err != nil {
		l.Fatal(err)
	}
	return review.Status.Allowed
}

// cannot is how the API server says that the lost right is missing.
func (l *loss) cannot() string {
	resource, _, _ := strings.Cut(l.right.resource, ".")
	return fmt.Sprintf("cannot %s resource %q", l.right.verb, resource)
}

// reads waits until a log has the words in one line. Its values may be quoted.
func (l *loss) reads(log text, words ...string) {
	l.Helper()
	until(l.T, fmt.Sprintf("the log says %q", words), func() bool {
		for line := range strings.Lines(strings.ReplaceAll(log.String(), `\"`, `"`)) {
			if has(line, words) {
				return true
			}
		}
		return false
	})
}

func has(text string, words []string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
}
