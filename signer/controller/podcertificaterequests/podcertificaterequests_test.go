package podcertificaterequests

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/prometheus/client_golang/prometheus"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	keys "github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/ca"
	"github.com/mayfly-csi/mayfly/signer/controller/audit"
	"github.com/mayfly-csi/mayfly/signer/controller/audit/audittest"
	"github.com/mayfly-csi/mayfly/signer/controller/cluster"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A fixture is a signer with an API server that knows some objects.
type fixture struct {
	*testing.T
	*Signer
	api    client.WithWatch
	events []string
	log    bytes.Buffer
	record *audittest.Kept
}

// records ends the audit record and returns what it has.
func (d *fixture) records() (all []audit.Record, words []string) { return d.record.Read(d.T) }

// cas are CAs by signer.
type cas map[string]ca.CA

func (c cas) Get(_ context.Context, name string) (ca.CA, error) {
	one, ok := c[name]
	if !ok {
		return one, errors.New("there is no CA for " + name)
	}
	return one, nil
}

func (d *fixture) Eventf(regarding, _ runtime.Object, kind, reason, _, note string, args ...any) {
	d.events = append(d.events, fmt.Sprintf("%T %s %s: ", regarding, kind, reason)+fmt.Sprintf(note, args...))
}

const self = "system:serviceaccount:mayfly-system:mayfly-controller"

func newFixture(t *testing.T, calls interceptor.Funcs, objects ...client.Object) *fixture {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), cmapi.AddToScheme(scheme), certificatesv1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	root, err := ca.New("root", time.Now().Add(-time.Hour), time.Now().Add(1000*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	d := &fixture{T: t}
	d.api = fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&cmapi.CertificateRequest{}, &certificatesv1.PodCertificateRequest{}).
		WithIndex(&certificatesv1.PodCertificateRequest{}, "metadata.name", func(o client.Object) []string { return []string{o.GetName()} }).
		WithObjects(objects...).WithInterceptorFuncs(calls).Build()
	d.record = audittest.Open(t)
	d.Signer = New(Config{
		Decider: cluster.Decider{Live: d.api, Rules: decide.Rules{
			ClusterDomain: "cluster.local",
			Drivers:       []spec.DriverName{{Name: spec.Driver}, {Name: spec.OldDriver}},
			Defaults:      defaults(),
			Policy:        policy.Policy{ClusterDomain: "cluster.local"},
		}},
		Audit: d.record.Log, Holder: audittest.Holder(true),
		OwnCA: "mayfly-ca", Requests: d.api, Self: self, Events: d, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.NewTextHandler(&d.log, nil)),
		CAs: cas{signer.PodCertificateSigner: root, decide.Domain + "clusterissuer.corp": root, decide.Domain + "issuer.shop.corp": root, decide.Domain + "issuer.bank.corp": root},
	})
	return d
}

// web is a pod of node-a with an inline volume and a native one.
func web(attributes ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid-1"},
		Spec: corev1.PodSpec{NodeName: "node-a", ServiceAccountName: "clerk", Volumes: []corev1.Volume{
			{Name: "tls", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: spec.Driver, VolumeAttributes: pairs(append([]string{
				"csi.mayfly.dev/issuer-name=mayfly-ca", "csi.mayfly.dev/issuer-kind=CA", "csi.mayfly.dev/issuer-group=csi.mayfly.dev",
				"csi.mayfly.dev/dns-names=web.shop.svc", "csi.mayfly.dev/duration=2h",
			}, attributes...)...)}}},
			{Name: "native", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{PodCertificate: &corev1.PodCertificateProjection{SignerName: decide.Domain + "clusterissuer.corp", KeyType: "ECDSAP256", MaxExpirationSeconds: new(int32(7200))}},
			}}}},
		}},
	}
}

func projection(pod *corev1.Pod) *corev1.PodCertificateProjection {
	return pod.Spec.Volumes[1].Projected.Sources[0].PodCertificate
}

func pairs(texts ...string) map[string]string {
	all := map[string]string{}
	for _, text := range texts {
		key, value, _ := strings.Cut(text, "=")
		all[key] = value
	}
	return all
}

// defaults have a profile that gives the request an annotation.
func defaults() spec.Defaults {
	return spec.Defaults{TrustDomain: "cluster.local", Live: &spec.Profiles{
		Profiles: map[string]spec.Profile{"team": {"example.org/team": "shop"}},
	}}
}

// volume is what the node plugin is asked for.
func volume(pod *corev1.Pod) spec.Asked {
	return decide.Rules{Drivers: []spec.DriverName{{Name: spec.Driver}}}.Volumes(pod)[0].Asked
}

// asks is what the node plugin asks for the inline volume.
func asks(t *testing.T, pod *corev1.Pod) *certificatesv1.PodCertificateRequest {
	t.Helper()
	v, err := spec.Parse(volume(pod), defaults())
	if err != nil {
		t.Fatal(err)
	}
	pcr := bare(t, pod, v)
	pcr.Spec.SignerName = signer.PodCertificateSigner
	pcr.Spec.MaxExpirationSeconds = new(int32(v.Duration.Seconds()))
	pcr.Spec.UnverifiedUserAnnotations = map[string]string{signer.VolumeAnnotation: decide.VolumeID(pod, "tls")}
	return pcr
}

// kubelet is what the kubelet asks for the native volume.
func kubelet(t *testing.T, pod *corev1.Pod) *certificatesv1.PodCertificateRequest {
	t.Helper()
	p := projection(pod)
	key := map[string]spec.Key{
		"ECDSAP256": {Algorithm: spec.ECDSA, Size: 256}, "ECDSAP384": {Algorithm: spec.ECDSA, Size: 384},
		"RSA3072": {Algorithm: spec.RSA, Size: 3072}, "ED25519": {Algorithm: spec.Ed25519},
	}[p.KeyType]
	pcr := bare(t, pod, spec.Spec{Key: key})
	pcr.Spec.SignerName, pcr.Spec.MaxExpirationSeconds, pcr.Spec.UnverifiedUserAnnotations = p.SignerName, p.MaxExpirationSeconds, p.UserAnnotations
	return pcr
}

func bare(t *testing.T, pod *corev1.Pod, v spec.Spec) *certificatesv1.PodCertificateRequest {
	t.Helper()
	key, err := keys.NewKey(v.Key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := v.CSR(key)
	if err != nil {
		t.Fatal(err)
	}
	return &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: "web-attempt", UID: "pcr-1", CreationTimestamp: metav1.NewTime(time.Now().Add(-time.Hour))},
		Spec: certificatesv1.PodCertificateRequestSpec{
			PodName: pod.Name, PodUID: pod.UID, ServiceAccountName: pod.Spec.ServiceAccountName, NodeName: "node-a", StubPKCS10Request: der,
		},
	}
}

func (d *fixture) answers(pcr *certificatesv1.PodCertificateRequest) (reconcile.Result, error) {
	return d.Reconcile(d.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(pcr)})
}

// status is the request's now, in words: "Denied NoVolume: …".
func (d *fixture) status(of *certificatesv1.PodCertificateRequest) (words string, now certificatesv1.PodCertificateRequestStatus) {
	d.Helper()
	var pcr certificatesv1.PodCertificateRequest
	if err := d.api.Get(d.Context(), client.ObjectKeyFromObject(of), &pcr); err != nil {
		d.Fatal(err)
	}
	for _, c := range pcr.Status.Conditions {
		words += fmt.Sprintf("%s %s: %s", c.Type, c.Reason, c.Message)
	}
	return words, pcr.Status
}

func (d *fixture) leaf(pcr *certificatesv1.PodCertificateRequest) (leaf *x509.Certificate, others int) {
	d.Helper()
	words, now := d.status(pcr)
	chain, err := ca.Decode([]byte(now.CertificateChain))
	if err != nil {
		d.Fatalf("%s: %v", words, err)
	}
	return chain[0], len(chain) - 1
}

func TestACAOfTheControllerSigns(t *testing.T) {
	pod := web("csi.mayfly.dev/spiffe=true")
	pcr := asks(t, pod)
	d := newFixture(t, interceptor.Funcs{}, pod, pcr)
	for range 2 { // The second time it is answered.
		if result, err := d.answers(pcr); err != nil || !result.IsZero() {
			t.Fatalf("%+v (%v)", result, err)
		}
	}
	leaf, roots := d.leaf(pcr)
	if got := fmt.Sprint(leaf.DNSNames, leaf.URIs, leaf.NotAfter.Sub(leaf.NotBefore), leaf.IsCA, roots); got != "[web.shop.svc] [spiffe://cluster.local/ns/shop/sa/clerk] 2h0m0s false 1" {
		t.Error(got)
	}
	if words, now := d.status(pcr); words != "Issued VerifiedByMayfly: signed by CA mayfly-ca for volume of pod web" || !now.NotBefore.Time.Equal(leaf.NotBefore) || !now.NotAfter.Time.Equal(leaf.NotAfter) {
		t.Errorf("%s, %+v", words, now)
	}
	if len(d.events) > 0 {
		t.Error(d.events)
	}
}

func TestANativeVolumeGetsWhatFollowsFromItsPod(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*corev1.Pod)
		want   string
	}{
		{"nothing said", func(*corev1.Pod) {}, "[] [spiffe://cluster.local/ns/shop/sa/clerk] []"},
		{"of a headless service", func(p *corev1.Pod) { p.Spec.Subdomain = "webs" }, "[web.webs.shop.svc web.webs.shop.svc.cluster.local] [spiffe://cluster.local/ns/shop/sa/clerk] []"},
		{"of a long name", func(p *corev1.Pod) {
			p.Name, p.Spec.Subdomain = strings.Repeat("a", 62)+"-web", "webs"
		}, fmt.Sprintf("[%s.webs.shop.svc %[1]s.webs.shop.svc.cluster.local] [spiffe://cluster.local/ns/shop/sa/clerk] []", strings.Repeat("a", 62))},
		{"with a host name that overrides all", func(p *corev1.Pod) {
			p.Spec.Subdomain, p.Spec.HostnameOverride = "webs", new("w0.example.org")
		}, "[] [spiffe://cluster.local/ns/shop/sa/clerk] []"},
		{"with a host name", func(p *corev1.Pod) { p.Spec.Subdomain, p.Spec.Hostname = "webs", "w0" }, "[w0.webs.shop.svc w0.webs.shop.svc.cluster.local] [spiffe://cluster.local/ns/shop/sa/clerk] []"},
		{"the author's names", func(p *corev1.Pod) {
			projection(p).UserAnnotations = pairs("csi.mayfly.dev/dns-names=${POD_NAME}.shop.svc", "csi.mayfly.dev/spiffe=false", "csi.mayfly.dev/key-usages=client auth")
		}, "[web.shop.svc] [] []"},
		{"of the namespace's issuer", func(p *corev1.Pod) { projection(p).SignerName = decide.Domain + "issuer.shop.corp" }, "[] [spiffe://cluster.local/ns/shop/sa/clerk] []"},
		{"another key", func(p *corev1.Pod) { projection(p).KeyType = "ED25519" }, "[] [spiffe://cluster.local/ns/shop/sa/clerk] []"},
		{"RSA", func(p *corev1.Pod) { projection(p).KeyType = "RSA3072" }, "[] [spiffe://cluster.local/ns/shop/sa/clerk] []"},
	} {
		t.Run(row.name, func(t *testing.T) {
			pod := web()
			row.change(pod)
			pcr := kubelet(t, pod)
			d := newFixture(t, interceptor.Funcs{}, pod, pcr)
			if result, err := d.answers(pcr); err != nil || !result.IsZero() {
				t.Fatalf("%+v (%v)", result, err)
			}
			leaf, roots := d.leaf(pcr)
			if got := fmt.Sprint(leaf.DNSNames, leaf.URIs, leaf.IPAddresses); got != row.want || roots != 0 {
				t.Errorf("%s, %d roots", got, roots)
			}
		})
	}
}

func TestWhatIsDenied(t *testing.T) {
	native := decide.Domain + "clusterissuer.corp"
	for _, row := range []struct {
		name   string
		native bool
		change func(*certificatesv1.PodCertificateRequest, *corev1.Pod)
		want   string
	}{
		{"a pod of another node", false, func(_ *certificatesv1.PodCertificateRequest, p *corev1.Pod) { p.Spec.NodeName = "node-b" }, "Denied OtherNode: "},
		{"another pod by now", false, func(_ *certificatesv1.PodCertificateRequest, p *corev1.Pod) { p.UID = "uid-2" }, "Denied PodNotFound: "},
		{"a pod that has ended", false, func(_ *certificatesv1.PodCertificateRequest, p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, "Denied PodNotLive: "},
		{"no volume of ours", false, func(_ *certificatesv1.PodCertificateRequest, p *corev1.Pod) { p.Spec.Volumes = nil }, "Denied NoVolume: pod web has no volume of csi.mayfly.dev or csi.cert-manager.io with the id "},
		{"another pod's volume", false, func(r *certificatesv1.PodCertificateRequest, _ *corev1.Pod) {
			r.Spec.UnverifiedUserAnnotations[signer.VolumeAnnotation] = "csi-0"
		}, "Denied NoVolume: "},
		{"the request of another volume", false, func(r *certificatesv1.PodCertificateRequest, _ *corev1.Pod) {
			*r = *asks(t, web("csi.mayfly.dev/dns-names=db.shop.svc"))
		}, `Denied NotTheVolumes: the request is not what volume tls of pod web asks for: DNS names: asked for is ["db.shop.svc"]`},
		{"a longer life", false, func(r *certificatesv1.PodCertificateRequest, _ *corev1.Pod) {
			r.Spec.MaxExpirationSeconds = new(int32(7201))
		}, "duration: asked for is 2h0m1s, and the volume wants 2h0m0s"},
		{"another account", false, func(r *certificatesv1.PodCertificateRequest, _ *corev1.Pod) { r.Spec.ServiceAccountName = "root" }, "service account: asked for is root"},
		{"what the node adds", false, func(r *certificatesv1.PodCertificateRequest, _ *corev1.Pod) {
			r.Spec.UnverifiedUserAnnotations["csi.mayfly.dev/dns-names"] = "x"
		}, "unverifiedUserAnnotations: "},
		{"a native volume of the node plugin's signer", true, func(r *certificatesv1.PodCertificateRequest, p *corev1.Pod) {
			r.Spec.SignerName, projection(p).SignerName = signer.PodCertificateSigner, signer.PodCertificateSigner
		}, "podCertificate volumes have the signers csi.mayfly.dev/issuer.<namespace>.<name> and csi.mayfly.dev/clusterissuer.<name>"},
		{"names that are not the pod's", false, func(r *certificatesv1.PodCertificateRequest, p *corev1.Pod) {
			*p = *web("csi.mayfly.dev/dns-names=web.test")
			*r = *asks(t, p)
		}, `Denied NotAllowed: DNS name "web.test" is not the pod's`},
		{"a CA", false, func(r *certificatesv1.PodCertificateRequest, p *corev1.Pod) {
			*p = *web("csi.mayfly.dev/is-ca=true")
			*r = *asks(t, p)
		}, "Denied NotAllowed: a pod may not be a CA"},

		{"a signer that the pod does not name", true, func(r *certificatesv1.PodCertificateRequest, _ *corev1.Pod) {
			r.Spec.SignerName = decide.Domain + "issuer.shop.corp"
		}, "Denied NoVolume: pod web has no podCertificate volume with signer csi.mayfly.dev/issuer.shop.corp that asks for this"},
		{"a longer life than the native volume's", true, func(r *certificatesv1.PodCertificateRequest, _ *corev1.Pod) {
			r.Spec.MaxExpirationSeconds = new(int32(7201))
		}, "Denied NoVolume: "},
		{"annotations that the native volume does not have", true, func(r *certificatesv1.PodCertificateRequest, _ *corev1.Pod) {
			r.Spec.UnverifiedUserAnnotations = pairs("csi.mayfly.dev/dns-names=x.shop.svc")
		}, "Denied NoVolume: "},
		{"names in the kubelet's request", true, func(r *certificatesv1.PodCertificateRequest, p *corev1.Pod) {
			r.Spec.StubPKCS10Request = asks(t, p).Spec.StubPKCS10Request
		}, "the signing request has names"},
		{"a long request", true, func(r *certificatesv1.PodCertificateRequest, _ *corev1.Pod) {
			r.Spec.StubPKCS10Request = make([]byte, 4097)
		}, "the signing request has 4097 bytes: at most 4096"},
		{"another kind of key", true, func(_ *certificatesv1.PodCertificateRequest, p *corev1.Pod) { projection(p).KeyType = "ECDSAP384" }, "key: "},
		{"another namespace's issuer", true, func(r *certificatesv1.PodCertificateRequest, p *corev1.Pod) {
			r.Spec.SignerName, projection(p).SignerName = decide.Domain+"issuer.bank.corp", decide.Domain+"issuer.bank.corp"
		}, "there are csi.mayfly.dev/issuer.shop.<name>, of the pod's own namespace, and csi.mayfly.dev/clusterissuer.<name>"},
		{"the controller's own CA", true, func(r *certificatesv1.PodCertificateRequest, p *corev1.Pod) {
			r.Spec.SignerName, projection(p).SignerName = decide.Domain+"mayfly-ca", decide.Domain+"mayfly-ca"
		}, "there are csi.mayfly.dev/issuer.shop.<name>"},
		{"an issuer by annotation", true, func(r *certificatesv1.PodCertificateRequest, p *corev1.Pod) {
			projection(p).UserAnnotations = pairs("csi.mayfly.dev/issuer-name=x")
			r.Spec.UnverifiedUserAnnotations = projection(p).UserAnnotations
		}, "userAnnotations: csi.mayfly.dev/issuer-name is not one that podCertificate volumes can have"},
		{"an annotation of others", true, func(r *certificatesv1.PodCertificateRequest, p *corev1.Pod) {
			projection(p).UserAnnotations = pairs("example.org/x=y")
			r.Spec.UnverifiedUserAnnotations = projection(p).UserAnnotations
		}, "userAnnotations: example.org/x is not one"},
		{"an attribute that is not about the certificate", true, func(r *certificatesv1.PodCertificateRequest, p *corev1.Pod) {
			projection(p).UserAnnotations = pairs("csi.mayfly.dev/renew-before=5m")
			r.Spec.UnverifiedUserAnnotations = projection(p).UserAnnotations
		}, "userAnnotations: csi.mayfly.dev/renew-before is not one"},
		{"an attribute that nobody knows", true, func(r *certificatesv1.PodCertificateRequest, p *corev1.Pod) {
			projection(p).UserAnnotations = pairs("csi.mayfly.dev/dns-name=x")
			r.Spec.UnverifiedUserAnnotations = projection(p).UserAnnotations
		}, "userAnnotations: csi.mayfly.dev/dns-name is not one"},
		{"no native volume", true, func(_ *certificatesv1.PodCertificateRequest, p *corev1.Pod) { p.Spec.Volumes = p.Spec.Volumes[:1] }, "Denied NoVolume: pod web has no podCertificate volume with signer " + native},
	} {
		t.Run(row.name, func(t *testing.T) {
			pod := web()
			pcr := asks(t, pod)
			if row.native {
				pcr = kubelet(t, pod)
			}
			row.change(pcr, pod)
			d := newFixture(t, interceptor.Funcs{}, pod, pcr)
			if result, err := d.answers(pcr); err != nil || !result.IsZero() {
				t.Fatalf("%+v (%v)", result, err)
			}
			if words, now := d.status(pcr); !strings.HasPrefix(words, "Denied ") || !strings.Contains(words, row.want) || now.CertificateChain != "" {
				t.Errorf("%s\nwant %s", words, row.want)
			}
			if len(d.events) != 1 || !strings.HasPrefix(d.events[0], "*v1.PodCertificateRequest Warning ") {
				t.Error(d.events)
			}
		})
	}
}

// For the kubelet a denial is final, so a policy that may change does not deny.
func TestANativeVolumeWaitsForThePolicy(t *testing.T) {
	for annotation, want := range map[string]string{
		"csi.mayfly.dev/profile=x":          "*v1.Pod Warning NotUnderstood: volume native of pod web is not understood by this controller",
		"csi.mayfly.dev/dns-names=web.test": `*v1.Pod Warning NotAllowed: DNS name "web.test" is not the pod's`,
		"csi.mayfly.dev/ip-sans=${POD_IP}":  "*v1.Pod Warning IPNotProved: the pod's IP 192.168.7.1 does not lie in the spec.podCIDRs of node node-a, ",
	} {
		pod := web()
		pod.Status.PodIPs = []corev1.PodIP{{IP: "192.168.7.1"}}
		projection(pod).UserAnnotations = pairs(annotation)
		pcr := kubelet(t, pod)
		d := newFixture(t, interceptor.Funcs{}, pod, pcr)
		d.waits(pcr, want)
	}
}

// A pod gets its IP after its podCertificate volumes, unless it has its node's.
func TestANativeVolumeWithoutAnIP(t *testing.T) {
	for name, row := range map[string]struct {
		hostNetwork bool
		want        string
	}{
		"of a pod": {false, "*v1.Pod Warning IPNotProved: volume native of pod web asks for the pod's IP, " +
			"which a pod gets after its podCertificate volumes: "},
		"on the host's network": {true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			pod := web()
			pod.Spec.HostNetwork, pod.Status.PodIPs, pod.Status.PodIP = row.hostNetwork, nil, ""
			projection(pod).UserAnnotations = pairs("csi.mayfly.dev/ip-sans=${POD_IP}")
			pcr := kubelet(t, pod)
			pcr.CreationTimestamp = metav1.Now()
			d := newFixture(t, interceptor.Funcs{}, pod, pcr)
			result, err := d.answers(pcr)
			if words, _ := d.status(pcr); err != nil || result.RequeueAfter == 0 || words != "" {
				t.Errorf("%+v (%v) %s", result, err, words)
			}
			if got := strings.Join(d.events, "\n"); !strings.HasPrefix(got, row.want) || row.want == "" && got != "" {
				t.Error(got)
			}
		})
	}
}

// waits demands that the request is not answered, and that its pod is told why.
func (d *fixture) waits(pcr *certificatesv1.PodCertificateRequest, want string) {
	d.Helper()
	result, err := d.answers(pcr)
	if words, _ := d.status(pcr); err != nil || result.RequeueAfter != latest || words != "" {
		d.Errorf("%+v (%v) %s", result, err, words)
	}
	if len(d.events) != 1 || !strings.HasPrefix(d.events[0], want) {
		d.Error(d.events)
	}
}

func TestAnotherSignersAreLeftAlone(t *testing.T) {
	pcr := kubelet(t, web())
	pcr.Spec.SignerName = "example.org/x"
	d := newFixture(t, interceptor.Funcs{}, pcr)
	result, err := d.answers(pcr)
	if words, _ := d.status(pcr); err != nil || !result.IsZero() || words != "" {
		t.Errorf("%+v (%v) %s", result, err, words)
	}
	pcr.Spec.UnverifiedUserAnnotations = pairs("a/b=c")
	if _, err := Trim(pcr); err != nil || pcr.Spec.StubPKCS10Request != nil || ours(pcr) || pcr.Name == "" {
		t.Errorf("%+v (%v)", pcr, err)
	}
}

func TestACAThatIsMissing(t *testing.T) {
	pod := web("csi.mayfly.dev/issuer-name=clusterissuer.other")
	pcr := asks(t, pod)
	d := newFixture(t, interceptor.Funcs{}, pod, pcr)
	d.waits(pcr, "*v1.Pod Warning NotSignedYet: signer unavailable: sign with CA clusterissuer.other: there is no CA for csi.mayfly.dev/clusterissuer.other")
}

func TestWhatACAIsNotFor(t *testing.T) {
	const there = " is not for this pod: there are mayfly-ca, issuer.shop.<name>, of the pod's own namespace, and clusterissuer.<name>"
	for attribute, want := range map[string]string{
		"csi.mayfly.dev/issuer-kind=Issuer":           "Failed SigningFailed: request invalid: issuer Issuer mayfly-ca of csi.mayfly.dev: issuers of that group have the kind CA",
		"csi.mayfly.dev/issuer-name=issuer.bank.corp": "Failed SigningFailed: request denied: CA issuer.bank.corp" + there,
		"csi.mayfly.dev/issuer-name=other":            "Failed SigningFailed: request denied: CA other" + there,
		"csi.mayfly.dev/issuer-name=volume":           "Failed SigningFailed: request denied: CA volume" + there, // A second name of the own CA would be one that policies don't know.
	} {
		pod := web(attribute)
		pcr := asks(t, pod)
		d := newFixture(t, interceptor.Funcs{}, pod, pcr)
		if _, err := d.answers(pcr); err != nil {
			t.Error(err)
		}
		if words, _ := d.status(pcr); words != want {
			t.Error(words)
		}
	}
}

// What a CA may not have signed, by its name constraints or usages, is no answer.
func TestWhatACAMayNotSign(t *testing.T) {
	for name, row := range map[string]struct {
		limit func(*x509.Certificate)
		want  string // Empty: it may.
	}{
		"its names":      {func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"shop.svc"} }, ""},
		"others' names":  {func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.org"} }, "x509: a root or intermediate certificate is not authorized to sign for this name"},
		"others' usages": {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }, "x509: certificate specifies an incompatible key usage"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := web("csi.mayfly.dev/key-usages=digital signature,server auth")
			pcr := asks(t, pod)
			d := newFixture(t, interceptor.Funcs{}, pod, pcr)
			d.CAs = cas{signer.PodCertificateSigner: limited(t, row.limit)}
			if _, err := d.answers(pcr); err != nil {
				t.Fatal(err)
			}
			want := "Issued "
			if row.want != "" {
				want = "Failed SigningFailed: signing failed: unusable certificate from CA mayfly-ca: the certificate chain does not hold: the certificate: " + row.want
			}
			if words, _ := d.status(pcr); !strings.HasPrefix(words, want) {
				t.Errorf("%s, want %s", words, want)
			}
		})
	}
}

// limited is a CA below a root that limits what it may sign.
func limited(t *testing.T, limit func(*x509.Certificate)) ca.CA {
	t.Helper()
	begin, end := time.Now().Add(-time.Hour), time.Now().Add(1000*time.Hour)
	root, err := ca.New("root", begin, end)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "limited"}, NotBefore: begin, NotAfter: end.Add(-time.Hour), PublicKey: key.Public(), IsCA: true, BasicConstraintsValid: true,
	}
	limit(template)
	issued, err := root.Sign(template)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ca.Parse(issued.Chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), issued.CA)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// corp makes the pod's volume one of a cert-manager issuer.
func corp(t *testing.T) (*corev1.Pod, *certificatesv1.PodCertificateRequest) {
	t.Helper()
	pod := web("csi.mayfly.dev/issuer-name=corp", "csi.mayfly.dev/issuer-kind=ClusterIssuer", "csi.mayfly.dev/issuer-group=cert-manager.io", "csi.mayfly.dev/profile=team")
	return pod, asks(t, pod)
}

// passed is the CertificateRequest that the signer made.
func (d *fixture) passed(pcr *certificatesv1.PodCertificateRequest) (*cmapi.CertificateRequest, error) {
	cr := &cmapi.CertificateRequest{}
	return cr, d.api.Get(d.Context(), client.ObjectKeyFromObject(pcr), cr)
}

// What --ignore-metadata names may be added by the cluster's admission webhooks here, too.
func TestAnAnnotationOfAWebhook(t *testing.T) {
	pod, pcr := corp(t)
	d := newFixture(t, interceptor.Funcs{
		Create: func(ctx context.Context, api client.WithWatch, o client.Object, options ...client.CreateOption) error {
			o.SetAnnotations(map[string]string{"example.org/team": "shop", "hooks.test/seen": "yes"})
			return api.Create(ctx, o, options...)
		},
	}, pod, pcr)
	d.Decider.Rules.Ignored = []string{"hooks.test/*"}
	cr := d.passOn(pcr)
	if !decided(cr) || cr.Annotations["hooks.test/seen"] != "yes" {
		t.Errorf("%+v", cr)
	}
}

func TestAnIssuerSigns(t *testing.T) {
	pod, pcr := corp(t)
	d := newFixture(t, interceptor.Funcs{}, pod, pcr)
	if result, err := d.answers(pcr); err != nil || !result.IsZero() {
		t.Fatalf("%+v (%v)", result, err)
	}
	cr, err := d.passed(pcr)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(cr.Spec.IssuerRef, cr.Spec.Duration.Duration, cr.Annotations, cr.OwnerReferences[0].Kind, cr.OwnerReferences[0].UID, cr.Status.Conditions[0].Type); got != "{corp ClusterIssuer cert-manager.io} 2h0m0s map[example.org/team:shop]PodCertificateRequestpcr-1Approved" {
		t.Error(got)
	}
	if !Keep(cr, self) {
		t.Error("it is not kept in the cache")
	}
	cr.Annotations[cmapi.VenafiPickupIDAnnotationKey] = "1"
	if err := d.api.Update(t.Context(), cr); err != nil {
		t.Fatal(err)
	}
	d.signed(cr, pod)
	if _, err := d.answers(pcr); err != nil {
		t.Fatal(err)
	}
	if leaf, roots := d.leaf(pcr); leaf.DNSNames[0] != "web.shop.svc" || roots != 1 {
		t.Errorf("%v, %d roots", leaf.DNSNames, roots)
	}
	if _, err := d.passed(pcr); err != nil {
		t.Errorf("it is gone before its PodCertificateRequest is known to be answered: %v", err)
	}
	if _, err := d.answers(pcr); err != nil {
		t.Fatal(err)
	}
	if _, err := d.passed(pcr); !apierrors.IsNotFound(err) {
		t.Errorf("it is there: %v", err)
	}
}

// signed signs as the issuer.
func (d *fixture) signed(cr *cmapi.CertificateRequest, pod *corev1.Pod) {
	d.Helper()
	v, err := spec.Parse(volume(pod), defaults())
	if err != nil {
		d.Fatal(err)
	}
	pcr := asks(d.T, pod)
	block, _ := pem.Decode(cr.Spec.Request)
	pcr.Spec.StubPKCS10Request = block.Bytes
	v.Issuer = signer.Issuer{Name: "mayfly-ca", Kind: signer.CAKind, Group: signer.CAGroup}
	issued, err := d.sign(d.Context(), pcr, decide.Decision{Certificate: v})
	if err != nil {
		d.Fatal(err)
	}
	cr.Status.Certificate, cr.Status.CA = issued.Chain, issued.CA
	d.conclude(cr, cmapi.CertificateRequestConditionReady, cmmeta.ConditionTrue, "Issued")
}

func (d *fixture) conclude(cr *cmapi.CertificateRequest, kind cmapi.CertificateRequestConditionType, status cmmeta.ConditionStatus, reason string) {
	d.Helper()
	cr.Status.Conditions = append(cr.Status.Conditions, cmapi.CertificateRequestCondition{Type: kind, Status: status, Reason: reason, Message: "because"})
	if err := d.api.Status().Update(d.Context(), cr); err != nil {
		d.Fatal(err)
	}
}

// The pod is read for who approves, and for who hands out, and not for each change between.
func TestARequestThatWaitsForItsIssuerIsNotDecidedAgain(t *testing.T) {
	pod, pcr := corp(t)
	reads := 0
	d := newFixture(t, interceptor.Funcs{Get: func(ctx context.Context, api client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
		if _, ok := o.(*corev1.Pod); ok {
			reads++
		}
		return api.Get(ctx, key, o, options...)
	}}, pod, pcr)
	if _, err := d.answers(pcr); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		maker string
		want  int
	}{{self, 1}, {"", 2}} {
		cr, err := d.passed(pcr)
		if err != nil {
			t.Fatal(err)
		}
		cr.Spec.Username = row.maker // As cert-manager's webhook writes it.
		if err := d.api.Update(t.Context(), cr); err != nil {
			t.Fatal(err)
		}
		if _, err := d.answers(pcr); err != nil || reads != row.want {
			t.Errorf("made by %q: the pod was read %d times, not %d (%v)", row.maker, reads, row.want, err)
		}
	}
}

func TestAnIssuerThatDoesNotSign(t *testing.T) {
	pod, pcr := corp(t)
	d := newFixture(t, interceptor.Funcs{}, pod, pcr)
	if _, err := d.answers(pcr); err != nil {
		t.Fatal(err)
	}
	cr, err := d.passed(pcr)
	if err != nil {
		t.Fatal(err)
	}
	d.conclude(cr, cmapi.CertificateRequestConditionReady, cmmeta.ConditionFalse, "Failed")
	if _, err := d.answers(pcr); err != nil {
		t.Fatal(err)
	}
	if words, _ := d.status(pcr); words != "Failed SigningFailed: signing failed: CertificateRequest shop/web-attempt: Failed: because" {
		t.Error(words)
	}
}

// Somebody may put a request of their own where the signer's is to be.
func TestSomebodyElsesRequestIsNotTaken(t *testing.T) {
	for name, change := range map[string]func(*cmapi.CertificateRequest){
		"an annotation more":  func(cr *cmapi.CertificateRequest) { cr.Annotations["example.org/x"] = "y" },
		"a usage more":        func(cr *cmapi.CertificateRequest) { cr.Spec.Usages = append(cr.Spec.Usages, cmapi.UsageCertSign) },
		"a longer life":       func(cr *cmapi.CertificateRequest) { cr.Spec.Duration.Duration++ },
		"a CA":                func(cr *cmapi.CertificateRequest) { cr.Spec.IsCA = true },
		"another issuer":      func(cr *cmapi.CertificateRequest) { cr.Spec.IssuerRef.Name = "x" },
		"another owner":       func(cr *cmapi.CertificateRequest) { cr.OwnerReferences[0].UID = "x" },
		"another made it":     func(cr *cmapi.CertificateRequest) { cr.Spec.Username = "mallory" },
		"a life without end":  func(cr *cmapi.CertificateRequest) { cr.Spec.Duration = nil },
		"another signing key": func(cr *cmapi.CertificateRequest) { cr.Spec.Request = []byte("x") },
	} {
		t.Run(name, func(t *testing.T) {
			pod, pcr := corp(t)
			v, err := spec.Parse(volume(pod), defaults())
			if err != nil {
				t.Fatal(err)
			}
			cr := passed(pcr, v)
			change(cr)
			d := newFixture(t, interceptor.Funcs{}, pod, pcr, cr)
			if _, err := d.answers(pcr); err != nil {
				t.Fatal(err)
			}
			if words, _ := d.status(pcr); !strings.HasPrefix(words, "Failed SigningFailed: ") || !strings.Contains(words, "somebody else made or changed it") {
				t.Error(words)
			}
		})
	}
}

// What another replica does at the same time is no error.
func TestAnotherReplicaWasFaster(t *testing.T) {
	pod, pcr := corp(t)
	conflict := apierrors.NewConflict(certificatesv1.Resource("podcertificaterequests"), pcr.Name, errors.New("changed"))
	d := newFixture(t, interceptor.Funcs{
		Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
			return apierrors.NewAlreadyExists(cmapi.Resource("certificaterequests"), pcr.Name)
		},
	}, pod, pcr)
	if result, err := d.answers(pcr); err != nil || !result.IsZero() {
		t.Errorf("%+v (%v)", result, err)
	}
	for _, pod := range []*corev1.Pod{web(), web("csi.mayfly.dev/dns-names=web.test"), web("csi.mayfly.dev/issuer-kind=Issuer")} {
		d = newFixture(t, interceptor.Funcs{SubResourcePatch: func(context.Context, client.Client, string, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
			return conflict
		}}, pod, asks(t, pod))
		if result, err := d.answers(pcr); err != nil || !result.IsZero() {
			t.Errorf("%+v (%v)", result, err)
		}
		if len(d.events) > 0 {
			t.Errorf("it tells of an answer that it did not give: %v", d.events)
		}
		if _, words := d.records(); len(words) > 0 {
			t.Errorf("it records an answer that it did not give: %q", words)
		}
	}
}

// What the API server holds against a certificate is the answer; but not to a kubelet, for which it would be final: a clock may be wrong.
func TestACertificateThatKubernetesDoesNotTake(t *testing.T) {
	const want = "signing failed: Kubernetes does not take the certificate of CA "
	pod := web()
	pcr := asks(t, pod)
	d := fussy(t, pod, pcr)
	if _, err := d.answers(pcr); err != nil {
		t.Fatal(err)
	}
	if words, _ := d.status(pcr); !strings.HasPrefix(words, "Failed SigningFailed: "+want+"mayfly-ca: ") {
		t.Error(words)
	}
	pcr = kubelet(t, pod)
	fussy(t, pod, pcr).waits(pcr, "*v1.Pod Warning NotSignedYet: "+want+"clusterissuer.corp: ")
}

// fussy is a fixture whose API server takes no certificate.
func fussy(t *testing.T, pod *corev1.Pod, pcr *certificatesv1.PodCertificateRequest) *fixture {
	t.Helper()
	return newFixture(t, interceptor.Funcs{SubResourcePatch: func(ctx context.Context, api client.Client, sub string, o client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
		if o.(*certificatesv1.PodCertificateRequest).Status.CertificateChain != "" {
			return apierrors.NewInvalid(certificatesv1.SchemeGroupVersion.WithKind("PodCertificateRequest").GroupKind(), pcr.Name, nil)
		}
		return api.SubResource(sub).Patch(ctx, o, patch, options...)
	}}, pod, pcr)
}

func TestRefreshAt(t *testing.T) {
	begin := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for _, row := range []struct{ lifetime, chainEnds, want time.Duration }{
		{90 * time.Hour, 90 * time.Hour, 60 * time.Hour},
		{time.Hour, time.Hour, 40 * time.Minute},
		{20 * time.Minute, 20 * time.Minute, 10 * time.Minute},
		{25 * time.Minute, 25 * time.Minute, 15 * time.Minute},
		{90 * time.Hour, 30 * time.Hour, 20 * time.Hour},
		{90 * time.Hour, time.Minute, 10 * time.Minute},
	} {
		if got := refreshAt(begin, begin.Add(row.lifetime), begin.Add(row.chainEnds)).Sub(begin); got != row.want {
			t.Errorf("%+v: %s", row, got)
		}
	}
}

// The API server takes no event with a longer note (k8s.io/kubernetes pkg/apis/core/validation/events.go).
func TestALongCauseFitsIntoAnEvent(t *testing.T) {
	pod := web()
	pcr := asks(t, pod)
	d := newFixture(t, interceptor.Funcs{}, pod, pcr)
	if err := d.fail(t.Context(), pcr, decide.Decision{}, errors.New(strings.Repeat("x", 4000))); err != nil {
		t.Fatal(err)
	}
	if len(d.events) != 1 || len(d.events[0]) > 1024+len("*v1.PodCertificateRequest Warning SigningFailed: ") {
		t.Errorf("%d events, the first of %d bytes", len(d.events), len(d.events[0]))
	}
}

// An answer is final. A denied request is deleted when another one like it would be signed: its node plugin then asks again.
func TestADeniedRequestThatWouldBeSigned(t *testing.T) {
	pod := web("csi.mayfly.dev/dns-names=web.shop.svc.test")
	pcr := asks(t, pod)
	d := newFixture(t, interceptor.Funcs{}, pod, pcr)
	answers := func(want string) {
		t.Helper()
		result, err := d.answers(pcr)
		if words, _ := d.status(pcr); err != nil || !result.IsZero() || !strings.HasPrefix(words, want) {
			t.Errorf("%s (%v), %+v", words, err, result)
		}
	}
	answers("Denied NotAllowed: ")
	answers("Denied NotAllowed: ")
	d.Decider.Rules.Policy = policy.Policy{ClusterDomain: "test"}
	if _, err := d.answers(pcr); err != nil {
		t.Error(err)
	}
	if err := d.api.Get(t.Context(), client.ObjectKeyFromObject(pcr), pcr); !apierrors.IsNotFound(err) {
		t.Errorf("it is there: %v", err)
	}
	if result, err := d.answers(pcr); err != nil || !result.IsZero() {
		t.Errorf("%+v (%v)", result, err)
	}
}

// What was denied for good, what was not denied, and what a kubelet asked for, which asks no more, is not looked at again.
func TestWhichDenialsMayEnd(t *testing.T) {
	for name, row := range map[string]struct {
		pcr          *certificatesv1.PodCertificateRequest
		kind, reason string
		want         bool
	}{
		"by a policy":      {asks(t, web()), certificatesv1.PodCertificateRequestConditionTypeDenied, decide.NotAllowed, true},
		"by the pod's end": {asks(t, web()), certificatesv1.PodCertificateRequestConditionTypeDenied, decide.PodNotLive, false},
		"a failure":        {asks(t, web()), certificatesv1.PodCertificateRequestConditionTypeFailed, decide.NotAllowed, false},
		"of a kubelet":     {kubelet(t, web()), certificatesv1.PodCertificateRequestConditionTypeDenied, decide.NotAllowed, false},
	} {
		row.pcr.Status.Conditions = []metav1.Condition{condition(row.kind, row.reason, "no")}
		if reviews().Is(row.pcr) != row.want {
			t.Errorf("%s: %t", name, !row.want)
		}
		if _, err := Trim(row.pcr); err != nil || (row.pcr.Spec.StubPKCS10Request != nil) != row.want {
			t.Errorf("%s: in the cache: %+v (%v)", name, row.pcr.Spec, err)
		}
	}
}

// A long request is cut down in the cache, and read whole when it is decided on.
func TestALongRequest(t *testing.T) {
	pcr := asks(t, web())
	pcr.Spec.UnverifiedUserAnnotations["example.org/long"] = strings.Repeat("x", cluster.MaxCached)
	lists := 0
	d := newFixture(t, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			err := c.Get(ctx, key, o, opts...)
			if of, ok := o.(*certificatesv1.PodCertificateRequest); ok && err == nil && lists == 0 {
				_, err = Trim(of)
				if of.Spec.StubPKCS10Request != nil || of.Spec.UnverifiedUserAnnotations != nil || !ours(of) || of.Spec.NodeName != "node-a" {
					t.Errorf("in the cache: %+v", of)
				}
			}
			return err
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			lists++
			return c.List(ctx, list, opts...)
		},
	}, web(), pcr)
	if _, err := d.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(pcr)}); err != nil || lists != 1 {
		t.Errorf("%d times read whole (%v)", lists, err)
	}
	var now certificatesv1.PodCertificateRequest
	if err := d.api.Get(t.Context(), client.ObjectKeyFromObject(pcr), &now); err != nil || len(now.Status.Conditions) != 1 ||
		now.Status.Conditions[0].Reason != decide.NotTheVolumes { // Of one that was cut down the volume would not be known.
		t.Errorf("%+v (%v)", now.Status, err)
	}
}

// A kubelet's request that waits for an operator is looked at after as long again as it has waited.
func TestLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pcr := &certificatesv1.PodCertificateRequest{}
		pcr.CreationTimestamp = metav1.Now()
		var all []time.Duration
		for range 5 {
			all = append(all, later(pcr))
			time.Sleep(later(pcr))
		}
		if got := fmt.Sprint(all); got != "[15s 15s 30s 1m0s 1m0s]" {
			t.Error(got)
		}
	})
}

// The cache keeps whole what the controller itself has made: nobody else fills its memory by an owner reference.
func TestKeep(t *testing.T) {
	owner := metav1.OwnerReference{APIVersion: "certificates.k8s.io/v1", Kind: "PodCertificateRequest"}
	for name, row := range map[string]struct {
		user   string
		owners []metav1.OwnerReference
		want   bool
	}{
		"ours":              {self, []metav1.OwnerReference{owner}, true},
		"another's":         {"system:serviceaccount:shop:clerk", []metav1.OwnerReference{owner}, false},
		"of no owner":       {self, nil, false},
		"of two":            {self, []metav1.OwnerReference{owner, owner}, false},
		"of another object": {self, []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod"}}, false},
	} {
		cr := &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{OwnerReferences: row.owners}}
		cr.Spec.Username = row.user
		if got := Keep(cr, self); got != row.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
