package driver_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// fails demands an error that is not final, with the text.
func (n *node) fails(v kubelet.Volume, want string) {
	n.t.Helper()
	_, err := n.Publish(n.t.Context(), n.driver, v)
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), want) {
		n.t.Errorf("got %v\nwant Unavailable: %s", err, want)
	}
}

func TestASignerThatRefuses(t *testing.T) {
	t.Parallel()
	rows := []struct {
		kind signer.Kind
		want string
	}{
		{signer.Denied, "request denied: policy says no"},
		{signer.Invalid, "request invalid: policy says no"},
		{signer.Failed, "signing failed: policy says no"},
	}
	for _, row := range rows {
		t.Run(row.kind.String(), func(t *testing.T) {
			n := newNode(t, nil)
			v := web()
			n.signer.from(refuse(row.kind, "policy says no"))
			_, first := n.Publish(t.Context(), n.driver, v)
			r := n.record(v)
			want := row.want + " (tried once; the next try is at " + chain.Stamp(r.Failure.RetryAt) + ")"
			if status.Code(first) != codes.Unavailable || status.Convert(first).Message() != want {
				t.Errorf("%v; want %s", first, want)
			}
			for range 2 { // The kubelet counts Events whose texts are equal.
				if _, err := n.Publish(t.Context(), n.driver, v); err == nil || err.Error() != first.Error() {
					t.Errorf("%v\nfirst: %v", err, first)
				}
				n.restart()
			}
			if got := len(n.signer.asked()); got != 1 {
				t.Errorf("the signer was asked %d times", got)
			}
			if rest := r.Failure.RetryAt.Sub(r.Failure.At); rest < time.Minute || rest > time.Minute*5/4 {
				t.Errorf("the volume rests %s, want a minute and up to a quarter more", rest)
			}
			if r.Attempt != "" {
				t.Errorf("attempt %s goes on", r.Attempt)
			}
			n.unpublish(v)
			n.empty()
		})
	}
}

// What time may mend is told at once; the next call then waits for the tries that come by themselves.
func TestASignerThatIsAwayForAWhile(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.signer.say(refuse(signer.Unavailable, "away"), refuse(signer.Unavailable, "still away"))
	n.fails(v, "signer unavailable: away")
	pair(t, n.publish(v))
	asked := n.signer.asked()
	if len(asked) != 3 || asked[0].Attempt.ID != asked[2].Attempt.ID {
		t.Errorf("%d requests, not of one attempt", len(asked))
	}
	n.unpublish(v)
	n.empty()
}

// A call that waits for the next try ends in time to say why.
func TestACallThatWaitsForATryEndsInTime(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.signer.from(refuse(signer.Unavailable, "away"))
	n.fails(v, "away")
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
	defer cancel()
	_, err := n.Publish(ctx, n.driver, v)
	if ctx.Err() != nil || status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "signer unavailable: away" {
		t.Errorf("%v", err)
	}
	if got := len(n.signer.asked()); got < 2 {
		t.Errorf("%d tries", got)
	}
	n.unpublish(v)
	n.empty()
}

// Many pods that wait for a slow signer do not keep a pod that has a certificate from its renewal.
func TestPodsThatWaitDoNotHoldUpRenewals(t *testing.T) {
	n := newNode(t, nil)
	var waiting sync.WaitGroup
	n.signer.from(hang)
	for i := range 80 {
		v := web()
		v.UID = fmt.Sprintf("3b2f6a5e-0002-4c5e-9d3e-%012d", i)
		waiting.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if _, err := n.Publish(ctx, n.driver, v); err == nil {
				t.Error("published")
			}
		})
	}
	waiting.Wait()
	n.signer.from(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		if strings.Contains(req.Attempt.Pod.UID, "-0002-") {
			return hang(ctx, req, ca)
		}
		return ca.Sign(ctx, req)
	})
	v := web()
	target := n.publish(v)
	before := pair(t, target)
	n.renew(v)
	begin := time.Now()
	until(t, "the renewal", func() bool { return !pair(t, target).Equal(before) })
	if took := time.Since(begin); took > 50*time.Second { // A renewal waits for its signer for a minute.
		t.Errorf("the renewal took %s", took)
	}
}

// record reads the volume's record.
func (n *node) record(v kubelet.Volume) store.Record {
	n.t.Helper()
	r, err := store.ReadRecord(files.Dir(n.inState(v, "")))
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

// rest ends a volume's backoff, as time would: nothing in the record is younger than a day. The driver must be stopped.
func (n *node) rest(v kubelet.Volume) {
	n.t.Helper()
	r := n.record(v)
	r.Failure.At, r.Failure.RetryAt = r.Failure.At.Add(-24*time.Hour), r.Failure.RetryAt.Add(-24*time.Hour)
	if err := store.WriteRecord(files.Dir(n.inState(v, "")), r); err != nil {
		n.t.Fatal(err)
	}
}

// An outage of the signer says nothing of how long a denial should rest.
func TestAnotherKindOfFailureBeginsTheBackoffAnew(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.signer.from(refuse(signer.Unavailable, "away"))
	n.fails(v, "away")
	until(t, "three tries", func() bool { return n.record(v).Failure.Count >= 3 })
	n.signer.from(refuse(signer.Denied, "no"))
	until(t, "the denial", func() bool { return n.record(v).Failure.Kind == signer.Denied.String() })
	if f := n.record(v).Failure; f.Ended != 1 || f.RetryAt.Sub(f.At) > 75*time.Second {
		t.Errorf("after %d tries it rests for %s", f.Count, f.RetryAt.Sub(f.At))
	}
	n.unpublish(v)
}

// An issuer that takes its time to refuse is asked less and less often: a wait in between is no success.
func TestSlowRefusalsRestLonger(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	asked := 0
	n.signer.from(func(context.Context, signer.Request, signer.Signer) (signer.Issued, error) {
		if asked++; asked%2 == 1 {
			return signer.Issued{}, signer.Errorf(signer.NotYet, "wait")
		}
		return signer.Issued{}, signer.Errorf(signer.Failed, "no")
	})
	n.fails(v, "")
	for count := 1; count <= 3; count++ {
		until(t, "the refusal", func() bool { return n.record(v).Failure.Ended == count })
		f := n.record(v).Failure
		if rest, least := f.RetryAt.Sub(f.At), time.Minute<<(count-1); rest < least || rest > least*5/4 {
			t.Errorf("after refusal %d it rests for %s", count, rest)
		}
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		n.rest(v)
		n.start()
	}
	n.unpublish(v)
}

func TestAVolumeThatHasRestedIsTriedAgainByItself(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.signer.from(refuse(signer.Denied, "no"))
	n.fails(v, "no")
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.signer.from(nil)
	n.rest(v)
	n.start()
	until(t, "the certificate is there", func() bool { return exists(t, n.inState(v, "data/tls.crt")) })
	pair(t, n.publish(v))
	asked := n.signer.asked()
	if len(asked) != 2 || asked[0].Attempt.ID == asked[1].Attempt.ID || bytes.Equal(asked[0].CSR, asked[1].CSR) {
		t.Errorf("%d requests; a denial ends the attempt, the next is a new one", len(asked))
	}
}

// A call that comes shortly before the next try waits for it: the kubelet would come back up to 2 minutes later.
func TestACallShortlyBeforeTheNextTryWaitsForIt(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.signer.from(refuse(signer.Denied, "no"))
	n.fails(v, "no")
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.signer.from(nil)
	r := n.record(v)
	r.Failure.RetryAt = time.Now().Add(8 * time.Second)
	if err := store.WriteRecord(files.Dir(n.inState(v, "")), r); err != nil {
		t.Fatal(err)
	}
	n.start()
	pair(t, n.publish(v))
	if got := n.record(v).IssuedAt; got.Before(r.Failure.RetryAt) {
		t.Errorf("issued at %s, before the backoff ended at %s", got, r.Failure.RetryAt)
	}
}

func TestFailuresInARowRestLonger(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.signer.from(refuse(signer.Unavailable, "away"))
	n.fails(v, "away")
	for count := 1; count < 4; {
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		before := n.record(v).Failure.Count // On a slow machine the driver tried again before it stopped.
		n.rest(v)
		n.start()
		var failure store.Failure
		until(t, "another try", func() bool {
			failure = *n.record(v).Failure
			return failure.Count > before
		})
		count = failure.Count
		want := min(2*time.Second<<(count-1), 30*time.Second)
		if rest := failure.RetryAt.Sub(failure.At); rest < want || rest > want*5/4 {
			t.Errorf("failure %d: rests %s, want from %s", count, rest, want)
		}
	}
	attempts := map[string]bool{}
	for _, req := range n.signer.asked() {
		attempts[req.Attempt.ID+string(req.CSR)] = true
	}
	if len(attempts) != 1 {
		t.Errorf("%d attempts, want one that goes on", len(attempts))
	}
}

// A signer that takes long: each call of the kubelet waits for the same attempt, and its answer comes in time and says why.
func TestASignerThatTakesLong(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.signer.from(hang)
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
		_, err := n.Publish(ctx, n.driver, v)
		if ctx.Err() != nil || status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "not signed yet: still waiting for approval") {
			t.Errorf("%v", err)
		}
		cancel()
	}
	n.signer.from(nil)
	pair(t, n.publish(v))
	asked := n.signer.asked()
	for _, r := range asked {
		if r.Attempt.ID != asked[0].Attempt.ID || !bytes.Equal(r.CSR, asked[0].CSR) {
			t.Errorf("%d requests, not of one attempt", len(asked))
		}
	}
}

// other is a certificate that is not what was asked for.
func other(edit func(*x509.Certificate)) answer {
	return func(_ context.Context, req signer.Request, _ signer.Signer) (signer.Issued, error) {
		csr, err := x509.ParseCertificateRequest(req.CSR)
		if err != nil {
			return signer.Issued{}, err
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return signer.Issued{}, err
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), DNSNames: csr.DNSNames, PublicKey: csr.PublicKey,
			NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		}
		edit(template)
		der, err := x509.CreateCertificate(rand.Reader, template, &x509.Certificate{}, template.PublicKey, key)
		return signer.Issued{Chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, err
	}
}

func sends(text []byte) answer {
	return func(context.Context, signer.Request, signer.Signer) (signer.Issued, error) {
		return signer.Issued{Chain: text}, nil
	}
}

func TestAnswersThatAreOfNoUse(t *testing.T) {
	t.Parallel()
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name   string
		answer answer
		want   string
	}{
		{"empty", sends(nil), "signing failed: unusable certificate from Issuer ca: read the certificate chain: there is no certificate in 0 bytes"},
		{"garbage", sends([]byte("garbage")), "there is no certificate in 7 bytes"},
		{"1 MiB", sends(make([]byte, 1<<20+1)), "the text is 1048577 bytes long"},
		{"another key", other(func(c *x509.Certificate) { c.PublicKey = stranger.Public() }), "the certificate is for another key than ours"},
		{"expired", other(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }), "the certificate expired at"},
		{"a name is lacking", other(func(c *x509.Certificate) { c.DNSNames = []string{"other"} }), `the certificate lacks the DNS name "web-0.shop.svc"`},
		{"not valid for hours", other(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(2*time.Hour), time.Now().Add(3*time.Hour)
		}), "signing failed: unusable certificate from Issuer ca: the certificate is not valid before"},
		{"not yet valid", other(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour / 2) }), "not signed yet: the certificate is not valid before"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			n := newNode(t, nil)
			fresh, valid := web(), web()
			valid.UID = "3b2f6a5e-0001-4c5e-9d3e-000000000002"
			n.publish(valid)
			n.signer.from(row.answer)
			n.fails(fresh, row.want)
			if exists(t, n.Target(fresh)) || exists(t, n.inState(fresh, "data")) {
				t.Error("an answer of no use reached the pod")
			}
			n.renew(valid)
			until(t, "the renewal fails", func() bool { return n.record(valid).Failure != nil })
			if leaf := pair(t, n.Target(valid)); leaf.DNSNames[0] != "web-0.shop.svc" {
				t.Error("the pair that was there is gone")
			}
			n.unpublish(fresh)
			n.unpublish(valid)
			n.empty()
		})
	}
}

func TestClockSkewIsAccepted(t *testing.T) {
	n := newNode(t, nil)
	n.signer.from(other(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(4 * time.Minute) }))
	n.publish(web())
}

// A certificate that begins too late is waited for, not replaced.
func TestACertificateThatBeginsLaterIsWaitedFor(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	begin := time.Now().Add(time.Hour / 2)
	n.signer.say(other(func(c *x509.Certificate) { c.NotBefore = begin }))
	n.fails(v, "the clocks of the signer and of this node differ")
	r := n.record(v)
	if r.Attempt == "" || r.Failure.RetryAt.Sub(begin.Add(-5*time.Minute)).Abs() > time.Minute {
		t.Errorf("attempt %q, next look at %s", r.Attempt, r.Failure.RetryAt)
	}
	n.publish(v)
	if asked := n.signer.asked(); asked[0].Attempt.ID != asked[1].Attempt.ID {
		t.Error("asked anew")
	}
}

func TestAFailedRenewalKeepsThePairAndSaysSo(t *testing.T) {
	told := make(chan string, 10)
	n := newNode(t, func(c *driverConfig) { c.Events = eventFunc(func(m string) { told <- m }) })
	v := web("csi.mayfly.dev/duration=15s")
	target := n.publish(v)
	before := pair(t, target)
	if health, err := n.Health(t.Context(), n.driver, v); err != nil || len(health) > 0 {
		t.Errorf("a valid pair: %v, %v", health, err)
	}
	n.signer.from(refuse(signer.Denied, "policy says no"))
	n.renew(v)
	message := <-told
	for _, want := range []string{"shop/web-0", "CertificateNotRenewed", "request denied: policy says no; the next try is at", "the pod keeps its certificate, which ends at"} {
		if !strings.Contains(message, want) {
			t.Errorf("event %q lacks %q", message, want)
		}
	}
	n.health(v, csi.VolumeHealthErrorType_DEGRADED, "CertificateNotRenewed", "policy says no")
	if !pair(t, target).Equal(before) {
		t.Error("the pair changed")
	}
	until(t, "the certificate expires", func() bool { return time.Now().After(before.NotAfter) })
	n.health(v, csi.VolumeHealthErrorType_INACCESSIBLE, "CertificateNotValid", "policy says no")
	if !pair(t, target).Equal(before) {
		t.Error("the pair is gone after its end")
	}
	n.fails(v, "policy says no")
	if mounts := n.mounts(); !slices.Contains(mounts, target) {
		t.Errorf("the pod's mount is gone: %v", mounts)
	}
}

// health demands one entry.
func (n *node) health(v kubelet.Volume, code csi.VolumeHealthErrorType, reason, message string) {
	n.t.Helper()
	got, err := n.Health(n.t.Context(), n.driver, v)
	if err != nil || len(got) != 1 || got[0].GetStatus() != code || got[0].GetReason() != reason || !strings.Contains(got[0].GetMessage(), message) || !strings.Contains(got[0].GetMessage(), " valid from ") {
		n.t.Errorf("health: %v, %v; want %s %s %s", got, err, code, reason, message)
	}
}

func TestAFullVolumeKeepsItsPair(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	target := n.publish(v)
	before := pair(t, target)
	fill(t, n.inState(v, "filler"))
	n.renew(v)
	until(t, "the renewal fails", func() bool { return strings.Contains(n.log.String(), "no space left on device") })
	if !pair(t, target).Equal(before) {
		t.Error("the pair changed")
	}
	if err := os.Remove(n.inState(v, "filler")); err != nil {
		t.Fatal(err)
	}
	n.unpublish(v)
	n.empty()
}

// Whatever of the driver's can't be written: the signer sees no attempt that is not on record, for after a crash nobody would
// know of it.
func TestARenewalThatCantBeWritten(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"pending.key", "record.json"} {
		t.Run(file, func(t *testing.T) {
			n := newNode(t, nil)
			v := web()
			target := n.publish(v)
			before := pair(t, target)
			n.signer.from(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
				if r, err := store.ReadRecord(files.Dir(n.inState(v, ""))); err != nil || r.Attempt != req.Attempt.ID {
					t.Errorf("the signer is asked for attempt %s, on record is %q (%v)", req.Attempt.ID, r.Attempt, err)
				}
				return ca.Sign(ctx, req)
			})
			obstacle := n.inState(v, file+".new") // While a directory is there, the file can't be written.
			until(t, "what was under way is written", func() bool { return os.Mkdir(obstacle, 0o700) == nil })
			n.renew(v)
			until(t, "the renewal fails", func() bool { return strings.Contains(n.log.String(), "certificate not issued") })
			if !pair(t, target).Equal(before) {
				t.Error("the pair changed")
			}
			if err := os.Remove(obstacle); err != nil {
				t.Fatal(err)
			}
			until(t, "the renewal", func() bool { return !pair(t, target).Equal(before) })
			if tries := strings.Count(n.log.String(), "certificate not issued"); tries > 3 {
				t.Errorf("it was tried %d times without a rest", tries)
			}
		})
	}
}

// fill takes all that is left of a file system.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return
		}
	}
}

func TestUnpublishWhileTheRequestIsPending(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.hangUp(v)
	until(t, "the call is over", func() bool { return n.Unpublish(t.Context(), n.driver, v) == nil })
	n.empty()
	id := n.signer.asked()[0].Attempt.ID
	until(t, "the request is forgotten", func() bool { return slices.Contains(n.signer.forgot(), id) })
}

func TestNothingCanBeMadeInTheStateDirectory(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	if err := unix.Mount("none", n.stateDir(), "tmpfs", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	n.fails(v, "make the volume's directory: mkdir "+n.inState(v, "")+": read-only file system")
	if err := unix.Unmount(n.stateDir(), 0); err != nil {
		t.Fatal(err)
	}
	pair(t, n.publish(v))
}

// blocked sends no Event before it is released.
type blocked struct{ entered, release chan struct{} }

func (b blocked) Send(ctx context.Context, _ signer.Pod, _ event.Event) error {
	b.entered <- struct{}{}
	select {
	case <-b.release:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// An API server that takes its time over an Event holds up no call.
func TestUnpublishDoesNotWaitForAnEvent(t *testing.T) {
	b := blocked{make(chan struct{}, 1), make(chan struct{})}
	n := newNode(t, func(c *driver.Config) { c.Events = b })
	v := web()
	n.publish(v)
	n.signer.say(func(context.Context, signer.Request, signer.Signer) (signer.Issued, error) {
		return signer.Issued{}, signer.Errorf(signer.Denied, "no")
	})
	n.renew(v)
	<-b.entered
	n.unpublish(v)
	n.empty()
	close(b.release)
}
