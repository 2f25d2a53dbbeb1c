package driver_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/pod"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// somePods play what the API server knows of pods, all of which are in one state. A real API server plays it in test/cluster.
type somePods struct {
	mu      sync.Mutex
	state   volume.PodState
	changed chan struct{}
	away    error
	waiting int
	reads   int // Of annotations.
	renew   func(pod signer.Pod, at time.Time, err error)
}

func newPods(ips ...string) *somePods {
	return &somePods{state: volume.PodState{IPs: ips}, changed: make(chan struct{})}
}

func (p *somePods) Await(ctx context.Context, _ signer.Pod, ready func(volume.PodState) error) (volume.PodState, error) {
	p.count(1)
	defer p.count(-1)
	for {
		p.mu.Lock()
		state, changed, err := p.state, p.changed, p.away
		p.mu.Unlock()
		if err == nil {
			err = ready(state)
		}
		if err == nil {
			return state, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return state, err
		}
	}
}

func (p *somePods) Renewals(ctx context.Context, renew func(pod signer.Pod, at time.Time, err error), _ func(error)) error {
	p.mu.Lock()
	p.renew = renew
	p.mu.Unlock()
	<-ctx.Done()
	p.mu.Lock()
	p.renew = nil
	p.mu.Unlock()
	return nil
}

func (p *somePods) RenewAt(context.Context, signer.Pod) (at time.Time, invalid, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reads++
	if text, ok := p.state.Annotations[pod.RenewAt]; ok {
		at, invalid = time.Parse(time.RFC3339Nano, text)
	}
	return at, invalid, p.away
}

func (p *somePods) count(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting += n
}

func (p *somePods) change(change func(*volume.PodState)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.state)
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *somePods) have(ips ...string) { p.change(func(s *volume.PodState) { s.IPs = ips }) }

func (p *somePods) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting == 0
}

// annotated has the pod's certificates renewed at a time, as its annotation says.
func (p *somePods) annotated(t *testing.T, pod kubelet.Pod, at time.Time, err error) {
	t.Helper()
	var renew func(pod signer.Pod, at time.Time, err error)
	until(t, "the driver looks at annotations", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		renew = p.renew
		return renew != nil
	})
	renew(signer.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}, at, err)
}

func withPods(p *somePods, edits ...func(*driver.Config)) func(*driver.Config) {
	return func(c *driver.Config) {
		c.Pods, c.WatchPods = p, true
		for _, edit := range edits {
			edit(c)
		}
	}
}

func ips(t *testing.T, target string) string {
	t.Helper()
	var texts []string
	for _, ip := range pair(t, target).IPAddresses {
		texts = append(texts, ip.String())
	}
	return strings.Join(texts, ",")
}

const withIPs = "csi.mayfly.dev/ip-sans=${POD_IPS}"

// A pod with the host's network has its IP before its volumes are mounted.
func TestAnIPThatIsKnown(t *testing.T) {
	p := newPods("192.0.2.7", "2001:db8::7")
	n := newNode(t, withPods(p))
	if got := ips(t, n.publish(web(withIPs))); got != "192.0.2.7,2001:db8::7" {
		t.Error(got)
	}
}

// The driver's own node is that of all pods, over a restart, too.
func TestTheNodesName(t *testing.T) {
	n := newNode(t, nil)
	v := web("csi.mayfly.dev/dns-names=web.${NODE_NAME}.example.org")
	target := n.publish(v)
	n.restart()
	n.renew(v)
	first := pair(t, target)
	until(t, "the renewal", func() bool { return !pair(t, target).Equal(first) })
	for _, leaf := range []*x509.Certificate{first, pair(t, target)} {
		if !slices.Equal(leaf.DNSNames, []string{"web.node-a.example.org"}) {
			t.Errorf("%q", leaf.DNSNames)
		}
	}
}

func TestAPodThatStartsWithoutItsCertificate(t *testing.T) {
	p := newPods()
	n := newNode(t, withPods(p))
	v := web(withIPs, "csi.mayfly.dev/continue-on-not-ready=true", "csi.mayfly.dev/duration=4s")
	target := n.publish(v)
	if entries, err := os.ReadDir(target); err != nil || exists(t, target+"/tls.crt") || len(entries) == 0 {
		t.Errorf("the pod sees %v (%v)", entries, err)
	}
	health, err := n.Health(t.Context(), n.driver, v)
	if want := "no certificate yet: the pod has no IP yet, which ${POD_IP} stands for: the kubelet gives it one after its volumes are mounted"; err != nil || len(health) != 1 || health[0].GetMessage() != want {
		t.Errorf("health: %v (%v)", health, err)
	}
	if asked := n.signer.asked(); len(asked) > 0 {
		t.Errorf("%d requests before the IP is known", len(asked))
	}
	n.publish(v) // As after a restart of the kubelet.
	n.restart()
	p.have("192.0.2.8")
	until(t, "the certificate", func() bool { return exists(t, target+"/..data/tls.crt") })
	if got := ips(t, target); got != "192.0.2.8" {
		t.Error(got)
	}
	// The pod's sandbox is made anew, with another IP: the next certificate has that.
	p.have("192.0.2.9")
	until(t, "the renewal", func() bool { return ips(t, target) == "192.0.2.9" })
	until(t, "nobody waits for the pod any more", p.idle)
}

func TestAPodThatGoesBeforeItHasAnIP(t *testing.T) {
	p := newPods()
	n := newNode(t, withPods(p))
	v := web(withIPs, "csi.mayfly.dev/continue-on-not-ready=true")
	n.publish(v)
	n.unpublish(v)
	until(t, "nobody waits for the pod any more", p.idle)
	n.empty()
}

func TestAnIPThatIsNotKnown(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		edit func(*driver.Config)
		want string
	}{
		"before the volumes are mounted": {withPods(newPods()), `not signed yet: the pod has no IP yet, which ${POD_IP} stands for: the kubelet gives it one after its volumes are mounted, unless it has the host's network; set csi.mayfly.dev/continue-on-not-ready: "true" to let the pod start before its certificate is there`},
		"as the API server is away":      {withPods(&somePods{away: errors.New("read pod shop/web-0: forbidden"), changed: make(chan struct{})}), "not signed yet: read pod shop/web-0: forbidden"},
		"without an API server":          {func(c *driver.Config) { c.Pods = nil }, "not signed yet: this driver can't read pods: it has no API server to ask"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, row.edit)
			n.fails(web(withIPs), row.want)
			n.unpublish(web(withIPs))
			n.empty()
		})
	}
}

func TestAGateHoldsBackTheFirstCertificateAlone(t *testing.T) {
	p := newPods()
	n := newNode(t, withPods(p))
	v := web("csi.mayfly.dev/pod-readiness-gate=pod-annotation:shop/warm", "csi.mayfly.dev/duration=3s")
	target := make(chan string)
	go func() {
		path, err := n.Mount(t.Context(), n.driver, v, nil)
		if err != nil {
			t.Error(err)
		}
		target <- path
	}()
	until(t, "the gate is looked at", func() bool { return !p.idle() })
	if asked := n.signer.asked(); len(asked) > 0 {
		t.Errorf("%d requests before the gate is open", len(asked))
	}
	p.change(func(s *volume.PodState) { s.Annotations = map[string]string{"shop/warm": ""} })
	path := <-target
	first := pair(t, path)
	p.change(func(s *volume.PodState) { s.Annotations = nil })
	until(t, "the renewal", func() bool { return !pair(t, path).Equal(first) })
}

func TestAPodWithoutCertificateIsToldWhy(t *testing.T) {
	told := make(chan string, 10)
	p := newPods()
	n := newNode(t, withPods(p, func(c *driver.Config) {
		c.Events = eventFunc(func(message string) { told <- message })
	}))
	n.signer.from(refuse(signer.Denied, "no"))
	n.publish(web(withIPs, "csi.mayfly.dev/continue-on-not-ready=true"))
	p.have("192.0.2.8")
	if got := <-told; !strings.HasPrefix(got, "shop/web-0 CertificateNotIssued: volume tls: request denied: no; the next try is at ") || !strings.HasSuffix(got, "; the pod has no certificate") {
		t.Error(got)
	}
}

func TestAnAnnotationAsksForARenewal(t *testing.T) {
	p := newPods()
	told := make(chan string, 10)
	n := newNode(t, withPods(p, func(c *driver.Config) {
		c.Events = eventFunc(func(message string) { told <- message })
	}))
	v, once := web(), web("csi.mayfly.dev/renew=false")
	once.Name = "once"
	target, other := n.publish(v), n.publish(once)
	first, second := pair(t, target), pair(t, other)
	p.annotated(t, v.Pod, time.Now(), nil)
	until(t, "both volumes are renewed", func() bool { return !pair(t, target).Equal(first) && !pair(t, other).Equal(second) })
	events := []string{<-told, <-told}
	slices.Sort(events)
	for i, name := range []string{"once", "tls"} {
		want := "shop/web-0 CertificateRenewed: volume " + name +
			": the certificate was renewed, as csi.mayfly.dev/renew-at asks; the new one ends at "
		if got := events[i]; !strings.HasPrefix(got, want) {
			t.Error(got)
		}
	}

	// It counts once, a restart or not; a time that is to come counts then.
	first = pair(t, target)
	asked := len(n.signer.asked())
	p.annotated(t, v.Pod, time.Now().Add(-time.Hour), nil)
	p.annotated(t, v.Pod, time.Time{}, errors.New("the annotation is no time"))
	if got := <-told; got != "shop/web-0 RenewalNotUnderstood: the annotation is no time" {
		t.Error(got)
	}
	soon := time.Now().Add(time.Second)
	p.annotated(t, v.Pod, soon, nil)
	until(t, "the renewal at the time", func() bool { return !pair(t, target).Equal(first) })
	until(t, "that of the other volume", func() bool { return len(n.signer.asked()) == asked+2 })
	if time.Now().Before(soon) {
		t.Error("renewed before the time")
	}
}

// An annotation of a time before the driver began, or the pod did, counts for older certificates alone.
func TestAnAnnotationThatWasThereBefore(t *testing.T) {
	p := newPods()
	n := newNode(t, withPods(p))
	v := web()
	target := n.publish(v)
	first := pair(t, target)
	at := time.Now()
	n.restart()
	p.annotated(t, v.Pod, at, nil)
	until(t, "the renewal", func() bool { return !pair(t, target).Equal(first) })
	asked := len(n.signer.asked())
	late := web()
	late.UID = "3b2f6a5e-0001-4c5e-9d3e-000000000009"
	p.annotated(t, late.Pod, at, nil)
	n.publish(late)
	n.restart()
	if again := len(n.signer.asked()); again != asked+1 {
		t.Errorf("%d requests, want one for the new pod", again-asked)
	}
}

// someProfiles play the operator's ConfigMap.
type someProfiles struct {
	mu      sync.Mutex
	now     *volume.Profiles
	away    error
	changed func(*volume.Profiles) // Of the driver that runs.
}

func (p *someProfiles) Run(ctx context.Context, changed func(*volume.Profiles)) error {
	p.mu.Lock()
	p.changed = changed
	p.mu.Unlock()
	p.tell()
	<-ctx.Done()
	return nil
}

// tell passes the profiles on, if there are any.
func (p *someProfiles) tell() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now != nil && p.away == nil && p.changed != nil {
		p.changed(p.now)
	}
}

func (p *someProfiles) Get(context.Context) (*volume.Profiles, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now, p.away
}

func (p *someProfiles) Valid() bool { return true }

func (p *someProfiles) set(now *volume.Profiles, away error) {
	p.mu.Lock()
	p.now, p.away = now, away
	p.mu.Unlock()
	p.tell()
}

func profile(values ...string) *volume.Profiles {
	p := spec.Profile{}
	for _, v := range values {
		name, value, _ := strings.Cut(v, "=")
		p[name] = value
	}
	return &volume.Profiles{Profiles: spec.Profiles{Profiles: map[string]spec.Profile{"web": p}, Exist: true}}
}

func TestProfilesChangeWithTheNextCertificate(t *testing.T) {
	p := &someProfiles{now: profile("issuer-name=one", "duration=3s")}
	n := newNode(t, func(c *driver.Config) { c.Profiles = p })
	v := web("csi.mayfly.dev/profile=web")
	maps.DeleteFunc(v.Attributes, func(key, _ string) bool {
		return strings.HasSuffix(key, "/issuer-name") || strings.HasSuffix(key, "/duration")
	})
	target := n.publish(v)
	issuer := func() string {
		asked := n.signer.asked()
		return asked[len(asked)-1].Issuer.Name
	}
	if got := issuer(); got != "one" {
		t.Errorf("issuer %s", got)
	}
	p.set(profile("issuer-name=two", "duration=3s"), nil)
	until(t, "the other issuer", func() bool { return issuer() == "two" })

	// Profiles that are gone, don't fit or can't be read leave pods that run as they are, over a restart, too.
	for _, row := range []struct {
		now  *volume.Profiles
		away error
	}{{&volume.Profiles{}, nil}, {profile("duration=3s"), nil}, {nil, errors.New("the API server does not answer")}} {
		p.set(row.now, row.away)
		before := pair(t, target)
		n.restart()
		until(t, "a renewal as before", func() bool { return !pair(t, target).Equal(before) })
		if got := issuer(); got != "two" {
			t.Errorf("issuer %s", got)
		}
	}
}

// A profile that a namespace has no more counts no more, for running pods as for new ones and for mayfly-controller. A
// ConfigMap that is gone changes nothing.
func TestANamespaceThatLosesItsProfile(t *testing.T) {
	of := func(namespaces map[string]string) *volume.Profiles {
		p := profile("duration=3s")
		p.Namespaces = namespaces
		return p
	}
	p := &someProfiles{now: of(map[string]string{spec.AllNamespaces: "web"})}
	n := newNode(t, func(c *driver.Config) { c.Profiles = p })
	v := web()
	delete(v.Attributes, "csi.mayfly.dev/duration")
	target := n.publish(v)
	duration := func() time.Duration {
		asked := n.signer.asked()
		return asked[len(asked)-1].Duration
	}
	for _, row := range []struct {
		now  *volume.Profiles
		want time.Duration
	}{
		{&volume.Profiles{}, 3 * time.Second}, {of(map[string]string{spec.AllNamespaces: "web"}), 3 * time.Second},
		{&volume.Profiles{Profiles: spec.Profiles{Exist: true}}, time.Hour}, // With nothing but distrust, say.
	} {
		p.set(row.now, nil)
		before := pair(t, target)
		n.restart()
		until(t, "a renewal", func() bool { return !pair(t, target).Equal(before) })
		if got := duration(); got != row.want {
			t.Errorf("duration %s, and not %s", got, row.want)
		}
	}
}

func TestAPodWaitsForProfilesThatCantBeRead(t *testing.T) {
	p := &someProfiles{away: errors.New("read the driver's profiles from ConfigMap mayfly-system/mayfly: no")}
	n := newNode(t, func(c *driver.Config) { c.Profiles = p })
	v := web()
	n.fails(v, "read the driver's profiles from ConfigMap mayfly-system/mayfly: no")
	p.set(nil, fmt.Errorf("read the driver's profiles: %w", problem.List{errors.New("profile \"web\" has no values")}))
	n.fails(v, `read the driver's profiles: profile "web" has no values`)
	p.set(&volume.Profiles{}, nil)
	n.publish(v)
}

// A profile that begins to name the pod's IP has it looked up: no certificate is for the address that stands for one that is not known.
func TestAProfileThatBeginsToNeedTheIP(t *testing.T) {
	p := &someProfiles{now: profile("duration=3s")}
	n := newNode(t, withPods(newPods("192.0.2.8"), func(c *driver.Config) { c.Profiles = p }))
	v := web("csi.mayfly.dev/profile=web")
	delete(v.Attributes, "csi.mayfly.dev/duration")
	target := n.publish(v)
	p.set(profile("duration=3s", "ip-sans=${POD_IP}"), nil)
	until(t, "a certificate with an IP", func() bool { return len(pair(t, target).IPAddresses) > 0 })
	if got := ips(t, target); got != "192.0.2.8" {
		t.Error(got)
	}
}

// A profile that goes while its pod waits for an IP counts on, with the IP.
func TestAProfileThatGoesWhileThePodWaitsForItsIP(t *testing.T) {
	p, pods := &someProfiles{now: profile("ip-sans=${POD_IP}")}, newPods()
	n := newNode(t, withPods(pods, func(c *driver.Config) { c.Profiles = p }))
	v := web("csi.mayfly.dev/profile=web")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if _, err := n.Publish(ctx, n.driver, v); err == nil {
		t.Fatal("published")
	}
	p.set(&volume.Profiles{}, nil)
	pods.have("192.0.2.8")
	if got := ips(t, n.publish(v)); got != "192.0.2.8" {
		t.Error(got)
	}
}

// A key that is kept is not kept when the profile wants one of another kind.
func TestAProfileThatWantsAnotherKey(t *testing.T) {
	p := &someProfiles{now: profile("duration=3s", "reuse-private-key=true")}
	n := newNode(t, func(c *driver.Config) { c.Profiles = p })
	v := web("csi.mayfly.dev/profile=web")
	delete(v.Attributes, "csi.mayfly.dev/duration")
	target := n.publish(v)
	p.set(profile("duration=3s", "reuse-private-key=true", "key-size=384"), nil)
	until(t, "a key of the other kind", func() bool {
		key, ok := pair(t, target).PublicKey.(*ecdsa.PublicKey)
		return ok && key.Curve == elliptic.P384()
	})
}

// An issuer that never answers is left when the profile names another.
func TestAProfileWithAnotherIssuerOvertakesAnAttempt(t *testing.T) {
	p := &someProfiles{now: profile("issuer-name=typo")}
	n := newNode(t, func(c *driver.Config) { c.Profiles = p })
	n.signer.from(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		if req.Issuer.Name == "typo" {
			return signer.Issued{}, signer.Errorf(signer.NotYet, "there is no issuer %s", req.Issuer.Name)
		}
		return ca.Sign(ctx, req)
	})
	v := web("csi.mayfly.dev/profile=web")
	delete(v.Attributes, "csi.mayfly.dev/issuer-name")
	n.fails(v, "there is no issuer typo")
	p.set(profile("issuer-name=right"), nil)
	n.publish(v)
	if asked := n.signer.asked(); asked[0].Attempt.ID == asked[len(asked)-1].Attempt.ID {
		t.Error("the attempt went on")
	}
}

// Once a pod runs, no call for its volume fails or waits, whatever its certificate meets: kubelets before kubernetes#139045 take its mount away.
func TestCallsForAPodThatStartedWithoutItsCertificate(t *testing.T) {
	p := newPods()
	n := newNode(t, withPods(p))
	n.signer.from(refuse(signer.Denied, "no"))
	v := web(withIPs, "csi.mayfly.dev/continue-on-not-ready=true")
	n.publish(v)
	p.have("192.0.2.8")
	until(t, "the denial", func() bool { return n.record(v).Failure != nil })
	n.publish(v)
	n.restart()
	n.publish(v)
}

// A renewal takes the IPs that are known when the pod can't be read.
func TestARenewalWhilePodsCantBeRead(t *testing.T) {
	p := newPods("192.0.2.8")
	n := newNode(t, withPods(p))
	v := web(withIPs)
	target := n.publish(v)
	first := pair(t, target)
	p.mu.Lock()
	p.away = errors.New("read pod shop/web-0: forbidden")
	p.mu.Unlock()
	n.renew(v)
	until(t, "the renewal", func() bool { return !pair(t, target).Equal(first) })
	if got := ips(t, target); got != "192.0.2.8" {
		t.Error(got)
	}
}

// A pod that starts without its certificate for a right that is missing is told so: the kubelet has nothing to tell it.
func TestAPodThatCantBeReadIsTold(t *testing.T) {
	told := make(chan string, 10)
	p := newPods()
	p.away = errors.New("read pod shop/web-0: forbidden")
	n := newNode(t, withPods(p, func(c *driver.Config) { c.Events = eventFunc(func(message string) { told <- message }) }))
	n.publish(web(withIPs, "csi.mayfly.dev/continue-on-not-ready=true"))
	if got, want := <-told, "shop/web-0 CertificateNotIssued: volume tls: the pod starts without its certificate: read pod shop/web-0: forbidden"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}
