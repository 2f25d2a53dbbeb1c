package cluster

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/lru"

	"github.com/mayfly-csi/mayfly/signer/controller/audit"
)

// LimitsConfig is what Limits are made of. All fields but Audit are required.
type LimitsConfig struct {
	Rate    int // Requests of a node that are decided in a second, on average.
	Events  Events
	Audit   *audit.Log // nil: none.
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// Limits keep each node to its share of a replica's decisions, and the namespaces of its pods to a part of that: who
// has a node's token holds up no other node, and who makes many pods of a namespace no other namespace of their nodes.
// What comes above waits, and an Event of the node, the audit record, the log and a metric say so. nil Limits let all
// pass. Make them with [NewLimits].
type Limits struct {
	LimitsConfig
	limited *prometheus.CounterVec

	mu     sync.Mutex
	shares *lru.Cache // By share's key.
}

// TooManyRequests is the reason for which requests wait.
const TooManyRequests = "TooManyRequests"

// LeastRate is the lowest rate of a node: a namespace then has one request a second.
const LeastRate = parts

const (
	parts     = 4       // A namespace has a quarter of its node's rate.
	atOnce    = 100     // Seconds' worth of requests that are decided at once, after a while without any.
	maxShares = 1 << 14 // Shares that are remembered. One that is forgotten begins anew.
	tellEvery = time.Minute
	// soonest and latest are when a request that waits is looked at again.
	soonest, latest = 250 * time.Millisecond, 10 * time.Second
)

// A share is what a node has, or a namespace of its pods.
type share struct {
	*rate.Limiter
	told rate.Sometimes
}

// NewLimits makes limits. It panics if the registry has their metric already.
func NewLimits(config LimitsConfig) *Limits {
	return &Limits{
		LimitsConfig: config, shares: lru.New(maxShares),
		limited: promauto.With(config.Metrics).NewCounterVec(prometheus.CounterOpts{
			Name: "mayfly_controller_limited_total",
			Help: "Times that a request had to wait for its decision because its node asks for too many, by the node.",
		}, []string{"node"}),
	}
}

// Wait returns when to look again at a request, of which the record says who asks for which pod; 0: it is to be decided
// on now.
func (l *Limits) Wait(of audit.Record, made time.Time) time.Duration {
	if l == nil {
		return 0
	}
	for _, namespace := range []string{of.Namespace, ""} {
		if s := l.share(of.Node, namespace); !s.Allow() {
			l.limited.WithLabelValues(of.Node).Inc()
			s.told.Do(func() { l.tell(of, namespace) })
			// After as long again as it has waited: how often requests are looked at in vain has a bound for each.
			return min(max(time.Since(made), soonest), latest)
		}
	}
	return 0
}

// perSecond returns the rate of a namespace of a node's pods, or of the node for an empty one.
func (l *Limits) perSecond(namespace string) int {
	if namespace == "" {
		return l.Rate
	}
	return l.Rate / parts
}

// share returns that of a namespace of a node's pods, or the node's for an empty one.
func (l *Limits) share(node, namespace string) *share {
	key := [2]string{node, namespace}
	l.mu.Lock()
	defer l.mu.Unlock()
	found, _ := l.shares.Get(key)
	if s, ok := found.(*share); ok {
		return s
	}
	n := l.perSecond(namespace)
	made := &share{rate.NewLimiter(rate.Limit(n), n*atOnce), rate.Sometimes{Interval: tellEvery}}
	l.shares.Add(key, made)
	return made
}

// tell says that requests of a node wait; the record is that of the first one.
func (l *Limits) tell(of audit.Record, namespace string) {
	whose := ""
	if namespace != "" {
		whose = " for pods of namespace " + namespace
	}
	text := fmt.Sprintf("node %s asks for more than %d certificates a second%s: the others wait",
		of.Node, l.perSecond(namespace), whose)
	of.Audit, of.Reason, of.Message, of.Issuer = audit.Limit, TooManyRequests, text, nil
	l.Audit.Write(of)
	l.Log.Warn(text, "reason", TooManyRequests, "request", of.Namespace+"/"+of.Request.Name)
	if of.Node == "" {
		return
	}
	// The UID is as kubelets have it in events of their nodes, by which kubectl describe finds them.
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: of.Node, UID: types.UID(of.Node)}}
	l.Events.Eventf(node, nil, corev1.EventTypeWarning, TooManyRequests, "Limit", "%s", text)
}
