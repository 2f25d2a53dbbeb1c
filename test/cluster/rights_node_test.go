package cluster_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	cmclient "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/certmanager"
	"github.com/mayfly-csi/mayfly/signer/podcertificate"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// lists has a binary list before it watches, as it does where the API server can't begin a watch with a list (k8s.io/client-go features, WatchListClient): this one
// can, and nobody would miss the right to list.
const lists = "KUBE_FEATURE_WatchListClient=false"

// nodePluginsRights are the rights of the node plugin that asks as itself, and those of the options.
func nodePluginsRights() map[string]func(*loss) {
	return map[string]func(*loss){
		"rbac.yaml: create certificaterequests.cert-manager.io": unmounted(nil, "request denied: create CertificateRequest"),
		"rbac.yaml: get certificaterequests.cert-manager.io":    unread,
		"rbac.yaml: watch certificaterequests.cert-manager.io":  unwatched,
		"rbac.yaml: delete certificaterequests.cert-manager.io": undeleted,
		"rbac.yaml: list clustertrustbundles.certificates.k8s.io": unmounted([]string{lists},
			"trust source cluster-trust-bundle:no-such: ", "trust=cluster-trust-bundle:no-such"),
		"rbac.yaml: watch clustertrustbundles.certificates.k8s.io": unfollowed("cluster-trust-bundle:%s"),
		"rbac.yaml: create events":                                 untold,

		"options/config-maps.yaml: list configmaps": unmounted([]string{lists},
			"(manifests/options/config-maps.yaml grants it)", "trust=config-map:no-such/ca.crt"),
		"options/config-maps.yaml: watch configmaps":     unfollowed("config-map:corp-ca/ca.crt"),
		"options/profiles.yaml: list configmaps mayfly":  profiles([]string{lists}),
		"options/profiles.yaml: watch configmaps mayfly": profiles(nil),
		"options/read-pods.yaml: list pods":              unmounted([]string{lists}, "read pod ", "ip-sans=${POD_IP}", "continue-on-not-ready=false"),
		"options/read-pods.yaml: watch pods":             unmounted(nil, "read pod ", "ip-sans=${POD_IP}", "continue-on-not-ready=false"),
	}
}

// plugin is a node whose plugin has lost the right.
func (l *loss) plugin(env []string) *node {
	l.Helper()
	n := idleNode(l.T, namespace(l.T))
	files := []string{l.pluginFile()}
	if l.right.file != files[0] {
		files = append(files, l.right.file)
	}
	n.kubeconfig, n.env = l.kubeconfig(n.namespace, files...), env
	return n
}

// unmounted: a volume with the attributes gets no certificate, and the kubelet makes a FailedMount event of the words.
func unmounted(env []string, want string, attributes ...string) func(*loss) {
	return func(l *loss) {
		n := l.plugin(env)
		n.start()
		l.fails(n, n.pod("web", attributes...), want)
	}
}

func (l *loss) fails(n *node, v kubelet.Volume, want string) {
	l.Helper()
	var err error
	defer func() {
		if l.Failed() {
			l.Log(err)
		}
	}()
	until(l.T, "the volume is not mounted, as "+want, func() bool {
		ctx, cancel := context.WithTimeout(l.Context(), 8*time.Second) // The driver answers three seconds before.
		defer cancel()
		_, err = n.Publish(ctx, n.driver, v)
		return err != nil && !kubelet.Final(err) && has(err.Error(), []string{want, l.cannot()})
	})
	n.unpublish(v)
}

// unread: what was asked before is not found again, neither after a time-out nor after a restart.
func unread(l *loss) {
	n := l.plugin(nil)
	n.start()
	v := n.pod("web", "issuer-name=nobody")
	until(l.T, "the request", func() bool {
		ctx, cancel := context.WithTimeout(l.Context(), time.Second)
		defer cancel()
		_, err := n.Publish(ctx, n.driver, v)
		return err != nil && len(n.requests()) > 0
	})
	l.fails(n, v, "request denied: read CertificateRequest")
}

// undeleted: requests stay until their pods go.
func undeleted(l *loss) {
	n := l.plugin(nil)
	n.start()
	v := n.pod("web")
	n.publish(v)
	l.reads(n.log, "a finished request was not removed", l.cannot())
	if len(n.requests()) == 0 {
		l.Error("it was removed")
	}
	n.unpublish(v)
}

// unfollowed: the pod has the CA certificates that were there when it came, and gets others late: the operator reads why.
func unfollowed(source string) func(*loss) {
	return func(l *loss) {
		n := l.plugin(nil)
		if source == "config-map:corp-ca/ca.crt" {
			if err := putConfigMap(l.Context(), n.namespace, root(l.T, "one")); err != nil {
				l.Fatal(err)
			}
		} else {
			source = fmt.Sprintf(source, n.namespace)
			if err := putBundle(l.Context(), bundle(n.namespace, root(l.T, "one"))); err != nil {
				l.Fatal(err)
			}
		}
		n.start()
		v := n.pod("web", "trust="+source)
		n.publish(v)
		l.reads(n.log, "Failed to watch", l.cannot())
		n.unpublish(v)
	}
}

// untold: a pod that starts without its certificate is not told why; the operator is.
func untold(l *loss) {
	n := l.plugin(nil)
	n.start()
	v := n.pod("web", "ip-sans=${POD_IP}", "continue-on-not-ready=true")
	if _, err := n.Publish(l.Context(), n.driver, v); err != nil {
		l.Fatal(err)
	}
	l.reads(n.log, "an Event was not sent", l.cannot())
	n.unpublish(v)
}

// profiles: no volume is mounted where they can't be read; where they can't be watched, what they were counts, and the operator reads why. The controller has the
// same right by the same role, and reads by the same code.
func profiles(env []string) func(*loss) {
	return func(l *loss) {
		n := l.plugin(env)
		n.args = append(n.args, "--config-map="+n.namespace+"/mayfly")
		n.configMap(map[string]string{"issuer-name": "ca"})
		n.start()
		if len(env) > 0 {
			l.fails(n, n.pod("web"), "read the driver's profiles from ConfigMap "+n.namespace+"/mayfly: ")
			return
		}
		v := n.pod("web")
		n.publish(v)
		l.reads(n.log, "the profiles can't be read again: what was known counts", l.cannot())
		n.unpublish(v)
	}
}

// nodesRights are the rights of the node plugin that asks as its node.
func nodesRights() map[string]func(*loss) {
	const (
		file = "modes/pod-certificate/node.yaml: "
		as   = file + "impersonate-on:associated-node:"
	)
	return map[string]func(*loss){
		file + "impersonate:associated-node nodes.authentication.k8s.io": unaskedByTheNode,
		as + "create podcertificaterequests.certificates.k8s.io":         unaskedByTheNode,
		as + "get nodes":           unaskedByTheNode,
		as + "get serviceaccounts": unaskedByTheNode,
		as + "list podcertificaterequests.certificates.k8s.io":  unreadByTheNode,
		as + "watch podcertificaterequests.certificates.k8s.io": unwatchedByTheNode,
		as + "list pods":  unmountedByTheNode([]string{lists}, "read pod ", "ip-sans=${POD_IP}", "continue-on-not-ready=false"),
		as + "watch pods": unmountedByTheNode(nil, "read pod ", "ip-sans=${POD_IP}", "continue-on-not-ready=false"),
		file + "list clustertrustbundles.certificates.k8s.io": unlisted, file + "watch clustertrustbundles.certificates.k8s.io": unlisted,
		file + "create events": untoldByTheNode,
	}
}

// fleet is one whose node plugins have lost the right.
func (l *loss) fleet() *fleet {
	l.Helper()
	return newFleet(l.T, without(l.right.rule.Resources[0], l.right.verb))
}

const lacks = ": the node plugin lacks this right of manifests/modes/pod-certificate/node.yaml"

func unaskedByTheNode(l *loss) {
	f := l.fleet()
	s, of := f.signerOf(f.plugin(f.nodes[0]), f.nodes[0]), f.pod("web", f.nodes[0], "default")
	f.refused(f.eventually(s, of, l.cannot()), signer.Denied, lacks)
}

func unreadByTheNode(l *loss) {
	f := l.fleet()
	s, of := f.signerOf(f.plugin(f.nodes[0]), f.nodes[0]), f.pod("web", f.nodes[0], "default")
	f.refused(f.eventually(s, of, "waiting for mayfly-controller"), signer.NotYet)
	req := f.request(of)
	_, err := s.Sign(brief(l.T), req)
	f.refused(err, signer.NotYet)
	_, err = s.Sign(brief(l.T), req)
	f.refused(err, signer.Denied, l.cannot(), lacks)
}

// unwatchedByTheNode is as unwatched.
func unwatchedByTheNode(l *loss) {
	f := l.fleet()
	of := f.pod("web", f.nodes[0], "default")
	config, seen := f.plugin(f.nodes[0]), &watched{}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		seen.RoundTripper = next
		return seen
	})
	f.serve(&playedController{})
	f.ready(f.signerOf(config, f.nodes[0]), of)
	seen.refused(l.T)
}

// refused demands that every watch was.
func (w *watched) refused(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.codes) == 0 || slices.ContainsFunc(w.codes, func(c int) bool { return c != http.StatusForbidden }) {
		t.Errorf("watches were answered with %v", w.codes)
	}
}

func unmountedByTheNode(env []string, want string, attributes ...string) func(*loss) {
	return func(l *loss) {
		f := l.fleet()
		n := f.idle()
		n.env = env
		n.start()
		l.fails(n, f.volume("web", attributes...), want)
	}
}

// unlisted: nobody misses the right while Kubernetes gives it to every service account (system:cluster-trust-bundle-discovery). Where that is gone it is as
// for the node plugin that asks as itself.
func unlisted(l *loss) {
	for _, r := range rolesOf(l.T, "rbac.yaml")[0].rights {
		if r.resource == l.right.resource && r.verb == l.right.verb {
			return
		}
	}
	l.Errorf("%s is in no row of rbac.yaml", l.right)
}

func untoldByTheNode(l *loss) {
	f := l.fleet()
	f.serve(&playedController{})
	n := f.idle("--watch-pods")
	n.start()
	v := f.volume("web")
	n.publish(v)
	n.annotate(v, "now")
	l.reads(n.log, "an Event was not sent", l.cannot())
	n.unpublish(v)
}

// unaskedOfOurSigner: the right is the nodes' own, and all nodes' at once.
func unaskedOfOurSigner(l *loss) {
	if _, err := shared.Kubectl(l.Context(), "delete", "--ignore-not-found", "clusterrole,clusterrolebinding", "mayfly-nodes"); err != nil {
		l.Fatal(err)
	}
	nodesWithoutTheirRight(l.T)
	nodesMayAsk(l.T)
}

// allNodesRights is what the nodes themselves get: without it no row of nodesRights holds.
func allNodesRights() map[string]func(*loss) {
	return map[string]func(*loss){
		"modes/pod-certificate/node.yaml: request-serviceaccounts-podcertificate-signer csi.mayfly.dev:volume.certificates.k8s.io": unaskedOfOurSigner,
	}
}

// podsRights are those of options/token-request, where the pod asks and the node plugin does all else.
func podsRights() map[string]func(*loss) {
	const file = "options/token-request/rbac.yaml: "
	return map[string]func(*loss){
		file + "get certificaterequests.cert-manager.io":                                   unreadInPodsName,
		file + "watch certificaterequests.cert-manager.io":                                 unwatched,
		file + "delete certificaterequests.cert-manager.io":                                unforgotten,
		file + "list clustertrustbundles.certificates.k8s.io":                              unlisted,
		file + "watch clustertrustbundles.certificates.k8s.io":                             unlisted,
		file + "create events":                                                             untold,
		"options/token-request/workloads.yaml: create certificaterequests.cert-manager.io": unaskedByThePod,
	}
}

// asker is the signer of a node plugin that has lost the right, and a request of a pod that has all of its own.
func (l *loss) asker() (*certmanager.Signer, *watched, signer.Request) {
	l.Helper()
	f := &fleet{T: l.T, namespace: namespace(l.T)}
	f.account("mayfly")
	of := f.pod("web", "node-a", "mayfly")
	if l.right.file != "rbac.yaml" {
		l.mayAsk(f.namespace)
	}
	config, err := clientcmd.BuildConfigFromFlags("", l.kubeconfig(f.namespace, l.pluginFile()))
	if err != nil {
		l.Fatal(err)
	}
	seen := &watched{}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		seen.RoundTripper = next
		return seen
	})
	s, err := certmanager.New(config)
	if err != nil {
		l.Fatal(err)
	}
	req := f.request(of)
	req.Issuer = signer.Issuer{Name: "ca", Kind: "Issuer", Group: "cert-manager.io"}
	if l.right.file != "rbac.yaml" {
		req.Token = signer.Token(f.token(&authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: of.Name, UID: types.UID(of.UID)}).BearerToken)
	}
	return s, seen, req
}

// pluginFile is the manifest of the node plugin's role.
func (l *loss) pluginFile() string {
	if strings.HasPrefix(l.right.file, "options/token-request/") {
		return "options/token-request/rbac.yaml"
	}
	return "rbac.yaml"
}

// mayAsk gives the service account mayfly of the namespace the rights of workloads, but the lost one.
func (l *loss) mayAsk(namespace string) {
	l.Helper()
	of := rolesOf(l.T, "options/token-request/workloads.yaml")[0]
	of.kind = "Role"
	l.grant("system:serviceaccount:"+namespace+":mayfly", namespace+"-workloads", namespace, of)
}

// unwatched: certificates come late, for they are asked for now and then, and the API server has more to do (docs/benchmarks.md): nobody is told.
func unwatched(l *loss) {
	s, seen, req := l.asker()
	if _, err := s.Sign(l.Context(), req); err != nil {
		l.Fatal(err)
	}
	seen.refused(l.T)
}

// unaskedByThePod: the pod's service account needs the right, and whose it is stands in the error.
func unaskedByThePod(l *loss) {
	s, _, req := l.asker()
	_, err := s.Sign(l.Context(), req)
	(&fleet{T: l.T}).refused(err, signer.Denied, "as service account "+req.Attempt.Pod.Namespace+"/mayfly: ", l.cannot())
}

func unreadInPodsName(l *loss) {
	s, _, req := l.asker()
	req.Issuer.Name = "nobody"
	until(l.T, "the request", func() bool {
		_, err := s.Sign(brief(l.T), req)
		return err != nil && strings.Contains(err.Error(), "read CertificateRequest") && strings.Contains(err.Error(), l.cannot())
	})
}

func unforgotten(l *loss) {
	s, _, req := l.asker()
	if _, err := s.Sign(l.Context(), req); err != nil {
		l.Fatal(err)
	}
	if err := s.Forget(l.Context(), req.Attempt); err == nil || !has(err.Error(), []string{"delete CertificateRequest", l.cannot()}) {
		l.Error(err)
	}
}

// stolenWatches is what a token sees by lists and watches of requests without names: all in mode driver, and in mode pod-certificate its node's alone.
func stolenWatches(t *testing.T) {
	config, err := clientcmd.BuildConfigFromFlags("", shared.plugin)
	if err != nil {
		t.Fatal(err)
	}
	driver, err := cmclient.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	w, err := driver.CertmanagerV1().CertificateRequests(metav1.NamespaceAll).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Errorf("mode driver: %v", err)
	} else {
		w.Stop()
	}
	f := newFleet(t, nil)
	a, b := f.nodes[0], f.nodes[1]
	plugin := f.plugin(a)
	f.mayBe(plugin, a)
	for _, row := range []struct {
		name, fields string
		as           *rest.Config
		want         bool
	}{
		{"its own node", "spec.nodeName=" + a, podcertificate.AsNode(plugin, a), true},
		{"another node", "spec.nodeName=" + b, podcertificate.AsNode(plugin, a), false},
		{"all nodes", "", podcertificate.AsNode(plugin, a), false},
		{"as another node", "spec.nodeName=" + b, podcertificate.AsNode(plugin, b), false},
		{"as itself", "", plugin, false},
	} {
		client, err := kubernetes.NewForConfig(row.as)
		if err != nil {
			t.Fatal(err)
		}
		w, err := client.CertificatesV1().PodCertificateRequests(metav1.NamespaceAll).Watch(t.Context(), metav1.ListOptions{FieldSelector: row.fields})
		if row.want != (err == nil) || !row.want && !apierrors.IsForbidden(err) {
			t.Errorf("mode pod-certificate, %s: %v", row.name, err)
		}
		if err == nil {
			w.Stop()
		}
		if list, err := client.CertificatesV1().PodCertificateRequests(metav1.NamespaceAll).List(t.Context(), metav1.ListOptions{FieldSelector: row.fields}); row.want != (err == nil) {
			t.Errorf("mode pod-certificate, a list of %s: %d (%v)", row.name, len(list.Items), err)
		}
	}
	itself, err := cmclient.NewForConfig(plugin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := itself.CertmanagerV1().CertificateRequests(metav1.NamespaceAll).Watch(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("mode pod-certificate, CertificateRequests: %v", err)
	}
}

// mayBe waits until the node plugin may be its node.
func (f *fleet) mayBe(plugin *rest.Config, node string) {
	f.Helper()
	of := f.pod("web", node, "default")
	f.refused(f.eventually(f.signerOf(plugin, node), of, "waiting for mayfly-controller"), signer.NotYet)
}
