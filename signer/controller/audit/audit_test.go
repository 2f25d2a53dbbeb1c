package audit

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/mayfly-csi/mayfly/signer"
)

// lumberjack deletes rotated files in a goroutine that never ends, one for each file of the process.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"))
}

// A fixture is a Log with what it says elsewhere.
type fixture struct {
	*Log
	log bytes.Buffer

	mu       sync.Mutex
	events   []string
	reported func() // After an Event, before the next record is written.
}

func (f *fixture) Eventf(regarding, _ runtime.Object, kind, reason, _, note string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pod, _ := regarding.(*corev1.Pod)
	f.events = append(f.events, fmt.Sprintf("%s %s %s: ", pod.Name, kind, reason)+fmt.Sprintf(note, args...))
	f.reported()
}

// open opens a Log on a file; for "-" it is w.
func open(t *testing.T, path string, w io.Writer) *fixture {
	t.Helper()
	f := &fixture{reported: func() {}}
	f.Log = Open(Config{
		Path: path, MaxSize: 1, MaxBackups: 2, Stdout: w, Events: f, Metrics: prometheus.NewRegistry(),
		Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "mayfly-controller-1"}}, Log: slog.New(slog.NewTextHandler(&f.log, nil)),
	})
	return f
}

// written returns the records of a file, and its lines that are none.
func written(t *testing.T, text []byte) (records []Record, torn []string) {
	t.Helper()
	for line := range bytes.Lines(text) {
		var r Record
		if err := json.Unmarshal(line, &r); err != nil {
			torn = append(torn, string(line))
			continue
		}
		records = append(records, r)
	}
	return records, torn
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// decision is a record of some 1 KiB.
func decision(name string) Record {
	return Record{
		Audit: Decision, Decision: Denied, Reason: "NotAllowed", Message: strings.Repeat("no ", 256), Mode: Driver,
		Request: &Request{"CertificateRequest", name, "uid-1"}, Pod: Pod{"shop", "web", "uid-2", "node-a", "clerk"},
	}
}

func TestARecordIsALine(t *testing.T) {
	var out bytes.Buffer
	f := open(t, "-", &out)
	hostile := decision("web\n{\"audit\":\"decision\"}")
	hostile.Message, hostile.CommonName = "line\nline\u2028\xff", "a\nb"
	before := time.Now().UTC()
	f.Write(hostile)
	f.Close()
	if n := bytes.Count(out.Bytes(), []byte("\n")); n != 1 {
		t.Fatalf("%d lines: %s", n, &out)
	}
	records, _ := written(t, out.Bytes())
	got := records[0]
	if got.Time.Before(before) || got.Time.After(time.Now()) {
		t.Errorf("time %s", got.Time)
	}
	hostile.Time, hostile.Message = got.Time, "line\nline\u2028\ufffd"
	if !reflect.DeepEqual(got, hostile) {
		t.Errorf("%+v", got)
	}
	if n := testutil.ToFloat64(f.records.WithLabelValues(Decision)); n != 1 {
		t.Errorf("%v are counted", n)
	}
}

// A Log that is off, and one that was closed.
func TestNoLog(t *testing.T) {
	var none *Log
	none.Write(Record{})
	none.Close()
	var out bytes.Buffer
	f := open(t, "-", &out)
	f.Close()
	f.Write(decision("late"))
	if n := testutil.ToFloat64(f.lost.WithLabelValues("stopped")); n != 1 || out.Len() > 0 {
		t.Errorf("%v are lost, %q", n, &out)
	}
}

// Files rotate by their size, and so many are kept. The next process goes on where one ended.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit", "record.log")
	const n = 1500 // Of 1 KiB each.
	for process := range 3 {
		f := open(t, path, nil)
		for i := range n {
			f.Write(decision(fmt.Sprint(process, "-", i)))
		}
		f.Close()
		if got := testutil.ToFloat64(f.records.WithLabelValues(Decision)); got != n || f.log.Len() > 0 {
			t.Fatalf("%v records: %s", got, &f.log)
		}
	}
	var files []string
	for i := 0; ; i++ { // lumberjack deletes in the background.
		files, _ = filepath.Glob(filepath.Join(dir, "audit", "*"))
		if len(files) == 3 || i == 1000 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(files) != 3 {
		t.Fatalf("there are %q", files)
	}
	var names []string
	for _, file := range files { // The rotated ones come first, the oldest of them first.
		text := read(t, file)
		records, torn := written(t, text)
		if len(text) > 1<<20 || len(torn) > 0 {
			t.Errorf("%s has %d bytes, and %q", file, len(text), torn)
		}
		for _, r := range records {
			names = append(names, r.Request.Name)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v (%v)", info.Mode(), err)
		}
	}
	for i, name := range names {
		if at := 3*n - len(names) + i; name != fmt.Sprint(at/n, "-", at%n) {
			t.Fatalf("%d of %d is %s", i, len(names), name)
		}
	}
}

// full is a directory on a tmpfs that has 4 KiB of room left.
func full(t *testing.T) (dir string, free func()) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("audit", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// lumberjack's goroutine may list the directory just now.
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 60<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, func() {
		if err := os.Remove(ballast); err != nil {
			t.Error(err)
		}
	}
}

// TestAFullDisk: what a full disk does not take is counted, and once logged and an Event. When there is room
// again, by this process or the next one, records are written again, each on a line of its own.
func TestAFullDisk(t *testing.T) {
	for name, restart := range map[string]bool{"and room again": false, "and a restart": true} {
		t.Run(name, func(t *testing.T) {
			dir, free := full(t)
			path := filepath.Join(dir, "record.log")
			const n, fit = 8, 3
			lost := 1
			f := open(t, path, nil)
			if f.reported = free; restart {
				f.reported, lost = func() {}, n-fit
			}
			for i := range n { // Of some 1,100 bytes: the fourth is torn.
				f.Write(decision(fmt.Sprint(i)))
			}
			f.Close()
			if got := testutil.ToFloat64(f.lost.WithLabelValues("write")); got != float64(lost) {
				t.Errorf("%v are lost", got)
			}
			if got := testutil.ToFloat64(f.records.WithLabelValues(Decision)); got != float64(n-lost) {
				t.Errorf("%v are written", got)
			}
			want := "[mayfly-controller-1 Warning AuditRecordsLost: audit records are lost: write " + path + ": no space left on device]"
			if got := fmt.Sprint(f.events); got != want {
				t.Error(got)
			}
			if n := strings.Count(f.log.String(), `msg="audit records are lost" cause=write`); n != 1 {
				t.Errorf("the log says so %d times:\n%s", n, &f.log)
			}
			names := "[0 1 2 4 5 6 7]"
			if restart {
				names = "[0 1 2 after]"
				free()
				next := open(t, path, nil)
				next.Write(decision("after"))
				next.Close()
			}
			records, torn := written(t, read(t, path))
			var got []string
			for _, r := range records {
				got = append(got, r.Request.Name)
			}
			if fmt.Sprint(got) != names || len(torn) != 1 {
				t.Errorf("%q, %q", got, torn)
			}
		})
	}
}

// A file that can't be opened is opened anew for each record.
func TestAFileThatCannotBeOpened(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "record.log")
	f := open(t, path, nil)
	f.reported = func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	}
	f.Write(decision("lost"))
	f.Write(decision("written"))
	f.Close()
	if records, _ := written(t, read(t, path)); len(records) != 1 || records[0].Request.Name != "written" {
		t.Errorf("%+v", records)
	}
}

// A blocked is an output that nobody reads until it is told to go on.
type blocked struct {
	bytes.Buffer
	entered, on chan struct{}
}

func (b *blocked) Write(p []byte) (int, error) {
	select {
	case b.entered <- struct{}{}:
	default:
	}
	<-b.on
	return b.Buffer.Write(p)
}

// TestABlockedOutput: Write does not wait for an output that nobody reads, and what waits is bounded.
func TestABlockedOutput(t *testing.T) {
	for name, row := range map[string]struct {
		record Record
		most   int
	}{
		"by number": {Record{Audit: Decision}, maxQueued + 1},
		"by bytes":  {Record{Audit: Decision, Message: strings.Repeat("x", 1<<20)}, maxQueuedBytes >> 20},
	} {
		t.Run(name, func(t *testing.T) {
			out := &blocked{entered: make(chan struct{}, 1), on: make(chan struct{})}
			f := open(t, "-", out)
			f.Write(row.record)
			<-out.entered // The writing goroutine has it, and the queue is empty.
			for range row.most + 10 {
				f.Write(row.record)
			}
			close(out.on)
			f.Close()
			n, lost := testutil.ToFloat64(f.records.WithLabelValues(Decision)), testutil.ToFloat64(f.lost.WithLabelValues("queue"))
			if n+lost != float64(row.most+11) || n > float64(row.most) || n < float64(row.most)-1 {
				t.Errorf("%v are written and %v lost", n, lost)
			}
			if len(f.events) != 1 || !strings.HasSuffix(f.events[0], "records come faster than they are written") {
				t.Errorf("%q", f.events)
			}
		})
	}
}

// An output that takes no more is an error, as a pipe that was closed.
func TestAnOutputThatFails(t *testing.T) {
	r, w := io.Pipe()
	_ = r.CloseWithError(errors.New("closed"))
	f := open(t, "-", w)
	f.Write(decision("lost"))
	f.Close()
	if n := testutil.ToFloat64(f.lost.WithLabelValues("write")); n != 1 {
		t.Errorf("%v are lost", n)
	}
}

func TestWhatACertificateSays(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	uri, begin := &url.URL{Scheme: "spiffe", Host: "example.org", Path: "/ns/shop"}, time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0x0A1B2C), Subject: pkix.Name{CommonName: "web"}, NotBefore: begin, NotAfter: begin.Add(time.Hour),
		DNSNames: []string{"web.shop.svc"}, URIs: []*url.URL{uri}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1).To4()}, EmailAddresses: []string{"a@example.org"},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageEmailProtection}, UnknownExtKeyUsage: []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 99}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	want := Content{
		CommonName: "web", DNSNames: []string{"web.shop.svc"}, URIs: []string{"spiffe://example.org/ns/shop"}, IPs: []net.IP{net.IPv4(10, 0, 0, 1).To4()},
		Emails: []string{"a@example.org"}, Usages: []signer.Usage{"digital signature", "cert sign", "server auth", "email protection", "1.3.6.1.5.5.7.3.99"},
		IsCA: true, KeySHA256: fmt.Sprintf("%x", sha256.Sum256(spki)),
	}
	content, validity := OfCertificate(leaf)
	if !reflect.DeepEqual(content, want) {
		t.Errorf("%+v", content)
	}
	if validity != (Validity{"0A1B2C", begin, begin.Add(time.Hour)}) {
		t.Errorf("%+v", validity)
	}
	leaf.SerialNumber = new(big.Int)
	if _, validity := OfCertificate(leaf); validity.Serial != "00" {
		t.Errorf("serial %q", validity.Serial)
	}

	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: template.Subject, DNSNames: template.DNSNames, URIs: template.URIs, IPAddresses: template.IPAddresses, EmailAddresses: template.EmailAddresses,
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	if got := OfRequest(csr, want.Usages, true); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	long, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: slices.Repeat([]string{strings.Repeat("a", 63)}, maxDenied>>6)}, key)
	if err != nil {
		t.Fatal(err)
	}
	nothing := Content{Usages: want.Usages}
	for name, der := range map[string][]byte{"none": nil, "none that is understood": csr[:10], "a long one": long} {
		if got := OfDenied(der, want.Usages, false); !reflect.DeepEqual(got, nothing) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := OfRequest(long, nil, false); len(got.DNSNames) != maxDenied>>6 {
		t.Errorf("a long one that was approved: %d names", len(got.DNSNames))
	}
}

// TestReports: an output that fails for an hour is reported 60 times, whatever comes.
func TestReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		_ = r.CloseWithError(errors.New("closed"))
		f := open(t, "-", w)
		const n = 3600
		for range n {
			f.Write(decision("lost"))
			time.Sleep(time.Second)
		}
		f.Close()
		if got := testutil.ToFloat64(f.lost.WithLabelValues("write")); got != n || len(f.events) != 60 || strings.Count(f.log.String(), "\n") != 60 {
			t.Errorf("%v are lost, %d events:\n%s", got, len(f.events), &f.log)
		}
	})
}
