package cluster_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	cmclient "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/test/forge"
)

const (
	pluginAccount     = "system:serviceaccount:mayfly-system:mayfly"
	controllerAccount = "system:serviceaccount:mayfly-system:mayfly-controller"
	nodeKey           = "authentication.kubernetes.io/node-name"
)

// TestController: what manifests/controller makes of a real API server. cert-manager's own approver runs, and would approve everything. There is no webhook
// of cert-manager's here: the tests write down who asks, as it does.
func TestController(t *testing.T) {
	manifests := filepath.Join("..", "..", "manifests")
	if _, err := shared.Kubectl(t.Context(), "apply", "-f", filepath.Join(manifests, "00-namespace.yaml"), "-f", filepath.Join(manifests, "controller")); err != nil {
		t.Fatal(err)
	}
	_, err := shared.Client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "mayfly-account"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "mayfly"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "mayfly", Namespace: "mayfly-system"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	shared.controller = controller(t)
	until(t, "the policies are in force", func() bool {
		s := newStage(t)
		cr := s.request(s.pod("web"), "probe")
		cr.OwnerReferences = nil
		return s.create(cr) != nil
	})
	t.Run("requests", requests)
	t.Run("changes", requestsThatChange)
	t.Run("deletions", deletions)
	t.Run("events", events)
	t.Run("decisions", decisions)
	t.Run("ranges of nodes", ranges)
	t.Run("verdicts", verdicts)
	t.Run("replicas", replicas)
	t.Run("mistakes in policies", mistakes)
	t.Run("policies", policies)
	t.Run("policy check", policyCheck)
	t.Run("admission check", admissionCheck)
	t.Run("token requests", tokenRequests)
	t.Run("changes of settings", settings)
	t.Run("audit record", auditRecord)
	t.Run("samples of the documents", samples)
	t.Run("no CRD", noCRD)
}

// A stage is a namespace in which node plugins ask.
type stage struct {
	*testing.T
	namespace string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	return &stage{t, namespace(t)}
}

// pod makes a pod object of node-a, which has no kubelet, with a volume: "dns-names=web.shop".
func (s *stage) pod(name string, attributes ...string) *corev1.Pod {
	s.Helper()
	all := map[string]string{"csi.mayfly.dev/issuer-name": "ca", "csi.mayfly.dev/dns-names": "${POD_NAME}.${POD_NAMESPACE}.svc"}
	for _, a := range attributes {
		key, value, _ := strings.Cut(a, "=")
		all["csi.mayfly.dev/"+key] = value
	}
	return s.podOn("node-a", name, all)
}

// podOn makes a pod object of a node that has no kubelet, with a volume of these attributes.
func (s *stage) podOn(node, name string, attributes map[string]string) *corev1.Pod {
	s.Helper()
	pod, err := shared.Client.CoreV1().Pods(s.namespace).Create(s.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			NodeName: node, ServiceAccountName: "default", Containers: []corev1.Container{{Name: "app", Image: "app"}},
			Volumes: []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: driverName, ReadOnly: new(true), VolumeAttributes: attributes}}}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return pod
}

// request is what the node plugin of the pod's node asks, with who asks written down.
func (s *stage) request(pod *corev1.Pod, name string) *cmapi.CertificateRequest {
	s.Helper()
	cr, err := forge.Request(pod, name)
	if err != nil {
		s.Fatal(err)
	}
	cr.Spec.Username, cr.Spec.Extra = pluginAccount, map[string][]string{nodeKey: {pod.Spec.NodeName}}
	return cr
}

// as is the API server for a user.
func as(t *testing.T, user string, extra map[string][]string) *rest.Config {
	t.Helper()
	config := rest.CopyConfig(shared.REST)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:authenticated"}, Extra: extra}
	return config
}

// requestsOf are the namespace's requests, for a user.
func (s *stage) requestsOf(config *rest.Config) interface {
	Create(context.Context, *cmapi.CertificateRequest, metav1.CreateOptions) (*cmapi.CertificateRequest, error)
	UpdateStatus(context.Context, *cmapi.CertificateRequest, metav1.UpdateOptions) (*cmapi.CertificateRequest, error)
	Delete(context.Context, string, metav1.DeleteOptions) error
} {
	s.Helper()
	client, err := cmclient.NewForConfig(config)
	if err != nil {
		s.Fatal(err)
	}
	return client.CertmanagerV1().CertificateRequests(s.namespace)
}

// plugin is the API server for the node plugin of a node; of none for an empty name.
func (s *stage) plugin(node string) *rest.Config {
	s.Helper()
	if node == "" {
		return as(s.T, pluginAccount, nil)
	}
	return as(s.T, pluginAccount, map[string][]string{nodeKey: {node}})
}

// create has the node plugin of node-a create the request.
func (s *stage) create(cr *cmapi.CertificateRequest) error {
	s.Helper()
	_, err := s.requestsOf(s.plugin("node-a")).Create(s.Context(), cr, metav1.CreateOptions{})
	return err
}

// refused demands that the API server refused something for a reason; an empty one: that it did not.
func (s *stage) refused(what string, err error, want string) {
	s.Helper()
	if want == "" && err != nil || want != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want)) {
		s.Errorf("%s:\n got %v\nwant %s", what, err, want)
	}
}

func requests(t *testing.T) {
	s := newStage(t)
	pod := s.pod("web")
	const (
		noNode = "the token of Mayfly's node plugin does not say on which node it runs"
		noWho  = "the request does not say who asks, as cert-manager's webhook records it"
		owners = "a request of Mayfly's node plugin must be owned by one pod and nothing else"
		blocks = "a request of Mayfly's node plugin has no finalizers, and does not keep its owner from being deleted"
		reads  = "issuers may read '%s', which a request of Mayfly's node plugin may not have"
	)
	for i, row := range []struct {
		name   string
		as     *rest.Config
		change func(*cmapi.CertificateRequest)
		want   string
	}{
		{"as it should be", s.plugin("node-a"), func(*cmapi.CertificateRequest) {}, ""},
		{"by a token without a node", s.plugin(""), func(*cmapi.CertificateRequest) {}, noNode},
		{"by a token without a node, and none is written down", s.plugin(""), func(cr *cmapi.CertificateRequest) { cr.Spec.Extra = nil }, noNode},
		{"by a token of an empty node", as(t, pluginAccount, map[string][]string{nodeKey: {""}}), func(*cmapi.CertificateRequest) {}, noNode},
		{"by a token of two nodes", as(t, pluginAccount, map[string][]string{nodeKey: {"node-a", "node-b"}}), func(*cmapi.CertificateRequest) {}, noNode},
		{"another node is written down", s.plugin("node-b"), func(*cmapi.CertificateRequest) {}, noWho},
		{"no node is written down", s.plugin("node-a"), func(cr *cmapi.CertificateRequest) { cr.Spec.Extra = nil }, noWho},
		{"nobody is written down", s.plugin("node-a"), func(cr *cmapi.CertificateRequest) { cr.Spec.Username = "" }, noWho},
		{"someone else is written down", s.plugin("node-a"), func(cr *cmapi.CertificateRequest) { cr.Spec.Username = "someone" }, noWho},
		{"someone else in its name", shared.REST, func(*cmapi.CertificateRequest) {}, noNode},
		{"someone else of a node in its name", as(t, controllerAccount, map[string][]string{nodeKey: {"node-a"}}), func(*cmapi.CertificateRequest) {}, "cannot create resource"},
		{"no owner", s.plugin("node-a"), func(cr *cmapi.CertificateRequest) { cr.OwnerReferences = nil }, owners},
		{"two owners", s.plugin("node-a"), func(cr *cmapi.CertificateRequest) {
			cr.OwnerReferences = append(cr.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: "db", UID: "1"})
		}, owners},
		{"another kind of owner", s.plugin("node-a"), func(cr *cmapi.CertificateRequest) { cr.OwnerReferences[0].Kind = "Node" }, owners},
		{"an owner of another API", s.plugin("node-a"), func(cr *cmapi.CertificateRequest) { cr.OwnerReferences[0].APIVersion = "example.org/v1" }, owners},
		{"a finalizer", s.plugin("node-a"), func(cr *cmapi.CertificateRequest) { cr.Finalizers = []string{"example.org/never"} }, blocks},
		{"it blocks its owner", s.plugin("node-a"), func(cr *cmapi.CertificateRequest) { cr.OwnerReferences[0].BlockOwnerDeletion = new(true) }, blocks},
		{"an issuer's annotation", s.plugin("node-a"), func(cr *cmapi.CertificateRequest) {
			cr.Annotations = map[string]string{cmapi.VenafiCustomFieldsAnnotationKey: "[]"}
		}, fmt.Sprintf(reads, cmapi.VenafiCustomFieldsAnnotationKey)},
		{"an issuer's label", s.plugin("node-a"), func(cr *cmapi.CertificateRequest) {
			cr.Labels = map[string]string{"acme.cert-manager.io/http01-solver": "true"}
		}, fmt.Sprintf(reads, "acme.cert-manager.io/http01-solver")},
		{"what a mutating webhook adds", s.plugin("node-a"), func(cr *cmapi.CertificateRequest) {
			cr.Annotations, cr.Labels = map[string]string{"example.org/seen": "yes", signer.VolumeAnnotation: "csi-1"}, map[string]string{"example.org/seen": "yes"}
		}, ""},
		{"someone else's request", shared.REST, func(cr *cmapi.CertificateRequest) {
			cr.Spec.Username, cr.Spec.Extra, cr.OwnerReferences = "admin", nil, nil
		}, ""},
	} {
		cr := s.request(pod, fmt.Sprintf("r%d", i))
		row.change(cr)
		_, err := s.requestsOf(row.as).Create(t.Context(), cr, metav1.CreateOptions{})
		s.refused(row.name, err, row.want)
	}
}

// requestsThatChange: the spec of a request stays, and once it is approved its annotations, too, but for whoever may answer it. The user here may edit the namespace.
func requestsThatChange(t *testing.T) {
	s := newStage(t)
	const (
		spec     = "the spec of a request of Mayfly's node plugin or controller does not change, and no other becomes one"
		metadata = "the labels and annotations of an approved request of Mayfly's node plugin or controller are changed by issuers alone"
	)
	pod := s.pod("web")
	for _, name := range []string{"new", "approved"} {
		if err := s.create(s.request(pod, name)); err != nil {
			t.Fatal(err)
		}
	}
	theirs := s.request(pod, "theirs")
	theirs.Spec.Username = "admin"
	if _, err := s.requestsOf(shared.REST).Create(t.Context(), theirs, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	cr, err := shared.CertManager.CertmanagerV1().CertificateRequests(s.namespace).Get(t.Context(), "approved", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cr.Status.Conditions = []cmapi.CertificateRequestCondition{{Type: cmapi.CertificateRequestConditionApproved, Status: cmmeta.ConditionTrue}}
	if err := s.patchAs(as(t, controllerAccount, nil), cr); err != nil {
		t.Fatal(err)
	}
	editor, issuer := "editor-"+s.namespace, "issuer-"+s.namespace
	s.mayUpdate(editor, "certificaterequests")
	s.mayUpdate(issuer, "certificaterequests", "certificaterequests/status")
	annotate, relabel := `{"metadata":{"annotations":{"venafi.cert-manager.io/pickup-id":"%s"}}}`, `{"metadata":{"labels":{"use-solver":"%s"}}}`
	for _, row := range []struct{ name, as, object, patch, want string }{
		{"its spec", editor, "new", `{"spec":{"isCA":true}}`, spec},
		{"its spec, when it is approved", editor, "approved", `{"spec":{"request":"eA=="}}`, spec},
		{"its spec, by an issuer", issuer, "approved", `{"spec":{"duration":"9000h"}}`, spec},
		{"who asked", editor, "theirs", `{"spec":{"username":"` + pluginAccount + `"}}`, spec},
		{"its annotations", editor, "new", annotate, ""},
		{"its annotations, when it is approved", editor, "approved", annotate, metadata},
		{"its labels, when it is approved", editor, "approved", relabel, metadata},
		{"its annotations, by an issuer", issuer, "approved", annotate, ""},
		{"someone else's spec", editor, "theirs", `{"spec":{"isCA":true}}`, ""},
	} {
		client, err := cmclient.NewForConfig(as(t, row.as, nil))
		if err != nil {
			t.Fatal(err)
		}
		patch := strings.ReplaceAll(row.patch, "%s", row.as)
		_, err = client.CertmanagerV1().CertificateRequests(s.namespace).Patch(t.Context(), row.object, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		s.refused(row.name, err, row.want)
	}
}

// mayUpdate gives a user the right to update resources of cert-manager in the namespace.
func (s *stage) mayUpdate(user string, resources ...string) {
	s.Helper()
	api, meta := shared.Client.RbacV1(), metav1.ObjectMeta{Name: user}
	_, err := api.Roles(s.namespace).Create(s.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"cert-manager.io"}, Resources: resources, Verbs: []string{"update", "patch"}},
	}}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	_, err = api.RoleBindings(s.namespace).Create(s.Context(), &rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: user}},
	}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	until(s.T, "the API server knows the rights", func() bool {
		review, err := shared.Client.AuthorizationV1().SubjectAccessReviews().Create(s.Context(), &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: s.namespace, Verb: "update", Group: "cert-manager.io", Resource: "certificaterequests",
			}},
		}, metav1.CreateOptions{})
		return err == nil && review.Status.Allowed
	})
}

// events: a node plugin writes those of the core API, and the controller the others. They are the same objects, of which the policy is.
func events(t *testing.T) {
	s := newStage(t)
	const (
		about = "an event of Mayfly's node plugin is about a pod, and says on which node it runs"
		pins  = "an event of Mayfly has no finalizers and no owner"
		own   = "mayfly-controller may change its own events alone"
	)
	pluginAPI, err := kubernetes.NewForConfig(s.plugin("node-a"))
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range []struct {
		name   string
		change func(*corev1.Event)
		want   string
	}{
		{"as the node plugin writes it", func(*corev1.Event) {}, ""},
		{"of another node", func(e *corev1.Event) { e.ReportingInstance = "node-b" }, about},
		{"about a Service", func(e *corev1.Event) { e.InvolvedObject.Kind = "Service" }, about},
		{"with a finalizer", func(e *corev1.Event) { e.Finalizers = []string{"example.org/never"} }, pins},
	} {
		e := &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Name: fmt.Sprintf("e%d", i)},
			InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: s.namespace, Name: "web"},
			Source:         corev1.EventSource{Component: driverName, Host: "node-a"}, ReportingController: driverName, ReportingInstance: "node-a",
			Type: corev1.EventTypeWarning, Reason: "Test", Message: "test", Count: 1, FirstTimestamp: metav1.Now(), LastTimestamp: metav1.Now(),
		}
		row.change(e)
		_, err := pluginAPI.CoreV1().Events(s.namespace).Create(t.Context(), e, metav1.CreateOptions{})
		s.refused(row.name, err, row.want)
	}
	controllerAPI, err := kubernetes.NewForConfig(as(t, controllerAccount, nil))
	if err != nil {
		t.Fatal(err)
	}
	patch := []byte(`{"metadata":{"annotations":{"example.org/seen":"yes"}}}`)
	_, err = controllerAPI.EventsV1().Events(s.namespace).Patch(t.Context(), "e0", types.MergePatchType, patch, metav1.PatchOptions{})
	s.refused("the controller changes the node plugin's", err, own)
}

func deletions(t *testing.T) {
	s := newStage(t)
	const own = "Mayfly's node plugin may delete the requests of its own node alone"
	pod := s.pod("web")
	if err := s.create(s.request(pod, "ours")); err != nil {
		t.Fatal(err)
	}
	theirs := s.request(pod, "theirs")
	theirs.Spec.Username, theirs.Spec.Extra = "admin", map[string][]string{nodeKey: {"node-a"}}
	if _, err := s.requestsOf(shared.REST).Create(t.Context(), theirs, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		as     *rest.Config
		object string
		want   string
	}{
		{"another node's", s.plugin("node-b"), "ours", own},
		{"by a token without a node", s.plugin(""), "ours", own},
		{"someone else's", s.plugin("node-a"), "theirs", own},
		{"its own", s.plugin("node-a"), "ours", ""},
		{"by someone else", shared.REST, "theirs", ""},
	} {
		s.refused(row.name, s.requestsOf(row.as).Delete(t.Context(), row.object, metav1.DeleteOptions{}), row.want)
	}
}

func decisions(t *testing.T) {
	s := newStage(t)
	const only = "only mayfly-controller approves or denies the requests of Mayfly's node plugin"
	pod := s.pod("web")
	for _, name := range []string{"good", "bad"} {
		if err := s.create(s.request(pod, name)); err != nil {
			t.Fatal(err)
		}
	}
	passed := s.request(pod, "passed")
	passed.Spec.Username = controllerAccount
	if _, err := s.requestsOf(shared.REST).Create(t.Context(), passed, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	approve := cmapi.CertificateRequestCondition{Type: cmapi.CertificateRequestConditionApproved, Status: cmmeta.ConditionTrue}
	deny := cmapi.CertificateRequestCondition{Type: cmapi.CertificateRequestConditionDenied, Status: cmmeta.ConditionTrue}
	other := cmapi.CertificateRequestCondition{Type: "example.org/Seen", Status: cmmeta.ConditionTrue}
	ours := as(t, controllerAccount, nil)
	for _, row := range []struct {
		name       string
		as         *rest.Config
		object     string
		conditions []cmapi.CertificateRequestCondition
		want       string
	}{
		{"an administrator approves", shared.REST, "good", []cmapi.CertificateRequestCondition{approve}, only},
		{"an administrator denies", shared.REST, "good", []cmapi.CertificateRequestCondition{deny}, only},
		{"an administrator says something else", shared.REST, "good", []cmapi.CertificateRequestCondition{other}, ""},
		{"an administrator denies what the controller passes on", shared.REST, "passed", []cmapi.CertificateRequestCondition{deny}, only},
		{"the controller approves what it passes on", nil, "passed", []cmapi.CertificateRequestCondition{approve}, ""},
		{"the node plugin approves", s.plugin("node-a"), "good", []cmapi.CertificateRequestCondition{approve}, "cannot update resource"},
		{"the controller approves", nil, "good", []cmapi.CertificateRequestCondition{approve}, ""},
		{"the controller denies", nil, "bad", []cmapi.CertificateRequestCondition{deny}, ""},
		{"an administrator takes a denial back", shared.REST, "bad", nil, only},
		{"an administrator makes an approval of a denial", shared.REST, "bad", []cmapi.CertificateRequestCondition{approve}, only},
	} {
		until(t, row.name, func() bool { // cert-manager's controllers write, too.
			cr, err := shared.CertManager.CertmanagerV1().CertificateRequests(s.namespace).Get(t.Context(), row.object, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			cr.Status.Conditions = row.conditions
			if row.as == nil {
				err = s.patchAs(ours, cr)
			} else {
				_, err = s.requestsOf(row.as).UpdateStatus(t.Context(), cr, metav1.UpdateOptions{})
			}
			if apierrors.IsConflict(err) {
				return false
			}
			s.refused(row.name, err, row.want)
			return true
		})
	}
	mine := s.request(pod, "mine")
	mine.Spec.Username = "admin"
	if _, err := s.requestsOf(shared.REST).Create(t.Context(), mine, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.decided("mine", "Approved cert-manager.io")
}

// A node can set its own ranges where nobody has, unless it is kept from it (kubernetes pkg/apis/core/validation, ValidateNodeUpdate).
func ranges(t *testing.T) {
	const only = "a node may not say where the IPs of its pods lie"
	node := func(name string) *kubernetes.Clientset {
		config := as(t, "system:node:"+name, nil)
		config.Impersonate.Groups = append(config.Impersonate.Groups, "system:nodes")
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		return client
	}
	s := &stage{T: t}
	nodes := node("node-r").CoreV1().Nodes()
	_, err := nodes.Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node-r"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.96.0.0/16"}, PodCIDR: "10.96.0.0/16"},
	}, metav1.CreateOptions{})
	s.refused("it is made with ranges", err, only)
	_, err = nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-r"}}, metav1.CreateOptions{})
	s.refused("it is made without", err, "")
	t.Cleanup(func() {
		_ = shared.Client.CoreV1().Nodes().Delete(context.Background(), "node-r", metav1.DeleteOptions{})
	})
	patch := []byte(`{"spec":{"podCIDR":"10.96.0.0/16","podCIDRs":["10.96.0.0/16"]}}`)
	_, err = nodes.Patch(t.Context(), "node-r", types.MergePatchType, patch, metav1.PatchOptions{})
	s.refused("it sets its ranges", err, only)
	_, err = nodes.Patch(t.Context(), "node-r", types.MergePatchType, []byte(`{"metadata":{"annotations":{"example.org/seen":"yes"}}}`), metav1.PatchOptions{})
	s.refused("it says something else", err, "")
	_, err = shared.Client.CoreV1().Nodes().Patch(t.Context(), "node-r", types.MergePatchType, patch, metav1.PatchOptions{})
	s.refused("an administrator sets them", err, "")
	_, err = nodes.Patch(t.Context(), "node-r", types.MergePatchType, []byte(`{"metadata":{"annotations":{"example.org/seen":"again"}}}`), metav1.PatchOptions{})
	s.refused("it says something else when they are set", err, "")
}

// patchAs sets the request's conditions by a patch.
func (s *stage) patchAs(config *rest.Config, cr *cmapi.CertificateRequest) error {
	client, err := cmclient.NewForConfig(config)
	if err != nil {
		return err
	}
	patch := fmt.Sprintf(`{"metadata":{"resourceVersion":%q},"status":{"conditions":[{"type":%q,"status":"True"}]}}`, cr.ResourceVersion, cr.Status.Conditions[0].Type)
	_, err = client.CertmanagerV1().CertificateRequests(s.namespace).Patch(s.Context(), cr.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	return err
}

// decided waits until the request has a decision, which must be this one: "Approved VerifiedByMayfly". It returns the message.
func (s *stage) decided(name, want string) (message string) {
	s.Helper()
	got, message := s.awaits(name)
	if got != want {
		s.Errorf("%s: %s: %s, want %s", name, got, message, want)
	}
	return message
}

// awaits waits until the request has a decision.
func (s *stage) awaits(name string) (decision, message string) {
	s.Helper()
	until(s.T, "a decision on "+name, func() bool {
		decision, message = s.decision(name)
		return decision != ""
	})
	return decision, message
}

// decision is the one on the request, if there is one, and its message.
func (s *stage) decision(name string) (decision, message string) {
	s.Helper()
	cr, err := shared.CertManager.CertmanagerV1().CertificateRequests(s.namespace).Get(s.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	for _, c := range cr.Status.Conditions {
		if c.Type == cmapi.CertificateRequestConditionApproved || c.Type == cmapi.CertificateRequestConditionDenied {
			return fmt.Sprint(c.Type, " ", c.Reason), c.Message
		}
	}
	return "", ""
}

// controller builds the binary.
func controller(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "mayfly-controller")
	cmd := exec.Command("go", "build", "-race", "-o", path, "./cmd/mayfly-controller")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the controller: %v: %s", err, out)
	}
	return path
}

// control runs the binary with the rights of the manifests' service account, until the function that it returns is called.
func control(t *testing.T, args ...string) (end func()) {
	t.Helper()
	_, end = controlled(t, args...)
	return end
}

// controlled is control, with the log and the audit record.
func controlled(t *testing.T, args ...string) (log text, end func()) {
	t.Helper()
	process, log := startController(t, args...)
	end = func() {
		_ = process.Process.Signal(syscall.SIGTERM)
		if err := process.Wait(); err != nil || strings.Contains(log.String(), "DATA RACE") {
			t.Errorf("the controller ended with %v:\n%s", err, log)
		}
	}
	return log, end
}

// startController starts the binary with the rights of the manifests' service account.
func startController(t *testing.T, args ...string) (process *exec.Cmd, log text) {
	t.Helper()
	kubeconfig, err := shared.UserKubeconfig(controllerAccount)
	if err != nil {
		t.Fatal(err)
	}
	log = newText(t)
	process = exec.Command(shared.controller, append([]string{"run", "--kubeconfig", write(t, kubeconfig), "--log-format", "text"}, args...)...)
	process.Stdout, process.Stderr = log.File, log.File
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(log)
		}
	})
	return process, log
}

func verdicts(t *testing.T) {
	s := newStage(t)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.0.0/24"}, PodCIDR: "10.244.0.0/24"}}
	if _, err := shared.Client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = shared.Client.CoreV1().Nodes().Delete(context.Background(), "node-a", metav1.DeleteOptions{})
	})
	s.ask(s.pod("early"), "early") // Before there is a controller.
	end := control(t)
	log, second := controlled(t, "--node-name=node-a") // Another replica, which is told where it runs.
	s.decided("early", "Approved VerifiedByMayfly")
	until(t, "the certificate", func() bool {
		cr, err := shared.CertManager.CertmanagerV1().CertificateRequests(s.namespace).Get(t.Context(), "early", metav1.GetOptions{})
		return err == nil && len(cr.Status.Certificate) > 0
	})

	gone := s.pod("gone")
	if err := shared.Client.CoreV1().Pods(s.namespace).Delete(t.Context(), "gone", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
		t.Fatal(err)
	}
	s.ask(gone, "replayed")

	honest, liar := s.pod("honest", "ip-sans=${POD_IP}"), s.pod("liar", "ip-sans=${POD_IP}")
	s.ask(s.writeIP(honest, "10.244.0.9"), "honest")
	s.ask(s.writeIP(liar, "10.96.0.1"), "liar")
	s.ask(s.status(s.pod("ended"), `{"phase":"Succeeded"}`), "ended")
	s.ask(s.pod("other", "dns-names=web.${POD_NAMESPACE}.svc.example.org"), "other")
	s.ask(s.pod("authority", "is-ca=true"), "authority")

	for name, want := range map[string]struct{ decision, message string }{
		"honest":    {"Approved " + decide.Verified, "pod honest on node node-a"},
		"liar":      {"Denied " + decide.IPNotProved, "the pod's IP 10.96.0.1 does not lie in the spec.podCIDRs of node node-a"},
		"ended":     {"Denied " + decide.PodNotLive, "it is Succeeded"},
		"other":     {"Denied " + decide.NotAllowed, `DNS name "web.` + s.namespace + `.svc.example.org" is not the pod's: it may have names under ` + s.namespace + ".svc.cluster.local"},
		"authority": {"Denied " + decide.NotAllowed, "a pod may not be a CA"},
		"replayed":  {"Denied " + decide.PodNotFound, "there is no pod gone"},
	} {
		if got := s.decided(name, want.decision); !strings.Contains(got, want.message) {
			t.Errorf("%s: %s, want %s", name, got, want.message)
		}
	}
	until(t, "the replica says that it runs on a worker", func() bool {
		return strings.Count(log.String(), `level=WARN msg="the controller runs on a worker node: `) == 1
	})
	end()
	second()
	defer control(t, "--cluster-domain=example.org")()
	s.approvable("other") // By a controller with other flags than the one that denied it.
}

// approvable waits until a denied request says that another one like it would be approved.
func (s *stage) approvable(name string) {
	s.Helper()
	until(s.T, "what is said of the denied request "+name, func() bool {
		cr, err := shared.CertManager.CertmanagerV1().CertificateRequests(s.namespace).Get(s.Context(), name, metav1.GetOptions{})
		return err == nil && slices.ContainsFunc(cr.Status.Conditions, func(c cmapi.CertificateRequestCondition) bool { return c.Type == signer.Approvable })
	})
}

// ask has the node plugin of node-a ask for the pod.
func (s *stage) ask(pod *corev1.Pod, name string) {
	s.Helper()
	if err := s.create(s.request(pod, name)); err != nil {
		s.Fatal(err)
	}
}

// status has the pod's node write its status, as its kubelet can.
func (s *stage) status(pod *corev1.Pod, status string) *corev1.Pod {
	s.Helper()
	config := as(s.T, "system:node:node-a", nil)
	config.Impersonate.Groups = append(config.Impersonate.Groups, "system:nodes")
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		s.Fatal(err)
	}
	pod, err = client.CoreV1().Pods(s.namespace).Patch(s.Context(), pod.Name, types.MergePatchType, fmt.Appendf(nil, `{"status":%s}`, status), metav1.PatchOptions{}, "status")
	if err != nil {
		s.Fatal(err)
	}
	return pod
}

func (s *stage) writeIP(pod *corev1.Pod, ip string) *corev1.Pod {
	s.Helper()
	return s.status(pod, fmt.Sprintf(`{"podIP":%q,"podIPs":[{"ip":%q}]}`, ip, ip))
}
