package review

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// pod has volumes of the driver that ask for these attributes, "dns-names=web.test", and one of another driver.
func pod(name string, volumes ...string) *corev1.Pod {
	inline := func(name, driver string, attributes map[string]string) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: driver, VolumeAttributes: attributes}}}
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "1"}, Spec: corev1.PodSpec{ServiceAccountName: "clerk"},
		Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}},
	}
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "config"}, inline("other", "other.example.org", nil))
	for i, v := range volumes {
		key, value, _ := strings.Cut(v, "=")
		p.Spec.Volumes = append(p.Spec.Volumes, inline(fmt.Sprint("tls", i), "csi.mayfly.dev", map[string]string{spec.Prefix + "issuer-name": "ca", spec.Prefix + key: value}))
	}
	return p
}

func TestReport(t *testing.T) {
	compiler, err := policy.NewCompiler(policy.Policy{ClusterDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	p := v1alpha1.CertificatePolicy{Spec: v1alpha1.Spec{Namespaces: []string{"shop"}, Allow: v1alpha1.Allow{OwnNames: new(false), DNSNames: []string{"web.test"}}}}
	today := decide.Rules{Drivers: []spec.DriverName{{Name: spec.Driver}}, Policy: compiler.Set(nil)}
	then := today
	then.Policy = compiler.Set([]v1alpha1.CertificatePolicy{p})
	mirror, deleted, ended := pod("mirror", "dns-names=web.shop.svc"), pod("deleted", "dns-names=web.shop.svc"), pod("ended", "dns-names=web.shop.svc")
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	deleted.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	ended.Status.Phase = corev1.PodFailed
	waiting := pod("waiting", "ip-sans=${POD_IP}")
	waiting.Status.PodIPs = nil
	native := pod("native")
	for _, name := range []string{"csi.mayfly.dev/clusterissuer.corp", "example.org/other"} {
		source := corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{SignerName: name, KeyType: "ECDSAP256", UserAnnotations: map[string]string{spec.Prefix + "dns-names": "web.shop.svc"}}}
		native.Spec.Volumes = append(native.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{}, source}}}})
	}
	var report Report
	node := &corev1.Node{Spec: corev1.NodeSpec{PodCIDRs: []string{"10.0.0.0/24"}}}
	for _, p := range []*corev1.Pod{
		pod("several", "dns-names=web.shop.svc", "dns-names=web.test", "dns-names=x.test"), pod("ip", "ip-sans=${POD_IP}"), pod("odd", "dns-nam=x"), pod("none"), waiting, native, mirror, deleted, ended,
	} {
		report.add(Change{Today: today, Then: then}, p, node)
	}
	var got []string
	for _, d := range report.Denials {
		got = append(got, fmt.Sprint(d.Namespace, "/", d.Pod, " ", d.ServiceAccount, " ", d.Volume, " ", d.New))
	}
	want := []string{
		"shop/several clerk tls0 true", "shop/several clerk tls2 false", "shop/ip clerk tls0 true", "shop/odd clerk tls0 false", "shop/waiting clerk tls0 false", "shop/native clerk csi.mayfly.dev/clusterissuer.corp true",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") || report.New() != 3 || report.Pods != 5 || report.Volumes != 7 {
		t.Errorf("%d pods, %d volumes, %d new, of\n%s", report.Pods, report.Volumes, report.New(), strings.Join(got, "\n"))
	}
	if want := (Approval{Subject{"shop", "several", "clerk", "tls1"}, ""}); len(report.Approvals) != 1 || report.Approvals[0].Subject != want.Subject || !strings.Contains(report.Approvals[0].Message, `DNS name "web.test" is not the pod's`) {
		t.Errorf("%+v", report.Approvals)
	}
	if got := report.Denials[0].Message; !strings.Contains(got, `DNS name "web.shop.svc" is not allowed: allowed are web.test`) {
		t.Error(got)
	}
}

// What a pod would get that is not there yet, by which policies, and why not.
func TestPlan(t *testing.T) {
	compiler, err := policy.NewCompiler(policy.Policy{ClusterDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	set := compiler.Set([]v1alpha1.CertificatePolicy{
		{ObjectMeta: metav1.ObjectMeta{Name: "team"}, Spec: v1alpha1.Spec{Namespaces: []string{"team"}, Allow: v1alpha1.Allow{DNSNames: []string{"web.test"}}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "clerks"}, Spec: v1alpha1.Spec{Namespaces: []string{"*"}, ServiceAccounts: []string{"clerk"}}},
	})
	rules := decide.Rules{Drivers: []spec.DriverName{{Name: spec.Driver}}, Policy: set, Defaults: spec.Defaults{TrustDomain: "cluster.local"}}
	change := Change{Today: rules, Then: rules, Policies: set.Names}
	const own = "; ECDSA 256; 1h0m0s; Issuer ca of cert-manager.io"
	for _, row := range []struct{ namespace, account, attribute, want string }{
		{"", "", "dns-names=web.shop.svc", "shop/web default tls0 true [] []: web.shop.svc" + own},
		{"", "", "dns-names=web.test", `shop/web default tls0 false [] [] DNS name "web.test" is not the pod's: web.test` + own},
		{"", "clerk", "dns-names=web.shop.svc", "shop/web clerk tls0 true [clerks] []: web.shop.svc" + own},
		{"team", "", "dns-names=web.test", "team/web default tls0 true [team] []: web.test" + own},
		{"team", "clerk", "dns-names=web.test", "team/web clerk tls0 true [clerks team] []: web.test" + own},
		{"team", "clerk", "dns-names=x.test", `team/web clerk tls0 false [clerks team] [] CertificatePolicy clerks, the nearest of 2: DNS name "x.test" is not allowed: x.test` + own},
		{"", "", "spiffe=true", "shop/web default tls0 true [] []: spiffe://cluster.local/ns/shop/sa/default" + own},
		{"", "", "ip-sans=${POD_IP}", "shop/web default tls0 true [] [192.0.2.1 stands for the pod's IP, which must lie where those of its node's pods do]: 192.0.2.1" + own},
		{"", "", "ip-sans=192.0.2.2", "shop/web default tls0 false [] [] IP address 192.0.2.2 is not proved to be the pod's: 192.0.2.2" + own},
		{"", "", "dns-names=$NODE_NAME.shop.svc", "shop/web default tls0 true [] [some-node stands for the pod's node]: some-node.shop.svc" + own},
		{"", "", "dns-names=${NODE_NAME}.shop.svc", "shop/web default tls0 true [] [some-node stands for the pod's node]: some-node.shop.svc" + own},
		{"", "", "literal-subject=CN=web.shop.svc", "shop/web default tls0 true [] []: CN=web.shop.svc" + own},
		{"", "", "common-name=web.shop.svc", "shop/web default tls0 true [] []: CN=web.shop.svc" + own},
		{"", "", "dns-nam=x", "shop/web default tls0 false [] [] volume tls0 is not understood by this controller"},
	} {
		p := pod("web", row.attribute)
		p.Namespace, p.UID, p.Spec.ServiceAccountName, p.Status = row.namespace, "", row.account, corev1.PodStatus{}
		plans := change.Plan(p, "shop")
		if len(plans) != 1 {
			t.Fatalf("%s: %+v", row.attribute, plans)
		}
		got := plans[0]
		message, _, _ := strings.Cut(got.Message, ": it may have")
		message, _, _ = strings.Cut(message, ": allowed are")
		message, _, _ = strings.Cut(message, ", which may be older")
		message, _, _ = strings.Cut(message, ": a CertificatePolicy")
		text := strings.TrimSpace(fmt.Sprint(got.Namespace, "/", got.Pod, " ", got.ServiceAccount, " ", got.Volume, " ", got.Approved, " ", got.Policies, " ", got.Assumes, " ", message))
		if c := got.Certificate; c != nil {
			names := strings.TrimSpace(strings.Join(append(append(append([]string{c.Subject}, c.DNSNames...), c.IPs...), c.URIs...), " "))
			text += fmt.Sprint(": ", names, "; ", c.Key, "; ", c.Duration, "; ", c.Issuer)
		}
		if text != row.want {
			t.Errorf("%s:\n got %s\nwant %s", row.attribute, text, row.want)
		}
		if p.UID != "" || p.Spec.NodeName != "" {
			t.Error("the pod has changed")
		}
	}
}
