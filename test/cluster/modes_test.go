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
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer/controller/proof"
)

const (
	podNameKey = "authentication.kubernetes.io/pod-name"
	podUIDKey  = "authentication.kubernetes.io/pod-uid"
	asPod      = "use-token-request=true"
)

// modePod: what manifests/modes/pod adds to the controller. cert-manager's own approver runs.
func modePod(t *testing.T) {
	dir := filepath.Join("..", "..", "manifests", "modes", "pod")
	files := []string{"--filename", filepath.Join(dir, "policies.yaml"), "--filename", filepath.Join(dir, "workloads.yaml")}
	t.Cleanup(func() {
		if _, err := shared.Kubectl(context.Background(), append([]string{"delete", "--ignore-not-found"}, files...)...); err != nil {
			t.Error(err)
		}
	})
	if _, err := shared.Kubectl(t.Context(), append([]string{"apply"}, files...)...); err != nil {
		t.Fatal(err)
	}
	s := newStage(t)
	s.mayAsk()
	probe := s.pod("probe", asPod)
	until(t, "the policies are in force", func() bool {
		cr := s.byPod(probe, "probe")
		cr.OwnerReferences = nil
		_, err := s.requestsOf(s.asker(probe)).Create(t.Context(), cr, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil
	})
	t.Run("requests", podRequests)
	t.Run("deletions", podDeletions)
	t.Run("decisions", podDecisions)
}

// What manifests/modes/pod leaves to the node plugin is for something. Without watch nothing fails: it reads again and again.
func TestWhatTheNodePluginNeedsInModePod(t *testing.T) {
	t.Parallel()
	for verb, row := range map[string]struct {
		issuer string
		calls  int
	}{"get": {"nobody", 2}, "delete": {"ca", 1}} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			role := &rbacv1.ClusterRole{}
			if err := document(filepath.Join("..", "..", "manifests", "modes", "pod", "rbac.yaml"), "ClusterRole", role); err != nil {
				t.Fatal(err)
			}
			role.Name = "mode-pod-without-" + verb
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
	if _, err := s.requestsOf(s.asker(pod)).Create(s.Context(), cr, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
}

func podRequests(t *testing.T) {
	s := newStage(t)
	s.mayAsk()
	pod, db := s.pod("web", asPod), s.pod("db", asPod)
	user, _ := caller(pod)
	const (
		noWho = "the request does not say who asks, as cert-manager's webhook records it"
		owner = "a pod that asks for certificates of Mayfly's volumes asks for itself alone, and its request must be owned by it"
	)
	// An account that may create requests for another reason, as cert-manager's own may.
	if _, err := shared.Kubectl(t.Context(), "--namespace", s.namespace, "create", "role", "create", "--verb=create", "--resource=certificaterequests.cert-manager.io"); err != nil {
		t.Fatal(err)
	}
	if _, err := shared.Kubectl(t.Context(), "--namespace", s.namespace, "create", "rolebinding", "create", "--role=create", "--serviceaccount="+s.namespace+":operator"); err != nil {
		t.Fatal(err)
	}
	operator := pod.DeepCopy()
	operator.Spec.ServiceAccountName = "operator"
	operatorUser, operatorExtra := caller(operator)
	for i, row := range []struct {
		name   string
		as     *rest.Config
		change func(*cmapi.CertificateRequest)
		want   string
	}{
		{"as it should be", s.asker(pod), func(*cmapi.CertificateRequest) {}, ""},
		{"no owner", s.asker(pod), func(cr *cmapi.CertificateRequest) { cr.OwnerReferences = nil }, owner},
		{"another pod as owner", s.asker(pod), func(cr *cmapi.CertificateRequest) {
			cr.OwnerReferences[0].Name, cr.OwnerReferences[0].UID = db.Name, db.UID
		}, owner},
		{"another name of the owner", s.asker(pod), func(cr *cmapi.CertificateRequest) { cr.OwnerReferences[0].Name = db.Name }, owner},
		{"another kind of owner", s.asker(pod), func(cr *cmapi.CertificateRequest) { cr.OwnerReferences[0].Kind = "ConfigMap" }, owner},
		{"two owners", s.asker(pod), func(cr *cmapi.CertificateRequest) {
			cr.OwnerReferences = append(cr.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: db.Name, UID: db.UID})
		}, owner},
		{"another pod is written down", s.asker(db), func(*cmapi.CertificateRequest) {}, noWho},
		{"nobody is written down", s.asker(pod), func(cr *cmapi.CertificateRequest) { cr.Spec.Username, cr.Spec.Extra = "", nil }, noWho},
		{"someone else in its name", shared.REST, func(*cmapi.CertificateRequest) {}, noWho},
		{"its account, from no pod", as(t, user, nil), func(cr *cmapi.CertificateRequest) { cr.Spec.Extra, cr.OwnerReferences = nil, nil }, ""},
		{"a pod that asks for something else", as(t, operatorUser, operatorExtra), func(cr *cmapi.CertificateRequest) {
			cr.Spec.Username, cr.OwnerReferences = operatorUser, nil
		}, ""},
	} {
		cr := s.byPod(pod, fmt.Sprintf("r%d", i))
		row.change(cr)
		_, err := s.requestsOf(row.as).Create(t.Context(), cr, metav1.CreateOptions{})
		s.refused(row.name, err, row.want)
	}
}

func podDeletions(t *testing.T) {
	s := newStage(t)
	s.mayAsk()
	const own = "Mayfly's node plugin may delete the requests of its own node alone"
	pod := s.pod("web", asPod)
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

func podDecisions(t *testing.T) {
	s := newStage(t)
	s.mayAsk()
	const only = "only mayfly-controller approves or denies what pods ask for themselves"
	pod, plain := s.pod("web", asPod), s.pod("plain")
	bad := s.byPod(pod, "bad")
	bad.Spec.Request = s.request(s.pod("db", asPod), "db").Spec.Request
	s.asks(pod, s.byPod(pod, "good"))
	s.asks(pod, bad)
	s.asks(plain, s.byPod(plain, "plain"))
	until(t, "an administrator is refused", func() bool {
		cr, err := shared.CertManager.CertmanagerV1().CertificateRequests(s.namespace).Get(t.Context(), "good", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		cr.Status.Conditions = append(cr.Status.Conditions, cmapi.CertificateRequestCondition{Type: cmapi.CertificateRequestConditionApproved, Status: cmmeta.ConditionTrue})
		_, err = s.requestsOf(shared.REST).UpdateStatus(t.Context(), cr, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) {
			return false
		}
		s.refused("an administrator approves", err, only)
		return true
	})
	end := control(t)
	s.decided("good", "Approved "+proof.Verified)
	if got := s.decided("bad", "Denied "+proof.NotTheVolumes); !strings.Contains(got, "the request is not what volume tls of pod web asks for: DNS names: ") {
		t.Error(got)
	}
	for _, of := range []string{"CertificateRequest bad", "Pod web"} {
		until(t, "an event of "+of, func() bool { return slices.Contains(s.events(), of+" "+proof.NotTheVolumes) })
	}
	end()
	if events := s.events(); slices.ContainsFunc(events, func(e string) bool { return !strings.HasSuffix(e, proof.NotTheVolumes) }) {
		t.Errorf("what is not denied is an event: %q", events)
	}
	// The controller leaves a pod alone that has no volume which asks as the pod. Without the policy, cert-manager's approver does not.
	if got, _ := s.decision("plain"); got != "" {
		t.Error(got)
	}
	if _, err := shared.Kubectl(t.Context(), "delete", "validatingadmissionpolicybinding", "mayfly-pod-decisions"); err != nil {
		t.Fatal(err)
	}
	s.decided("plain", "Approved cert-manager.io")
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
