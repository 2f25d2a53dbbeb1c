package cluster_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer/decide"
)

const (
	podNameKey = "authentication.kubernetes.io/pod-name"
	podUIDKey  = "authentication.kubernetes.io/pod-uid"
)

// tokenRequests: what pods ask for with tokens of their own, beside the controller.
func tokenRequests(t *testing.T) {
	file := filepath.Join("..", "..", "manifests", "options", "token-request", "workloads.yaml")
	t.Cleanup(func() {
		if _, err := shared.Kubectl(context.Background(), "delete", "--ignore-not-found", "--filename", file); err != nil {
			t.Error(err)
		}
	})
	if _, err := shared.Kubectl(t.Context(), "apply", "--filename", file); err != nil {
		t.Fatal(err)
	}
	t.Run("deletions", podDeletions)
	t.Run("decisions", podDecisions)
}

// What manifests/options/token-request leaves to the node plugin is for something. Without watch nothing fails: it reads again and again.
func TestWhatTheNodePluginNeedsWherePodsAsk(t *testing.T) {
	t.Parallel()
	for verb, row := range map[string]struct {
		issuer string
		calls  int
	}{"get": {"nobody", 2}, "delete": {"ca", 1}} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			role := &rbacv1.ClusterRole{}
			if err := document(filepath.Join("..", "..", "manifests", "options", "token-request", "rbac.yaml"), "ClusterRole", role); err != nil {
				t.Fatal(err)
			}
			role.Name = "token-request-without-" + verb
			role.Rules[0].Verbs = slices.DeleteFunc(role.Rules[0].Verbs, func(v string) bool { return v == verb })
			n := idleNode(t, namespace(t), "--use-token-request")
			n.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
			if err := userKubeconfig(t.Context(), n.kubeconfig, role, role.Name); err != nil {
				t.Fatal(err)
			}
			n.start()
			v, _ := n.podWithToken("web", "issuer-name="+row.issuer)
			n.mayAsk()
			var texts []string
			for range row.calls {
				ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
				_, err := n.Publish(ctx, n.driver, v)
				cancel()
				texts = append(texts, fmt.Sprint(err))
			}
			until(t, "the driver to miss the right", func() bool {
				return strings.Contains(strings.Join(texts, "\n")+n.log.String(), "cannot "+verb+" resource")
			})
			n.unpublish(v)
		})
	}
}

// mayAsk lets the pods of the namespace ask for themselves.
func (s *stage) mayAsk() {
	s.Helper()
	const role = "mayfly-ask-as-pod"
	_, err := shared.Client.RbacV1().RoleBindings(s.namespace).Create(s.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "default", Namespace: s.namespace}},
	}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
}

// caller is what the API server says of a pod that asks with a token of its own.
func caller(pod *corev1.Pod) (user string, extra map[string][]string) {
	return "system:serviceaccount:" + pod.Namespace + ":" + pod.Spec.ServiceAccountName,
		map[string][]string{podNameKey: {pod.Name}, podUIDKey: {string(pod.UID)}, nodeKey: {pod.Spec.NodeName}}
}

// asker is the API server for a pod.
func (s *stage) asker(pod *corev1.Pod) *rest.Config {
	s.Helper()
	user, extra := caller(pod)
	return as(s.T, user, extra)
}

// byPod is what the node plugin asks with the pod's token, with who asks written down.
func (s *stage) byPod(pod *corev1.Pod, name string) *cmapi.CertificateRequest {
	s.Helper()
	cr := s.request(pod, name)
	cr.Spec.Username, cr.Spec.Extra = caller(pod)
	return cr
}

// asks has the pod ask for itself.
func (s *stage) asks(pod *corev1.Pod, cr *cmapi.CertificateRequest) {
	s.Helper()
	until(s.T, "the pod may ask", func() bool {
		_, err := s.requestsOf(s.asker(pod)).Create(s.Context(), cr, metav1.CreateOptions{})
		if err != nil && !apierrors.IsForbidden(err) {
			s.Fatal(err)
		}
		return err == nil
	})
}

func podDeletions(t *testing.T) {
	s := newStage(t)
	s.mayAsk()
	const own = "Mayfly's node plugin may delete the requests of its own node alone"
	pod := s.pod("web")
	s.asks(pod, s.byPod(pod, "web"))
	s.refused("another node's", s.requestsOf(s.plugin("node-b")).Delete(t.Context(), "web", metav1.DeleteOptions{}), own)
	s.refused("by the pod", s.requestsOf(s.asker(pod)).Delete(t.Context(), "web", metav1.DeleteOptions{}), "cannot delete resource")
	s.refused("its own node's", s.requestsOf(s.plugin("node-a")).Delete(t.Context(), "web", metav1.DeleteOptions{}), "")
	cr := s.byPod(pod, "foreign")
	cr.OwnerReferences, cr.Spec.Extra = nil, map[string][]string{nodeKey: {"node-a"}}
	if _, err := s.requestsOf(as(t, cr.Spec.Username, cr.Spec.Extra)).Create(t.Context(), cr, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.refused("one that is for no pod", s.requestsOf(s.plugin("node-a")).Delete(t.Context(), "foreign", metav1.DeleteOptions{}), own)
}

// podDecisions: the controller decides on what the node plugin asks, and on nothing that a pod asks, whatever it is.
func podDecisions(t *testing.T) {
	s := newStage(t)
	s.mayAsk()
	pod := s.pod("web")
	bad := s.byPod(pod, "bad")
	bad.Spec.Request = s.request(s.pod("db"), "db").Spec.Request
	end := control(t)
	s.asks(pod, s.byPod(pod, "good"))
	s.asks(pod, bad)
	s.ask(pod, "plugins")
	s.decided("plugins", "Approved "+decide.Verified)
	for _, name := range []string{"good", "bad"} {
		s.decided(name, "Approved cert-manager.io")
	}
	end()
	if events := s.events(); len(events) > 0 {
		t.Errorf("the controller tells %q", events)
	}
}

// events are those of mayfly-controller: "Pod web NotTheVolumes".
func (s *stage) events() (all []string) {
	s.Helper()
	events, err := shared.Client.EventsV1().Events(s.namespace).List(s.Context(), metav1.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	for _, e := range events.Items {
		if e.ReportingController == "mayfly-controller" {
			all = append(all, fmt.Sprint(e.Regarding.Kind, " ", e.Regarding.Name, " ", e.Reason))
		}
	}
	return all
}
