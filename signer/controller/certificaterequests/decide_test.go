package certificaterequests

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	keys "github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/certmanager"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

const nodePlugin = "system:serviceaccount:mayfly-system:mayfly"

func callers() Callers { return Callers{NodePlugin: nodePlugin} }

func rules() decide.Rules {
	return decide.Rules{
		Drivers: []spec.DriverName{
			{Name: spec.Driver}, {Name: spec.OldDriver}, {Name: spec.SPIFFEDriver}, {Name: "mesh.corp.example", Dialect: spec.CSIDriverSPIFFE},
		},
		Defaults: spec.Defaults{IssuerName: "mesh", IssuerKind: "Issuer", TrustDomain: "cluster.local"},
		Policy:   policy.Policy{ClusterDomain: "cluster.local"},
	}
}

// anything is a policy that has nothing against a volume.
type anything struct{}

func (anything) Check(spec.Spec, decide.Identity) error { return nil }
func (anything) Ranges(signer.Pod) []netip.Prefix       { return nil }

// decideOn returns the decision on a request.
func decideOn(r decide.Rules, cr *cmapi.CertificateRequest, pod *corev1.Pod, node *corev1.Node, now time.Time) decide.Decision {
	if !callers().Concern(cr) {
		return decide.Decision{}
	}
	return decide.Decide(request(cr), pod, node, r, now)
}

// web is a pod of node-a with a volume that asks for its name.
func web(attributes ...string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid-1"},
		Spec:       corev1.PodSpec{NodeName: "node-a", ServiceAccountName: "clerk"},
		Status:     corev1.PodStatus{Phase: corev1.PodPending, PodIPs: []corev1.PodIP{{IP: "10.244.0.7"}}},
	}
	pod.Spec.Volumes = []corev1.Volume{{Name: "config"}, inline("tls", "csi.mayfly.dev", append([]string{"csi.mayfly.dev/issuer-name=ca", "csi.mayfly.dev/dns-names=${POD_NAME}.${POD_NAMESPACE}.svc"}, attributes...)...)}
	return pod
}

func inline(name, driver string, attributes ...string) corev1.Volume {
	all := map[string]string{}
	for _, a := range attributes {
		key, value, _ := strings.Cut(a, "=")
		all[key] = value
	}
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: driver, VolumeAttributes: all}}}
}

// derived is what the node derives from the pod's last volume.
func derived(t *testing.T, pod *corev1.Pod, defaults spec.Defaults) signer.Request {
	t.Helper()
	volumes := rules().Volumes(pod)
	last := volumes[len(volumes)-1]
	asked := last.Asked
	v, err := spec.Parse(asked, defaults)
	if err != nil { // An earlier node plugin may take it.
		v, err = spec.ParseEarlier(asked, defaults)
	}
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.NewKey(v.Key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := v.CSR(key)
	if err != nil {
		t.Fatal(err)
	}
	req := v.Request("attempt", der)
	req.Volume = decide.VolumeID(pod, last.Name)
	return req
}

// asked is what the node plugin of the pod's node asks for the pod's last volume, in the words of signer/certmanager, recorded by cert-manager's webhook.
func asked(t *testing.T, pod *corev1.Pod) *cmapi.CertificateRequest {
	t.Helper()
	req := derived(t, pod, rules().Defaults)
	cr := &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: "web-attempt", Annotations: certmanager.Object(req).Annotations, CreationTimestamp: metav1.NewTime(created),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}},
		},
		Spec: cmapi.CertificateRequestSpec{
			Username: nodePlugin, Extra: map[string][]string{nodeName: {pod.Spec.NodeName}},
			Request: text(req.CSR), IsCA: req.IsCA, Duration: &metav1.Duration{Duration: req.Duration},
			IssuerRef: cmmeta.IssuerReference{Name: req.Issuer.Name, Kind: req.Issuer.Kind, Group: req.Issuer.Group},
		},
	}
	for _, u := range req.Usages {
		cr.Spec.Usages = append(cr.Spec.Usages, cmapi.KeyUsage(u))
	}
	return cr
}

var created = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func text(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func TestWhatAPodsVolumeAsksForIsApproved(t *testing.T) {
	for name, change := range map[string]func(*corev1.Pod){
		"the usual one": func(*corev1.Pod) {},
		"a running pod": func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning },
		"all of a pod's own": func(p *corev1.Pod) {
			*p = *web("csi.mayfly.dev/spiffe=true", "csi.mayfly.dev/common-name=web.shop.svc", "csi.mayfly.dev/key-algorithm=RSA", "csi.mayfly.dev/key-size=2048",
				"csi.mayfly.dev/duration=5m", "csi.mayfly.dev/key-usages=client auth,digital signature", "csi.mayfly.dev/trust=file:corp")
		},
		"Ed25519":       func(p *corev1.Pod) { *p = *web("csi.mayfly.dev/key-algorithm=Ed25519") },
		"another curve": func(p *corev1.Pod) { *p = *web("csi.mayfly.dev/key-size=384") },
		"a second volume": func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, inline("db", "csi.mayfly.dev", "csi.mayfly.dev/issuer-name=ca", "csi.mayfly.dev/dns-names=db.shop.svc"))
		},
		"attributes that are the node plugin's, and one that nobody knows": func(p *corev1.Pod) {
			*p = *web("csi.mayfly.dev/layout=der", "csi.mayfly.dev/trust=file:none", "csi.mayfly.dev/colour=red")
		},
		"beside a volume that is not understood": func(p *corev1.Pod) {
			p.Spec.Volumes = slices.Insert(p.Spec.Volumes, 0, inline("bad", "csi.mayfly.dev", "csi.mayfly.dev/dns-nam=x"))
		},
		"the old dialect": func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{inline("tls", spec.OldDriver, "csi.cert-manager.io/issuer-name=ca", "csi.cert-manager.io/dns-names=web.shop.svc")}
		},
		"two prefixes, as an earlier node plugin takes them": func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{inline("tls", spec.Driver, "csi.cert-manager.io/issuer-name=ca", "csi.mayfly.dev/dns-names=web.shop.svc")}
		},
		"csi-driver-spiffe's":                     func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{inline("tls", spec.SPIFFEDriver)} },
		"csi-driver-spiffe's, under another name": func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{inline("tls", "mesh.corp.example")} },
		"a spoofed reserved key, which the kubelet overwrites": func(p *corev1.Pod) {
			p.Spec.Volumes[1].CSI.VolumeAttributes["csi.storage.k8s.io/pod.name"] = "admin"
			p.Spec.Volumes[1].CSI.VolumeAttributes["csi.storage.k8s.io/serviceAccount.tokens"] = "{}"
		},
	} {
		pod := web()
		change(pod)
		got := decideOn(rules(), asked(t, pod), pod, nil, created)
		if got.Verdict != decide.Approve || got.Reason != decide.Verified || got.Message != "pod web on node node-a has a volume that asks for this" || got.Certificate.Pod.Name != "web" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// signed makes the request ask for a signing request of another make.
func signed(t *testing.T, cr *cmapi.CertificateRequest, template *x509.CertificateRequest, key crypto.Signer) {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	cr.Spec.Request = text(der)
}

// usual is the signing request of web with changes.
func usual(t *testing.T, cr *cmapi.CertificateRequest, change func(*x509.CertificateRequest)) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	names, err := parsed(cr.Spec.Request)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.CertificateRequest{DNSNames: names.DNSNames, ExtraExtensions: names.Extensions}
	change(template)
	signed(t, cr, template, key)
}

func extension(t *testing.T, oid asn1.ObjectIdentifier, value any) pkix.Extension {
	t.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: oid, Critical: true, Value: der}
}

func TestWhatIsDenied(t *testing.T) {
	subjectAltName := asn1.ObjectIdentifier{2, 5, 29, 17}
	otherURI, err := url.Parse("spiffe://cluster.local/ns/shop/sa/admin")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		change func(cr *cmapi.CertificateRequest, pod *corev1.Pod)
		reason string
		want   string
	}{
		{"no node on record", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.Spec.Extra = nil }, decide.CallerUnknown, "does not say on which node"},
		{"an empty node", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.Spec.Extra[nodeName] = []string{""} }, decide.CallerUnknown, "does not say on which node"},
		{"two nodes", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			cr.Spec.Extra[nodeName] = []string{"node-a", "node-b"}
		}, decide.CallerUnknown, ""},
		{"a pod that is not scheduled, for a caller without a node", func(cr *cmapi.CertificateRequest, p *corev1.Pod) {
			cr.Spec.Extra[nodeName], p.Spec.NodeName = []string{""}, ""
		}, decide.CallerUnknown, ""},

		{"no owner", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.OwnerReferences = nil }, decide.NotOfAPod, "must be owned by one pod"},
		{"two owners", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			cr.OwnerReferences = append(cr.OwnerReferences, cr.OwnerReferences[0])
		}, decide.NotOfAPod, ""},
		{"an owner of another kind", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.OwnerReferences[0].Kind = "Node" }, decide.NotOfAPod, ""},
		{"a Pod of another API", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.OwnerReferences[0].APIVersion = "example.org/v1" }, decide.NotOfAPod, ""},
		{"an owner without a UID", func(cr *cmapi.CertificateRequest, p *corev1.Pod) { cr.OwnerReferences[0].UID, p.UID = "", "" }, decide.NotOfAPod, ""},

		{"another pod of the name", func(_ *cmapi.CertificateRequest, p *corev1.Pod) { p.UID = "uid-2" }, decide.PodNotFound, "pod web is another one now"},
		{"a pod of another node", func(_ *cmapi.CertificateRequest, p *corev1.Pod) { p.Spec.NodeName = "node-b" }, decide.OtherNode, `pod web runs on node "node-b", and node "node-a" asks`},
		{"a mirror pod", func(_ *cmapi.CertificateRequest, p *corev1.Pod) {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
		}, decide.PodNotLive, "mirror pod"},
		{"a pod of a node", func(_ *cmapi.CertificateRequest, p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "node-a"}}
		}, decide.PodNotLive, "mirror pod"},
		{"a pod that is being deleted", func(_ *cmapi.CertificateRequest, p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: created} }, decide.PodNotLive, "is being deleted"},
		{"a pod that has ended", func(_ *cmapi.CertificateRequest, p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, decide.PodNotLive, "has ended: it is Succeeded"},
		{"a pod that has failed", func(_ *cmapi.CertificateRequest, p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, decide.PodNotLive, "has ended: it is Failed"},

		{"no volume", func(_ *cmapi.CertificateRequest, p *corev1.Pod) { p.Spec.Volumes = nil }, decide.NoVolume, "pod web has no volume of csi.mayfly.dev or"},
		{"another driver's volume", func(_ *cmapi.CertificateRequest, p *corev1.Pod) { p.Spec.Volumes[1].CSI.Driver = "example.org" }, decide.NoVolume, ""},
		{"a volume that is not understood", func(_ *cmapi.CertificateRequest, p *corev1.Pod) {
			p.Spec.Volumes[1].CSI.VolumeAttributes["csi.mayfly.dev/dns-names"] = "a..b"
		}, decide.NotUnderstood, `volume tls of pod web is not understood by this controller, which may be older than the node plugin: csi.mayfly.dev/dns-names has "a..b", which is not a DNS name`},
		{"a volume that is to ask as its pod", func(_ *cmapi.CertificateRequest, p *corev1.Pod) {
			p.Spec.Volumes[1].CSI.VolumeAttributes["csi.mayfly.dev/use-token-request"] = "true"
		}, decide.NotUnderstood, "csi.mayfly.dev/use-token-request is true, and no volume asks as its pod unless"},
		{"a profile that the controller does not know", func(_ *cmapi.CertificateRequest, p *corev1.Pod) {
			p.Spec.Volumes[1].CSI.VolumeAttributes["csi.mayfly.dev/profile"] = "x"
		}, decide.NotUnderstood, "has no profiles"},

		{"another issuer", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.Spec.IssuerRef.Name = "root" }, decide.NotTheVolumes,
			`issuer: asked for is "Issuer" "root" of "cert-manager.io", and the volume wants "Issuer" "ca" of "cert-manager.io"`},
		{"another kind of issuer", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.Spec.IssuerRef.Kind = "ClusterIssuer" }, decide.NotTheVolumes, "issuer: "},
		{"another group of issuer", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.Spec.IssuerRef.Group = "example.org" }, decide.NotTheVolumes, "issuer: "},
		{"longer", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.Spec.Duration.Duration *= 2 }, decide.NotTheVolumes, "duration: asked for is 2h0m0s, and the volume wants 1h0m0s"},
		{"shorter", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.Spec.Duration.Duration /= 2 },
			decide.NotTheVolumes, "duration: asked for is 30m0s, and the volume wants 1h0m0s"},
		{"the issuer's own duration", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.Spec.Duration = nil }, decide.NotTheVolumes, "duration: asked for is none"},
		{"another usage", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			cr.Spec.Usages = append(cr.Spec.Usages, cmapi.UsageCodeSigning)
		}, decide.NotTheVolumes, `usages: asked for is ["client auth" "code signing" "digital signature" "server auth"], and the volume wants ["client auth" "digital signature" "server auth"]`},
		{"a usage less", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.Spec.Usages = cr.Spec.Usages[1:] }, decide.NotTheVolumes, "usages: "},
		{"a CA", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.Spec.IsCA = true }, decide.NotTheVolumes, "CA: asked for is true, and the volume wants false"},
		{"an annotation more", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			cr.Annotations = map[string]string{"venafi.cert-manager.io/custom-fields": "x"}
		}, decide.NotTheVolumes, `annotations: asked for is ["venafi.cert-manager.io/custom-fields=x"], and the volume wants []`},
		{"an annotation less", func(_ *cmapi.CertificateRequest, p *corev1.Pod) {
			p.Spec.Volumes[1].CSI.VolumeAttributes["example.org/team"] = "shop"
		}, decide.NotTheVolumes, "annotations: "},

		{"no signing request", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.Spec.Request = nil }, decide.NotTheVolumes, "the signing request is not understood: it is not one CERTIFICATE REQUEST"},
		{"garbage", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.Spec.Request = text([]byte("garbage")) }, decide.NotTheVolumes, "the signing request is not understood"},
		{"two signing requests", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			cr.Spec.Request = append(cr.Spec.Request, cr.Spec.Request...)
		}, decide.NotTheVolumes, "is not one CERTIFICATE REQUEST"},
		{"words before it", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			cr.Spec.Request = append([]byte("x\n"), cr.Spec.Request...)
		}, decide.NotTheVolumes, "is not one CERTIFICATE REQUEST"},
		{"another name of it", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			cr.Spec.Request = []byte(strings.ReplaceAll(string(cr.Spec.Request), "CERTIFICATE", "NEW CERTIFICATE"))
		}, decide.NotTheVolumes, "is not one CERTIFICATE REQUEST"},
		{"bytes after it", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			block, _ := pem.Decode(cr.Spec.Request)
			cr.Spec.Request = text(append(block.Bytes, 0))
		}, decide.NotTheVolumes, "the signing request is not understood"},
		{"a broken signature", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			block, _ := pem.Decode(cr.Spec.Request)
			block.Bytes[len(block.Bytes)-1] ^= 1
			cr.Spec.Request = text(block.Bytes)
		}, decide.NotTheVolumes, "the signature of the signing request is wrong"},
		{"another pod's signing request", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			other := web()
			other.Name = "db"
			cr.Spec.Request = asked(t, other).Spec.Request
		}, decide.NotTheVolumes, `DNS names: asked for is ["db.shop.svc"], and the volume wants ["web.shop.svc"]`},
		{"another key", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			cr.Spec.Request = asked(t, web("csi.mayfly.dev/key-size=384")).Spec.Request
		}, decide.NotTheVolumes, "key: asked for is ECDSA 384, and the volume wants ECDSA 256"},
		{"another algorithm", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			cr.Spec.Request = asked(t, web("csi.mayfly.dev/key-algorithm=Ed25519")).Spec.Request
		}, decide.NotTheVolumes, "key: asked for is Ed25519 0, and the volume wants ECDSA 256"},
		{"a DNS name more", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			usual(t, cr, func(r *x509.CertificateRequest) {
				r.ExtraExtensions, r.DNSNames = nil, append(r.DNSNames, "api.shop.svc")
			})
		}, decide.NotTheVolumes, `DNS names: asked for is ["web.shop.svc" "api.shop.svc"], and the volume wants ["web.shop.svc"]`},
		{"an IP address", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			usual(t, cr, func(r *x509.CertificateRequest) {
				r.ExtraExtensions, r.IPAddresses = nil, []net.IP{net.IPv4(10, 96, 0, 1)}
			})
		}, decide.NotTheVolumes, `IP addresses: asked for is ["10.96.0.1"], and the volume wants []`},
		{"a URI", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			usual(t, cr, func(r *x509.CertificateRequest) { r.ExtraExtensions, r.URIs = nil, []*url.URL{otherURI} })
		}, decide.NotTheVolumes, `URIs: asked for is ["spiffe://cluster.local/ns/shop/sa/admin"], and the volume wants []`},
		{"an email address", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			usual(t, cr, func(r *x509.CertificateRequest) {
				r.ExtraExtensions, r.EmailAddresses = nil, []string{"admin@example.org"}
			})
		}, decide.NotTheVolumes, `email addresses: asked for is ["admin@example.org"], and the volume wants []`},
		{"a subject", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			usual(t, cr, func(r *x509.CertificateRequest) { r.Subject.CommonName = "admin" })
		}, decide.NotTheVolumes, `subject: asked for is ["CN=admin"], and the volume wants [""]`},
		{"a name of another kind", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			usual(t, cr, func(r *x509.CertificateRequest) {
				r.DNSNames = nil
				r.ExtraExtensions = []pkix.Extension{extension(t, subjectAltName, []asn1.RawValue{
					{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte("web.shop.svc")},
					{Class: asn1.ClassContextSpecific, Tag: 8, Bytes: []byte{42, 3, 4}},
				})}
			})
		}, decide.NotTheVolumes, "attributes, extensions or kinds of names that the node plugin does not write"},
		{"an extension", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			usual(t, cr, func(r *x509.CertificateRequest) {
				r.ExtraExtensions = append(r.ExtraExtensions, extension(t, asn1.ObjectIdentifier{2, 5, 29, 19}, struct{ CA bool }{true}))
			})
		}, decide.NotTheVolumes, "attributes, extensions or kinds of names"},
		{"another usage in the signing request", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			cr.Spec.Request = asked(t, web("csi.mayfly.dev/key-usages=digital signature,code signing")).Spec.Request
		}, decide.NotTheVolumes, "attributes, extensions or kinds of names"},
		{"the CA flag in the signing request", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			cr.Spec.Request = asked(t, web("csi.mayfly.dev/is-ca=true")).Spec.Request
		}, decide.NotTheVolumes, "attributes, extensions or kinds of names"},
		{"usages in a signing request that is to have none", func(_ *cmapi.CertificateRequest, p *corev1.Pod) {
			p.Spec.Volumes[1].CSI.VolumeAttributes["csi.mayfly.dev/usages-in-request"] = "false"
		}, decide.NotTheVolumes, "attributes, extensions or kinds of names"},
		{"an attribute", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			usual(t, cr, func(r *x509.CertificateRequest) {
				r.Attributes = []pkix.AttributeTypeAndValueSET{{ //nolint:staticcheck // The one way to make an attribute.
					Type:  asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 2},
					Value: [][]pkix.AttributeTypeAndValue{{{Type: asn1.ObjectIdentifier{1, 2, 3}, Value: "x"}}},
				}}
			})
		}, decide.NotTheVolumes, "attributes, extensions or kinds of names"},

		{"what the policy does not allow", func(cr *cmapi.CertificateRequest, p *corev1.Pod) {
			*p = *web("csi.mayfly.dev/dns-names=web.test")
			*cr = *asked(t, p)
		}, decide.NotAllowed, `DNS name "web.test" is not the pod's`},
		{"a CA that the volume asks for", func(cr *cmapi.CertificateRequest, p *corev1.Pod) {
			*p = *web("csi.mayfly.dev/is-ca=true")
			*cr = *asked(t, p)
		}, decide.NotAllowed, "a pod may not be a CA"},
	} {
		t.Run(row.name, func(t *testing.T) {
			pod := web()
			cr := asked(t, pod)
			row.change(cr, pod)
			got := decideOn(rules(), cr, pod, nil, created)
			if got.Verdict != decide.Deny || got.Reason != row.reason || !strings.Contains(got.Message, row.want) {
				t.Errorf("got %+v\nwant %s: %s", got, row.reason, row.want)
			}
		})
	}
}

func TestTheVolumeIsNamed(t *testing.T) {
	pod := web()
	pod.Spec.Volumes = append(pod.Spec.Volumes, inline("db", "csi.mayfly.dev", "csi.mayfly.dev/issuer-name=ca", "csi.mayfly.dev/dns-names=db.shop.svc", "csi.mayfly.dev/duration=5m"))
	cr := asked(t, pod)
	cr.Spec.IsCA = true
	if got := decideOn(rules(), cr, pod, nil, created); !strings.Contains(got.Message, "not what volume db of pod web asks for: CA: ") {
		t.Errorf("%+v", got)
	}
}

func TestWhatIsLeftAlone(t *testing.T) {
	for name, change := range map[string]func(*cmapi.CertificateRequest){
		"the pod's own":             func(cr *cmapi.CertificateRequest) { cr.Spec.Username = "system:serviceaccount:shop:clerk" },
		"one without a caller":      func(cr *cmapi.CertificateRequest) { cr.Spec.Username = "" },
		"one that is approved":      func(cr *cmapi.CertificateRequest) { conclude(cr, cmapi.CertificateRequestConditionApproved) },
		"one that is denied":        func(cr *cmapi.CertificateRequest) { conclude(cr, cmapi.CertificateRequestConditionDenied) },
		"one that is being deleted": func(cr *cmapi.CertificateRequest) { cr.DeletionTimestamp = &metav1.Time{Time: created} },
	} {
		pod := web()
		cr := asked(t, pod)
		change(cr)
		if got := decideOn(rules(), cr, pod, nil, created); callers().Concern(cr) || got.Verdict != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func conclude(cr *cmapi.CertificateRequest, kind cmapi.CertificateRequestConditionType) {
	cr.Status.Conditions = append(cr.Status.Conditions, cmapi.CertificateRequestCondition{Type: kind, Status: cmmeta.ConditionTrue})
}

func TestWhatIsNotVisibleYet(t *testing.T) {
	cr := asked(t, web())
	for age, want := range map[time.Duration]decide.Verdict{-time.Minute: decide.Wait, 0: decide.Wait, decide.Patience - 1: decide.Wait, decide.Patience: decide.Deny} {
		if got := decideOn(rules(), cr, nil, nil, created.Add(age)); got.Verdict != want || want == decide.Deny && got.Reason != decide.PodNotFound {
			t.Errorf("no pod, after %s: %+v", age, got)
		}
	}
	pod := web("csi.mayfly.dev/ip-sans=${POD_IP}")
	cr = asked(t, pod)
	pod.Status.PodIPs = nil
	for age, want := range map[time.Duration]decide.Verdict{0: decide.Wait, decide.Patience: decide.Deny} {
		if got := decideOn(rules(), cr, pod, nil, created.Add(age)); got.Verdict != want || want == decide.Deny && got.Reason != decide.IPNotProved {
			t.Errorf("no IP, after %s: %+v", age, got)
		}
	}
}

// A node writes the status of its pods, and no other node's, nor its own ranges.
func TestIPs(t *testing.T) {
	node := func(ranges ...string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}, Spec: corev1.NodeSpec{PodCIDRs: ranges}}
	}
	for _, row := range []struct {
		name, attribute string
		ips             []string
		node            *corev1.Node
		cidr            string
		any             bool
		want            decide.Verdict
		reason          string
	}{
		{"a node that is gone", "ip-sans=${POD_IP}", []string{"10.244.0.7"}, nil, "", false, decide.Deny, decide.IPNotProved},
		{"in the node's range", "ip-sans=${POD_IP}", []string{"10.244.0.7"}, node("10.244.0.0/24"), "", false, decide.Approve, decide.Verified},
		{"in both", "ip-sans=${POD_IPS}", []string{"10.244.0.7", "fd00::7"}, node("10.244.0.0/24", "fd00::/64"), "", false, decide.Approve, decide.Verified},
		{"the second is elsewhere", "ip-sans=${POD_IPS}", []string{"10.244.0.7", "fd01::7"}, node("10.244.0.0/24", "fd00::/64"), "", false, decide.Deny, decide.IPNotProved},
		{"another node's", "ip-sans=${POD_IP}", []string{"10.244.1.7"}, node("10.244.0.0/24"), "", false, decide.Deny, decide.IPNotProved},
		{"a service's", "ip-sans=${POD_IP}", []string{"10.96.0.1"}, node("10.244.0.0/24"), "", true, decide.Deny, decide.IPNotProved},
		{"no ranges", "ip-sans=${POD_IP}", []string{"10.244.0.7"}, node(), "", false, decide.Deny, decide.IPNotProved},
		{"the controller's", "ip-sans=${POD_IP}", []string{"10.244.0.7"}, nil, "10.244.0.0/16", false, decide.Approve, decide.Verified},
		{"not the controller's, but the node's", "ip-sans=${POD_IP}", []string{"10.245.0.7"}, node("10.245.0.0/24"), "10.244.0.0/16", false, decide.Approve, decide.Verified},
		{"in a name", "dns-names=${POD_IP}.shop", []string{"10.96.0.1"}, node("10.244.0.0/24"), "", true, decide.Deny, decide.IPNotProved},
		{"no IP", "ip-sans=${POD_IP}", []string{"nonsense"}, node("10.244.0.0/24"), "", true, decide.Deny, decide.NotUnderstood},
		{"written out, and the pod's", "ip-sans=10.244.0.7", []string{"10.244.0.7"}, node("10.244.0.0/24"), "", false, decide.Approve, decide.Verified},
		{"written out, and lied", "ip-sans=10.96.0.1", []string{"10.96.0.1"}, node("10.244.0.0/24"), "", false, decide.Deny, decide.NotAllowed},
		{"written out, and another's", "ip-sans=10.244.0.8", []string{"10.244.0.7"}, node("10.244.0.0/24"), "", false, decide.Deny, decide.NotAllowed},
		{"written out, where any name is allowed", "ip-sans=10.96.0.1", []string{"10.244.0.7"}, node("10.244.0.0/24"), "", true, decide.Approve, decide.Verified},
		{"mapped", "ip-sans=${POD_IP}", []string{"::ffff:10.244.0.7"}, node("10.244.0.0/24"), "", false, decide.Approve, decide.Verified},
	} {
		t.Run(row.name, func(t *testing.T) {
			pod := web("csi.mayfly.dev/" + row.attribute)
			cr := asked(t, pod)
			pod.Status.PodIPs = nil
			for _, ip := range row.ips {
				pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: ip})
			}
			if row.reason != decide.NotUnderstood {
				cr = asked(t, pod)
			}
			r := rules()
			if row.any {
				r.Policy = anything{}
			}
			if row.cidr != "" {
				r.PodCIDRs = []netip.Prefix{netip.MustParsePrefix(row.cidr)}
			}
			if got := decideOn(r, cr, pod, row.node, created); got.Verdict != row.want || got.Reason != row.reason {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestALongMessageIsCut(t *testing.T) {
	pod := web()
	cr := asked(t, pod)
	cr.OwnerReferences[0].Name = strings.Repeat("ü", 4000)
	cr.OwnerReferences[0].UID = types.UID("other")
	if got := decideOn(rules(), cr, pod, nil, created); got.Verdict != decide.Deny || len(got.Message) > 1024 || len(got.Message) < 1000 {
		t.Errorf("%+v", got)
	}
}

// A policy says where IPs may lie that no node's range has. The pod is asked for, and a policy of others does not count.
func TestIPsOfAPolicy(t *testing.T) {
	compiler, err := policy.NewCompiler(policy.Policy{ClusterDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, namespace, attribute, ip string
		node                           *corev1.Node
		want                           decide.Verdict
		reason                         string
	}{
		{"of a node that is gone", "shop", "ip-sans=${POD_IP}", "192.168.1.1", nil, decide.Approve, decide.Verified},
		{"in its range", "shop", "ip-sans=${POD_IP}", "192.168.1.1", &corev1.Node{}, decide.Approve, decide.Verified},
		{"mapped", "shop", "ip-sans=${POD_IP}", "::ffff:192.168.1.1", &corev1.Node{}, decide.Approve, decide.Verified},
		{"written out", "shop", "ip-sans=192.168.1.9", "192.168.1.1", &corev1.Node{}, decide.Approve, decide.Verified},
		{"not in its range", "shop", "ip-sans=${POD_IP}", "192.168.2.1", &corev1.Node{}, decide.Deny, decide.IPNotProved},
		{"in a name that the policy does not have", "shop", "dns-names=${POD_IP}.test", "192.168.1.1", &corev1.Node{}, decide.Deny, decide.NotAllowed},
		{"in the range of another namespace", "other", "ip-sans=${POD_IP}", "192.168.1.1", &corev1.Node{}, decide.Deny, decide.IPNotProved},
	} {
		t.Run(row.name, func(t *testing.T) {
			pod := web("csi.mayfly.dev/" + row.attribute)
			pod.Status.PodIPs = []corev1.PodIP{{IP: row.ip}}
			p := v1alpha1.CertificatePolicy{Spec: v1alpha1.Spec{Namespaces: []string{row.namespace}, Allow: v1alpha1.Allow{IPs: []v1alpha1.CIDR{"192.168.1.0/24"}}}}
			r := rules()
			r.Policy = compiler.Set([]v1alpha1.CertificatePolicy{p})
			if got := decideOn(r, asked(t, pod), pod, row.node, created); got.Verdict != row.want || got.Reason != row.reason {
				t.Errorf("%+v", got)
			}
		})
	}
}

// Where a policy allows all, pods still get what they ask for and nothing else.
func TestAPolicyThatAllowsAll(t *testing.T) {
	r := rules()
	r.Policy = anything{}
	pod := web("csi.mayfly.dev/dns-names=web.test", "csi.mayfly.dev/organizations=system:masters", "csi.mayfly.dev/is-ca=true")
	if got := decideOn(r, asked(t, pod), pod, nil, created); got.Verdict != decide.Approve {
		t.Errorf("%+v", got)
	}
	cr := asked(t, pod)
	cr.Spec.Duration.Duration++
	if got := decideOn(r, cr, pod, nil, created); got.Verdict != decide.Deny || got.Reason != decide.NotTheVolumes {
		t.Errorf("%+v", got)
	}
}

// TestNodeName: the node is that of the pod's spec, whatever the node plugin says.
func TestNodeName(t *testing.T) {
	r := rules()
	r.Policy = anything{}
	pod := web("csi.mayfly.dev/dns-names=${NODE_NAME}.example.org")
	if got := decideOn(r, asked(t, pod), pod, nil, created); got.Verdict != decide.Approve {
		t.Errorf("%+v", got)
	}
	lie := pod.DeepCopy()
	lie.Spec.NodeName = "node-b"
	cr := asked(t, lie)
	cr.Spec.Extra = map[string][]string{nodeName: {"node-a"}}
	if got := decideOn(r, cr, pod, nil, created); got.Verdict != decide.Deny || got.Reason != decide.NotTheVolumes {
		t.Errorf("%+v", got)
	}
	r.Policy = rules().Policy
	if got := decideOn(r, asked(t, pod), pod, nil, created); got.Verdict != decide.Deny || got.Reason != decide.NotAllowed {
		t.Errorf("without a policy: %+v", got)
	}
}

// Profiles count as they do on the node.
func TestProfiles(t *testing.T) {
	profiles, err := spec.ParseProfiles(map[string]string{spec.ProfilesKey: "profiles: {short: {duration: 5m}}\nnamespaces: {shop: short}"})
	if err != nil {
		t.Fatal(err)
	}
	pod := web()
	cr := asked(t, pod)
	r := rules()
	r.Defaults.Live = profiles
	if got := decideOn(r, cr, pod, nil, created); got.Reason != decide.NotTheVolumes || !strings.Contains(got.Message, "the volume wants 5m0s") {
		t.Errorf("%+v", got)
	}
	cr.Spec.Duration.Duration = 5 * time.Minute
	if got := decideOn(r, cr, pod, nil, created); got.Verdict != decide.Approve {
		t.Errorf("%+v", got)
	}
}

func parsed(text []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(text)
	return x509.ParseCertificateRequest(block.Bytes)
}
