package cluster_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer/spec"
	"github.com/mayfly-csi/mayfly/test/cluster"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// settings changes a profile, then a flag, under two running pods, with mayfly-controller deciding. Node plugins and
// controller resolve a volume each by the profiles and flags of its own. What holds:
//
//   - What both know counts from the next renewal, which is approved.
//   - Where one of them knows a flag before the other, whichever it is, renewals are denied meanwhile: the controller
//     can't tell a node plugin with other flags from one that asks for what no pod wants. The pod keeps its
//     certificate, and an event names what was asked for and what the controller takes the volume to want.
//   - Once both know it, the next try, a minute or so after the first denial, is approved: nobody needs to do
//     anything. A restart of the node plugin does not shorten that wait.
//   - A controller that starts with profiles that have a mistake is not ready.
//
// Who asks is written down by cert-manager's webhook, which is registered for this namespace alone.
func settings(t *testing.T) {
	p := newPlatform(t)
	p.profile("profiles: {web: {dns-names: '${POD_NAME}.${POD_NAMESPACE}.svc', spiffe: 'true', duration: 1h}}")
	p.control("ca", "one.test")
	a, b := p.host("a"), p.host("b")
	for _, h := range []*host{a, b} {
		h.restart("ca", "one.test")
		h.publish(h.volume)
		h.has("ca", "one.test", "1h0m0s", "web")
	}

	p.profile("profiles: {web: {dns-names: 'api.${POD_NAMESPACE}.svc', spiffe: 'true', duration: 2h}, new: {duration: 1h}}")
	for _, log := range []text{p.log, a.log, b.log} {
		until(t, "the new profile is known", func() bool { return strings.Contains(log.String(), "profiles=2 ") })
	}
	for _, h := range []*host{a, b} {
		h.renew()
		h.has("ca", "one.test", "2h0m0s", "api")
	}

	p.control("ca", "two.test")
	for _, h := range []*host{a, b} {
		h.restart("ca", "two.test")
		h.renew()
		h.has("ca", "two.test", "2h0m0s", "api")
	}
	if strings.Contains(p.log.String(), `"decision":"denied"`) {
		t.Errorf("what both know was denied:\n%s", p.log)
	}

	a.restart("other", "two.test")
	a.denied("other", "ca")
	p.control("other", "two.test")
	b.denied("ca", "other")
	b.restart("other", "two.test")
	for _, h := range []*host{a, b} {
		h.has("other", "two.test", "2h0m0s", "api")
		h.unpublish(h.volume)
	}
	p.misspelt()
}

// misspelt: a controller that never read profiles that it understands decides on nothing, and is not ready until they
// are mended: a roll-out leaves the replicas that know others.
func (p *platform) misspelt() {
	p.Helper()
	p.profile("profiles: {web: {duration: soon}}")
	address := freeAddress(p.T)
	p.end()
	p.log, p.end = controlled(p.T, append(flagsOf("other", "two.test"), "--health-address="+address)...)
	until(p.T, "the controller is not ready", func() bool {
		code, body := readiness(address)
		return code == http.StatusInternalServerError && strings.Contains(body, "[-]profiles failed") &&
			strings.Contains(body, "[+]policies ok")
	})
	p.profile("profiles: {web: {duration: 1h}}")
	until(p.T, "the controller is ready", func() bool {
		code, _ := readiness(address)
		return code == http.StatusOK
	})
}

// A platform is Mayfly on two nodes, whose node plugins have tokens as their DaemonSet's pods have, and a controller.
type platform struct {
	*stage
	system *fleet
	other  *x509.Certificate // The CA of issuer other.

	log text // The controller's, with its audit record.
	end func()
}

func newPlatform(t *testing.T) *platform {
	t.Helper()
	p := &platform{stage: newStage(t), end: func() {}}
	p.system = &fleet{T: t, namespace: system, nodes: [2]string{p.namespace + "-a", p.namespace + "-b"}}
	p.system.account("mayfly")
	p.options("profiles", "read-pods")
	p.recordsCallers()
	p.secondIssuer()
	t.Cleanup(func() { p.end() })
	return p
}

// options applies manifests of options until the test ends.
func (p *platform) options(names ...string) {
	p.Helper()
	for _, name := range names {
		path := filepath.Join("..", "..", "manifests", "options", name+".yaml")
		if _, err := shared.Kubectl(p.Context(), "apply", "-f", path); err != nil {
			p.Fatal(err)
		}
		p.Cleanup(func() {
			if _, err := shared.Kubectl(context.Background(), "delete", "-f", path); err != nil {
				p.Error(err)
			}
		})
	}
}

// recordsCallers has cert-manager's webhook write down who makes the requests of the namespace.
func (p *platform) recordsCallers() {
	p.Helper()
	ca, err := os.ReadFile(filepath.Join(shared.Dir, "pki", "ca.crt"))
	if err != nil {
		p.Fatal(err)
	}
	webhooks := shared.Client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	_, err = webhooks.Create(p.Context(), &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: p.namespace},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name:              "webhook.cert-manager.io",
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: p.namespace}},
			Rules: []admissionv1.RuleWithOperations{{
				Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule: admissionv1.Rule{
					APIGroups: []string{"cert-manager.io"}, APIVersions: []string{"v1"}, Resources: []string{"certificaterequests"},
				},
			}},
			ClientConfig:            admissionv1.WebhookClientConfig{URL: new("https://127.0.0.1:10260/mutate"), CABundle: ca},
			AdmissionReviewVersions: []string{"v1"}, SideEffects: new(admissionv1.SideEffectClassNone),
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { _ = webhooks.Delete(context.Background(), p.namespace, metav1.DeleteOptions{}) })
}

// secondIssuer makes the issuer other, of a CA of its own.
func (p *platform) secondIssuer() {
	p.Helper()
	crt, key, err := cluster.NewCA()
	if err != nil {
		p.Fatal(err)
	}
	pair, err := tls.X509KeyPair(crt, key)
	if err != nil {
		p.Fatal(err)
	}
	p.other = pair.Leaf
	_, err = shared.Client.CoreV1().Secrets(p.namespace).Create(p.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "other"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: crt, corev1.TLSPrivateKeyKey: key},
	}, metav1.CreateOptions{})
	if err != nil {
		p.Fatal(err)
	}
	ca := cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "other"}}
	if err := shared.Issuer(p.Context(), p.namespace, "other", ca); err != nil {
		p.Fatal(err)
	}
}

// profile writes the profiles, which name no issuer.
func (p *platform) profile(text string) {
	p.Helper()
	_, err := shared.Client.CoreV1().ConfigMaps(system).Update(p.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "mayfly"}, Data: map[string]string{spec.ProfilesKey: text},
	}, metav1.UpdateOptions{})
	if err != nil {
		p.Fatal(err)
	}
}

// flagsOf returns the flags that node plugins and controller have in common.
func flagsOf(issuer, trustDomain string) []string {
	return []string{"--config-map=" + system + "/mayfly", "--issuer-name=" + issuer, "--trust-domain=" + trustDomain}
}

// control runs the controller with these flags, in place of the one that runs.
func (p *platform) control(issuer, trustDomain string) {
	p.Helper()
	p.end()
	p.log, p.end = controlled(p.T, flagsOf(issuer, trustDomain)...)
}

// A host is a node with a pod, whose volume names a profile and nothing else.
type host struct {
	*node
	on     *platform
	name   string
	volume kubelet.Volume
}

// host makes a node with a pod, and waits until the API server knows its node plugin, and the webhook is in force.
func (p *platform) host(letter string) *host {
	p.Helper()
	h := &host{node: idleNode(p.T, p.namespace), on: p, name: p.namespace + "-" + letter}
	p.system.node(h.name)
	config := p.system.plugin(h.name)
	h.kubeconfig = kubeconfigOf(p.T, config)
	attributes := map[string]string{"csi.mayfly.dev/profile": "web"}
	pod := p.podOn(h.name, "web-"+letter, attributes)
	h.volume = kubelet.Volume{
		Pod:        kubelet.Pod{Namespace: p.namespace, Name: pod.Name, UID: string(pod.UID), ServiceAccount: "default"},
		Attributes: attributes,
	}
	cr := p.request(p.pod("probe-"+pod.Name), "probe")
	cr.Spec.Username, cr.Spec.Extra = "", nil
	until(p.T, "a request of the node plugin is taken", func() bool {
		_, err := p.requestsOf(config).Create(p.Context(), cr, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err == nil
	})
	return h
}

// restart runs the node plugin with these flags, in place of the one that runs.
func (h *host) restart(issuer, trustDomain string) {
	h.t.Helper()
	if h.process != nil {
		h.end(syscall.SIGTERM)
	}
	h.args = append(flagsOf(issuer, trustDomain), "--node-name="+h.name, "--watch-pods")
	h.start()
}

// renew asks for a new certificate.
func (h *host) renew() {
	h.t.Helper()
	h.annotate(h.volume, time.Now().Add(time.Second).UTC().Format(time.RFC3339))
}

// has waits until the pod has a certificate of the issuer with these properties.
func (h *host) has(issuer, trustDomain, lifetime, name string) {
	h.t.Helper()
	if name == "web" {
		name = h.volume.Pod.Name
	}
	const format = "%s [%s.%s.svc] [spiffe://%s/ns/%s/sa/default] %s"
	want := fmt.Sprintf(format, issuer, name, h.namespace, trustDomain, h.namespace, lifetime)
	var got string
	defer func() {
		if h.t.Failed() {
			h.t.Logf("%s has\n%s\nwant\n%s", h.name, got, want)
		}
	}()
	until(h.t, "the certificate of "+h.name, func() bool {
		got = h.on.describe(h.leaf(h.Target(h.volume)))
		return got == want
	})
}

func (p *platform) describe(leaf *x509.Certificate) string {
	issuer := "ca"
	if leaf.CheckSignatureFrom(p.other) == nil {
		issuer = "other"
	}
	lifetime := leaf.NotAfter.Sub(leaf.NotBefore).Round(time.Minute)
	return fmt.Sprint(issuer, " ", leaf.DNSNames, " ", leaf.URIs, " ", lifetime)
}

// denied asks for a new certificate and waits for the event that it was denied: asked for was one issuer, and the
// controller takes the volume to want another. The pod keeps the certificate that it has.
func (h *host) denied(asked, wants string) {
	h.t.Helper()
	before := h.leaf(h.Target(h.volume))
	h.renew()
	issuer := func(name string) string { return fmt.Sprintf(`%q %q of "cert-manager.io"`, cmapi.IssuerKind, name) }
	const format = "the request is not what volume tls of pod %s asks for: issuer: asked for is %s, and the volume wants %s; "
	want := fmt.Sprintf(format, h.volume.Pod.Name, issuer(asked), issuer(wants))
	until(h.t, "the event of "+h.name+": "+want, func() bool {
		return h.told("CertificateNotRenewed", want, "; the pod keeps its certificate")
	})
	if !h.leaf(h.Target(h.volume)).Equal(before) {
		h.t.Errorf("%s: the pod has another certificate", h.name)
	}
}

// told reports whether there is an event of the pod with these words.
func (h *host) told(reason string, words ...string) bool {
	h.t.Helper()
	of := metav1.ListOptions{FieldSelector: "involvedObject.name=" + h.volume.Pod.Name}
	events, err := shared.Client.CoreV1().Events(h.namespace).List(h.t.Context(), of)
	if err != nil {
		h.t.Fatal(err)
	}
	return slices.ContainsFunc(events.Items, func(e corev1.Event) bool {
		lacks := func(word string) bool { return !strings.Contains(e.Message, word) }
		return e.Reason == reason && !slices.ContainsFunc(words, lacks)
	})
}
