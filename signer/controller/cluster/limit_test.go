package cluster

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/mayfly-csi/mayfly/signer/controller/audit"
	"github.com/mayfly-csi/mayfly/signer/controller/audit/audittest"
)

// events keeps those of nodes.
type events []string

func (e *events) Eventf(regarding, _ runtime.Object, _, reason, _, note string, args ...any) {
	name := "no node"
	if node, ok := regarding.(*corev1.Node); ok {
		name = node.Name + " " + string(node.UID)
	}
	*e = append(*e, fmt.Sprintf("%s: %s: %s", name, reason, fmt.Sprintf(note, args...)))
}

// asks is a request of a node for a pod of a namespace.
func asks(node, namespace string) audit.Record {
	return audit.Record{
		Mode: audit.Driver, Request: &audit.Request{Kind: "CertificateRequest", Name: "web-1", UID: "1"},
		Pod: audit.Pod{Namespace: namespace, Name: "web", Node: node}, Issuer: &audit.Issuer{Name: "ca"},
	}
}

func TestANodeHasItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		record, told := audittest.Open(t), &events{}
		l := NewLimits(LimitsConfig{
			Rate: 8, Events: told, Audit: record.Log, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
		})
		// decided returns how many of n requests are decided on now. The namespaces differ.
		decided := func(node string, n int) (passed int) {
			for i := range n {
				if l.Wait(asks(node, fmt.Sprint("n", i)), time.Now()) == 0 {
					passed++
				}
			}
			return passed
		}
		if got := decided("a", 1000); got != 800 {
			t.Errorf("%d at once", got)
		}
		if got := decided("b", 10); got != 10 {
			t.Errorf("%d of another node", got)
		}
		time.Sleep(time.Second)
		if got := decided("a", 1000); got != 8 {
			t.Errorf("%d after a second", got)
		}
		want := []string{"a a: TooManyRequests: node a asks for more than 8 certificates a second: the others wait"}
		if !slices.Equal(*told, want) { // Once a minute.
			t.Errorf("%q", *told)
		}
		time.Sleep(time.Minute)
		if decided("a", 1000); !slices.Equal(*told, append(want, want...)) {
			t.Errorf("%q", *told)
		}
		if got := testutil.ToFloat64(l.limited.WithLabelValues("a")); got != 3000-800-8-480 {
			t.Errorf("%v waited", got)
		}
		all, _ := record.Read(t)
		if len(all) != 2 || all[0].Audit != audit.Limit || all[0].Reason != TooManyRequests || all[0].Node != "a" ||
			all[0].Message != strings.TrimPrefix(want[0], "a a: TooManyRequests: ") || all[0].Issuer != nil {
			t.Errorf("%+v", all)
		}
	})
}

// A namespace with many pods on a node leaves the others most of the node's share.
func TestANamespaceHasItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := &events{}
		l := NewLimits(LimitsConfig{Rate: 8, Events: told, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
		passed := 0
		for range 1000 {
			if l.Wait(asks("a", "shop"), time.Now()) == 0 {
				passed++
			}
		}
		if passed != 200 || l.Wait(asks("a", "bank"), time.Now()) != 0 || l.Wait(asks("b", "shop"), time.Now()) != 0 {
			t.Errorf("%d at once", passed)
		}
		want := []string{"a a: TooManyRequests: node a asks for more than 2 certificates a second for pods of namespace shop: the others wait"}
		if !slices.Equal(*told, want) {
			t.Errorf("%q", *told)
		}
	})
}

// A request is looked at again after as long as it has waited, within bounds.
func TestHowLongARequestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimits(LimitsConfig{Rate: 4, Events: &events{}, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
		for l.Wait(asks("", "shop"), time.Now()) == 0 { // Of no known node: those share one.
		}
		for age, want := range map[time.Duration]time.Duration{
			-time.Minute: soonest, 0: soonest, time.Second: time.Second, time.Hour: latest,
		} {
			if got := l.Wait(asks("", "shop"), time.Now().Add(-age)); got != want {
				t.Errorf("after %s: %s, want %s", age, got, want)
			}
		}
		if got := (*Limits)(nil).Wait(asks("a", "shop"), time.Now()); got != 0 {
			t.Errorf("no limits: %s", got)
		}
	})
}
