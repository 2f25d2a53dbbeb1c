package cluster_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A contender is one of the controllers of a test.
type contender struct {
	*testing.T
	process *exec.Cmd
	log     text
	address string // Of its metrics.
}

func startReplica(t *testing.T) *contender {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &contender{T: t, address: listener.Addr().String()}
	_ = listener.Close()
	r.process, r.log = startController(t, "--metrics-address="+r.address)
	t.Cleanup(func() { _ = r.process.Process.Kill() })
	return r
}

// end stops the replica by a signal.
func (r *contender) end(by syscall.Signal) {
	r.Helper()
	_ = r.process.Process.Signal(by)
	err := r.process.Wait()
	if by == syscall.SIGTERM && err != nil || strings.Contains(r.log.String(), "DATA RACE") {
		r.Errorf("the controller ended with %v:\n%s", err, r.log)
	}
}

// looked returns how many times the replica has looked at a request.
func (r *contender) looked() (n int) {
	client := &http.Client{Timeout: 5 * time.Second}
	response, err := client.Get("http://" + r.address + "/metrics")
	if err != nil {
		return 0
	}
	defer response.Body.Close() //nolint:errcheck // It is read.
	body, _ := io.ReadAll(response.Body)
	const name = `controller_runtime_reconcile_total{controller="certificaterequests",result="success"} `
	if _, text, ok := strings.Cut(string(body), name); ok {
		_, _ = fmt.Sscan(text, &n)
	}
	return n
}

// controllersRequests returns what the controllers have asked of the API server about a namespace, and how often: "get
// pods".
func controllersRequests(t *testing.T, namespace string) map[string]int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(shared.Dir, "logs", "control-plane", "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int{}
	for line := range bytes.Lines(text) {
		var e struct {
			Verb      string
			User      struct{ Username string }
			ObjectRef struct{ Resource, Subresource, Namespace string }
		}
		if json.Unmarshal(line, &e) == nil && e.User.Username == controllerAccount && e.ObjectRef.Namespace == namespace {
			all[strings.TrimSuffix(e.Verb+" "+e.ObjectRef.Resource+"/"+e.ObjectRef.Subresource, "/")]++
		}
	}
	return all
}

// replicas: of two replicas one decides first, so that a decision costs the API server what it costs with one: the pod
// is read, and the decision written. Where the first is killed the other decides.
func replicas(t *testing.T) {
	leases := func() int { return controllersRequests(t, "mayfly-system")["get leases"] }
	first := startReplica(t)
	until(t, "the first replica holds the Lease", func() bool { return strings.Contains(first.log.String(), `"audit":"gap"`) })
	read := leases()
	second := startReplica(t)
	until(t, "the second one knows of it", func() bool { return leases() > read })

	const n = 5
	round := func() *stage {
		s := newStage(t)
		for i := range n {
			name := fmt.Sprint("web-", i)
			s.ask(s.pod(name), name)
		}
		for i := range n {
			s.decided(fmt.Sprint("web-", i), "Approved VerifiedByMayfly")
		}
		return s
	}
	want := map[string]int{"get pods": n, "patch certificaterequests/status": n}
	until(t, fmt.Sprintf("%d decisions cost %v", n, want), func() bool { // Not where the first one takes a second.
		before := second.looked()
		s := round()
		for i := range n {
			until(t, "the certificate", func() bool {
				cr, err := shared.CertManager.CertmanagerV1().CertificateRequests(s.namespace).
					Get(t.Context(), fmt.Sprint("web-", i), metav1.GetOptions{})
				return err == nil && len(cr.Status.Certificate) > 0
			})
		}
		until(t, "the second replica looks at the requests", func() bool { return second.looked() >= before+n })
		got := controllersRequests(t, s.namespace)
		t.Logf("%d decisions: %v", n, got)
		return maps.Equal(got, want)
	})

	first.end(syscall.SIGKILL)
	round()
	if !strings.Contains(second.log.String(), `"decision":"approved"`) {
		t.Errorf("the second replica has decided nothing:\n%s", second.log)
	}
	second.end(syscall.SIGTERM)
}
