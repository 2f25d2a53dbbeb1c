package issue_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/issue"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sender passes on the reasons of Events.
type sender chan string

func (s sender) Send(_ context.Context, _ signer.Pod, e event.Event) error {
	s <- e.Reason
	return nil
}

// newPair returns a pair that is valid for an hour.
func newPair(t *testing.T) request.Pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now, NotAfter: now.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := chain.FromDER(der)
	if err != nil {
		t.Fatal(err)
	}
	c, err := chain.New(chain.Bundle{leaf}, nil, key.Public(), now)
	if err != nil {
		t.Fatal(err)
	}
	return request.Pair{Key: key, Chain: c}
}

// A refusal ends its attempt, also where that can't be recorded: to ask again would bring the same answer.
func TestARefusalThatCantBeRecorded(t *testing.T) {
	log, dir := slog.New(slog.DiscardHandler), t.TempDir()
	volumes, err := store.New(dir, time.Now, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := volumes.Get("csi-1") // It has no directory.
	v.Amend(func(r *store.Record) { r.Asked.ID, r.Attempt = v.ID(), "a1" })
	i := issue.New(issue.Config{Log: log})
	defer i.Close()
	err = i.Fail(v, signer.Errorf(signer.Denied, "no"))
	if r := v.Record(); r.Attempt != "" || r.Failure == nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%+v, %v", r, err)
	}
}

// An Event that was not sent before its volume had a new certificate is not sent any more.
func TestAFailureThatIsOverIsNotTold(t *testing.T) {
	log, events := slog.New(slog.DiscardHandler), make(sender, 10)
	queue, err := event.NewQueue(events, renew.Clocks{}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer queue.Close() //nolint:errcheck // It is not used any more.
	dir := t.TempDir()
	volumes, err := store.New(dir, time.Now, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := volumes.Get("csi-1")
	if err := os.Mkdir(dir+"/csi-1", 0o700); err != nil {
		t.Fatal(err)
	}
	i := issue.New(issue.Config{Events: queue, Log: log})
	defer i.Close()
	v.SetPair(newPair(t).Chain.Leaf(), time.Now(), time.Now().Add(time.Hour))
	v.Amend(func(r *store.Record) { r.Asked.ID = v.ID() })
	i.Report(v, i.Fail(v, signer.Errorf(signer.Denied, "no")))
	if err := i.Finish(v, newPair(t), time.Now()); err != nil {
		t.Fatal(err)
	}
	queue.Warn(volume.Asked{ID: "csi-2"}, "Other", event.Warning{Reason: "Other"}, time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- queue.Run(ctx) }()
	if got := <-events; got != "Other" {
		t.Errorf("told of %s", got)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
