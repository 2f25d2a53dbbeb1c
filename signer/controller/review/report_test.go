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
	var report Report
	node := &corev1.Node{Spec: corev1.NodeSpec{PodCIDRs: []string{"10.0.0.0/24"}}}
	for _, p := range []*corev1.Pod{
		pod("several", "dns-names=web.shop.svc", "dns-names=web.test", "dns-names=x.test"), pod("ip", "ip-sans=${POD_IP}"), pod("odd", "dns-nam=x"), pod("none"), waiting, mirror, deleted, ended,
	} {
		report.add(Change{today, then}, p, node)
	}
	var got []string
	for _, d := range report.Denials {
		got = append(got, fmt.Sprint(d.Namespace, "/", d.Pod, " ", d.ServiceAccount, " ", d.Volume, " ", d.New))
	}
	want := []string{
		"shop/several clerk tls0 true", "shop/several clerk tls2 false", "shop/ip clerk tls0 true", "shop/odd clerk tls0 false", "shop/waiting clerk tls0 false",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") || report.New() != 2 || report.Pods != 4 || report.Volumes != 6 {
		t.Errorf("%d pods, %d volumes, %d new, of\n%s", report.Pods, report.Volumes, report.New(), strings.Join(got, "\n"))
	}
	if got := report.Denials[0].Message; !strings.Contains(got, `DNS name "web.shop.svc" is not allowed: allowed are web.test`) {
		t.Error(got)
	}
}
