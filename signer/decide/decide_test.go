package decide

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

func now() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) }

// shop is a policy that allows names of shop, and pods' IPs in 10.9.0.0/16.
type shop struct{}

func (shop) Check(wanted spec.Spec, of Identity) error {
	for _, name := range wanted.DNSNames {
		if !strings.HasSuffix(name, ".shop.svc") {
			return errors.New("DNS name " + name)
		}
	}
	for _, ip := range wanted.IPs {
		if addr, _ := netip.AddrFromSlice(ip); !slices.Contains(of.IPs, addr.Unmap()) && !shop.within(shop{}, addr) {
			return errors.New("IP " + ip.String())
		}
	}
	return nil
}

func (shop) within(ip netip.Addr) bool {
	return netip.MustParsePrefix("10.9.0.0/16").Contains(ip.Unmap())
}

func (shop) Ranges(signer.Pod) []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}
}

func rules() Rules {
	return Rules{
		Drivers: []spec.DriverName{{Name: spec.Driver}}, ClusterDomain: "cluster.local", Policy: shop{},
		Defaults: spec.Defaults{IssuerName: "ca", IssuerKind: "Issuer"}, Ignored: []string{"sidecar.example.org/*", "seen"},
	}
}

// web is a pod of node-a with one volume.
func web(attributes ...string) *corev1.Pod {
	all := map[string]string{spec.Prefix + "dns-names": "${POD_NAME}.shop.svc"}
	for _, a := range attributes {
		key, value, _ := strings.Cut(a, "=")
		all[spec.Prefix+key] = value
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid-1"},
		Spec: corev1.PodSpec{NodeName: "node-a", ServiceAccountName: "clerk", Volumes: []corev1.Volume{
			{Name: "tls", VolumeSource: corev1.VolumeSource{
				CSI: &corev1.CSIVolumeSource{Driver: spec.Driver, VolumeAttributes: all},
			}},
		}},
		Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.244.0.7"}}},
	}
}

func nodeA() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node-a"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.0.0/24"}},
	}
}

// csr is a signing request, in DER.
func csr(t testing.TB, wanted spec.Spec) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := wanted.CSR(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// asks is what node-a's node plugin asks for the pod's volume, a minute ago, by a CertificateRequest.
func asks(t testing.TB, pod *corev1.Pod) Request {
	t.Helper()
	wanted, err := spec.Parse(rules().Volumes(pod)[0].Asked, rules().Defaults)
	if err != nil {
		t.Fatal(err)
	}
	return Request{
		Caller: "mayfly", Node: "node-a", Namespace: "shop", Pod: "web", UID: "uid-1", Made: now().Add(-time.Minute),
		Volume: VolumeID(pod, "tls"), Duration: wanted.Duration, Annotations: wanted.Annotations,
		CSR:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr(t, wanted)}),
		Object: &Object{Issuer: wanted.Issuer, Usages: wanted.Usages, IsCA: wanted.IsCA},
	}
}

// A row changes one thing of what is approved otherwise.
type row struct {
	name   string
	change func(*Request, *corev1.Pod)
	want   string // The reason; empty: the decision waits.
}

// check holds that each row, and nothing but its change, makes the decision.
func check(t *testing.T, rows []row) {
	t.Helper()
	for _, row := range rows {
		pod := web()
		r := asks(t, pod)
		if d := Decide(r, pod, nodeA(), rules(), now()); d.Verdict != Approve || !d.Own || d.Certificate.DNSNames[0] != "web.shop.svc" {
			t.Fatalf("unchanged: %+v", d)
		}
		row.change(&r, pod)
		d := Decide(r, pod, nodeA(), rules(), now())
		if want := map[bool]Verdict{true: Wait, false: Deny}[row.want == ""]; d.Verdict != want || d.Reason != row.want {
			t.Errorf("%s: %v, %s: %s; want %s", row.name, d.Verdict, d.Reason, d.Message, row.want)
		}
		if own := d.Own; own != slices.Contains([]string{PodNotLive, NoVolume, NotUnderstood, NotTheVolumes, IPNotProved, NotAllowed}, d.Reason) {
			t.Errorf("%s: own is %t", row.name, own)
		}
	}
}

func TestCheck1KnownCaller(t *testing.T) {
	check(t, []row{
		{"no node", func(r *Request, _ *corev1.Pod) { r.Node = "" }, CallerUnknown},
		{"no node, for a pod that is not scheduled", func(r *Request, p *corev1.Pod) { r.Node, p.Spec.NodeName = "", "" }, CallerUnknown},
	})
}

func TestCheck2OnePod(t *testing.T) {
	check(t, []row{
		{"no pod", func(r *Request, _ *corev1.Pod) { r.Pod = "" }, NotOfAPod},
		{"no UID", func(r *Request, p *corev1.Pod) { r.UID, p.UID = "", "" }, NotOfAPod},
	})
	pod := web()
	for age, want := range map[time.Duration]Verdict{-time.Hour: Wait, 0: Wait, Patience - 1: Wait, Patience: Deny} {
		r := asks(t, pod)
		r.Made = now().Add(-age)
		if d := Decide(r, nil, nil, rules(), now()); d.Verdict != want || want == Deny && d.Reason != PodNotFound || d.Own {
			t.Errorf("no pod, after %s: %+v", age, d)
		}
	}
}

func TestCheck3UID(t *testing.T) {
	check(t, []row{
		{"another pod of the name", func(_ *Request, p *corev1.Pod) { p.UID = "uid-2" }, PodNotFound},
		{"an earlier pod of the name", func(r *Request, _ *corev1.Pod) { r.UID = "uid-0" }, PodNotFound},
	})
}

func TestCheck4Node(t *testing.T) {
	check(t, []row{
		{"a pod of another node", func(_ *Request, p *corev1.Pod) { p.Spec.NodeName = "node-b" }, OtherNode},
		{"another node asks", func(r *Request, _ *corev1.Pod) { r.Node = "node-b" }, OtherNode},
		{"a pod that is not scheduled", func(_ *Request, p *corev1.Pod) { p.Spec.NodeName = "" }, OtherNode},
	})
}

func TestCheck5Live(t *testing.T) {
	check(t, []row{
		{"that has ended", func(_ *Request, p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, PodNotLive},
		{"that has failed", func(_ *Request, p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, PodNotLive},
		{"that is being deleted", func(_ *Request, p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: now()} }, PodNotLive},
		{"that the node made up", func(_ *Request, p *corev1.Pod) {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: ""}
		}, PodNotLive},
		{"that the node owns", func(_ *Request, p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "node-a"}}
		}, PodNotLive},
	})
}

func TestCheck6VolumeByItsID(t *testing.T) {
	other := func(p *corev1.Pod, name, driver string) {
		source := p.Spec.Volumes[0].CSI.DeepCopy()
		source.Driver = driver
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{CSI: source}})
	}
	check(t, []row{
		{"no volume", func(_ *Request, p *corev1.Pod) { p.Spec.Volumes = nil }, NoVolume},
		{"no volume, and none is named", func(r *Request, p *corev1.Pod) { r.Volume, p.Spec.Volumes = "", nil }, NoVolume},
		{"another pod's", func(r *Request, _ *corev1.Pod) {
			r.Volume = VolumeID(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "uid-2"}}, "tls")
		}, NoVolume},
		{"another driver's", func(r *Request, p *corev1.Pod) {
			other(p, "foreign", "example.org")
			r.Volume = VolumeID(p, "foreign")
		}, NoVolume},
		{"one that is no inline volume", func(r *Request, p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "config"})
			r.Volume = VolumeID(p, "config")
		}, NoVolume},
		{"another one of the pod, which asks for something else", func(r *Request, p *corev1.Pod) {
			other(p, "db", spec.Driver)
			p.Spec.Volumes[1].CSI.VolumeAttributes[spec.Prefix+"dns-names"] = "db.shop.svc"
			r.Volume = VolumeID(p, "db")
		}, NotTheVolumes},
		{"a PodCertificateRequest that names none", func(r *Request, _ *corev1.Pod) { r.Volume, r.Object = "", nil }, NoVolume},
	})
}

func TestCheck7Equal(t *testing.T) {
	set := func(key, value string) func(*Request, *corev1.Pod) {
		return func(_ *Request, p *corev1.Pod) { p.Spec.Volumes[0].CSI.VolumeAttributes[spec.Prefix+key] = value }
	}
	check(t, []row{
		{"another name", set("dns-names", "db.shop.svc"), NotTheVolumes},
		{"another name, and no volume is named", func(r *Request, p *corev1.Pod) {
			r.Volume = ""
			set("dns-names", "db.shop.svc")(r, p)
		}, NotTheVolumes},
		{"another key", set("key-size", "384"), NotTheVolumes},
		{"another issuer", func(r *Request, _ *corev1.Pod) { r.Object.Issuer.Name = "root" }, NotTheVolumes},
		{"another kind of issuer", func(r *Request, _ *corev1.Pod) { r.Object.Issuer.Kind = "ClusterIssuer" }, NotTheVolumes},
		{"another usage", func(r *Request, _ *corev1.Pod) { r.Object.Usages = append(r.Object.Usages, "any") }, NotTheVolumes},
		{"a CA", func(r *Request, _ *corev1.Pod) { r.Object.IsCA = true }, NotTheVolumes},
		{"a longer life", func(r *Request, _ *corev1.Pod) { r.Duration++ }, NotTheVolumes},
		{"the issuer's own life", func(r *Request, _ *corev1.Pod) { r.Duration = 0 }, NotTheVolumes},
		{"an annotation", func(r *Request, _ *corev1.Pod) { r.Annotations = map[string]string{"venafi.cert-manager.io/x": "y"} }, NotTheVolumes},
		{"a label", func(r *Request, _ *corev1.Pod) { r.Object.Labels = map[string]string{"solver": "dns"} }, NotTheVolumes},
		{"a finalizer", func(r *Request, _ *corev1.Pod) { r.Object.Finalizers = []string{"example.org/keep"} }, NotTheVolumes},
		{"a key that begins like one that is ignored", func(r *Request, _ *corev1.Pod) {
			r.Object.Labels = map[string]string{"seen-too": "1"}
		}, NotTheVolumes},
		{"a volume that can't be parsed", set("dns-names", "a..b"), NotUnderstood},
		{"garbage", func(r *Request, _ *corev1.Pod) { r.CSR = []byte("garbage") }, NotTheVolumes},
	})
	pod := web()
	r := asks(t, pod)
	r.Annotations = map[string]string{"sidecar.example.org/status": "injected"}
	r.Object.Labels = map[string]string{"seen": "1", "sidecar.example.org/a": "b"}
	if d := Decide(r, pod, nodeA(), rules(), now()); d.Verdict != Approve {
		t.Errorf("with what an admission webhook adds: %+v", d)
	}
	r.Volume = ""
	if d := Decide(r, pod, nodeA(), rules(), now()); d.Verdict != Approve {
		t.Errorf("of a node plugin from before 0.1.0: %+v", d)
	}
}

func TestCheck8IPsProved(t *testing.T) {
	for name, row := range map[string]struct {
		attribute, ip string
		node          *corev1.Node
		cidr          string
		want          string
	}{
		"in the node's range":             {"ip-sans=${POD_IP}", "10.244.0.7", nodeA(), "", Verified},
		"in another node's":               {"ip-sans=${POD_IP}", "10.244.1.7", nodeA(), "", IPNotProved},
		"a service's":                     {"ip-sans=${POD_IP}", "10.96.0.1", nodeA(), "", IPNotProved},
		"a service's, in a name":          {"dns-names=${POD_IP}.shop.svc", "10.96.0.1", nodeA(), "", IPNotProved},
		"of a node that is gone":          {"ip-sans=${POD_IP}", "10.244.0.7", nil, "", IPNotProved},
		"in a range of the controller":    {"ip-sans=${POD_IP}", "10.245.0.7", nodeA(), "10.245.0.0/16", Verified},
		"in a range of the policy":        {"ip-sans=${POD_IP}", "10.9.0.7", nodeA(), "", Verified},
		"written out, and not proved":     {"ip-sans=10.96.0.1", "10.96.0.1", nodeA(), "", NotAllowed},
		"written out, and proved":         {"ip-sans=10.244.0.7", "10.244.0.7", nodeA(), "", Verified},
		"none asked for, and any is said": {"duration=2h", "10.96.0.1", nodeA(), "", Verified},
	} {
		pod := web(row.attribute)
		pod.Status.PodIPs[0].IP = row.ip
		r, rules := asks(t, pod), rules()
		if row.cidr != "" {
			rules.PodCIDRs = []netip.Prefix{netip.MustParsePrefix(row.cidr)}
		}
		if d := Decide(r, pod, row.node, rules, now()); d.Reason != row.want {
			t.Errorf("%s: %+v, want %s", name, d, row.want)
		}
	}
	pod := web("ip-sans=${POD_IP}")
	r := asks(t, pod)
	pod.Status.PodIPs = nil
	for age, want := range map[time.Duration]string{0: "", Patience: IPNotProved} {
		r.Made = now().Add(-age)
		if d := Decide(r, pod, nodeA(), rules(), now()); d.Reason != want || (want == "") != (d.Verdict == Wait) {
			t.Errorf("no IP, after %s: %+v", age, d)
		}
	}
}

func TestCheck9Policy(t *testing.T) {
	pod := web("dns-names=web.bank.svc")
	if d := Decide(asks(t, pod), pod, nodeA(), rules(), now()); d.Verdict != Deny || d.Reason != NotAllowed || !d.Own ||
		d.Message != "DNS name web.bank.svc" {
		t.Errorf("%+v", d)
	}
}
