package approver

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/mayfly-csi/mayfly/signer/controller/proof"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

const asPod = "csi.mayfly.dev/use-token-request=true"

// byPod is what the node plugin asks with a token of the pod.
func byPod(t *testing.T, pod *corev1.Pod) *cmapi.CertificateRequest {
	t.Helper()
	cr := asked(t, pod)
	cr.Spec.Username = "system:serviceaccount:" + pod.Namespace + ":" + pod.Spec.ServiceAccountName
	cr.Spec.Extra = map[string][]string{podName: {pod.Name}, podUID: {string(pod.UID)}, nodeName: {pod.Spec.NodeName}}
	return cr
}

func TestWhatAPodAsksForItsVolumeIsApproved(t *testing.T) {
	byDefault := rules()
	byDefault.Defaults.AsPod = true
	profiled := rules()
	profiles, err := spec.ParseProfiles(map[string]string{spec.ProfilesKey: "profiles: {own: {use-token-request: 'true'}}\nnamespaces: {shop: own}"})
	if err != nil {
		t.Fatal(err)
	}
	profiled.Defaults.Live = profiles
	for name, row := range map[string]struct {
		rules proof.Rules
		pod   *corev1.Pod
	}{
		"by the attribute":  {rules(), web(asPod)},
		"by default":        {byDefault, web()},
		"by a profile":      {profiled, web()},
		"the mesh's volume": {byDefault, meshed()},
	} {
		if got := decide(row.rules, byPod(t, row.pod), proof.Evidence{Pod: row.pod}, created); got.Outcome != proof.Approve || got.Reason != proof.Verified {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func meshed() *corev1.Pod {
	pod := web()
	pod.Spec.Volumes = []corev1.Volume{inline("tls", spec.SPIFFEDriver)}
	return pod
}

// While nodes change to asking as the pod, or back, some still ask themselves.
func TestTheNodePluginMayAskForAVolumeThatAsksAsThePod(t *testing.T) {
	pod := web(asPod)
	if got := decide(rules(), asked(t, pod), proof.Evidence{Pod: pod}, created); got.Outcome != proof.Approve {
		t.Errorf("%+v", got)
	}
}

func TestWhatIsNotForAPodsVolumeIsLeftAlone(t *testing.T) {
	byDefault := rules()
	byDefault.Defaults.AsPod = true
	for _, row := range []struct {
		name    string
		rules   proof.Rules
		change  func(cr *cmapi.CertificateRequest, pod *corev1.Pod)
		concern bool // The pod must be looked at.
	}{
		{"no volume asks as the pod", rules(), func(_ *cmapi.CertificateRequest, p *corev1.Pod) { *p = *web() }, true},
		{"its volume says no", byDefault, func(_ *cmapi.CertificateRequest, p *corev1.Pod) { *p = *web("csi.mayfly.dev/use-token-request=false") }, true},
		{"it has no volume", byDefault, func(_ *cmapi.CertificateRequest, p *corev1.Pod) { p.Spec.Volumes = nil }, true},
		{"another driver's volume", byDefault, func(_ *cmapi.CertificateRequest, p *corev1.Pod) { p.Spec.Volumes[1].CSI.Driver = "example.org" }, true},
		{"another pod of its name", rules(), func(_ *cmapi.CertificateRequest, p *corev1.Pod) { p.UID = "uid-2" }, true},
		{"another pod owns it", rules(), func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.OwnerReferences[0].UID = "uid-2" }, false},
		{"a pod of another name owns it", rules(), func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.OwnerReferences[0].Name = "db" }, false},
		{"nothing owns it", rules(), func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.OwnerReferences = nil }, false},
		{"a certificate owns it", rules(), func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.OwnerReferences[0].Kind = "Certificate" }, false},
		{"two own it", rules(), func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			cr.OwnerReferences = append(cr.OwnerReferences, cr.OwnerReferences[0])
		}, false},
		{"no pod is on record", rules(), func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { delete(cr.Spec.Extra, podUID) }, false},
		{"no pod's name is on record", rules(), func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { delete(cr.Spec.Extra, podName) }, false},
		{"no node is on record", rules(), func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { delete(cr.Spec.Extra, nodeName) }, false},
		{"two pods are on record", rules(), func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			cr.Spec.Extra[podUID] = append(cr.Spec.Extra[podUID], "uid-2")
		}, false},
		{"two nodes are on record", rules(), func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			cr.Spec.Extra[nodeName] = append(cr.Spec.Extra[nodeName], "node-b")
		}, false},
		{"an account of another namespace", rules(), func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			cr.Spec.Username = "system:serviceaccount:shop2:clerk"
		}, false},
		{"a user", rules(), func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.Spec.Username = "clerk" }, false},
		{"a decision is there", rules(), func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			conclude(cr, cmapi.CertificateRequestConditionDenied)
		}, false},
	} {
		pod := web(asPod)
		cr := byPod(t, pod)
		row.change(cr, pod)
		if got := decide(row.rules, cr, proof.Evidence{Pod: pod}, created); got.Outcome != proof.Leave || got.Message != "" || callers().Concern(cr) != row.concern {
			t.Errorf("%s: %+v, concern %v", row.name, got, callers().Concern(cr))
		}
	}
	if got := decide(rules(), byPod(t, web(asPod)), proof.Evidence{}, created); got.Outcome != proof.Leave {
		t.Errorf("the pod is gone: %+v", got)
	}
}

func TestWhatAPodMayNotHaveIsDenied(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(cr *cmapi.CertificateRequest, pod *corev1.Pod)
		reason string
		want   string
	}{
		{"another name", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			cr.Spec.Request = asked(t, web(asPod, "csi.mayfly.dev/dns-names=api.shop.svc")).Spec.Request
		}, proof.NotTheVolumes, `DNS names: asked for is ["api.shop.svc"], and the volume wants ["web.shop.svc"]`},
		{"a CA", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.Spec.IsCA = true }, proof.NotTheVolumes, "CA: asked for is true"},
		{"what a volume wants that does not ask as the pod", func(cr *cmapi.CertificateRequest, p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, inline("db", "csi.mayfly.dev", "csi.mayfly.dev/issuer-name=ca", "csi.mayfly.dev/dns-names=db.shop"))
			cr.Spec.Request = asked(t, p).Spec.Request
		}, proof.NotTheVolumes, "is not what volume tls of pod web asks for"},
		{"a value of a later version", func(_ *cmapi.CertificateRequest, p *corev1.Pod) {
			p.Spec.Volumes[1].CSI.VolumeAttributes["csi.mayfly.dev/key-algorithm"] = "ML-DSA"
		}, proof.NotUnderstood, `the volume is not understood by this controller, which may be older than the node plugin: csi.mayfly.dev/key-algorithm is "ML-DSA"`},
		{"from another node", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) { cr.Spec.Extra[nodeName] = []string{"node-b"} }, proof.OtherNode, `and node "node-b" asks`},
		{"as another account", func(cr *cmapi.CertificateRequest, _ *corev1.Pod) {
			cr.Spec.Username = "system:serviceaccount:shop:admin"
		}, proof.OtherAccount, `pod web runs as service account "clerk", and "admin" asks`},
		{"after its end", func(_ *cmapi.CertificateRequest, p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, proof.PodNotLive, "has ended"},
		{"another's name", func(cr *cmapi.CertificateRequest, p *corev1.Pod) {
			*p = *web(asPod, "csi.mayfly.dev/dns-names=web.test")
			*cr = *byPod(t, p)
		}, proof.NotAllowed, `DNS name "web.test" is not the pod's`},
	} {
		pod := web(asPod)
		cr := byPod(t, pod)
		row.change(cr, pod)
		if got := decide(rules(), cr, proof.Evidence{Pod: pod}, created); got.Outcome != proof.Deny || got.Reason != row.reason || !strings.Contains(got.Message, row.want) {
			t.Errorf("%s: %+v", row.name, got)
		}
	}
}

func TestAPodsRequestIsDecidedOn(t *testing.T) {
	pod, plain := web(asPod), web()
	plain.Name, plain.UID = "plain", "uid-2"
	good, bad, other := byPod(t, pod), byPod(t, pod), byPod(t, plain)
	bad.Name, bad.Spec.IsCA, other.Name = "bad", true, "other"
	d := newDesk(t, interceptor.Funcs{}, pod, plain, good, bad, other)
	for cr, want := range map[*cmapi.CertificateRequest]string{good: "Approved VerifiedByMayfly", bad: "Denied NotTheVolumes", other: ""} {
		if result, err := d.decides(cr); err != nil || result.RequeueAfter == again != (cr == bad) || d.conditions(cr) != want {
			t.Errorf("%s: %+v (%v), %s", cr.Name, result, err, d.conditions(cr))
		}
	}
	if want := "caller=system:serviceaccount:shop:clerk"; strings.Count(d.log.String(), want) != 2 {
		t.Errorf("the log lacks %s:\n%s", want, &d.log)
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
			Spec:       cmapi.CertificateRequestSpec{Username: "system:serviceaccount:cert-manager:cert-manager", Request: make([]byte, 4<<10), Extra: map[string][]string{podName: {"cert-manager"}, podUID: {"uid"}, nodeName: {"node-a"}}},
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
	runtime.KeepAlive(kept)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // Of a test.
}
