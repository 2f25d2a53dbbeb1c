package certificaterequests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/audit"
	"github.com/mayfly-csi/mayfly/signer/controller/audit/audittest"
	"github.com/mayfly-csi/mayfly/signer/controller/cluster"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A fixture is a controller with an API server that knows some objects.
type fixture struct {
	*testing.T
	*Controller
	api    client.WithWatch
	log    bytes.Buffer
	record *audittest.Kept
	events []string
}

// records ends the audit record and returns what it has.
func (d *fixture) records() (all []audit.Record, words []string) { return d.record.Read(d.T) }

// Eventf keeps the event: "Pod web: NotAllowed: no".
func (d *fixture) Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any) {
	of, ok := regarding.(client.Object)
	if !ok || related != nil || kind != corev1.EventTypeWarning || action == "" {
		d.Errorf("an event of %v and %v: %s %s", regarding, related, kind, action)
		return
	}
	_, what, _ := strings.Cut(fmt.Sprintf("%T", regarding), ".")
	d.events = append(d.events, fmt.Sprintf("%s %s: %s: %s", what, of.GetName(), reason, fmt.Sprintf(note, args...)))
}

func newFixture(t *testing.T, calls interceptor.Funcs, objects ...client.Object) *fixture {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), cmapi.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	d := &fixture{T: t}
	d.api = fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&cmapi.CertificateRequest{}).WithObjects(objects...).WithInterceptorFuncs(calls).
		WithIndex(&cmapi.CertificateRequest{}, "metadata.name", func(o client.Object) []string { return []string{o.GetName()} }).Build()
	d.record = audittest.Open(t)
	d.Controller = New(Config{
		Callers: callers(), Decider: cluster.Decider{Rules: rules(), Live: d.api}, Requests: d.api, Events: d, Holder: audittest.Holder(true), Audit: d.record.Log, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.NewTextHandler(&d.log, nil)),
	})
	return d
}

func (d *fixture) decides(cr *cmapi.CertificateRequest) (reconcile.Result, error) {
	return d.Reconcile(d.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(cr)})
}

// conditions are those of the request now: "Approved VerifiedByMayfly".
func (d *fixture) conditions(cr *cmapi.CertificateRequest) string {
	d.Helper()
	var now cmapi.CertificateRequest
	if err := d.api.Get(d.Context(), client.ObjectKeyFromObject(cr), &now); err != nil {
		d.Fatal(err)
	}
	var all []string
	for _, c := range now.Status.Conditions {
		all = append(all, fmt.Sprint(c.Type, " ", c.Reason))
	}
	return strings.Join(all, ", ")
}

// young makes the request one of this moment.
func young(cr *cmapi.CertificateRequest) *cmapi.CertificateRequest {
	cr.CreationTimestamp = metav1.Now()
	return cr
}

func TestTheDecisionIsWrittenDown(t *testing.T) {
	pod := web()
	good, bad := asked(t, pod), asked(t, pod)
	bad.Name, bad.Spec.IsCA = "bad", true
	bad.Status.Conditions = []cmapi.CertificateRequestCondition{{Type: cmapi.CertificateRequestConditionReady, Status: cmmeta.ConditionFalse, Reason: "Pending"}}
	d := newFixture(t, interceptor.Funcs{}, pod, good, bad)
	for cr, want := range map[*cmapi.CertificateRequest]string{good: "Approved VerifiedByMayfly", bad: "Ready Pending, Denied NotTheVolumes"} {
		for round := range 2 { // The second time there is nothing to do.
			result, err := d.decides(cr)
			if want := round == 0 && cr == bad; err != nil || (result.RequeueAfter == again) != want || !want && !result.IsZero() {
				t.Errorf("%+v (%v)", result, err)
			}
		}
		if got := d.conditions(cr); got != want {
			t.Errorf("%s: %s, want %s", cr.Name, got, want)
		}
	}
	for _, labels := range [][]string{{"approved", decide.Verified}, {"denied", decide.NotTheVolumes}} {
		if n := testutil.ToFloat64(d.decisions.WithLabelValues(labels...)); n != 1 {
			t.Errorf("%v: %v", labels, n)
		}
	}
	records, _ := d.records()
	if len(records) != 2 || d.log.Len() > 0 {
		t.Fatalf("%+v, and the log has %s", records, &d.log)
	}
	if records[0].Decision != audit.Denied { // They are decided in any order.
		slices.Reverse(records)
	}
	denied, approved := records[0], records[1]
	if denied.Request.Name != "bad" || denied.Reason != decide.NotTheVolumes || !denied.IsCA ||
		!strings.HasPrefix(denied.Message, "the request is not what volume tls of pod web asks for: CA: ") {
		t.Errorf("%+v", denied)
	}
	csr, err := parsed(good.Spec.Request)
	if err != nil {
		t.Fatal(err)
	}
	want := audit.Record{
		Audit: audit.Decision, Time: approved.Time, Decision: audit.Approved, Reason: decide.Verified, Message: approved.Message, Mode: audit.Driver,
		Request: &audit.Request{Kind: "CertificateRequest", Name: "web-attempt", UID: good.UID},
		Pod:     audit.Pod{Namespace: "shop", Name: "web", UID: "uid-1", Node: "node-a", ServiceAccount: pod.Spec.ServiceAccountName},
		Issuer:  audit.IssuerOf(signer.Issuer(good.Spec.IssuerRef)),
		Content: audit.OfRequest(csr.Raw, approved.Usages, false),
	}
	if !reflect.DeepEqual(approved, want) || len(want.DNSNames) == 0 || len(want.Usages) != len(good.Spec.Usages) {
		t.Errorf("%+v, want\n%+v", approved, want)
	}
}

// The record of an approval has all names, however many there are.
func TestTheRecordOfALongRequest(t *testing.T) {
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprintf("a-long-name-%d.shop.svc", i)
	}
	pod := web("csi.mayfly.dev/dns-names=" + strings.Join(names, ","))
	cr := asked(t, pod)
	d := newFixture(t, interceptor.Funcs{}, pod, cr)
	if _, err := d.decides(cr); err != nil {
		t.Fatal(err)
	}
	records, _ := d.records()
	if len(records) != 1 || records[0].Decision != audit.Approved || !slices.Equal(records[0].DNSNames, names) {
		t.Errorf("%d records: %.300v", len(records), records)
	}
}

// A denial is told to the request, and to the pod if that is the asker's own. An approval is no event.
func TestADenialIsAnEvent(t *testing.T) {
	pod := web()
	good, bad, foreign, nobody := asked(t, pod), asked(t, pod), asked(t, pod), asked(t, pod)
	bad.Name, bad.Spec.IsCA = "bad", true
	foreign.Name, foreign.Spec.Extra[nodeName] = "foreign", []string{"node-b"}
	nobody.Name, nobody.OwnerReferences[0].UID = "nobody", "uid-2"
	d := newFixture(t, interceptor.Funcs{}, pod, good, bad, foreign, nobody)
	for cr, want := range map[*cmapi.CertificateRequest][]string{
		good:    {},
		bad:     {"CertificateRequest bad: NotTheVolumes: the request is not", "Pod web: NotTheVolumes: the request is not"},
		foreign: {`CertificateRequest foreign: OtherNode: pod web runs on node "node-a"`},
		nobody:  {"CertificateRequest nobody: PodNotFound: pod web is another one"},
	} {
		d.events = nil
		if _, err := d.decides(cr); err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(d.events, want, strings.HasPrefix) {
			t.Errorf("%s: %q, want %q", cr.Name, d.events, want)
		}
	}
}

func TestWhatIsNotThereIsLeftAlone(t *testing.T) {
	pod := web()
	other, gone := asked(t, pod), asked(t, pod)
	other.Spec.Username, gone.Name = "someone", "gone"
	d := newFixture(t, interceptor.Funcs{}, pod, other)
	for _, cr := range []*cmapi.CertificateRequest{other, gone} {
		if result, err := d.decides(cr); err != nil || !result.IsZero() {
			t.Errorf("%s: %+v (%v)", cr.Name, result, err)
		}
	}
	if got := d.conditions(other); got != "" {
		t.Error(got)
	}
}

func TestAPodThatIsNotVisibleYet(t *testing.T) {
	pod := web()
	cr := young(asked(t, pod))
	d := newFixture(t, interceptor.Funcs{}, cr)
	if result, err := d.decides(cr); err != nil || result.RequeueAfter != again || d.conditions(cr) != "" {
		t.Errorf("%+v (%v), %s", result, err, d.conditions(cr))
	}
	if err := d.api.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if result, err := d.decides(cr); err != nil || !result.IsZero() || d.conditions(cr) != "Approved VerifiedByMayfly" {
		t.Errorf("%+v (%v), %s", result, err, d.conditions(cr))
	}
}

// Whether an IP is the pod's depends on its node, whether the volume says ${POD_IP} or writes it out.
func TestTheNodeIsReadWhereItMatters(t *testing.T) {
	for ips, reason := range map[string]string{"${POD_IP}": decide.IPNotProved, "10.244.0.7": decide.NotAllowed} {
		pod := web("csi.mayfly.dev/ip-sans=" + ips)
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.0.0/24"}}}
		cr, other := asked(t, pod), asked(t, pod)
		other.Name = "other"
		d := newFixture(t, interceptor.Funcs{}, pod, node, cr, other)
		if _, err := d.decides(cr); err != nil || d.conditions(cr) != "Approved VerifiedByMayfly" {
			t.Errorf("%s: %s (%v)", ips, d.conditions(cr), err)
		}
		if err := d.api.Delete(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		if _, err := d.decides(other); err != nil || d.conditions(other) != "Denied "+reason {
			t.Errorf("%s: %s (%v)", ips, d.conditions(other), err)
		}
	}
}

// An error of the API server is no reason to deny.
func TestWhatCannotBeReadIsTriedAgain(t *testing.T) {
	pod := web("csi.mayfly.dev/ip-sans=${POD_IP}")
	for _, kind := range []string{"pod", "node"} {
		cr := asked(t, pod)
		d := newFixture(t, interceptor.Funcs{Get: func(ctx context.Context, api client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
			if strings.HasSuffix(strings.ToLower(fmt.Sprintf("%T", o)), "."+kind) {
				return errors.New("away")
			}
			return api.Get(ctx, key, o, options...)
		}}, pod, cr)
		if _, err := d.decides(cr); err == nil || !strings.HasPrefix(err.Error(), "read "+kind+" ") || d.conditions(cr) != "" {
			t.Errorf("%v, %s", err, d.conditions(cr))
		}
	}
}

// Of two replicas the second finds the request changed, and has nothing to do.
func TestAnotherReplicaWasFaster(t *testing.T) {
	pod := web()
	for want, answer := range map[string]error{
		"":     apierrors.NewConflict(schema.GroupResource{Resource: "certificaterequests"}, "web-attempt", errors.New("changed")),
		"gone": apierrors.NewNotFound(schema.GroupResource{Resource: "certificaterequests"}, "web-attempt"),
		"write the decision on CertificateRequest shop/web-attempt: away": errors.New("away"),
	} {
		cr := asked(t, pod)
		d := newFixture(t, interceptor.Funcs{SubResourcePatch: func(context.Context, client.Client, string, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
			return answer
		}}, pod, cr)
		_, err := d.decides(cr)
		if got := fmt.Sprint(err); strings.HasPrefix(want, "write") != (err != nil) || err != nil && got != want {
			t.Errorf("%v: %v", answer, err)
		}
		if n := testutil.CollectAndCount(d.decisions); n != 0 {
			t.Errorf("%d decisions are counted", n)
		}
		if records, _ := d.records(); len(records) > 0 {
			t.Errorf("there are %+v", records)
		}
	}
}

// known are profiles that are there, or why they are not.
type known struct {
	*spec.Profiles
	err error
}

func (k known) Get(context.Context) (*spec.Profiles, error) { return k.Profiles, k.err }

func TestProfilesAreThoseOfNow(t *testing.T) {
	pod := web()
	cr := asked(t, pod)
	d := newFixture(t, interceptor.Funcs{}, pod, cr)
	d.Decider.Profiles = known{err: errors.New("away")}
	if _, err := d.decides(cr); err == nil || err.Error() != "away" || d.conditions(cr) != "" {
		t.Errorf("%v, %s", err, d.conditions(cr))
	}
	profiles, err := spec.ParseProfiles(map[string]string{spec.ProfilesKey: "profiles: {short: {duration: 5m}}\nnamespaces: {shop: short}"})
	if err != nil {
		t.Fatal(err)
	}
	d.Decider.Profiles = known{Profiles: profiles}
	if _, err := d.decides(cr); err != nil || d.conditions(cr) != "Denied NotTheVolumes" {
		t.Errorf("%v, %s", err, d.conditions(cr))
	}
}

// A denied request can't be approved any more. That another one would be is said once.
func TestADeniedRequestThatWouldBeApproved(t *testing.T) {
	pod := web("csi.mayfly.dev/dns-names=web.test")
	cr := asked(t, pod)
	conflicts := 0
	d := newFixture(t, interceptor.Funcs{SubResourcePatch: func(ctx context.Context, api client.Client, name string, o client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
		if conflicts > 0 {
			conflicts--
			return apierrors.NewConflict(schema.GroupResource{Resource: "certificaterequests"}, o.GetName(), errors.New("changed"))
		}
		return api.SubResource(name).Patch(ctx, o, patch, options...)
	}}, pod, cr)
	decides := func(again time.Duration, want string) {
		t.Helper()
		result, err := d.decides(cr)
		if got := d.conditions(cr); err != nil || result.RequeueAfter != again || got != want {
			t.Errorf("%s, again in %s (%v), want %s", got, result.RequeueAfter, err, want)
		}
	}
	const denied, approvable = "Denied NotAllowed", "Denied NotAllowed, csi.mayfly.dev/Approvable VerifiedByMayfly"
	decides(again, denied) // The policies may have changed while it was denied.
	decides(0, denied)
	d.Decider.Rules.Policy = anything{}
	conflicts = 1
	decides(again, denied) // cert-manager has changed it.
	decides(0, approvable)
	decides(0, approvable)
	d.Decider.Rules.Policy = rules().Policy
	decides(0, approvable)
	if n := testutil.ToFloat64(d.decisions.WithLabelValues("denied", decide.NotAllowed)); n != 1 || len(d.events) != 2 {
		t.Errorf("%v denials, %q", n, d.events)
	}
}

// What was denied for good, by another approver, or for another caller, is not looked at again.
func TestWhichDenialsMayEnd(t *testing.T) {
	for name, row := range map[string]struct {
		reason string
		change func(*cmapi.CertificateRequest)
		want   bool
	}{
		"by a policy":                  {decide.NotAllowed, func(*cmapi.CertificateRequest) {}, true},
		"by the pod's end":             {decide.PodNotLive, func(*cmapi.CertificateRequest) {}, false},
		"by approver-policy":           {"policy.cert-manager.io", func(*cmapi.CertificateRequest) {}, false},
		"of another caller":            {decide.NotAllowed, func(cr *cmapi.CertificateRequest) { cr.Spec.Username = "someone" }, false},
		"of one that is being deleted": {decide.NotAllowed, func(cr *cmapi.CertificateRequest) { cr.DeletionTimestamp = new(metav1.Now()) }, false},
		"that says so":                 {decide.NotAllowed, func(cr *cmapi.CertificateRequest) { conclude(cr, signer.Approvable) }, false},
	} {
		cr := asked(t, web())
		conclude(cr, cmapi.CertificateRequestConditionDenied)
		cr.Status.Conditions[0].Reason = row.reason
		row.change(cr)
		reviews := callers().reviews()
		if got := reviews.Is(cr); got != row.want || reviews.AtStart().Create(event.CreateEvent{Object: cr}) != row.want {
			t.Errorf("%s: %t", name, got)
		}
		if reviews.AtStart().Update(event.UpdateEvent{ObjectOld: cr, ObjectNew: cr}) {
			t.Errorf("%s: its denial brings it back", name)
		}
		if _, err := callers().Trim(cr); err != nil || (cr.Spec.Request != nil) != row.want {
			t.Errorf("%s: in the cache: %+v (%v)", name, cr.Spec, err)
		}
	}
}

func TestTrim(t *testing.T) {
	pod := web()
	ours, other := asked(t, pod), asked(t, pod)
	for _, cr := range []*cmapi.CertificateRequest{ours, other} {
		cr.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "mayfly"}}
	}
	conclude(other, cmapi.CertificateRequestConditionApproved)
	for _, cr := range []*cmapi.CertificateRequest{ours, other} {
		if _, err := callers().Trim(cr); err != nil || cr.ManagedFields != nil || cr.Name == "" {
			t.Errorf("%+v (%v)", cr, err)
		}
	}
	if got := decideOn(rules(), ours, pod, nil, created); got.Verdict != decide.Approve {
		t.Errorf("ours: %+v", got)
	}
	if other.Spec.Request != nil || callers().Concern(other) {
		t.Errorf("another's: %+v", other)
	}
	if object, err := callers().Trim(pod); object != pod || err != nil {
		t.Errorf("%v (%v)", object, err)
	}
}

// A long request is cut down in the cache, and read whole when it is decided on.
func TestALongRequest(t *testing.T) {
	var names []string
	for i := range 400 {
		names = append(names, fmt.Sprintf("n%d.shop.svc", i))
	}
	pod := web("csi.mayfly.dev/dns-names=" + strings.Join(names, ","))
	cr := asked(t, pod)
	if n := len(cr.Spec.Request); n <= cluster.MaxCached {
		t.Fatalf("it has %d bytes", n)
	}
	lists := 0
	d := newFixture(t, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			err := c.Get(ctx, key, o, opts...)
			if of, ok := o.(*cmapi.CertificateRequest); ok && err == nil && lists == 0 {
				_, err = callers().Trim(of)
				if of.Spec.Request != nil || !callers().Concern(of) || request(of).Node != "node-a" {
					t.Errorf("in the cache: %+v", of)
				}
			}
			return err
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			lists++
			return c.List(ctx, list, opts...)
		},
	}, pod, cr)
	if _, err := d.decides(cr); err != nil || lists != 1 {
		t.Errorf("%d times read whole (%v)", lists, err)
	}
	if got := d.conditions(cr); got != "Approved VerifiedByMayfly" {
		t.Error(got)
	}
}

// What a cache keeps of the requests of others is little, whatever they are: 10,000 with their certificates would be 100 MB.
func TestTheRequestsOfOthersAreSmallInACache(t *testing.T) {
	const n = 10_000
	kept := make([]any, n)
	before := heap()
	for i := range kept {
		cr := &cmapi.CertificateRequest{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("other-", i), Annotations: map[string]string{"example.org/x": strings.Repeat("x", 1<<10)}},
			Spec:       cmapi.CertificateRequestSpec{Username: "system:serviceaccount:cert-manager:cert-manager", Request: make([]byte, 4<<10), Extra: map[string][]string{nodeName: {"node-a"}}},
			Status:     cmapi.CertificateRequestStatus{Certificate: make([]byte, 4<<10)},
		}
		var err error
		if kept[i], err = callers().Trim(cr); err != nil {
			t.Fatal(err)
		}
	}
	if used := heap() - before; used > n<<11 {
		t.Errorf("%d requests of others take %d KiB", n, used>>10)
	}
	goruntime.KeepAlive(kept)
}

func heap() int64 {
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // Of a test.
}

// A request of no pod is denied at once: an API server is not asked for an object without a name.
func TestARequestOfNoPod(t *testing.T) {
	pod := web()
	cr := asked(t, pod)
	cr.OwnerReferences = nil
	d := newFixture(t, interceptor.Funcs{Get: func(ctx context.Context, api client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
		if key.Name == "" {
			return errors.New("resource name may not be empty")
		}
		return api.Get(ctx, key, o, options...)
	}}, pod, cr)
	if _, err := d.decides(cr); err != nil || d.conditions(cr) != "Denied NotOfAPod" {
		t.Errorf("%s (%v)", d.conditions(cr), err)
	}
}
