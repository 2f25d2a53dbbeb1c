package certificaterequests

import (
	"context"
	"encoding/pem"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"github.com/mayfly-csi/mayfly/signer/ca"
	"github.com/mayfly-csi/mayfly/signer/controller/audit"
	"github.com/mayfly-csi/mayfly/signer/controller/audit/audittest"
	"github.com/mayfly-csi/mayfly/signer/decide"
)

// issue puts a certificate for the request's key into it, with that of its CA behind it.
func issue(t *testing.T, cr *cmapi.CertificateRequest) *cmapi.CertificateRequest {
	t.Helper()
	root, err := ca.New("root", time.Now().Add(-time.Hour), time.Now().Add(100*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	csr, err := parsed(cr.Spec.Request)
	if err != nil {
		t.Fatal(err)
	}
	template, err := ca.Template(csr, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	template.PublicKey = csr.PublicKey
	template.NotBefore, template.NotAfter, err = root.Validity(time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := root.Sign(template)
	if err != nil {
		t.Fatal(err)
	}
	cr = cr.DeepCopy()
	cr.Status.Certificate = slices.Concat(issued.Chain, issued.CA)
	return cr
}

// approved is the request after its approval.
func approved(cr *cmapi.CertificateRequest) *cmapi.CertificateRequest {
	cr = cr.DeepCopy()
	conclude(cr, cmapi.CertificateRequestConditionApproved)
	cr.Status.Conditions[0].Reason = decide.Verified
	return cr
}

// A cache hands what it has trimmed to the handler of events.
type cache struct {
	*testing.T
	of     *certificates
	events handler.Funcs
}

func newCache(d *fixture) cache {
	of := newCertificates(d.Config, d.accounts)
	return cache{d.T, of, of.handler().(handler.Funcs)}
}

func (c cache) trim(cr *cmapi.CertificateRequest) *cmapi.CertificateRequest {
	c.Helper()
	cr = cr.DeepCopy()
	if _, err := callers().Trim(cr); err != nil {
		c.Fatal(err)
	}
	return cr
}

func (c cache) adds(cr *cmapi.CertificateRequest, initial bool) {
	c.events.CreateFunc(c.Context(), event.CreateEvent{Object: c.trim(cr), IsInInitialList: initial}, nil)
}

func (c cache) changes(before, now *cmapi.CertificateRequest) {
	c.events.UpdateFunc(c.Context(), event.UpdateEvent{ObjectOld: c.trim(before), ObjectNew: c.trim(now)}, nil)
}

func (c cache) deletes(cr *cmapi.CertificateRequest) {
	c.events.DeleteFunc(c.Context(), event.DeleteEvent{Object: c.trim(cr)}, nil)
}

// run writes what was heard until it ends.
func (c cache) run() {
	c.Helper()
	ctx, cancel := context.WithCancel(c.Context())
	cancel()
	if err := c.of.Start(ctx); err != nil {
		c.Fatal(err)
	}
}

func TestWhichCertificatesAreRecorded(t *testing.T) {
	const issued, unknown = "[certificate issued approved VerifiedByMayfly]", "[certificate unknown approved VerifiedByMayfly]"
	for name, row := range map[string]struct {
		heard func(c cache, asked, approved, done *cmapi.CertificateRequest)
		want  string
	}{
		"issued": {func(c cache, asked, approved, done *cmapi.CertificateRequest) {
			c.adds(asked, false)
			c.changes(asked, approved)
			c.changes(approved, done)
			c.changes(done, done)
			c.deletes(done)
		}, issued},
		"issued while the watch was interrupted": {func(c cache, _, _, done *cmapi.CertificateRequest) { c.adds(done, false) }, issued},
		"issued before the start":                {func(c cache, _, _, done *cmapi.CertificateRequest) { c.adds(done, true); c.deletes(done) }, "[]"},
		"two certificates": {func(c cache, _, approved, done *cmapi.CertificateRequest) {
			c.changes(approved, done)
			c.changes(done, issue(c.T, approved))
		}, "[certificate issued approved VerifiedByMayfly certificate issued approved VerifiedByMayfly]"},
		"deleted before":       {func(c cache, _, approved, _ *cmapi.CertificateRequest) { c.deletes(approved) }, unknown},
		"deleted, not decided": {func(c cache, asked, _, _ *cmapi.CertificateRequest) { c.deletes(asked) }, "[]"},
		"deleted, denied": {func(c cache, asked, _, _ *cmapi.CertificateRequest) {
			conclude(asked, cmapi.CertificateRequestConditionDenied)
			c.deletes(asked)
		}, "[]"},
		"deleted, and its issuer had failed": {func(c cache, _, approved, _ *cmapi.CertificateRequest) {
			approved.Status.Conditions = append(approved.Status.Conditions, cmapi.CertificateRequestCondition{
				Type: cmapi.CertificateRequestConditionReady, Status: cmmeta.ConditionFalse, Reason: cmapi.CertificateRequestReasonFailed,
			})
			c.deletes(approved)
		}, "[]"},
		"garbage": {func(c cache, _, approved, done *cmapi.CertificateRequest) {
			done.Status.Certificate = []byte("garbage")
			c.changes(approved, done)
		}, unknown},
		"a certificate that is cut": {func(c cache, _, approved, done *cmapi.CertificateRequest) {
			done.Status.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: make([]byte, maxCertificate)})
			c.changes(approved, done)
		}, unknown},
		"of somebody else": {func(c cache, _, approved, done *cmapi.CertificateRequest) {
			approved.Spec.Username, done.Spec.Username = "someone", "someone"
			c.changes(approved, done)
			c.deletes(approved)
		}, "[]"},
		"by another replica": {func(c cache, _, approved, done *cmapi.CertificateRequest) {
			c.of.Holder = audittest.Holder(false)
			c.changes(approved, done)
			c.deletes(approved)
		}, "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			cr := asked(t, web())
			d := newFixture(t, interceptor.Funcs{})
			c := newCache(d)
			row.heard(c, cr, approved(cr), issue(t, approved(cr)))
			c.run()
			records, words := d.records()
			if got := fmt.Sprint(words); got != row.want {
				t.Errorf("%s", got)
			}
			for _, r := range records {
				if (r.Certificate == audit.Unknown) != (r.Message != "") || (r.Certificate == audit.Issued) != (r.Serial != "") {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

// A record says what certificate and request say, and the pod's service account if it is still that pod.
func TestTheRecordOfACertificate(t *testing.T) {
	for name, row := range map[string]struct {
		uid     types.UID // Of the pod that there is.
		account string
	}{"of a pod": {"uid-1", "clerk"}, "of a pod that is another": {"uid-2", ""}} {
		t.Run(name, func(t *testing.T) {
			pod := web()
			cr := issue(t, approved(asked(t, pod)))
			there := pod.DeepCopy()
			there.UID = row.uid
			read := make(chan struct{}, 1)
			d := newFixture(t, interceptor.Funcs{Get: func(ctx context.Context, api client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
				defer func() { read <- struct{}{} }()
				return api.Get(ctx, key, o, options...)
			}}, there)
			c := newCache(d)
			c.adds(cr, false)
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { _ = c.of.Start(ctx) })
			<-read
			cancel()
			running.Wait()
			records, _ := d.records()
			want := certificateOf(cr)
			if len(records) != 1 {
				t.Fatalf("%+v", records)
			}
			got := records[0]
			if got.Serial != want.Serial || got.KeySHA256 == "" || fmt.Sprint(got.DNSNames) != fmt.Sprint(want.DNSNames) || len(got.DNSNames) == 0 ||
				!got.NotAfter.Equal(want.NotAfter) || *got.Request != *want.Request || *got.Issuer != *want.Issuer || got.Mode != audit.Driver {
				t.Errorf("%+v, want\n%+v", got, want)
			}
			if pod := (audit.Pod{Namespace: "shop", Name: "web", UID: "uid-1", Node: "node-a", ServiceAccount: row.account}); got.Pod != pod {
				t.Errorf("%+v", got.Pod)
			}
		})
	}
}

// A replica knows the service account of a pod on which it has decided, and reads the pod no second time.
func TestTheRecordAfterADecision(t *testing.T) {
	pod := web()
	cr := asked(t, pod)
	cr.UID = "request-1"
	d := newFixture(t, interceptor.Funcs{}, pod, cr)
	if _, err := d.decides(cr); err != nil {
		t.Fatal(err)
	}
	c := newCache(d)
	c.of.Decider.Live = nil
	if got := c.of.account(t.Context(), certificateOf(cr)); got != pod.Spec.ServiceAccountName || got == "" {
		t.Errorf("%q", got)
	}
	if d.accounts.Len() > 0 {
		t.Error("it is still known after its certificate")
	}
}

// TestTwoReplicas: of two replicas that decide on the same requests, the one whose decision is stored records it.
func TestTwoReplicas(t *testing.T) {
	const n = 10
	pod := web()
	var all []client.Object
	for i := range n {
		cr := asked(t, pod)
		cr.Name = fmt.Sprint("web-", i)
		cr.Spec.IsCA = i%2 == 0 // It is denied.
		all = append(all, cr)
	}
	first, second := newFixture(t, interceptor.Funcs{}, append(all, pod)...), newFixture(t, interceptor.Funcs{})
	second.Decider.Live = first.api
	before := map[string]*cmapi.CertificateRequest{}
	second.Requests = interceptor.NewClient(first.api, interceptor.Funcs{Get: func(_ context.Context, _ client.WithWatch, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
		before[key.Name].DeepCopyInto(o.(*cmapi.CertificateRequest)) // Its cache does not know of the other's decision.
		return nil
	}})
	for i, o := range all {
		before[o.GetName()] = &cmapi.CertificateRequest{}
		if err := first.api.Get(t.Context(), client.ObjectKeyFromObject(o), before[o.GetName()]); err != nil {
			t.Fatal(err)
		}
		replicas := []*fixture{first, second}
		if i < n/2 {
			slices.Reverse(replicas)
		}
		for _, r := range replicas {
			if _, err := r.decides(o.(*cmapi.CertificateRequest)); err != nil {
				t.Fatal(err)
			}
		}
	}
	by := map[string]int{}
	for i, r := range []*fixture{first, second} {
		records, _ := r.records()
		if len(records) != n/2 {
			t.Errorf("replica %d has %d records", i, len(records))
		}
		for _, one := range records {
			by[one.Request.Name+" "+one.Decision]++
		}
	}
	for i := range n {
		if name := fmt.Sprintf("web-%d %s", i, []string{"denied", "approved"}[i%2]); by[name] != 1 {
			t.Errorf("%s: %d records", name, by[name])
		}
	}
}

// What a cache keeps of a decided request is what its record says: --keep-requests may keep thousands.
func TestADecidedRequestIsSmallInACache(t *testing.T) {
	cr := issue(t, approved(asked(t, web())))
	whole := len(cr.Status.Certificate)
	cr.Status.CA, cr.Labels = cr.Status.Certificate, map[string]string{"a": "b"}
	if _, err := callers().Trim(cr); err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(cr.Status.Certificate)
	if block == nil || len(rest) > 0 || cap(cr.Status.Certificate) > whole*3/4 || cr.Status.CA != nil || cr.Spec.Request != nil || cr.Spec.Usages != nil ||
		cr.Annotations != nil || cr.Labels != nil {
		t.Errorf("%+v", cr)
	}
	if callers().Concern(cr) {
		t.Error("it is decided on again")
	}
}
