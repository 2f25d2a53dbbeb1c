package decide_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// BenchmarkDecide takes the time of decisions: on the usual pod, and on those that take longest, each as large as the
// API server lets a pod be.
func BenchmarkDecide(b *testing.B) {
	for _, one := range []struct {
		name       string
		attributes map[string]string // Besides the names.
		names      string
		policies   int
		allows     []string
		cel        string
		want       string
	}{
		{name: "usual", names: "web.shop.svc", want: decide.Verified},
		{name: "256 annotations", attributes: annotations(), names: "web.shop.svc", want: decide.NotAllowed},
		{name: "256 annotations of a policy", attributes: annotations(), names: "web.shop.svc", policies: 10, want: decide.Verified},
		{name: "1000 names", names: names(1000, 10, ".shop.svc"), want: decide.Verified},
		{name: "long names", names: names(255, 200, ".shop.svc"), want: decide.Verified},
		{name: "names that are not allowed", names: names(1000, 10, ".test"), want: decide.NotAllowed},
		{name: "10 policies against them", names: names(1000, 10, ".test"), policies: 10, allows: patterns(), want: decide.NotAllowed},
		{
			name: "expressions", names: names(1000, 10, ".shop.svc"), policies: 10, want: decide.NotAllowed,
			cel: "volume.dnsNames.all(a, volume.dnsNames.exists(b, volume.dnsNames.exists(c, a == 'x' + b + c)))",
		},
	} {
		b.Run(one.name, func(b *testing.B) {
			rules := decide.Rules{
				Drivers: []spec.DriverName{{Name: spec.Driver}}, Defaults: spec.Defaults{IssuerName: "ca", IssuerKind: "Issuer"},
				Policy: set(b, one.policies, one.allows, one.cel),
			}
			attributes := map[string]string{spec.Prefix + "dns-names": one.names}
			for key, value := range one.attributes {
				attributes[key] = value
			}
			pod := greatest(attributes)
			r := asked(b, rules, pod)
			begin := spent(b)
			for b.Loop() {
				if d := decide.Decide(r, pod, nil, rules, r.Made); d.Reason != one.want {
					b.Fatalf("%s: %s", d.Reason, d.Message)
				}
			}
			b.ReportMetric(float64((spent(b)-begin).Microseconds())/float64(b.N), "CPU-µs/op")
		})
	}
}

// spent is the CPU that the process has taken, with its garbage collection.
func spent(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func annotations() map[string]string {
	all := map[string]string{}
	for i := range 255 {
		all[fmt.Sprintf("a%d.example.org/%s", i, strings.Repeat("k", 50))] = strings.Repeat("v", 900)
	}
	return all
}

func names(n, length int, domain string) string {
	var all []string
	for i := range n {
		name := fmt.Sprint("n", i)
		for len(name) < length-60 {
			name += "." + strings.Repeat("a", 50)
		}
		all = append(all, name+domain)
	}
	return strings.Join(all, ",")
}

func patterns() (all []string) {
	for i := range 512 {
		all = append(all, fmt.Sprintf("**.d%d.example.org", i))
	}
	return all
}

// set are policies for the pod.
func set(b *testing.B, n int, names []string, expression string) policy.Set {
	b.Helper()
	compiler, err := policy.NewCompiler(policy.Policy{ClusterDomain: "cluster.local"})
	if err != nil {
		b.Fatal(err)
	}
	var all []v1alpha1.CertificatePolicy
	for i := range n {
		p := v1alpha1.CertificatePolicy{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", i)}}
		p.Spec.Namespaces = []string{"shop"}
		p.Spec.Allow.DNSNames, p.Spec.Allow.Annotations = names, []string{"*"}
		if expression != "" {
			for range 10 {
				p.Spec.Expressions = append(p.Spec.Expressions, v1alpha1.Expression{Expression: expression})
			}
		}
		all = append(all, p)
	}
	compiled := compiler.Set(all)
	for _, r := range compiled.Rules() {
		if r.Err != nil {
			b.Fatal(r.Err)
		}
	}
	return compiled
}

// greatest is a pod with these attributes in one volume, and 127 others, of 1.4 MiB.
func greatest(attributes map[string]string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid-1"},
		Spec:       corev1.PodSpec{NodeName: "node-a", ServiceAccountName: "clerk"},
	}
	volume := func(name string, attributes map[string]string) {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			CSI: &corev1.CSIVolumeSource{Driver: spec.Driver, VolumeAttributes: attributes},
		}})
	}
	for i := range decide.MaxVolumes - 1 {
		volume(fmt.Sprint("v", i), map[string]string{spec.Prefix + "dns-names": strings.Repeat("a.test,", 1200)})
	}
	volume("tls", attributes)
	return pod
}

// asked is what the node plugin asks for the pod's last volume.
func asked(b *testing.B, rules decide.Rules, pod *corev1.Pod) decide.Request {
	b.Helper()
	volumes := rules.Volumes(pod)
	wanted, err := spec.Parse(volumes[len(volumes)-1].Asked, rules.Defaults)
	if err != nil {
		b.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	der, err := wanted.CSR(key)
	if err != nil {
		b.Fatal(err)
	}
	return decide.Request{
		Caller: "mayfly", Node: "node-a", Namespace: "shop", Pod: "web", UID: "uid-1", Made: time.Now(),
		Volume: decide.VolumeID(pod, "tls"), Duration: wanted.Duration, Annotations: wanted.Annotations,
		CSR:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		Object: &decide.Object{Issuer: wanted.Issuer, Usages: wanted.Usages, IsCA: wanted.IsCA},
	}
}
