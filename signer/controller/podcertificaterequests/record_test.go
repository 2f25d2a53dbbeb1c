package podcertificaterequests

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"reflect"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/audit"
	"github.com/mayfly-csi/mayfly/signer/controller/audit/audittest"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
)

const approval, certificate = "decision approved VerifiedByMayfly", "certificate issued approved VerifiedByMayfly"

// keyOf is the hash of the key that a request has.
func keyOf(t *testing.T, pcr *certificatesv1.PodCertificateRequest) string {
	t.Helper()
	csr, err := x509.ParseCertificateRequest(pcr.Spec.StubPKCS10Request)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(csr.RawSubjectPublicKeyInfo))
}

// What a CA of the controller signs is a decision and a certificate, which say the same of names, usages and key.
func TestTheRecordsOfACertificate(t *testing.T) {
	for name, row := range map[string]struct {
		asks   func(*testing.T, *corev1.Pod) *certificatesv1.PodCertificateRequest
		mode   string
		issuer audit.Issuer
		names  string
	}{
		"of a node plugin": {asks, audit.PodCertificate, audit.Issuer{Group: signer.CAGroup, Kind: signer.CAKind, Name: "mayfly-ca"}, "[web.shop.svc] []"},
		"of a kubelet": {kubelet, audit.Native, audit.Issuer{Group: signer.CAGroup, Kind: signer.CAKind, Name: "clusterissuer.corp"},
			"[] [spiffe://cluster.local/ns/shop/sa/clerk]"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := web()
			pcr := row.asks(t, pod)
			d := newFixture(t, interceptor.Funcs{}, pod, pcr)
			for range 2 { // The second time it is answered.
				if _, err := d.answers(pcr); err != nil {
					t.Fatal(err)
				}
			}
			leaf, _ := d.leaf(pcr)
			records, words := d.records()
			if fmt.Sprint(words) != fmt.Sprint([]string{approval, certificate}) {
				t.Fatalf("%q", words)
			}
			decision, issued := records[0], records[1]
			if !reflect.DeepEqual(decision.Content, issued.Content) || fmt.Sprint(issued.DNSNames, issued.URIs) != row.names ||
				issued.KeySHA256 != keyOf(t, pcr) || len(issued.Usages) == 0 {
				t.Errorf("%+v\n%+v", decision.Content, issued.Content)
			}
			if content, validity := audit.OfCertificate(leaf); !reflect.DeepEqual(issued.Content, content) || issued.Validity != validity {
				t.Errorf("%+v\n%+v", issued, leaf)
			}
			for _, r := range records {
				if r.Mode != row.mode || *r.Issuer != row.issuer || *r.Request != (audit.Request{Kind: "PodCertificateRequest", Name: "web-attempt", UID: "pcr-1"}) ||
					r.Pod != (audit.Pod{Namespace: "shop", Name: "web", UID: "uid-1", Node: "node-a", ServiceAccount: "clerk"}) {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

// A denial has what was asked for, and the policies that count.
func TestTheRecordOfADenial(t *testing.T) {
	pod := web("csi.mayfly.dev/dns-names=web.test")
	pcr := asks(t, pod)
	d := newFixture(t, interceptor.Funcs{}, pod, pcr)
	compiler, err := policy.NewCompiler(policy.Policy{ClusterDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	policies := []v1alpha1.CertificatePolicy{{Spec: v1alpha1.Spec{Namespaces: []string{"bank"}}}, {Spec: v1alpha1.Spec{Namespaces: []string{"shop"}}}, {Spec: v1alpha1.Spec{Namespaces: []string{"*"}}}}
	for i := range policies {
		policies[i].Name = fmt.Sprint("policy-", i)
	}
	d.Decider.Rules.Policy = compiler.Set(policies)
	if _, err := d.answers(pcr); err != nil {
		t.Fatal(err)
	}
	records, words := d.records()
	if fmt.Sprint(words) != "[decision denied NotAllowed]" {
		t.Fatalf("%q", words)
	}
	r := records[0]
	if fmt.Sprint(r.DNSNames, r.Policy) != "[web.test] [policy-1 policy-2]" || r.KeySHA256 != keyOf(t, pcr) || r.Message == "" || r.Issuer != nil {
		t.Errorf("%+v", r)
	}
}

// What an issuer signs was decided when it was passed on, and a failure is a decision, too.
func TestTheRecordsOfAnIssuer(t *testing.T) {
	failed := func(d *fixture, cr *cmapi.CertificateRequest, _ *corev1.Pod) {
		d.conclude(cr, cmapi.CertificateRequestConditionReady, cmmeta.ConditionFalse, cmapi.CertificateRequestReasonFailed)
	}
	signed := func(d *fixture, cr *cmapi.CertificateRequest, pod *corev1.Pod) { d.signed(cr, pod) }
	const failure = "decision failed SigningFailed"
	ends := func(d *fixture, cr *cmapi.CertificateRequest, pod *corev1.Pod) { // While its issuer signs.
		d.signed(cr, pod)
		pod.Status.Phase = corev1.PodSucceeded
		if err := d.api.Status().Update(d.Context(), pod); err != nil {
			d.Fatal(err)
		}
	}
	unreadable := func(d *fixture, cr *cmapi.CertificateRequest, pod *corev1.Pod) {
		d.signed(cr, pod)
		cr.Status.Certificate = append([]byte("x\n"), cr.Status.Certificate...)
		cr.Status.Certificate = append(cr.Status.Certificate, "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"...)
		if err := d.api.Status().Update(d.Context(), cr); err != nil {
			d.Fatal(err)
		}
	}
	for name, row := range map[string]struct {
		decides func(*fixture, *cmapi.CertificateRequest, *corev1.Pod)
		want    []string
	}{"signs": {signed, []string{approval, certificate}}, "fails": {failed, []string{approval, failure}},
		"signs for a pod that has ended": {ends, []string{approval, "decision denied PodNotLive", certificate}},
		"signs what can't be used":       {unreadable, []string{approval, failure, certificate}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := web("csi.mayfly.dev/issuer-name=ca", "csi.mayfly.dev/issuer-kind=Issuer", "csi.mayfly.dev/issuer-group=cert-manager.io")
			pcr := asks(t, pod)
			d := newFixture(t, interceptor.Funcs{}, pod, pcr)
			cr := d.passOn(pcr)
			row.decides(d, cr, pod)
			if _, err := d.answers(pcr); err != nil {
				t.Fatal(err)
			}
			records, words := d.records()
			if fmt.Sprint(words) != fmt.Sprint(row.want) {
				t.Errorf("%q", words)
			}
			for _, r := range records {
				if r.Decision != audit.Denied && *r.Issuer != (audit.Issuer{Group: "cert-manager.io", Kind: "Issuer", Name: "ca"}) {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

// passOn passes a request on, and returns the CertificateRequest as the API server has it after the controller's approval.
func (d *fixture) passOn(pcr *certificatesv1.PodCertificateRequest) *cmapi.CertificateRequest {
	d.Helper()
	if _, err := d.answers(pcr); err != nil {
		d.Fatal(err)
	}
	cr := &cmapi.CertificateRequest{}
	if err := d.api.Get(d.Context(), client.ObjectKeyFromObject(pcr), cr); err != nil {
		d.Fatal(err)
	}
	return cr
}

// A request that is deleted before its answer has its certificate on record, or that it is unknown, once.
func TestARequestThatIsDeleted(t *testing.T) {
	passed := []string{"csi.mayfly.dev/issuer-name=ca", "csi.mayfly.dev/issuer-kind=Issuer", "csi.mayfly.dev/issuer-group=cert-manager.io"}
	const unknown = "certificate unknown approved VerifiedByMayfly"
	for name, row := range map[string]struct {
		attributes []string
		before     func(*fixture, *certificatesv1.PodCertificateRequest, *corev1.Pod)
		want       []string
	}{
		"before it is signed": {passed, func(d *fixture, pcr *certificatesv1.PodCertificateRequest, _ *corev1.Pod) { d.passOn(pcr) }, []string{approval, unknown}},
		"before the answer": {passed, func(d *fixture, pcr *certificatesv1.PodCertificateRequest, pod *corev1.Pod) {
			d.signed(d.passOn(pcr), pod)
		}, []string{approval, certificate}},
		"while another replica records": {passed, func(d *fixture, pcr *certificatesv1.PodCertificateRequest, _ *corev1.Pod) {
			d.passOn(pcr)
			d.Holder = audittest.Holder(false)
		}, []string{approval}},
		"before it is decided": {passed, func(*fixture, *certificatesv1.PodCertificateRequest, *corev1.Pod) {}, nil},
		"after the answer": {passed, func(d *fixture, pcr *certificatesv1.PodCertificateRequest, pod *corev1.Pod) {
			d.signed(d.passOn(pcr), pod)
			if _, err := d.answers(pcr); err != nil {
				d.Fatal(err)
			}
		}, []string{approval, certificate}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := web(row.attributes...)
			pcr := asks(t, pod)
			d := newFixture(t, interceptor.Funcs{}, pod, pcr)
			row.before(d, pcr, pod)
			last := &certificatesv1.PodCertificateRequest{}
			if err := d.api.Get(t.Context(), client.ObjectKeyFromObject(pcr), last); err != nil {
				t.Fatal(err)
			}
			if _, err := Trim(last); err != nil {
				t.Fatal(err)
			}
			d.deletions().(handler.Funcs).DeleteFunc(t.Context(), event.DeleteEvent{Object: last}, nil)
			records, words := d.records()
			if fmt.Sprint(words) != fmt.Sprint(row.want) {
				t.Fatalf("%q", words)
			}
			for _, r := range records {
				if r.Pod != (audit.Pod{Namespace: "shop", Name: "web", UID: "uid-1", Node: "node-a", ServiceAccount: "clerk"}) || r.Request.Kind != "PodCertificateRequest" {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}
