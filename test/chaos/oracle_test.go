package chaos

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/mount"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

const (
	// longestCall is how long a call may take: a minute, and an answer.
	longestCall = 61 * time.Second
	// late is how long after its time a try may begin that waits for another one of the volume.
	late = 2 * time.Minute
	// skew is how far ahead of the node's time a certificate may begin.
	skew = 5 * time.Minute
	// renewBefore is what some volumes ask for.
	renewBefore = 30 * time.Second
)

// A set is what a pod reads.
type set struct {
	generation string
	ca         []byte
	leaf       *x509.Certificate
	begin, end time.Time // Of the path that ends last.
	seen       time.Time // When it was first seen.
}

func (s *set) validAt(t time.Time) bool { return s.end.After(t) && !s.begin.After(t.Add(skew)) }

// load reads what a pod has at target as a peer does that knows the CAs of the world: an answer need not have them.
func (w *world) load(target string) (*set, error) {
	s := &set{seen: time.Now()}
	err := kubelet.ReadSet(target, func(dir string) error {
		s.generation = filepath.Base(dir)
		bundle, err1 := os.ReadFile(filepath.Join(dir, "credential-bundle.pem"))
		text, err2 := os.ReadFile(filepath.Join(dir, "tls.crt"))
		key, err3 := os.ReadFile(filepath.Join(dir, "tls.key"))
		ca, err4 := os.ReadFile(filepath.Join(dir, "ca.crt"))
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return err
		}
		if _, err := tls.X509KeyPair(bundle, bundle); err != nil {
			return err
		}
		pair, err := tls.X509KeyPair(text, key)
		if err != nil {
			return err
		}
		s.leaf, s.ca = pair.Leaf, ca
		return s.verify(pair, ca, w.api.pki)
	})
	return s, err
}

// verify demands that a peer accepts the certificate at some time, and notes when.
func (s *set) verify(pair tls.Certificate, ca []byte, p *pki) error {
	options := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: s.leaf.NotAfter.Add(-time.Second),
		DNSName: "web.shop.svc", KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	options.Roots.AppendCertsFromPEM(ca)
	options.Roots.AddCert(p.root.certificate)
	options.Roots.AddCert(p.stranger.certificate)
	options.Intermediates.AddCert(p.intermediate.certificate)
	for _, der := range pair.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		options.Intermediates.AddCert(c)
		if c.NotAfter.Before(options.CurrentTime) {
			options.CurrentTime = c.NotAfter.Add(-time.Second)
		}
	}
	paths, err := s.leaf.Verify(options)
	for _, path := range paths {
		begin, end := time.Time{}, s.leaf.NotAfter
		for _, c := range path {
			begin, end = renew.Later(begin, c.NotBefore), renew.Earlier(end, c.NotAfter)
		}
		if end.After(s.end) {
			s.begin, s.end = begin, end
		}
	}
	return err
}

// check is the oracle. It demands what holds after every step.
func (w *world) check() {
	w.settle()
	w.checkEvents()
	for _, s := range w.slots {
		if s.exists {
			w.checkFiles(s)
			w.checkDisk(s)
			w.checkTrust(s)
			w.checkSchedule(s)
		}
	}
	if since, ok := w.servesSince(); ok {
		s := w.slots[w.rand.IntN(len(w.slots))]
		w.checkHealth(s)
		if w.rand.IntN(20) == 0 {
			w.checkMetrics()
		}
		w.checkGone(since)
	}
	w.checkRequests()
}

// checkFiles demands that a pod whose volume was acknowledged has a pair that a peer accepts, and any other volume such a
// pair or none.
func (w *world) checkFiles(s *slot) {
	dir := w.Target(s.Volume)
	to, err := os.Readlink(filepath.Join(dir, "..data"))
	if err != nil && s.acked && !s.spoiled {
		w.fail("%s was acknowledged, and has nothing: %v", s.UID, err)
	}
	if err != nil { // It may have a pair that the pod does not see yet.
		dir = filepath.Join(w.dir(s), "data")
		to, err = os.Readlink(filepath.Join(dir, "..data"))
	}
	if err != nil {
		s.set = nil
		return
	}
	before := s.set
	if before != nil && before.generation == to {
		return
	}
	if s.set, err = w.load(dir); err != nil {
		w.fail("%s has files that no peer accepts: %v", s.UID, err)
		return
	}
	if before == nil || !before.leaf.Equal(s.set.leaf) { // Else only the CA certificates are others.
		s.blind = s.full
	}
	now, link := unix.NsecToTimespec(w.clock.Now().UnixNano()), filepath.Join(w.dir(s), "data", "..data")
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, link, []unix.Timespec{now, now}, unix.AT_SYMLINK_NOFOLLOW) // The kernel is in no bubble.
}

// checkDisk demands that no key of a volume is on a disk.
func (w *world) checkDisk(s *slot) {
	if mounted, err := mount.Is(w.dir(s)); !s.spoiled || err != nil || mounted {
		return
	}
	_ = filepath.WalkDir(w.dir(s), func(path string, _ fs.DirEntry, _ error) error {
		if text, err := os.ReadFile(path); err == nil && bytes.Contains(text, []byte("PRIVATE KEY")) {
			w.fail("%s has a key, and is on a disk", path)
		}
		return nil
	})
}

// checkTrust demands that a pod has the CA certificates of its sources, soon after they have changed, but those that
// have ended.
func (w *world) checkTrust(s *slot) {
	w.corporate.mu.Lock()
	answer, changed := w.corporate.answer, w.corporate.since
	w.corporate.mu.Unlock()
	since, ok := w.servesSince()
	if s.set == nil || s.spoiled || s.blind || s.Attributes[name+"/trust"] == "" || answer.Err != nil ||
		!ok || time.Since(renew.Later(renew.Later(since, changed), w.jumped)) < late {
		return
	}
	valid, ended, ok := parted(answer.Certificates, w.clock.Now())
	for _, c := range valid {
		if text := (chain.Bundle{c}).Encode(); ok && !bytes.Contains(s.set.ca, text) {
			w.fail("%s does not have a CA certificate that its source has since %s:\n%s", s.UID, changed, text)
		}
	}
	for _, c := range ended {
		if text := (chain.Bundle{c}).Encode(); ok && bytes.Contains(s.set.ca, text) {
			w.fail("%s has a CA certificate that ended at %s:\n%s", s.UID, endOf(c), text)
		}
	}
}

// record reads the record of a volume that can be worked on; ok is false if there is none.
func (w *world) record(s *slot) (r store.Record, ok bool) {
	if s.spoiled || s.blind {
		return r, false
	}
	r, err := store.ReadRecord(files.Dir(w.dir(s)))
	return r, err == nil
}

// checkSchedule demands that what is due begins in time. The driver notices at once that the clock was set: nothing
// rests longer because of that.
func (w *world) checkSchedule(s *slot) {
	since, ok := w.servesSince()
	r, known := w.record(s)
	if !ok || !known || time.Since(since) < late {
		s.attempt = ""
		return
	}
	if r.Attempt != s.attempt || r.Failure != nil {
		s.attempt, s.since = r.Attempt, time.Now()
	}
	now, noticed := w.clock.Now(), renew.Later(since, w.jumped)
	overdue := func(at time.Time) bool { return min(now.Sub(at), time.Since(noticed)) > late }
	switch {
	case r.Failure != nil && r.Failure.Kind == signer.Failed.String() && r.Failure.Ended > 5 && r.Failure.RetryAt.Sub(r.Failure.At) < 10*time.Minute:
		w.fail("%s does not back off: %+v", s.UID, r.Failure)
	case r.Failure != nil:
		at := renew.Earlier(r.Failure.RetryAt, r.Failure.At.Add(renew.LongestBackoff))
		if r.Failure.At.After(now) { // The clock was set back.
			at = time.Time{}
		}
		if overdue(at) {
			w.fail("%s was to be tried again at %s: %+v", s.UID, at, r.Failure)
		}
	case r.Attempt != "":
		if time.Since(s.since) > late {
			w.fail("%s: attempt %s neither fails nor succeeds since %s", s.UID, r.Attempt, s.since)
		}
	case s.set != nil && s.set.begin.After(now.Add(skew)): // The clock was set back.
		if overdue(time.Time{}) {
			w.fail("%s begins only at %s, and nobody has asked for another since %s", s.UID, s.set.begin, noticed)
		}
	case s.set != nil && (r.RenewAt.IsZero() || r.IssuedAt.After(now)): // By what the pair alone says.
		at := s.latest(s.set.begin, s.set.end)
		if overdue(at) {
			w.fail("%s was to be renewed at %s, begins at %s, ends at %s", s.UID, at, s.set.begin, s.set.end)
		}
	case s.set != nil:
		at := s.latest(r.IssuedAt, r.EndsAt)
		if r.Stalled > 0 {
			at = r.EndsAt
		}
		if r.RenewAt.After(at.Add(time.Second)) || overdue(r.RenewAt) {
			w.fail("%s was to be renewed at %s, issued at %s, ends at %s", s.UID, r.RenewAt, r.IssuedAt, r.EndsAt)
		}
	}
}

// latest returns when a certificate is renewed at the latest.
func (s *slot) latest(received, end time.Time) time.Time {
	at := received.Add(end.Sub(received) * 2 / 3)
	if s.Attributes[name+"/renew-before"] != "" {
		at = renew.Later(at, end.Add(-renewBefore))
	}
	return at
}

// checkHealth demands that the driver reports what the pod has. It reports whether there is such a volume.
func (w *world) checkHealth(s *slot) (found bool) {
	if !s.exists || s.call != nil {
		return s.exists
	}
	health, err := w.Health(context.Background(), w.running.client, s.Volume)
	if status.Code(err) == codes.NotFound && (!s.acked || s.spoiled) {
		return false
	}
	if err != nil {
		w.fail("health of %s: %v", s.UID, err)
	}
	r, known := w.record(s)
	if !known {
		return true
	}
	want := csi.VolumeHealthErrorType_UNKNOWN_VOLUME_HEALTH_TYPE
	switch valid := s.set != nil && s.set.validAt(w.clock.Now()); {
	case !valid:
		want = csi.VolumeHealthErrorType_INACCESSIBLE
	case r.Failure != nil:
		want = csi.VolumeHealthErrorType_DEGRADED
	}
	if len(health) == 0 && want == csi.VolumeHealthErrorType_UNKNOWN_VOLUME_HEALTH_TYPE {
		return true
	}
	if len(health) != 1 || health[0].GetStatus() != want || s.set != nil && !strings.Contains(health[0].GetMessage(), s.set.leaf.SerialNumber.Text(16)) {
		w.fail("health of %s: %v, want %s; it has %+v, %+v", s.UID, health, want, s.set, r.Failure)
	}
	return true
}

// checkMetrics demands that the metrics are those of the volumes.
func (w *world) checkMetrics() {
	volumes, expired, overdue, first := 0.0, 0.0, 0.0, time.Time{}
	for _, s := range w.slots {
		if s.call != nil || s.spoiled || s.blind { // Not to be foretold.
			return
		}
		if !w.checkHealth(s) {
			continue
		}
		volumes++
		if s.set == nil {
			continue
		}
		if !s.set.end.After(w.clock.Now()) {
			expired++
		}
		if r, _ := w.record(s); r.Overdue(w.clock.Now()) || s.set.begin.After(w.clock.Now().Add(skew)) {
			overdue++
		}
		if first.IsZero() || s.set.end.Before(first) {
			first = s.set.end
		}
	}
	if len(w.buried) > 0 && slices.ContainsFunc(w.buried, func(b burial) bool { return b.abandoned }) {
		return
	}
	want := map[string]float64{"mayfly_volumes": volumes, "mayfly_certificates_expired": expired, "mayfly_renewals_overdue": overdue, "mayfly_first_expiry_timestamp_seconds": 0}
	if !first.IsZero() {
		want["mayfly_first_expiry_timestamp_seconds"] = float64(first.Unix())
	}
	all, err := w.running.metrics.Gather()
	w.must(err)
	for _, m := range all {
		if value, ok := want[m.GetName()]; ok && m.GetMetric()[0].GetGauge().GetValue() != value {
			w.fail("%s is %f, want %f", m.GetName(), m.GetMetric()[0].GetGauge().GetValue(), value)
		}
	}
	if err := w.running.Healthy(context.Background()); err != nil {
		w.fail("the node plugin is not healthy: %v", err)
	}
}

// checkGone demands that nothing is left of pods that are gone. A pod that vanished is noticed by the next process or the
// next renewal, and within an hour.
func (w *world) checkGone(since time.Time) {
	w.buried = slices.DeleteFunc(w.buried, func(b burial) bool {
		noticed := since
		if since.Before(b.at) {
			noticed = b.at.Add(time.Hour)
		}
		if b.abandoned && time.Since(noticed) < 20*time.Second {
			return false
		}
		for _, path := range []string{w.dir(&b.slot), w.Target(b.slot.Volume)} {
			if _, err := os.Lstat(path); err == nil {
				w.fail("%s is left of %s", path, b.slot.UID)
			}
		}
		if time.Since(b.at) < time.Minute {
			return false
		}
		w.checkForgotten(b, since)
		return true
	})
}

// checkForgotten demands that a pod that is gone has no requests any more, if the API server was well all the time: of
// those that it could not delete the driver remembers 32, and leaves the rest to Kubernetes.
func (w *world) checkForgotten(b burial, since time.Time) {
	w.api.mu.Lock()
	left := w.api.of(b.slot.UID)
	well := w.api.state == fine && w.api.since.Before(b.slot.came) && since.Before(b.at)
	w.api.mu.Unlock()
	if well && len(left) > 0 && !b.slot.strange && !b.abandoned {
		w.fail("%d requests are left of %s, such as %s", len(left), b.slot.UID, left[0].Name)
	}
	w.api.collect(b.slot.UID)
}

// checkRequests demands that a volume has one live request at most, and those that it had of another default issuer, and
// that its record names each: it was written first.
func (w *world) checkRequests() {
	w.api.mu.Lock()
	defer w.api.mu.Unlock()
	for _, s := range w.slots {
		if !s.exists || s.strange {
			continue
		}
		w.checkNamed(s)
		live := slices.DeleteFunc(w.api.of(s.UID), func(r *request) bool {
			return r.decided || r.CreationTimestamp.Time.Before(w.turned)
		})
		if len(live) > 1 {
			w.fail("%s has two live requests: %s and %s", s.UID, live[0].Name, live[1].Name)
		}
	}
	if w.api.rash != "" {
		w.fail("the node plugin does not back off: %s", w.api.rash)
	}
}

// checkNamed demands that the record of a volume names its requests. w.api.mu must be held.
func (w *world) checkNamed(s *slot) {
	r, known := w.record(s)
	if !known || len(r.Finished) == 32 {
		return
	}
	for _, req := range w.api.of(s.UID) {
		id := req.Name[strings.LastIndexByte(req.Name, '-')+1:]
		if id != r.Attempt && !slices.Contains(r.Finished, id) {
			w.fail("%s has a request that its record does not name: %s", s.UID, req.Name)
		}
	}
}

// A sent is an Event, with the pair that the volume had when it was sent.
type sent struct {
	signer.Pod
	event.Event
	at     time.Time
	latest time.Time // What the wall clock showed then, or before it was set back: the Event may be from before that.
	had    *set
	err    error // It could not be loaded.
}

// Send implements event.Sender.
func (w *world) Send(ctx context.Context, pod signer.Pod, e event.Event) error {
	of := &slot{Volume: kubelet.Volume{Pod: kubelet.Pod{UID: pod.UID}}}
	had, err := w.load(filepath.Join(w.dir(of), "data"))
	w.api.mu.Lock()
	f, dead := w.api.fault("EVENT", pod.Name), w.api.dead
	w.api.mu.Unlock()
	if dead {
		return errors.New("the process is gone")
	}
	if errors.Is(err, unix.EMFILE) {
		return err
	}
	w.mu.Lock()
	w.sent = append(w.sent, sent{pod, e, time.Now(), renew.Later(w.clock.Now(), w.latest), had, err})
	w.mu.Unlock()
	if err := sleep(ctx, f.delay); err != nil {
		return err
	}
	if f.status != 0 {
		return fmt.Errorf("status %d", f.status)
	}
	if f.lost {
		return io.ErrUnexpectedEOF
	}
	return f.refuse
}

// checkEvents demands that Events were true when they were sent.
func (w *world) checkEvents() {
	w.mu.Lock()
	all := w.sent
	w.sent = nil
	w.mu.Unlock()
	for _, e := range all {
		w.note("Event of %s: %s: %s", e.UID, e.Reason, e.Message)
		i := slices.IndexFunc(w.slots, func(s *slot) bool { return s.exists && s.UID == e.UID })
		if i < 0 {
			j := slices.IndexFunc(w.buried, func(b burial) bool { return b.slot.UID == e.UID })
			if j < 0 || !w.buried[j].abandoned && w.buried[j].at.Before(e.at.Add(-time.Second)) {
				w.fail("an Event of a pod that is gone: %s", e.Message)
			}
			continue
		}
		if s := w.slots[i]; !s.spoiled {
			w.checkEvent(s, e)
		}
	}
}

func (w *world) checkEvent(s *slot, e sent) {
	const stamp = `(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)`
	switch e.Reason {
	case "CertificateNotRenewed":
		m := regexp.MustCompile(`the pod keeps its certificate, which end(s|ed) at ` + stamp).FindStringSubmatch(e.Message)
		if m == nil || e.err != nil || chain.Stamp(e.had.end) != m[2] && e.at.Sub(signedAt(e.had.leaf)) > time.Second { // On its way.
			w.fail("an Event of %s, which has %+v (%v): %s", s.UID, e.had, e.err, e.Message)
		}
	case "CertificateExpired":
		m := regexp.MustCompile(`ended at ` + stamp).FindStringSubmatch(e.Message)
		if m == nil || m[1] > chain.Stamp(e.latest) {
			w.fail("an Event of %s at %s: %s", s.UID, e.latest, e.Message)
		}
	}
}
