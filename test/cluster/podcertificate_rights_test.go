package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/driver/pod"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/podcertificate"
)

// A node plugin gets nothing for pods of other nodes, nor does a token that is of no node.
func strangers(t *testing.T) {
	f := newFleet(t, nil)
	a, b := f.nodes[0], f.nodes[1]
	ours, theirs := f.pod("web", a, "default"), f.pod("db", b, "default")
	f.account("other")
	apart := f.pod("api", b, "other")
	f.serve(&playedController{})
	config := f.plugin(a)
	s := f.signerOf(config, a)
	f.ready(s, ours)
	for name, row := range map[string]struct {
		s    *podcertificate.Signer
		of   signer.Pod
		kind signer.Kind
		want string
	}{
		"another node's pod": {s, theirs, signer.Denied, fmt.Sprintf(`is forbidden: pod %q is not running on node %q named in the PodCertificateRequest`, f.namespace+"/db", a)},
		"another node's pod with a service account that no pod of this node has": {
			s, apart, signer.Denied, fmt.Sprintf(`read service account %s/other: serviceaccounts "other" is forbidden: User "system:node:%s" cannot get resource "serviceaccounts"`, f.namespace, a),
		},
		"another node":                     {f.signerOf(config, b), theirs, signer.Denied, "a token that is bound to a pod on node " + b + " may impersonate it, and no other"},
		"a token that is bound to nothing": {f.signerOf(f.token(nil), a), ours, signer.Denied, "a token that is bound to a pod on node " + a + " may impersonate it, and no other"},
		"a pod that is gone":               {s, signer.Pod{Namespace: f.namespace, Name: "gone", UID: "1", ServiceAccount: "default"}, signer.Unavailable, `while retrieving pod "` + f.namespace + `/gone"`},
		"another pod of the name":          {s, signer.Pod{Namespace: f.namespace, Name: "web", UID: "1", ServiceAccount: "default"}, signer.Unavailable, "which differs from running pod"},
		"another service account":          {s, signer.Pod{Namespace: f.namespace, Name: "web", UID: ours.UID, ServiceAccount: "mayfly"}, signer.Denied, "that differs from running pod"},
	} {
		_, err := row.s.Sign(brief(t), f.request(row.of))
		if f.refused(err, row.kind, row.want); t.Failed() {
			t.Log(name)
		}
	}
	plain, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	_, err = plain.CertificatesV1().PodCertificateRequests(f.namespace).Create(t.Context(), &certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Name: "plain"}}, metav1.CreateOptions{})
	if want := fmt.Sprintf(`User "system:serviceaccount:%s:mayfly" cannot create resource "podcertificaterequests"`, f.namespace); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("without impersonation: %v", err)
	}
}

// without takes a verb on a resource out of a rule.
func without(resource, verb string) func(*rbacv1.PolicyRule) {
	return func(r *rbacv1.PolicyRule) {
		if !slices.Contains(r.Resources, resource) || !slices.Contains(r.Verbs, verb) {
			return
		}
		if len(r.Verbs) == 1 {
			r.Resources = slices.DeleteFunc(r.Resources, func(s string) bool { return s == resource })
			return
		}
		r.Verbs = slices.DeleteFunc(r.Verbs, func(s string) bool { return s == verb })
	}
}

// watched notes the answers to watches.
type watched struct {
	http.RoundTripper
	mu    sync.Mutex
	codes []int
}

func (w *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := w.RoundTripper.RoundTrip(r)
	if err == nil && r.URL.Query().Get("watch") != "" {
		w.mu.Lock()
		w.codes = append(w.codes, response.StatusCode)
		w.mu.Unlock()
	}
	return response, err
}

// podsOfTheNode: a node plugin reads the pods of its node as the node, and no others.
func podsOfTheNode(t *testing.T) {
	f := newFleet(t, nil)
	a, b := f.nodes[0], f.nodes[1]
	ours, theirs := f.pod("web", a, "default"), f.pod("db", b, "default")
	config := podcertificate.AsNode(f.plugin(a), a)
	f.eventuallyReads(config, ours, "")
	f.eventuallyReads(config, theirs, fmt.Sprintf(`pods "db" is forbidden: User "system:node:%s" cannot list resource "pods"`, a))
	for node, want := range map[string]string{a: "seen", b: fmt.Sprintf(`User "system:node:%s" cannot list resource "pods"`, a)} {
		if got := f.renewals(config, node); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", node, got, want)
		}
	}
	reader, err := pod.New(config, a)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the annotation", func() bool {
		at, invalid, err := reader.RenewAt(t.Context(), ours)
		return err == nil && invalid == nil && at.Equal(time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC))
	})
	if at, _, err := reader.RenewAt(t.Context(), theirs); err == nil || !at.IsZero() {
		t.Errorf("the annotation of another node's pod: %s (%v)", at, err)
	}
	f = newFleet(t, without("pods", "impersonate-on:associated-node:watch"))
	f.eventuallyReads(podcertificate.AsNode(f.plugin(f.nodes[0]), f.nodes[0]), f.pod("web", f.nodes[0], "default"), `cannot impersonate-on:associated-node:watch resource "pods"`)
}

// eventuallyReads waits until reading a pod that will never be ready ends with an error; an empty one: it is read.
func (f *fleet) eventuallyReads(config *rest.Config, of signer.Pod, want string) {
	f.Helper()
	reader, err := pod.New(config, "")
	if err != nil {
		f.Fatal(err)
	}
	never := errors.New("it is never ready")
	until(f.T, "reading pod "+of.Name+" says "+want, func() bool {
		_, err := reader.Await(brief(f.T), of, func(volume.PodState) error { return never })
		return err != nil && (want != "" && strings.Contains(err.Error(), want) || want == "" && errors.Is(err, never))
	})
}

// renewals is what is seen of a node's pods when one of each node is annotated: an error, or "seen".
func (f *fleet) renewals(config *rest.Config, node string) (seen string) {
	f.Helper()
	reader, err := pod.New(config, node)
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"web", "db"} {
		patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"2026-01-31T12:00:00Z"}}}`, pod.RenewAt)
		if _, err := shared.Client.CoreV1().Pods(f.namespace).Patch(f.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			f.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(f.Context(), 30*time.Second)
	defer cancel()
	told := make(chan string, 16)
	tell := func(text string) {
		told <- text
		cancel()
	}
	if err := reader.Renewals(ctx, func(p signer.Pod, _ time.Time, _ error) { tell("seen " + p.Name) }, func(err error) { tell(err.Error()) }); err != nil {
		f.Fatal(err)
	}
	select {
	case seen = <-told:
	default:
	}
	return seen
}

// podCertificatePolicy: who is no node asks for nothing, whatever rights they have.
func podCertificatePolicy(t *testing.T) {
	if _, err := shared.Kubectl(t.Context(), "apply", "-f", modeFile("policies.yaml")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = shared.Kubectl(context.Background(), "delete", "-f", modeFile("policies.yaml")) })
	f := newFleet(t, nil)
	node := f.nodes[0]
	of := f.pod("web", node, "default")
	ask := func(config *rest.Config, signerName string) error {
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		wanted := f.request(of)
		_, err = client.CertificatesV1().PodCertificateRequests(f.namespace).Create(t.Context(), &certificatesv1.PodCertificateRequest{
			ObjectMeta: metav1.ObjectMeta{Name: podcertificate.ObjectName(wanted.Attempt)},
			Spec: certificatesv1.PodCertificateRequestSpec{
				SignerName: signerName, PodName: of.Name, PodUID: types.UID(of.UID), ServiceAccountName: "default", ServiceAccountUID: "1",
				NodeName: types.NodeName(node), NodeUID: "1", StubPKCS10Request: wanted.CSR,
			},
		}, metav1.CreateOptions{})
		return err
	}
	named := as(t, "system:node:"+node, nil) // The name of a node, with an administrator's rights, and not a node's group.
	named.Impersonate.Groups = append(named.Impersonate.Groups, "system:masters")
	const only = "only the node that is named in it asks for a certificate of Mayfly"
	until(t, "the policy is in force", func() bool { return ask(shared.REST, "csi.mayfly.dev/volume") != nil })
	for _, row := range []struct {
		name, signer, want string
		as                 *rest.Config
	}{
		{"an administrator", "csi.mayfly.dev/volume", only, shared.REST},
		{"an administrator, of another signer of ours", "csi.mayfly.dev/other", only, shared.REST},
		{"an administrator, of someone else's signer", "example.org/volume", "", shared.REST},
		{"the name of a node without its group", "csi.mayfly.dev/volume", only, named},
	} {
		if err := ask(row.as, row.signer); row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %s", row.name, err, row.want)
		}
	}
	f.serve(&playedController{})
	f.ready(f.signerOf(f.plugin(node), node), of)
}
