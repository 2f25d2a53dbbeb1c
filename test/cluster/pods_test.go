package cluster_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/mayfly-csi/mayfly/driver/pod"
	"github.com/mayfly-csi/mayfly/signer/spec"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// podNode is a node whose plugin may read pods.
func podNode(t *testing.T, args ...string) *node {
	t.Helper()
	n := idleNode(t, namespace(t), args...)
	n.kubeconfig = reader(t, n.namespace, "read-pods")
	n.start()
	return n
}

// podIPs sets the status of the pod, as a kubelet does.
func (n *node) podIPs(v kubelet.Volume, ips ...string) {
	n.t.Helper()
	var all []string
	for _, ip := range ips {
		all = append(all, fmt.Sprintf(`{"ip":%q}`, ip))
	}
	patch := fmt.Sprintf(`{"status":{"podIP":%q,"podIPs":[%s]}}`, ips[0], strings.Join(all, ","))
	_, err := shared.Client.CoreV1().Pods(n.namespace).Patch(n.t.Context(), v.Pod.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	if err != nil {
		n.t.Fatal(err)
	}
}

// annotate asks for a renewal of the pod's certificates.
func (n *node) annotate(v kubelet.Volume, at string) {
	n.t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, pod.RenewAt, at)
	_, err := shared.Client.CoreV1().Pods(n.namespace).Patch(n.t.Context(), v.Pod.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
}

func TestAPodsIPs(t *testing.T) {
	t.Parallel()
	n := newNode(t, namespace(t))
	v := n.pod("web", "ip-sans=${POD_IPS}", "continue-on-not-ready=false")
	n.refuses(v, fmt.Sprintf(`not signed yet: read pod %s/web: pods "web" is forbidden: User "node-plugin" cannot list resource "pods"`, n.namespace))
	n.unpublish(v)

	n = podNode(t)
	v = n.pod("api", "ip-sans=${POD_IPS}", "continue-on-not-ready=true", "duration=4s")
	target, err := n.Publish(t.Context(), n.driver, v)
	if err != nil {
		t.Fatal(err)
	}
	if len(n.requests()) > 0 {
		t.Error("a certificate was asked for before the IP is known")
	}
	n.podIPs(v, "10.9.8.7", "fd00::7")
	until(t, "the certificate", func() bool {
		_, err := os.Stat(filepath.Join(target, "tls.crt"))
		return err == nil
	})
	first := n.leaf(target)
	if got := fmt.Sprint(first.IPAddresses); got != "[10.9.8.7 fd00::7]" {
		t.Errorf("IPs %s", got)
	}
	n.podIPs(v, "10.9.8.8")
	until(t, "a renewal with the pod's new IP", func() bool { return fmt.Sprint(n.leaf(target).IPAddresses) == "[10.9.8.8]" })
	n.unpublish(v)
}

func TestAnotherPodOfTheNameIsNotTaken(t *testing.T) {
	t.Parallel()
	n := podNode(t)
	v := n.pod("web", "ip-sans=${POD_IP}")
	n.podIPs(v, "10.9.8.7")
	v.UID = "00000000-0000-0000-0000-000000000001"
	_, err := n.Publish(t.Context(), n.driver, v)
	if want := fmt.Sprintf("pod %s/web is another one now", n.namespace); err == nil || kubelet.Final(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	n.unpublish(v)
}

func TestAnAnnotationRenewsThePodsOfThisNode(t *testing.T) {
	t.Parallel()
	n := podNode(t, "--watch-pods")
	v := n.pod("web")
	first := n.publish(v)
	n.annotate(v, "now")
	until(t, "the pod is told", func() bool {
		events, err := shared.Client.CoreV1().Events(n.namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=web"})
		return err == nil && slices.ContainsFunc(events.Items, func(e corev1.Event) bool {
			return e.Reason == "RenewalNotUnderstood" && e.Message == `annotation csi.mayfly.dev/renew-at is "now", which is not a time such as 2026-01-31T12:00:00Z (RFC 3339)`
		})
	})
	n.annotate(v, time.Now().Add(time.Second).UTC().Format(time.RFC3339))
	until(t, "the renewal", func() bool { return !n.leaf(n.Target(v)).Equal(first) })
	n.unpublish(v)
}

// configMap writes the ConfigMap of the profiles.
func (n *node) configMap(data map[string]string) {
	n.t.Helper()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "mayfly"}, Data: data}
	client := shared.Client.CoreV1().ConfigMaps(n.namespace)
	_, err := client.Update(n.t.Context(), cm, metav1.UpdateOptions{})
	if err != nil {
		_, err = client.Create(n.t.Context(), cm, metav1.CreateOptions{})
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// mayReadProfiles gives the node plugin the Role of the option, in the test's namespace.
func (n *node) mayReadProfiles() {
	n.t.Helper()
	role := &rbacv1.Role{}
	if err := document(filepath.Join("..", "..", "manifests", "options", "profiles.yaml"), "Role", role); err != nil {
		n.t.Fatal(err)
	}
	role.Namespace = n.namespace
	if _, err := shared.Client.RbacV1().Roles(n.namespace).Create(n.t.Context(), role, metav1.CreateOptions{}); err != nil {
		n.t.Fatal(err)
	}
	_, err := shared.Client.RbacV1().RoleBindings(n.namespace).Create(n.t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: pluginUser}},
	}, metav1.CreateOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
}

func TestProfilesOfAConfigMap(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	n := newNode(t, ns, "--config-map="+ns+"/mayfly")
	v := n.pod("web", "profile=short")
	delete(v.Attributes, spec.Prefix+"issuer-name")
	n.refuses(v, fmt.Sprintf(`read the driver's profiles from ConfigMap %s/mayfly: configmaps "mayfly" is forbidden`, ns))
	n.mayReadProfiles()
	until(t, "a ConfigMap that does not exist has no profiles", func() bool {
		_, err := n.Publish(t.Context(), n.driver, v)
		return err != nil && strings.Contains(err.Error(), `csi.mayfly.dev/profile is "short": there are none`)
	})
	n.configMap(map[string]string{"issuer-name": "ca", spec.ProfilesKey: "profiles: {short: {duration: 3s, organizations: One}}"})
	until(t, "the pod gets its certificate", func() bool {
		_, err := n.Publish(t.Context(), n.driver, v)
		return err == nil
	})
	organization := func() string { return strings.Join(n.leaf(n.Target(v)).Subject.Organization, ",") }
	if got := organization(); got != "One" {
		t.Errorf("organization %s", got)
	}
	n.configMap(map[string]string{"issuer-name": "ca", spec.ProfilesKey: "profiles: {short: {duration: 3s, organizations: Two}}"})
	until(t, "the change counts from the next renewal", func() bool { return organization() == "Two" })
	n.configMap(map[string]string{"issuer-name": "ca", spec.ProfilesKey: "profiles: {short: {duration: soon}}"})
	until(t, "the driver says what is wrong", func() bool {
		return strings.Contains(n.log.String(), `profile \"short\": duration is \"soon\", which is not a duration`)
	})
	before := n.leaf(n.Target(v))
	until(t, "what was known counts", func() bool { return !n.leaf(n.Target(v)).Equal(before) && organization() == "Two" })
	n.unpublish(v)
}

// The pod's right counts, not the node plugin's. What cert-manager's webhook writes down of it is a story of test/e2e.
func TestAskingAsThePod(t *testing.T) {
	t.Parallel()
	n := idleNode(t, namespace(t), "--use-token-request")
	n.kubeconfig = shared.podPlugin // Which creates no request.
	n.start()
	v, token := n.podWithToken("web")
	_, err := n.Publish(t.Context(), n.driver, v)
	account := n.namespace + ":asker"
	for _, want := range []string{
		"request denied: create CertificateRequest " + n.namespace + "/web-", " as service account " + n.namespace + "/asker: ",
		`User "system:serviceaccount:` + account + `" cannot create resource "certificaterequests"`,
	} {
		if err == nil || kubelet.Final(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("without the right:\n got %v\nwant %s", err, want)
		}
	}
	n.unpublish(v)
	n.mayAsk()
	n.publish(v)
	if strings.Contains(n.log.String(), token[:40]) {
		t.Error("the token is in the log")
	}
	until(t, "the request to be gone", func() bool { return len(n.requests()) == 0 })
	n.unpublish(v)
}

// A pod's author alone does not have the volume asked for as the pod, past the controller, though pod and token could.
func TestAPodThatWouldAskForItself(t *testing.T) {
	t.Parallel()
	n := idleNode(t, namespace(t))
	n.start()
	v, _ := n.podWithToken("web", "use-token-request=true")
	n.mayAsk()
	_, err := n.Publish(t.Context(), n.driver, v)
	want := "csi.mayfly.dev/use-token-request is true, and no volume asks as its pod unless the operator of this driver says so, by --use-token-request or a profile: leave it out"
	if err == nil || !kubelet.Final(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if made := n.requests(); len(made) > 0 {
		t.Errorf("%d requests", len(made))
	}
}

// podWithToken makes a pod object of the service account asker, with a token that the kubelet passes on.
func (n *node) podWithToken(name string, attributes ...string) (v kubelet.Volume, token string) {
	n.t.Helper()
	v = n.podAs(name, "asker", attributes...)
	bound := &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: v.Pod.Name, UID: types.UID(v.UID)}
	made, err := shared.Client.CoreV1().ServiceAccounts(n.namespace).CreateToken(n.t.Context(), "asker",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound}}, metav1.CreateOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	text, err := json.Marshal(map[string]authenticationv1.TokenRequestStatus{"": made.Status})
	if err != nil {
		n.t.Fatal(err)
	}
	v.Secrets = map[string]string{spec.Tokens: string(text)}
	return v, made.Status.Token
}

// podAs makes a pod object of a service account of its own.
func (n *node) podAs(name, account string, attributes ...string) kubelet.Volume {
	n.t.Helper()
	_, err := shared.Client.CoreV1().ServiceAccounts(n.namespace).Create(n.t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	v := n.pod(name, attributes...)
	pods := shared.Client.CoreV1().Pods(n.namespace)
	pod, err := pods.Create(n.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name + "-" + account},
		Spec:       corev1.PodSpec{ServiceAccountName: account, NodeName: "node-a", Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	v.Pod = kubelet.Pod{Namespace: n.namespace, Name: pod.Name, UID: string(pod.UID), ServiceAccount: account}
	return v
}

// mayAsk gives the service account the ClusterRole of options/token-request.
func (n *node) mayAsk() {
	n.t.Helper()
	role := &rbacv1.ClusterRole{}
	if err := document(filepath.Join("..", "..", "manifests", "options", "token-request", "workloads.yaml"), "ClusterRole", role); err != nil {
		n.t.Fatal(err)
	}
	_, err := shared.Client.RbacV1().Roles(n.namespace).Create(n.t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: role.Name}, Rules: role.Rules}, metav1.CreateOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	_, err = shared.Client.RbacV1().RoleBindings(n.namespace).Create(n.t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "asker", Namespace: n.namespace}},
	}, metav1.CreateOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
}
