package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/mayfly-csi/mayfly/test/forge"
)

const (
	controlPlaneRole = "node-role.kubernetes.io/control-plane"
	controllerName   = "mayfly-controller"
)

// onControlPlane makes node-b a control-plane node until the story ends, as kubeadm does, and has the controller run there alone.
// Pods that run there already stay.
func (s *story) onControlPlane() {
	s.Helper()
	s.Cleanup(func() { // The controller may have to start anew afterwards, where no node has the role.
		s.administer(context.Background(), "--namespace "+mayfly+" patch deployment "+controllerName+" --type=merge --patch="+
			`{"spec":{"template":{"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":null}}}}}}`,
			"uncordon node-b", "label node node-b "+controlPlaneRole+"-", "taint node node-b "+controlPlaneRole+"-")
	})
	s.administer(s.Context(), "label node node-b "+controlPlaneRole+"=", "taint node node-b "+controlPlaneRole+":NoSchedule",
		"--namespace "+mayfly+" patch deployment "+controllerName+" --patch-file ../../manifests/options/control-plane.yaml")
	s.controllers(2)
}

// administer runs commands of kubectl whose arguments have no spaces.
func (s *story) administer(ctx context.Context, commands ...string) {
	s.Helper()
	for _, command := range commands {
		if _, err := shared.Kubectl(ctx, strings.Fields(command)...); err != nil {
			s.Error(err)
		}
	}
}

// rootOnWorker is what root on node-a tries with all that lies there, for a pod of node-b. The controller runs on node-b, a control-plane node, and one replica
// of it has no place there.
func (s *story) rootOnWorker(db *corev1.Pod) {
	s.Helper()
	s.onControlPlane()
	s.administer(s.Context(), "cordon node-b", "--namespace "+mayfly+" scale deployment/"+controllerName+" --replicas=3")
	of := s.placed(3)
	for who, config := range s.credentials("node-a") {
		if who == "system:serviceaccount:"+mayfly+":"+controllerName {
			s.Errorf("root on a worker has the token of %s", who)
		}
		for _, row := range s.attempts(of, db) {
			err := row.try(config)
			if !apierrors.IsForbidden(err) || who == kubelet && !strings.Contains(err.Error(), row.want) {
				s.Errorf("%s, by %s:\n got %v\nwant %s", row.name, who, err, row.want)
			}
		}
	}
	s.administer(s.Context(), "uncordon node-b")
	s.controllers(2)
}

// placed waits until the scheduler has looked at so many replicas of the controller, and those that it has placed run. It returns one that runs on node-b.
func (s *story) placed(replicas int) (one *corev1.Pod) {
	s.Helper()
	s.until("the controllers to be placed, or not", func(ctx context.Context) error {
		pods, err := shared.Client.CoreV1().Pods(mayfly).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + controllerName})
		if err != nil {
			return err
		}
		seen := 0
		for _, pod := range pods.Items {
			if isReady(&pod) || slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse
			}) {
				seen++
			}
			if pod.Spec.NodeName == "node-b" {
				one = &pod
			}
		}
		if seen != replicas || one == nil {
			return fmt.Errorf("%d of %d", seen, len(pods.Items))
		}
		return nil
	})
	return one
}

// kubelet is whose credentials a node's own are.
const kubelet = "the kubelet"

// credentials are all that lie on a node, by whose they are: the kubelet's, and the tokens of the pods.
func (s *story) credentials(node string) map[string]*rest.Config {
	s.Helper()
	text, err := os.ReadFile(filepath.Join(shared.Dir, node, "kubeconfig"))
	if err != nil {
		s.Fatal(err)
	}
	own, err := clientcmd.RESTConfigFromKubeConfig(text)
	if err != nil {
		s.Fatal(err)
	}
	own.Host = shared.REST.Host
	found := map[string]*rest.Config{kubelet: own}
	out, err := shared.Node(node).Command(s.Context(), "sh", "-c",
		`for f in $(find /var/lib/kubelet/pods -type f -name token); do cat "$f"; echo; done`).Output()
	if err != nil {
		s.Fatal(err)
	}
	for _, token := range strings.Fields(string(out)) {
		config := rest.AnonymousClientConfig(shared.REST)
		config.BearerToken = token
		found[s.subject(token)] = config
	}
	if found["system:serviceaccount:"+mayfly+":mayfly"] == nil {
		s.Errorf("the node plugin's token is not among those of %s: %d", node, len(found))
	}
	return found
}

// subject is whose a token is.
func (s *story) subject(token string) string {
	s.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		s.Fatalf("a token of %d parts", len(parts))
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		s.Fatal(err)
	}
	var claims struct{ Sub string }
	if err := json.Unmarshal(text, &claims); err != nil {
		s.Fatal(err)
	}
	return claims.Sub
}

// An attempt is what nobody on a worker may do. The refusal of the kubelet has the words want; pods have no such right at all.
type attempt struct {
	name string
	try  func(*rest.Config) error
	want string
}

// attempts are those against a replica of the controller and a pod of node-b.
func (s *story) attempts(controller, db *corev1.Pod) []attempt {
	ctx := s.Context()
	refusesOthers := "not the requesting node"
	if !shared.Versions.HasKubernetes("1.37") { // Nodes ask by PodCertificateRequests from then on.
		refusesOthers = `cannot create resource "podcertificaterequests"`
	}
	return []attempt{
		{"the key of a CA", func(c *rest.Config) error {
			_, err := s.client(c).CoreV1().Secrets(caNamespace).Get(ctx, "mayfly-ca", metav1.GetOptions{})
			return err
		}, "no relationship found between node 'node-a' and this object"},
		{"a token of the controller", func(c *rest.Config) error {
			_, err := s.client(c).CoreV1().ServiceAccounts(mayfly).CreateToken(ctx, controllerName, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
				BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: controller.Name, UID: controller.UID},
			}}, metav1.CreateOptions{})
			return err
		}, "no relationship found between node 'node-a' and this object"},
		{"a pod of the controller's account", func(c *rest.Config) error {
			_, err := s.client(c).CoreV1().Pods(mayfly).Create(ctx, mirror("node-a", s.nodeUID("node-a"), controllerName), metav1.CreateOptions{})
			return err
		}, "a mirror pod may not reference service accounts"},
		{"the role of a control-plane node", func(c *rest.Config) error {
			return s.patchNode(c, "node-a", `{"metadata": {"labels": {"`+controlPlaneRole+`": ""}}}`)
		}, "is not allowed to modify labels: " + controlPlaneRole},
		{"no role for the node of the controller", func(c *rest.Config) error {
			return s.patchNode(c, "node-b", `{"metadata": {"labels": {"`+controlPlaneRole+`": null}}}`)
		}, `is not allowed to modify node "node-b"`},
		{"the end of a replica of the controller", func(c *rest.Config) error {
			return s.client(c).CoreV1().Pods(mayfly).Delete(ctx, controller.Name, metav1.DeleteOptions{})
		}, "can only delete pods with spec.nodeName set to itself"},
		{"an approval", func(c *rest.Config) error {
			_, err := s.certManager(c).CertmanagerV1().CertificateRequests(s.namespace).Patch(ctx, "forged", types.MergePatchType,
				[]byte(`{"status": {"conditions": [{"type": "Approved", "status": "True"}]}}`), metav1.PatchOptions{}, "status")
			return err
		}, `cannot patch resource "certificaterequests/status"`},
		{"an answer to a PodCertificateRequest", func(c *rest.Config) error {
			_, err := s.client(c).CertificatesV1().PodCertificateRequests(s.namespace).Patch(ctx, "forged", types.MergePatchType,
				[]byte(`{"status": {"certificateChain": "x"}}`), metav1.PatchOptions{}, "status")
			return err
		}, `cannot patch resource "podcertificaterequests/status"`},
		{"a certificate for a pod of another node", func(c *rest.Config) error {
			pcr, err := forge.PodCertificate(db, "forged-worker", s.nodeUID("node-b"), s.accountUID())
			if err != nil {
				return err
			}
			_, err = s.client(c).CertificatesV1().PodCertificateRequests(s.namespace).Create(ctx, pcr, metav1.CreateOptions{})
			return err
		}, refusesOthers},
	}
}

func (s *story) patchNode(as *rest.Config, name, patch string) error {
	_, err := s.client(as).CoreV1().Nodes().Patch(s.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

// mirror is a pod that a node makes up, with a service account.
func mirror(node string, uid types.UID, account string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "mirror-" + node, Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "x"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node, UID: uid, Controller: new(true)}},
		},
		Spec: corev1.PodSpec{NodeName: node, ServiceAccountName: account, Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
}
