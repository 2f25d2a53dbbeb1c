package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// An auditEvent is a request in the API server's audit log (k8s.io/apiserver pkg/apis/audit/v1), which has those of Mayfly's service accounts alone.
type auditEvent struct {
	Verb       string
	RequestURI string
	UserAgent  string
	ReceivedAt time.Time `json:"requestReceivedTimestamp"`
	User       struct{ Username string }
	As         *struct{ Username string }                                        `json:"impersonatedUser"`
	Object     struct{ Resource, Subresource, APIGroup, Namespace, Name string } `json:"objectRef"`
	Response   struct{ Code int }                                                `json:"responseStatus"`
	Notes      map[string]string                                                 `json:"annotations"`
}

// decision is the authorizer's: allow or forbid. It is empty for a request that did not come so far: it waited too long for its turn, its client went away, or
// the impersonation was refused, which is forbidden, too.
func (e auditEvent) decision() string {
	decision := e.Notes["authorization.k8s.io/decision"]
	if decision == "" && e.Response.Code == http.StatusForbidden {
		return "forbid"
	}
	return decision
}

// right is "mayfly: create events", as the manifests would grant it.
func (e auditEvent) right() string {
	resource := e.Object.Resource
	if resource == "" {
		resource, _, _ = strings.Cut(e.RequestURI, "?")
	}
	if e.Object.Subresource != "" {
		resource += "/" + e.Object.Subresource
	}
	verb := e.Verb
	if e.As != nil {
		verb = "impersonate-on:associated-node:" + verb
	}
	return account(e.User.Username) + ": " + verb + " " + strings.TrimSuffix(resource+"."+e.Object.APIGroup, ".")
}

func account(user string) string { return user[strings.LastIndex(user, ":")+1:] }

// refusals are those that stories provoke: the right, and how the namespace begins. A driver or a controller whose role comes before or after its flags asks in vain
// for a while.
func refusals() map[string][]string {
	return map[string][]string{
		"mayfly: create certificaterequests.cert-manager.io": {
			"story-certificates-are-asked-for-as-the-node",      // The role of mode pod-certificate is there, and not yet its flag.
			"story-someone-has-the-token-of-a-driver-that-asks", // As before.
			"story-pods-ask-as-themselves",                      // The same of options/token-request.
		},
		"mayfly: list configmaps":  {"story-ca-certificates-change", "mayfly-system"}, // trustPushed, operated: the option comes, or goes, while volumes follow.
		"mayfly: watch configmaps": {"story-ca-certificates-change", "mayfly-system"},
		"mayfly: list pods":        {"story-"}, // podIP, operated: the option goes before the last of its pods.
		"mayfly: watch pods":       {"story-", ""},
	}
}

// powerless are the times in which Mayfly's service accounts may be refused everything, because a story has taken their rights or the API server does not
// know of them yet.
var powerless struct {
	sync.Mutex
	times []struct{ from, to time.Time }
}

// mayBeRefused begins such a time, which ends soon after the function that it returns is called: an API server takes note of roles in its own time.
func mayBeRefused() (end func()) {
	from := time.Now()
	return func() {
		powerless.Lock()
		defer powerless.Unlock()
		powerless.times = append(powerless.times, struct{ from, to time.Time }{from, time.Now().Add(10 * time.Second)})
	}
}

// provoked says whether a story has provoked a refusal.
func (e auditEvent) provoked() bool {
	powerless.Lock()
	defer powerless.Unlock()
	for _, window := range powerless.times {
		if !e.ReceivedAt.Before(window.from) && !e.ReceivedAt.After(window.to) {
			return true
		}
	}
	for _, namespace := range refusals()[e.right()] {
		if namespace == "" && e.Object.Namespace == "" || namespace != "" && strings.HasPrefix(e.Object.Namespace, namespace) {
			return true
		}
	}
	return false
}

// byKubernetes are the rights that Kubernetes gives everyone: to ask who one is, what there is, and for the CA certificates of the cluster.
const byKubernetes = "system:basic-user system:discovery system:cluster-trust-bundle-discovery"

// audited demands that since then Mayfly was refused nothing but what stories provoke, and used no right but those of the
// manifests; and returns those.
func audited(t *testing.T, since time.Time) (used map[string]bool) {
	t.Helper()
	used = map[string]bool{}
	eachAudited(t, func(e auditEvent) {
		thief := strings.HasPrefix(e.UserAgent, "e2e.test/") // Thieves are this process.
		if e.ReceivedAt.Before(since) || thief || e.decision() == "" {
			return
		}
		judge(t, e)
		used[e.right()] = true
		if e.As != nil {
			used[account(e.User.Username)+": impersonate:associated-node nodes.authentication.k8s.io"] = true
		}
	})
	return used
}

// eachAudited calls do for the requests of Mayfly so far.
func eachAudited(t *testing.T, do func(auditEvent)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(shared.Logs(), "control-plane", "audit*.log"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there is no audit log (%v)", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(text[:bytes.LastIndexByte(text, '\n')+1])) // The last one is being written.
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var e auditEvent
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				t.Fatal(err)
			}
			do(e)
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func judge(t *testing.T, e auditEvent) {
	t.Helper()
	reason := e.Notes["authorization.k8s.io/reason"]
	if e.decision() != "allow" {
		if e.provoked() {
			return
		}
		t.Errorf("refused in namespace %q at %s: %s", e.Object.Namespace, e.ReceivedAt, e.right())
		return
	}
	_, role, _ := strings.Cut(reason, `Role "`)
	role, _, _ = strings.Cut(role, `"`)
	if e.As == nil && !strings.HasPrefix(role, "mayfly") && !strings.Contains(byKubernetes, role) {
		t.Errorf("allowed, but not by the manifests: %s: %s", e.right(), reason)
	}
}

// unseen are rights that no story uses, or none that the audit log can tell of; test/cluster shows what breaks without each (TestRights).
func unseen(right string) bool {
	_, what, _ := strings.Cut(right, ": ")
	verb, resource, _ := strings.Cut(what, " ")
	switch {
	case verb == "list" || strings.HasSuffix(verb, ":list"): // This API server begins watches with lists.
		return true
	case resource == "signers.cert-manager.io" || resource == "signers.certificates.k8s.io": // Webhook and API server ask for it when the request is for something else.
		return true
	case verb == "patch" && resource == "events.events.k8s.io": // The same trouble twice, 15 seconds apart.
		return true
	}
	switch right {
	case "mayfly: get certificaterequests.cert-manager.io", // After a time-out or a restart, and of what takes more than a minute: unread, unreadInPodsName.
		"mayfly-controller: get nodes",                                                                           // ${POD_IP} under the controller: verdicts.
		"mayfly-controller: update secrets", "mayfly-controller: update clustertrustbundles.certificates.k8s.io", // A CA rotates once in a year: TestAuthority.
		"mayfly: impersonate-on:associated-node:watch pods": // podsOfTheNode.
		return true
	}
	return false
}

// everyRightUsed demands that the stories used every right that the manifests grant, but for those that are unseen.
func everyRightUsed(t *testing.T, used map[string]bool) {
	t.Helper()
	root := filepath.Join("..", "..", "manifests")
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if path == filepath.Join(root, "chart") { // Its templates: the install files have what they render.
			return fs.SkipDir
		}
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
			var role rbacv1.ClusterRole
			if err := yaml.Unmarshal(document, &role); err != nil {
				return err
			}
			if role.Kind != "ClusterRole" && role.Kind != "Role" || role.Name == "mayfly-nodes" || role.Name == "mayfly-ask-as-pod" { // Others' rights.
				continue
			}
			for _, right := range rightsOf(role) {
				if !used[right] && !unseen(right) {
					t.Errorf("no story used %s, which %s grants", right, path)
				}
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func rightsOf(role rbacv1.ClusterRole) (all []string) {
	who := "mayfly"
	if strings.HasPrefix(role.Name, "mayfly-controller") {
		who = "mayfly-controller"
	}
	for _, rule := range role.Rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					all = append(all, who+": "+verb+" "+strings.TrimSuffix(resource+"."+group, "."))
				}
			}
		}
	}
	return all
}
