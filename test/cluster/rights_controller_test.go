package cluster_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer/controller/authority"
	"github.com/mayfly-csi/mayfly/signer/controller/startup"
	"github.com/mayfly-csi/mayfly/test/forge"
)

// pluginHere is the node plugin of the namespace, whose requests its controller alone decides on: the policies of other tests are not about it.
func (s *stage) pluginHere() string { return "plugin-" + s.namespace }

// prepareControllers makes what controllers need besides their rights.
func prepareControllers(t *testing.T) {
	t.Helper()
	shared.controller = controller(t)
	manifests := filepath.Join("..", "..", "manifests", "controller")
	for _, args := range [][]string{{"apply", "-f", filepath.Join(manifests, "crd.yaml")}, {"delete", "--ignore-not-found", "-f", filepath.Join(manifests, "policies.yaml")}} {
		if _, err := shared.Kubectl(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
}

// deciderRights are the rights of the controller that decides on requests.
func deciderRights() map[string]func(*loss) {
	const file, taint, leases = "controller/rbac.yaml: ", "options/startup-taint.yaml: ", "leases.coordination.k8s.io"
	return map[string]func(*loss){
		file + "list certificaterequests.cert-manager.io":         unready("requests"),
		file + "watch certificaterequests.cert-manager.io":        logged("web", "Failed to watch"),
		file + "list certificatepolicies.csi.mayfly.dev":          unready("policies"),
		file + "watch certificatepolicies.csi.mayfly.dev":         logged("web", "Failed to watch"),
		file + "patch certificatepolicies/status.csi.mayfly.dev":  ofAPolicy("write the status of CertificatePolicy "),
		file + "list serviceaccounts":                             ofAPolicy("list the service accounts: "),
		file + "patch certificaterequests/status.cert-manager.io": logged("web", "write the decision on CertificateRequest "),
		file + "get pods":                                      logged("web", "Reconciler error"),
		file + "get nodes":                                     logged("ip", "Reconciler error"),
		taint + "list csinodes.storage.k8s.io":                 tainted("list"),
		taint + "watch csinodes.storage.k8s.io":                tainted("Failed to watch"),
		taint + "patch nodes":                                  tainted("take the taint csi.mayfly.dev/not-ready off node "),
		file + "create events.events.k8s.io":                   logged("denied", "Server rejected event"),
		file + "create " + leases:                              logged("web", "lease"),
		file + "get " + leases + " mayfly-controller-audit":    logged("web", "lease"),
		file + "update " + leases + " mayfly-controller-audit": logged("web", "lease"),
		file + "approve signers.cert-manager.io issuers.cert-manager.io/* clusterissuers.cert-manager.io/*": unapproved,
	}
}

// A run is a controller that has lost a right, in a namespace of its own.
type controllerRun struct {
	*stage
	log     text   // With the audit record.
	address string // Where it says whether it is ready.
}

// control runs a controller with the rights of the files but the lost one, until the test ends.
func (l *loss) control(s *stage, args []string, files ...string) *controllerRun {
	l.Helper()
	run := &controllerRun{s, newText(l.T), freeAddress(l.T)}
	process := exec.Command(shared.controller, append([]string{"run", "--kubeconfig", l.kubeconfig(s.namespace, files...), "--log-format=text", "--node-plugin=" + s.pluginHere(), "--health-address=" + run.address, "--audit-namespace=" + s.namespace}, args...)...)
	process.Stdout, process.Stderr = run.log.File, run.log.File
	if l.right.verb == "list" {
		process.Env = append(os.Environ(), lists)
	}
	if err := process.Start(); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		_ = process.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(time.Minute, func() {
			l.Error("the controller does not stop")
			_ = process.Process.Signal(syscall.SIGQUIT)
		})
		_ = process.Wait() // Without its rights it may end by an error.
		late.Stop()
		if l.Failed() || strings.Contains(run.log.String(), "DATA RACE") {
			l.Errorf("log of the controller:\n%s", run.log)
		}
	})
	return run
}

func (l *loss) decider(s *stage) *controllerRun {
	l.Helper()
	return l.control(s, nil, "controller/rbac.yaml")
}

// unready: the controller is not ready, of which Kubernetes tells the operator, and its log says why.
func unready(check string) func(*loss) {
	return func(l *loss) {
		l.unready(l.decider(newStage(l.T)), check)
	}
}

func (l *loss) unready(run *controllerRun, check string) {
	l.Helper()
	l.reads(run.log, l.cannot())
	until(l.T, "it is not ready for its "+check, func() bool {
		code, body := readiness(run.address)
		return code == http.StatusInternalServerError && strings.Contains(body, "[-]"+check+" failed")
	})
}

// readiness asks a controller whether it is ready; 0: it does not answer.
func readiness(address string) (code int, body string) {
	client := &http.Client{Timeout: 5 * time.Second}
	response, err := client.Get("http://" + address + "/readyz")
	if err != nil {
		return 0, ""
	}
	defer response.Body.Close() //nolint:errcheck // It is read.
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, ""
	}
	return response.StatusCode, string(text)
}

// logged: a request of the kind has the controller's log say so.
func logged(kind, want string) func(*loss) {
	return func(l *loss) {
		s := newStage(l.T)
		run := l.decider(s)
		pod := s.pod("web")
		switch kind {
		case "ip":
			pod = s.writeIP(s.pod("ip", "ip-sans=${POD_IP}"), "10.244.0.9")
		case "denied":
			pod = s.pod("denied", "dns-names=web.test")
		}
		s.asksHere(pod)
		l.reads(run.log, want, l.cannot())
	}
}

// ofAPolicy: a policy that changes has the controller's log say so, unless another test's controller is faster each time.
func ofAPolicy(want string) func(*loss) {
	return func(l *loss) {
		s := newStage(l.T)
		run := l.decider(s)
		s.apply(s.namespace, fmt.Sprintf("namespaces: [%s]", s.namespace))
		changes := 0
		until(l.T, "the log says "+want, func() bool {
			changes++
			spec := fmt.Sprintf(`--patch={"spec": {"namespaces": [%q, "n%d"]}}`, s.namespace, changes)
			if _, err := shared.Kubectl(l.Context(), "patch", "certpolicy", s.namespace, "--type=merge", spec); err != nil {
				l.Fatal(err)
			}
			return strings.Contains(run.log.String(), want)
		})
		l.reads(run.log, want, l.cannot())
	}
}

// tainted: a node on which the driver is registered, and which has the start-up taint, has the controller's log say so.
func tainted(want string) func(*loss) {
	return func(l *loss) {
		s := newStage(l.T)
		run := l.control(s, []string{"--startup-taint"}, "controller/rbac.yaml", "options/startup-taint.yaml")
		s.newNode()
		l.reads(run.log, want, l.cannot())
	}
}

// newNode makes a node that has the start-up taint and on which the driver is registered, and returns its name.
func (s *stage) newNode() string {
	s.Helper()
	meta := metav1.ObjectMeta{Name: s.namespace}
	nodes, registered := shared.Client.CoreV1().Nodes(), shared.Client.StorageV1().CSINodes()
	s.Cleanup(func() {
		_ = registered.Delete(context.Background(), meta.Name, metav1.DeleteOptions{})
		_ = nodes.Delete(context.Background(), meta.Name, metav1.DeleteOptions{})
	})
	_, err := nodes.Create(s.Context(), &corev1.Node{
		ObjectMeta: meta, Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: startup.Taint, Effect: corev1.TaintEffectNoSchedule}}},
	}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	_, err = registered.Create(s.Context(), &storagev1.CSINode{
		ObjectMeta: meta, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: driverName, NodeID: meta.Name}}},
	}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return meta.Name
}

// asksHere has a node plugin of these tests ask for the pod.
func (s *stage) asksHere(pod *corev1.Pod) {
	s.Helper()
	cr := s.request(pod, pod.Name)
	cr.Spec.Username = s.pluginHere()
	config := as(s.T, s.pluginHere(), cr.Spec.Extra)
	config.Impersonate.Groups = append(config.Impersonate.Groups, "system:masters")
	if _, err := s.requestsOf(config).Create(s.Context(), cr, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
}

// unapproved: cert-manager's webhook refuses the decision.
func unapproved(l *loss) {
	s := newStage(l.T)
	s.webhook()
	run := l.decider(s)
	pod := s.pod("web")
	s.asksHere(pod)
	l.reads(run.log, "write the decision on CertificateRequest "+s.namespace+"/web: admission webhook", "does not have permissions to set approved/denied conditions")
}

// webhook has cert-manager's webhook validate what happens in the namespace.
func (s *stage) webhook() {
	s.Helper()
	ca, err := os.ReadFile(filepath.Join(shared.Dir, "pki", "ca.crt"))
	if err != nil {
		s.Fatal(err)
	}
	hooks := shared.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	_, err = hooks.Create(s.Context(), &admissionv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: s.namespace},
		Webhooks: []admissionv1.ValidatingWebhook{{
			Name: "webhook.cert-manager.io", AdmissionReviewVersions: []string{"v1"}, SideEffects: new(admissionv1.SideEffectClassNone),
			ClientConfig:      admissionv1.WebhookClientConfig{URL: new("https://127.0.0.1:10260/validate"), CABundle: ca},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: s.namespace}},
			Rules: []admissionv1.RuleWithOperations{{
				Operations: []admissionv1.OperationType{admissionv1.Update},
				Rule:       admissionv1.Rule{APIGroups: []string{"cert-manager.io"}, APIVersions: []string{"v1"}, Resources: []string{"*/*"}},
			}},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = hooks.Delete(context.Background(), s.namespace, metav1.DeleteOptions{}) })
}

// signerRights are the rights of the controller that signs.
func signerRights() map[string]func(*loss) {
	const (
		keeps  = "modes/pod-certificate/authority.yaml: "
		signs  = "modes/pod-certificate/controller.yaml: "
		leases = "leases.coordination.k8s.io"
	)
	ours := []string{"issuer-name=mayfly-ca", "issuer-kind=CA", "issuer-group=csi.mayfly.dev"}
	return map[string]func(*loss){
		keeps + "list secrets":                                            unreadySigner,
		keeps + "watch secrets":                                           signerSays(nil, "Failed to watch"),
		keeps + "get secrets mayfly-ca":                                   signerSays(nil, "read Secret "),
		keeps + "create secrets":                                          signerSays(nil, "write Secret "),
		keeps + "update secrets mayfly-ca":                                unrotated,
		keeps + "create " + leases:                                        unled,
		keeps + "get " + leases + " mayfly-controller":                    signerSays(nil, "leaderelection"),
		keeps + "update " + leases + " mayfly-controller":                 signerSays(nil, "ease"),
		keeps + "create events":                                           signerSays(nil, "Server rejected event"),
		keeps + "list clustertrustbundles.certificates.k8s.io":            unreadySigner,
		keeps + "watch clustertrustbundles.certificates.k8s.io":           signerSays(nil, "Failed to watch"),
		keeps + "create clustertrustbundles.certificates.k8s.io":          signerSays(nil, "publish ClusterTrustBundle csi.mayfly.dev:volume:ca"),
		keeps + "update clustertrustbundles.certificates.k8s.io":          unrenewed,
		keeps + "attest signers.certificates.k8s.io csi.mayfly.dev/*":     unattested,
		signs + "list podcertificaterequests.certificates.k8s.io":         unreadySigner,
		signs + "watch podcertificaterequests.certificates.k8s.io":        signerSays(nil, "Failed to watch"),
		signs + "delete podcertificaterequests.certificates.k8s.io":       deniedForGood,
		signs + "patch podcertificaterequests/status.certificates.k8s.io": signerSays(ours, "answer PodCertificateRequest "),
		signs + "sign signers.certificates.k8s.io csi.mayfly.dev/*":       unsigned(ours),
		signs + "create certificaterequests.cert-manager.io":              unpassed,
		signs + "delete certificaterequests.cert-manager.io":              signerSays([]string{"issuer-name=ca"}, "delete CertificateRequest "),
		"controller/rbac.yaml: patch events.events.k8s.io":                signerSays([]string{"issuer-name=clusterissuer.late", "issuer-kind=CA", "issuer-group=csi.mayfly.dev"}, "Server rejected event"),
	}
}

// signer runs a controller that signs.
func (l *loss) signer(s *stage) *controllerRun {
	l.Helper()
	l.Cleanup(func() {
		_ = shared.Client.CertificatesV1().ClusterTrustBundles().Delete(context.Background(), bundleOf(volumeSigner), metav1.DeleteOptions{})
	})
	args := []string{"--pod-certificates", "--ca-namespace=" + s.namespace}
	if l.unrecorded {
		args = append(args, "--audit-log=")
	}
	return l.control(s, args, "controller/rbac.yaml", "modes/pod-certificate/authority.yaml", "modes/pod-certificate/controller.yaml")
}

// unled runs without an audit record, whose Lease would be in the namespace of the CAs here: who may make one may make
// the other.
func unled(l *loss) {
	l.unrecorded = true
	signerSays(nil, "leaderelection")(l)
}

func unreadySigner(l *loss) { l.unready(l.signer(newStage(l.T)), "requests") }

// signerSays is that the log says so, after a request for a volume with the attributes, if there are any.
func signerSays(attributes []string, want string) func(*loss) {
	return func(l *loss) {
		s := newStage(l.T)
		run := l.signer(s)
		if len(attributes) > 0 {
			s.asksAsNode(attributes...)
		}
		l.reads(run.log, want, l.cannot())
	}
}

// asksAsNode makes the PodCertificateRequest of a node plugin.
func (s *stage) asksAsNode(attributes ...string) *certificatesv1.PodCertificateRequest {
	s.Helper()
	pcr, err := forge.PodCertificate(s.pod("web", append(attributes, "duration=1h")...), "web", "1", "1")
	if err != nil {
		s.Fatal(err)
	}
	pcr, err = shared.Client.CertificatesV1().PodCertificateRequests(s.namespace).Create(s.Context(), pcr, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return pcr
}

// unrotated: a CA whose successor is due stays alone, and ends.
func unrotated(l *loss) {
	s, plan := newStage(l.T), authority.DefaultPlan()
	state, err := plan.Take(authority.Begin, authority.State{}, time.Now().Add(plan.Leaf-plan.Lifetime))
	if err != nil {
		l.Fatal(err)
	}
	data, err := state.Write(nil)
	if err != nil {
		l.Fatal(err)
	}
	_, err = shared.Client.CoreV1().Secrets(s.namespace).Create(l.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: ownSecret}, Type: corev1.SecretTypeTLS, Data: data}, metav1.CreateOptions{})
	if err != nil {
		l.Fatal(err)
	}
	l.reads(l.signer(s).log, "write Secret "+s.namespace+"/mayfly-ca: ", l.cannot())
}

// unrenewed: a bundle that has other roots stays as it is.
func unrenewed(l *loss) {
	b := bundle(bundleOf(volumeSigner), root(l.T, "another"))
	b.Spec.SignerName = volumeSigner
	if err := putBundle(l.Context(), b); err != nil {
		l.Fatal(err)
	}
	l.reads(l.signer(newStage(l.T)).log, "publish ClusterTrustBundle csi.mayfly.dev:volume:ca", l.cannot())
}

// unattested: the API server wants the right of whoever publishes a signer's roots.
func unattested(l *loss) {
	l.reads(l.signer(newStage(l.T)).log, "publish ClusterTrustBundle csi.mayfly.dev:volume:ca", "attest")
}

// deniedForGood: a denied request stays when a policy allows it.
func deniedForGood(l *loss) {
	s := newStage(l.T)
	run := l.signer(s)
	s.asksAsNode("issuer-name=mayfly-ca", "issuer-kind=CA", "issuer-group=csi.mayfly.dev", "dns-names=web.test")
	l.reads(run.log, `"decision":"denied"`)
	s.apply(s.namespace, "namespaces: ["+s.namespace+"], allow: {dnsNames: [web.test]}")
	l.reads(run.log, "delete PodCertificateRequest "+s.namespace+"/web: ", l.cannot())
}

// unsigned: the API server wants the right of whoever answers for a signer.
func unsigned(attributes []string) func(*loss) {
	return func(l *loss) {
		s := newStage(l.T)
		run := l.signer(s)
		s.asksAsNode(attributes...)
		l.reads(run.log, "answer PodCertificateRequest "+s.namespace+"/web: ", "sign")
	}
}

// unpassed: the pod's author reads it, too.
func unpassed(l *loss) {
	s := newStage(l.T)
	run := l.signer(s)
	s.asksAsNode("issuer-name=ca")
	l.reads(run.log, "pod certificate waits", "make CertificateRequest "+s.namespace+"/web: ", l.cannot())
	until(l.T, "an event of the pod", func() bool {
		events, err := shared.Client.EventsV1().Events(s.namespace).List(l.Context(), metav1.ListOptions{})
		if err != nil {
			l.Fatal(err)
		}
		for _, e := range events.Items {
			if e.Regarding.Kind == "Pod" && e.Reason == "NotSignedYet" && has(e.Note, []string{l.cannot()}) {
				return true
			}
		}
		return false
	})

}
