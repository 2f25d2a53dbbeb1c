package driver_test

import (
	"context"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/pod"
	"github.com/mayfly-csi/mayfly/driver/trust"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/certmanager"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// An underWay is something that has begun for a volume and ends only with its context.
type underWay struct {
	edit   func(*driver.Config)
	volume kubelet.Volume
	begin  func(t *testing.T, n *node, v kubelet.Volume) // Returns when it has begun.
	failed bool                                          // An attempt failed before.
}

// silentProfiles can't be read while there are none.
type silentProfiles struct {
	*someProfiles
	asked chan struct{}
}

func (p silentProfiles) Get(ctx context.Context) (*volume.Profiles, error) {
	if now, _ := p.someProfiles.Get(ctx); now != nil {
		return now, nil
	}
	select {
	case p.asked <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// published begins a publish call, which may not succeed before the test's end: its answer has these words.
func published(t *testing.T, n *node, v kubelet.Volume, words string) {
	t.Helper()
	var call sync.WaitGroup
	call.Go(func() {
		_, err := n.Publish(context.Background(), n.driver, v)
		if err == nil || kubelet.Final(err) || !strings.Contains(err.Error(), words) {
			t.Errorf("the publish call: %v, want %q", err, words)
		}
	})
	t.Cleanup(call.Wait)
}

// begun reports whether an attempt is on record.
func (n *node) begun(v kubelet.Volume) func() bool {
	return func() bool { return exists(n.t, n.inState(v, "record.json")) && n.record(v).Attempt != "" }
}

// silentServer returns an API server that takes connections and never answers.
func silentServer(t *testing.T) *rest.Config {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return &rest.Config{Host: "http://" + l.Addr().String()}
}

// allUnderWay returns what can be under way, by its name.
func allUnderWay(t *testing.T) map[string]underWay {
	t.Helper()
	pods, profiles := newPods(), silentProfiles{&someProfiles{}, make(chan struct{}, 1)}
	asked := func(n *node, times int) func() bool { return func() bool { return len(n.signer.asked()) == times } }
	return map[string]underWay{
		"a publish call whose signer is silent": {volume: web(), begin: func(t *testing.T, n *node, v kubelet.Volume) {
			n.signer.from(hang)
			published(t, n, v, "still waiting for approval")
			until(t, "the signer is asked", asked(n, 1))
		}},
		"a renewal whose signer is silent": {volume: web(), begin: func(t *testing.T, n *node, v kubelet.Volume) {
			n.publish(v)
			n.signer.from(hang)
			n.renew(v)
			until(t, "the signer is asked", asked(n, 2))
		}},
		"a publish call that waits for the next try": {failed: true, volume: web(), begin: func(t *testing.T, n *node, v kubelet.Volume) {
			n.signer.from(refuse(signer.Unavailable, "away"))
			n.fails(v, "away")
			published(t, n, v, "")
			until(t, "the second try", asked(n, 2))
		}},
		"a source of CA certificates that is missing": {
			edit: func(c *driver.Config) {
				w, err := trust.New(trust.Config{Files: map[string]string{"corp": "/does/not/exist"}, Log: c.Log})
				if err != nil {
					t.Fatal(err)
				}
				c.Trust, c.Defaults.TrustFiles = w, []string{"corp"}
			},
			volume: web(trusts + "file:corp"),
			begin: func(t *testing.T, n *node, v kubelet.Volume) {
				published(t, n, v, "/does/not/exist not found")
				until(t, "the attempt has begun", n.begun(v))
				until(t, "the source is read", func() bool {
					return n.log.count("no CA certificates from a trust source") > 0
				})
			},
		},
		"a pod without an IP": {
			edit: withPods(pods), volume: web(withIPs),
			begin: func(t *testing.T, n *node, v kubelet.Volume) {
				published(t, n, v, "the pod has no IP yet")
				until(t, "the pod is read", func() bool { return !pods.idle() })
			},
		},
		"an API server that is silent about a request": {
			edit: func(c *driver.Config) {
				s, err := certmanager.New(silentServer(t))
				if err != nil {
					t.Fatal(err)
				}
				c.Signer = s
			},
			volume: web(),
			begin: func(t *testing.T, n *node, v kubelet.Volume) {
				published(t, n, v, "signer unavailable: create CertificateRequest")
				until(t, "the attempt has begun", n.begun(v))
			},
		},
		"an API server that is silent about CA certificates": {
			edit: func(c *driver.Config) {
				w, err := trust.New(trust.Config{API: silentServer(t), Log: c.Log})
				if err != nil {
					t.Fatal(err)
				}
				c.Trust = w
			},
			volume: web(trusts + "cluster-trust-bundle:corp"),
			begin: func(t *testing.T, n *node, v kubelet.Volume) {
				published(t, n, v, "cluster-trust-bundle:corp")
				until(t, "the attempt has begun", n.begun(v))
			},
		},
		"an API server that is silent about pods": {
			edit: func(c *driver.Config) {
				r, err := pod.New(silentServer(t), c.NodeName)
				if err != nil {
					t.Fatal(err)
				}
				c.Pods = r
			},
			volume: web(withIPs),
			begin: func(t *testing.T, n *node, v kubelet.Volume) {
				published(t, n, v, "read pod shop/web-0")
				until(t, "the volume is there", func() bool { return exists(t, n.inState(v, "record.json")) })
			},
		},
		"profiles that can't be read": {
			edit: func(c *driver.Config) { c.Profiles = profiles }, volume: web(),
			begin: func(t *testing.T, n *node, v kubelet.Volume) {
				published(t, n, v, context.Canceled.Error())
				<-profiles.asked
			},
		},
	}
}

// The kubelet unpublishes the volume of a pod that goes: that waits for nothing. It takes milliseconds, and what is under
// way would take 15 seconds at least.
func TestUnpublishWaitsForNothing(t *testing.T) {
	t.Parallel()
	for name, row := range allUnderWay(t) {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, row.edit)
			row.begin(t, n, row.volume)
			begin := time.Now()
			n.unpublish(row.volume)
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
			n.empty()
			if failures := n.log.count("certificate not issued"); failures > 0 && !row.failed {
				t.Errorf("%d failures are in the log", failures)
			}
		})
	}
}

// A stop cancels what is under way, and that is no failure: neither for the volume's backoff nor in log and metrics. What
// is under way would take 15 seconds at least.
func TestAStopWaitsForNothing(t *testing.T) {
	t.Parallel()
	for name, row := range allUnderWay(t) {
		t.Run(name, func(t *testing.T) {
			var registry *prometheus.Registry
			n := newNode(t, func(c *driver.Config) {
				registry = prometheus.NewRegistry()
				c.Metrics = registry
				if row.edit != nil {
					row.edit(c)
				}
			})
			row.begin(t, n, row.volume)
			begin := time.Now()
			if err := n.stop(); err != nil {
				t.Error(err)
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
			if row.failed {
				n.signer.from(nil)
				n.start()
				pair(t, n.publish(row.volume))
				return
			}
			if exists(t, n.inState(row.volume, "record.json")) && n.record(row.volume).Failure != nil {
				t.Errorf("it counts as a failure: %+v", n.record(row.volume).Failure)
			}
			if failures := n.log.count("certificate not issued"); failures > 0 {
				t.Errorf("%d failures are in the log", failures)
			}
			failed := map[string]float64{"mayfly_attempts_failed_total": 0}
			if found := values(t, registry, failed); !maps.Equal(found, failed) {
				t.Errorf("failures are counted: %v", found)
			}
		})
	}
}

// A caller that hangs up is no failure of the signer: the attempt goes on without it, at once.
func TestACallerThatHangsUp(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.hangUp(v)
	until(t, "the attempt is over", func() bool { return n.log.count("certificate issued") == 1 })
	if asked := n.signer.asked(); len(asked) != 2 || asked[0].Attempt.ID != asked[1].Attempt.ID {
		t.Errorf("%d requests, not of one attempt", len(asked))
	}
	if n.log.count("certificate not issued") > 0 {
		t.Error("a failure is in the log")
	}
	pair(t, n.publish(v))
}

// A stop in the middle of a renewal does not make it use what was known of the pod: the next process reads that again.
func TestARenewalThatReadsThePodAtAStop(t *testing.T) {
	p := newPods("192.0.2.8")
	n := newNode(t, withPods(p))
	v := web(withIPs)
	n.publish(v)
	p.have()
	n.renew(v)
	until(t, "the pod is read", func() bool { return !p.idle() })
	if err := n.stop(); err != nil {
		t.Error(err)
	}
	if attempt := n.record(v).Attempt; attempt != "" {
		t.Errorf("attempt %s was begun", attempt)
	}
	if n.log.count("its recorded IPs are used") > 0 {
		t.Error("the recorded IPs are used")
	}
}

// Nor does it make it use what was known of the profiles.
func TestARenewalThatReadsProfilesAtAStop(t *testing.T) {
	p := silentProfiles{&someProfiles{now: &volume.Profiles{}}, make(chan struct{}, 1)}
	n := newNode(t, func(c *driver.Config) { c.Profiles = p })
	v := web()
	n.publish(v)
	p.set(nil, nil)
	n.renew(v)
	<-p.asked
	if err := n.stop(); err != nil {
		t.Error(err)
	}
	if attempt := n.record(v).Attempt; attempt != "" {
		t.Errorf("attempt %s was begun", attempt)
	}
	if n.log.count("the recorded profile of a volume is used") > 0 {
		t.Error("the recorded profile is used")
	}
}

// A call that is cancelled does not start a pod without its certificate.
func TestAPodThatIsReadAtAStop(t *testing.T) {
	p := newPods()
	n := newNode(t, withPods(p))
	p.mu.Lock()
	p.away = context.DeadlineExceeded
	p.mu.Unlock()
	v := web(withIPs, "csi.mayfly.dev/continue-on-not-ready=true")
	published(t, n, v, context.DeadlineExceeded.Error())
	until(t, "the pod is read", func() bool { return !p.idle() })
	if err := n.stop(); err != nil {
		t.Error(err)
	}
	if n.log.count("starts without its certificate") > 0 {
		t.Error("the pod starts without its certificate")
	}
}

func (l *logged) count(words string) int { return strings.Count(l.String(), words) }
