package cluster_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"golang.org/x/sync/errgroup"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/mayfly-csi/mayfly/signer/controller/audit"
)

const (
	honestNode = "node-honest"
	honestName = "honest-" // Of its requests; a number follows.
	thiefNode  = "node-thief"
	// overtaken is how many requests of attackers may be decided, of the honest one's kind, while an honest pod's waits:
	// those that are under way, and those that come while the API server takes the honest one and tells of it.
	overtaken = 150
	floodWith = 8   // Calls at a time.
	lowRate   = 4   // Of a node, in a second.
	burst     = 100 // How many seconds' worth of that may come at once.
)

// requestsOfTheThief is how many requests a thief of a token makes; make attack has 10,000 of them.
var requestsOfTheThief = flag.Int("thief", 800, "requests by a stolen token in TestUnderAttack")

// TestUnderAttack: while somebody attacks mayfly-controller, which has the memory of its manifest and no more, an honest
// pod of another node gets its decision before more than a few of the attackers get theirs, /healthz answers, and a
// thief's requests wait and are told of.
func TestUnderAttack(t *testing.T) {
	signs(t)
	s := &siege{stage: newStage(t), binary: plainController(t)}
	s.honest = s.podOn(honestNode, "honest", ownName())
	s.namespaces = []string{s.namespace}
	t.Cleanup(s.clear)
	until(t, "the node plugin may ask", func() bool {
		dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
		_, err := s.requestsOf(s.plugin(honestNode)).Create(t.Context(), s.request(s.honest, "probe"), dry)
		return err == nil
	})
	end := s.begin()
	s.usual = s.during("nothing", func(ask func()) {
		for range 10 {
			ask()
		}
	})
	s.attack("a pod of 1.4 MiB", s.largePod)
	s.attack("1,000 native sources", s.manySources)
	s.attack("a flood of strangers' requests", s.strangers)
	end()
	end = s.begin(fmt.Sprint("--node-rate=", lowRate)) // So that there is no need of a fast machine for a flood.
	s.attack("a storm of denials", s.denials)
	s.attack("requests by a stolen token", s.thief)
	s.limited()
	end()
	end = s.begin() // With all of the requests there.
	s.during("a restart", func(ask func()) { ask() })
	end()
}

// ownName returns attributes of a volume that asks for a name of its pod's own.
func ownName() map[string]string {
	return map[string]string{
		"csi.mayfly.dev/issuer-name": "ca", "csi.mayfly.dev/dns-names": "${POD_NAME}.${POD_NAMESPACE}.svc",
	}
}

// largePod has a pod of nearly the largest size that the API server stores, and its node plugin ask for each of its
// volumes, again and again.
func (s *siege) largePod(ctx context.Context) error {
	const node, volumes, times = "node-large", 100, 4
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "large", Namespace: s.namespace, Annotations: map[string]string{"example.org/a": strings.Repeat("a", 250<<10)}},
		Spec: corev1.PodSpec{
			NodeName: node, ServiceAccountName: "default", Containers: []corev1.Container{{
				Name: "app", Image: "app", Env: []corev1.EnvVar{{Name: "A", Value: strings.Repeat("a", 500<<10)}},
			}},
		},
	}
	var names []string
	for i := range 120 { // A request of more than cluster.MaxCached bytes.
		names = append(names, fmt.Sprintf("name-%d.with-many-more-letters.%s.svc", i, s.namespace))
	}
	for i := range volumes {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: fmt.Sprint("tls-", i), VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
			Driver: driverName, ReadOnly: new(true), VolumeAttributes: map[string]string{
				"csi.mayfly.dev/issuer-name": "ca", "csi.mayfly.dev/dns-names": strings.Join(names, ","),
			},
		}}})
	}
	pod, err := shared.Client.CoreV1().Pods(s.namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if size := pod.Size(); size < 14*(1<<20)/10 {
		return fmt.Errorf("the pod has %d bytes", size)
	}
	var asks []*cmapi.CertificateRequest
	for _, v := range pod.Spec.Volumes {
		one := pod.DeepCopy()
		one.Spec.Volumes = []corev1.Volume{v}
		cr, err := s.forged(one, node, "large")
		if err != nil {
			return err
		}
		asks = append(asks, cr)
	}
	err = s.flood(ctx, s.plugin(node), volumes*times, func(i int) *cmapi.CertificateRequest { return asks[i%volumes].DeepCopy() })
	if err != nil {
		return err
	}
	s.settled(node, volumes)
	s.decided("large-0", "Approved VerifiedByMayfly")
	return nil
}

// settled waits until so many requests of a node are decided.
func (s *siege) settled(node string, n int) {
	until(s.T, fmt.Sprintf("decisions on requests of %s", node), func() bool {
		s.ledger.mu.Lock()
		defer s.ledger.mu.Unlock()
		return s.ledger.byNode[node] >= n
	})
}

// manySources has kubelets ask for pods with 1,000 podCertificate sources: for one pod that has all of them, of which
// none is signed, and for eight that have 125 each.
func (s *siege) manySources(ctx context.Context) error {
	csr, _ := stub(s.T)
	all := func(pod, node string, n int) error {
		var sources []corev1.VolumeProjection
		for i := range n {
			sources = append(sources, corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{
				SignerName: corpSigner, KeyType: "ECDSAP256", CredentialBundlePath: fmt.Sprintf("bundle-%d.pem", i),
				UserAnnotations: map[string]string{"csi.mayfly.dev/dns-names": fmt.Sprintf("name-%d.%s.svc", i, s.namespace)},
			}})
		}
		made, err := shared.Client.CoreV1().Pods(s.namespace).Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: pod}, Spec: corev1.PodSpec{
				NodeName: node, ServiceAccountName: "default", Containers: []corev1.Container{{Name: "app", Image: "app"}},
				Volumes: []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: sources}}}},
			},
		}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		calls, ctx := errgroup.WithContext(ctx)
		calls.SetLimit(floodWith)
		for i, source := range sources {
			calls.Go(func() error {
				_, err := shared.Client.CertificatesV1().PodCertificateRequests(s.namespace).Create(ctx, &certificatesv1.PodCertificateRequest{
					ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", pod, i)},
					Spec: certificatesv1.PodCertificateRequestSpec{
						SignerName: corpSigner, PodName: pod, PodUID: made.UID, ServiceAccountName: "default", ServiceAccountUID: "1",
						NodeName: types.NodeName(node), NodeUID: "1", MaxExpirationSeconds: new(int32(86400)),
						StubPKCS10Request: csr, UnverifiedUserAnnotations: source.PodCertificate.UserAnnotations,
					},
				}, metav1.CreateOptions{})
				return err
			})
		}
		return calls.Wait()
	}
	if err := all("all", "node-sources", 1000); err != nil {
		return err
	}
	for i := range 8 {
		if err := all(fmt.Sprint("eighth-", i), fmt.Sprint("node-sources-", i), 125); err != nil {
			return err
		}
	}
	for i := range 8 {
		s.settled(fmt.Sprint("node-sources-", i), 125)
	}
	return nil
}

// thief has a thief of a node plugin's token ask thousands of times, in eight namespaces: for a pod of its node, which
// may have what is asked for, and for one of another node.
func (s *siege) thief(ctx context.Context) error {
	n := *requestsOfTheThief
	var asks []*cmapi.CertificateRequest
	for range 8 { // More than have the node's share together.
		victim := s.besides()
		for _, pod := range []*corev1.Pod{victim.podOn(thiefNode, "own", ownName()), victim.podOn("node-other", "other", ownName())} {
			cr, err := s.forged(pod, thiefNode, "stolen-"+pod.Name)
			if err != nil {
				return err
			}
			asks = append(asks, cr)
		}
	}
	began := time.Now()
	err := s.flood(ctx, s.plugin(thiefNode), n, func(i int) *cmapi.CertificateRequest { return asks[i%len(asks)].DeepCopy() })
	if err != nil {
		return err
	}
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	decided, most := s.ledger.byNode[thiefNode], lowRate*(burst+time.Since(began).Seconds())
	s.Logf("the thief has %d decisions on %d requests after %s", decided, n, time.Since(began).Round(time.Second))
	if float64(decided) > most {
		return fmt.Errorf("the thief has %d decisions, and at most %.0f are a node's share", decided, most)
	}
	return nil
}

// besides is another namespace, without issuers.
func (s *siege) besides() *stage {
	name := fmt.Sprintf("%s-%d", s.namespace, len(s.namespaces))
	_, err := shared.Client.CoreV1().Namespaces().Create(s.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	s.namespaces = append(s.namespaces, name)
	return &stage{s.T, name}
}

// limited: that the thief's requests wait is told by an Event of the node, the metric and the audit record.
func (s *siege) limited() {
	s.Helper()
	want := fmt.Sprintf("node %s asks for more than %d certificates a second: the others wait", thiefNode, lowRate)
	s.ledger.mu.Lock()
	recorded := slices.ContainsFunc(s.ledger.limited, func(r audit.Record) bool {
		return r.Node == thiefNode && r.Message == want && r.Reason == "TooManyRequests" && r.Mode == audit.Driver
	})
	s.ledger.mu.Unlock()
	if !recorded {
		s.Errorf("the audit record has %+v", s.ledger.limited)
	}
	until(s.T, "the Event of the thief's node", func() bool {
		events, err := shared.Client.EventsV1().Events(metav1.NamespaceDefault).List(s.Context(), metav1.ListOptions{})
		return err == nil && slices.ContainsFunc(events.Items, func(e eventsv1.Event) bool {
			return e.Regarding.Kind == "Node" && e.Regarding.Name == thiefNode && e.Reason == "TooManyRequests" && e.Note == want
		})
	})
	page, err := s.page(s.metrics, "/metrics")
	if err != nil || !strings.Contains(page, `mayfly_controller_limited_total{node="`+thiefNode+`"} `) {
		s.Errorf("the metrics do not name the thief's node (%v)", err)
	}
}

// denials has pods of many nodes, the honest pod's among them, ask for what is denied, again and again.
func (s *siege) denials(ctx context.Context) error {
	const nodes, each = 5, 80
	of := s.besides()
	var asks []*cmapi.CertificateRequest
	for i := range nodes {
		node := fmt.Sprint("node-denied-", i)
		if i == 0 {
			node = honestNode
		}
		pod := of.podOn(node, fmt.Sprint("denied-", i), map[string]string{"csi.mayfly.dev/issuer-name": "ca", "csi.mayfly.dev/dns-names": "www.example.org"})
		cr, err := s.forged(pod, node, pod.Name)
		if err != nil {
			return err
		}
		asks = append(asks, cr)
	}
	calls, ctx := errgroup.WithContext(ctx)
	for _, cr := range asks {
		calls.Go(func() error {
			return s.flood(ctx, s.plugin(cr.Spec.Extra[nodeKey][0]), each, func(int) *cmapi.CertificateRequest { return cr.DeepCopy() })
		})
	}
	return calls.Wait()
}

// delete deletes all requests of a namespace.
func (s *siege) delete(ctx context.Context, namespace string) error {
	return shared.CertManager.CertmanagerV1().CertificateRequests(namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
}

// strangers has somebody else ask an issuer that is nothing to Mayfly.
func (s *siege) strangers(ctx context.Context) error {
	const n = 1000
	of := s.besides()
	cr := s.request(s.honest, "strange")
	cr.Namespace, cr.OwnerReferences, cr.Annotations = of.namespace, nil, map[string]string{"example.org/a": strings.Repeat("a", 16<<10)}
	cr.Spec.Username, cr.Spec.Extra = "admin", nil
	cr.Spec.IssuerRef.Group = "example.org"
	return s.flood(ctx, shared.REST, n, func(int) *cmapi.CertificateRequest { return cr.DeepCopy() })
}

// clear removes what attackers asked for, which would keep cert-manager busy.
func (s *siege) clear() {
	for _, namespace := range s.namespaces {
		// A call may take too long for the API server: it has deleted some.
		until(s.T, "the requests are deleted", func() bool { return s.delete(context.Background(), namespace) == nil })
	}
}
