package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/mayfly-csi/mayfly/signer/controller/startup"
)

// option applies an option of the manifests until the story ends.
func (s *story) option(name string) {
	s.Helper()
	path := filepath.Join("..", "..", "manifests", "options", name+".yaml")
	s.Cleanup(func() {
		if _, err := shared.Kubectl(context.Background(), "delete", "--ignore-not-found", "--filename", path); err != nil {
			s.Error(err)
		}
	})
	if _, err := shared.Kubectl(s.Context(), "apply", "--filename", path); err != nil {
		s.Fatal(err)
	}
}

// idle has the pod do nothing: the workload reads its certificate when it starts.
func idle(spec *corev1.PodSpec) { spec.Containers[0].Command = []string{"/bin/sleep", "1000000"} }

func podIP(s *story) {
	s.option("read-pods")
	s.start(pod("web", asks("ip-sans=${POD_IPS}", "continue-on-not-ready=true"), idle))
	s.until("the certificate", func(context.Context) error {
		_, err := s.exec("web", "ls", "/tls/tls.crt")
		return err
	})
	var ips []string
	for _, ip := range s.ready("web").Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	if leaf := s.leaf("web"); len(ips) == 0 || fmt.Sprint(leaf.IPAddresses) != fmt.Sprint(ips) {
		s.Errorf("the certificate is for %v, the pod has %v", leaf.IPAddresses, ips)
	}
	s.create(pod("hasty", asks("ip-sans=${POD_IP}")))
	s.says("hasty", "FailedMount", "the pod has no IP yet", `set csi.mayfly.dev/continue-on-not-ready: "true"`)
	host := func(spec *corev1.PodSpec) { spec.HostNetwork = true }
	s.start(pod("host", asks("ip-sans=${POD_IP}"), host, idle))
	if leaf, at := s.leaf("host"), s.ready("host").Status.HostIP; fmt.Sprint(leaf.IPAddresses) != "["+at+"]" {
		s.Errorf("the certificate is for %v, the host is at %s", leaf.IPAddresses, at)
	}
}

// operated is a cluster whose operator sets profiles, renews by annotation, and has each pod ask as itself.
func operated(s *story) {
	s.option("read-pods")
	s.option("profiles")
	s.asThePod()
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "mayfly"}, Data: map[string]string{
		"issuer-name": "ca", "profiles.yaml": "profiles: {web: {dns-names: '${POD_NAME}.${POD_NAMESPACE}.svc', duration: 20m, layout: 'pem,bundle'}}",
	}}
	if _, err := shared.Client.CoreV1().ConfigMaps(mayfly).Update(s.Context(), config, metav1.UpdateOptions{}); err != nil {
		s.Fatal(err)
	}
	s.configure("MAYFLY_CONFIG_MAP="+mayfly+"/mayfly", "MAYFLY_WATCH_PODS=true", "MAYFLY_USE_TOKEN_REQUEST=true", "MAYFLY_KEEP_REQUESTS=1")
	s.Cleanup(func() {
		s.configure("MAYFLY_CONFIG_MAP-", "MAYFLY_WATCH_PODS-", "MAYFLY_USE_TOKEN_REQUEST-", "MAYFLY_KEEP_REQUESTS-")
	})
	s.start(pod("web", written("csi.mayfly.dev", map[string]string{"csi.mayfly.dev/profile": "web"})))
	first := s.leaf("web")
	if first.NotAfter.Sub(first.NotBefore) > 30*time.Minute || !slices.Equal(first.DNSNames, []string{"web." + s.namespace + ".svc"}) {
		s.Errorf("the certificate is for %v from %s to %s", first.DNSNames, first.NotBefore, first.NotAfter)
	}
	s.askedByThePod()
	s.renewedByWish("web")
	s.delete("web")
}

// renewedByWish wishes another certificate for a pod, by the annotation, and waits for it and for the Event of it.
func (s *story) renewedByWish(pod string) {
	s.Helper()
	first := s.leaf(pod)
	soon := time.Now().Add(time.Second).UTC().Format(time.RFC3339) // A time has no fractions here: that of now may be before the certificate was received.
	if _, err := s.kubectl("annotate", "--overwrite", "pod", pod, "csi.mayfly.dev/renew-at="+soon); err != nil {
		s.Fatal(err)
	}
	s.until("the renewal", func(context.Context) error {
		if s.leaf(pod).Equal(first) {
			return errors.New("it is the same certificate")
		}
		return nil
	})
	s.says(pod, "CertificateRenewed", "as csi.mayfly.dev/renew-at asks")
}

// asThePod lets the namespace's default service account ask, and has the kubelet pass on its tokens.
func (s *story) asThePod() {
	s.Helper()
	s.Cleanup(func() {
		if _, err := shared.Kubectl(context.Background(), "apply", "--filename", "../../manifests/csidriver.yaml"); err != nil {
			s.Error(err)
		}
	})
	if _, err := shared.Kubectl(s.Context(), "apply", "--filename", "../../manifests/options/token-request/csidriver.yaml", "--filename", "../../manifests/options/token-request/workloads.yaml"); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if _, err := shared.Kubectl(context.Background(), "delete", "clusterrole", "mayfly-ask-as-pod"); err != nil {
			s.Error(err)
		}
	})
	_, err := s.kubectl("--namespace", s.namespace, "create", "rolebinding", "ask", "--clusterrole=mayfly-ask-as-pod", "--serviceaccount="+s.namespace+":default")
	if err != nil {
		s.Fatal(err)
	}
}

// askedByThePod demands that cert-manager has the pod itself on record as the one who asked.
func (s *story) askedByThePod() {
	s.Helper()
	requests, err := shared.CertManager.CertmanagerV1().CertificateRequests(s.namespace).List(s.Context(), metav1.ListOptions{})
	if err != nil || len(requests.Items) != 1 {
		s.Fatalf("%d requests (%v)", len(requests.Items), err)
	}
	by := requests.Items[0].Spec
	uid := string(s.ready("web").UID)
	if by.Username != "system:serviceaccount:"+s.namespace+":default" || !slices.Equal(by.Extra["authentication.kubernetes.io/pod-uid"], []string{uid}) {
		s.Errorf("asked by %s, %v; the pod is %s", by.Username, by.Extra, uid)
	}
}

// startupTaint is a node that has the start-up taint while the driver is not there: it gets no pod. When the driver is registered the controller takes the taint
// off, and a pod that waited starts. Who has the controller's token changes nothing else of nodes.
func startupTaint(s *story) {
	const node = "node-b"
	s.option("startup-taint")
	s.controlled()
	if _, err := shared.Kubectl(s.Context(), "--namespace", mayfly, "set", "env", "deployment/mayfly-controller", "MAYFLY_STARTUP_TAINT=true"); err != nil {
		s.Fatal(err)
	}
	s.controllers(2)

	s.Cleanup(func() {
		s.taint(node, startup.Taint+"-")
		s.selectNodes(`{"kubernetes.io/hostname": null}`)
		if err := shared.WaitMayfly(context.Background()); err != nil {
			s.Error(err)
		}
	})
	s.selectNodes(`{"kubernetes.io/hostname": "node-a"}`)
	s.until("the driver to be registered on node-a alone", func(ctx context.Context) error {
		registered, err := isRegistered(ctx, node)
		if err == nil && registered {
			err = errors.New("it is on " + node)
		}
		return err
	})
	s.taint(node, startup.Taint+"=:NoSchedule")
	s.create(pod("early", own(), on(node)))
	s.says("early", "FailedScheduling", "taint")

	s.selectNodes(`{"kubernetes.io/hostname": null}`)
	s.ready("early")
	s.until("the taint to be gone", func(ctx context.Context) error {
		now, err := shared.Client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
		if err == nil && strings.Contains(fmt.Sprint(now.Spec.Taints), startup.Taint) {
			err = fmt.Errorf("it has %v", now.Spec.Taints)
		}
		return err
	})
	s.changesNoNode(node)
}

// isRegistered reports whether the kubelet has the driver.
func isRegistered(ctx context.Context, node string) (bool, error) {
	registered, err := shared.Client.StorageV1().CSINodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(registered.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == "csi.mayfly.dev" }), nil
}

// taint gives a node a taint, or takes it: "key-".
func (s *story) taint(node, taint string) {
	s.Helper()
	if _, err := shared.Kubectl(context.WithoutCancel(s.Context()), "taint", "nodes", node, taint, "--overwrite"); err != nil && !strings.Contains(err.Error(), "not found") {
		s.Error(err)
	}
}

// changesNoNode has someone with the controller's token change a node.
func (s *story) changesNoNode(node string) {
	s.Helper()
	thief, err := kubernetes.NewForConfig(s.withToken("mayfly-controller", nil))
	if err != nil {
		s.Fatal(err)
	}
	for _, patch := range []string{
		`{"spec": {"unschedulable": true}}`, `{"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}}`, `{"metadata": {"labels": {"x": "y"}}}`,
	} {
		_, err := thief.CoreV1().Nodes().Patch(s.Context(), node, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		if !refused(err, "mayfly-controller takes the taint csi.mayfly.dev/not-ready off a node, and changes nothing else of it") {
			s.Errorf("with the controller's token, %s: %v", patch, err)
		}
	}
}
