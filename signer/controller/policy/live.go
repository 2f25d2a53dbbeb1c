package policy

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
)

// Live are the policies of a cluster as they are now. Make one with [NewLive].
type Live struct {
	compiler *Compiler
	cache    client.Reader
	changed  func()
	invalid  prometheus.Gauge
	log      *slog.Logger

	mu    sync.Mutex
	known map[types.UID]compiled // What was compiled.
	set   Set
}

// compiled is one version of a policy.
type compiled struct {
	generation int64
	rule       Rule
}

// NewLive returns the policies that a cache has, which waits until it has them all. It calls changed when they are
// others, which must not wait for them.
func NewLive(
	standard Policy, cache client.Reader, changed func(), metrics prometheus.Registerer, log *slog.Logger,
) (*Live, error) {
	compiler, err := NewCompiler(standard)
	if err != nil {
		return nil, err
	}
	l := &Live{compiler: compiler, cache: cache, changed: changed, log: log, set: compiler.set(nil)}
	l.invalid = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "mayfly_controller_policies_invalid",
		Help: "CertificatePolicies with a mistake, which allow nothing to the pods that they select.",
	})
	if err := metrics.Register(l.invalid); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return l, nil
}

// Add makes the manager keep the policies up to date, in every replica, so that their mistakes are told when they are
// made.
func (l *Live) Add(to manager.Manager) error {
	everywhere := false
	err := builder.ControllerManagedBy(to).Named("policies").For(&v1alpha1.CertificatePolicy{}).
		WithOptions(controller.Options{NeedLeaderElection: &everywhere}).
		Complete(l)
	if err != nil {
		return fmt.Errorf("add the policies: %w", err)
	}
	return nil
}

// Reconcile looks at the policies when one of them has changed.
func (l *Live) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	_, err := l.Get(ctx)
	return reconcile.Result{}, err
}

// patience is how long a decision waits for the policies, which come with the start.
const patience = 10 * time.Second

// Get returns the policies of now. Until they are known it waits: where they are not, nothing may be decided.
func (l *Live) Get(ctx context.Context) (Set, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var list v1alpha1.CertificatePolicyList
	if err := l.cache.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return Set{}, fmt.Errorf("read the CertificatePolicies: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.differ(list.Items) {
		l.take(list.Items)
	}
	return l.set, nil
}

func (l *Live) differ(policies []v1alpha1.CertificatePolicy) bool {
	return len(policies) != len(l.known) || slices.ContainsFunc(policies, func(p v1alpha1.CertificatePolicy) bool {
		known, ok := l.known[p.UID]
		return !ok || known.generation != p.Generation
	})
}

// take compiles what has changed. The lock must be held.
func (l *Live) take(policies []v1alpha1.CertificatePolicy) {
	known, invalid := map[types.UID]compiled{}, 0
	var rules []Rule
	for _, p := range policies {
		v, ok := l.known[p.UID]
		if !ok || v.generation != p.Generation {
			v = l.compile(p)
		}
		if v.rule.Err != nil {
			invalid++
		}
		known[p.UID] = v
		rules = append(rules, v.rule)
	}
	l.known, l.set = known, l.compiler.set(rules)
	l.invalid.Set(float64(invalid))
	l.changed()
}

func (l *Live) compile(p v1alpha1.CertificatePolicy) compiled {
	v := compiled{p.Generation, l.compiler.Compile(p)}
	if v.rule.Err != nil {
		l.log.Error("a CertificatePolicy has a mistake, and allows nothing to the pods that it selects",
			"policy", p.Name, "error", v.rule.Err)
	} else {
		l.log.Info("CertificatePolicy read", "policy", p.Name, "generation", p.Generation)
	}
	return v
}
