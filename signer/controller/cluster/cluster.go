// Package cluster decides on requests by what the API server says now: [Decider] reads it, and package decide decides.
package cluster

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A Decider decides by the rules, profiles and policies of now, and by what the API server says now.
type Decider struct {
	Rules    decide.Rules
	Profiles Profiles      // nil: there are none.
	Policies Policies      // nil: the rules' own policy counts.
	Live     client.Reader // Of pods and nodes, from the API server itself: a cache may not know of a pod's end.
	Changes  *Changes      // Of policies and profiles; for controllers alone.
	Limits   *Limits       // Of each node's decisions; for controllers alone. nil: there are none.
}

// Profiles are what the operator sets for volumes, as it is now.
type Profiles interface {
	// Get waits until the profiles were read once. When ctx ends before, the error says why.
	Get(ctx context.Context) (*spec.Profiles, error)
}

// Policies are those of the cluster, as they are now.
type Policies interface {
	// Get waits until the policies are known. Where they are not, the error says why.
	Get(ctx context.Context) (policy.Set, error)
}

// Events write Events, for `kubectl describe`. client-go's recorder does.
type Events interface {
	Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any)
}

// profilesTimeout is how long a decision waits for the profiles, which come with the start.
const profilesTimeout = 10 * time.Second

// Decide reads what counts and decides. What can't be read is an error: it is no reason to deny.
func (d Decider) Decide(ctx context.Context, r decide.Request) (decide.Decision, error) {
	rules, err := d.rules(ctx)
	if err != nil {
		return decide.Decision{}, err
	}
	var pod *corev1.Pod
	if r.Pod != "" {
		pod, err = read(ctx, d.Live, client.ObjectKey{Namespace: r.Namespace, Name: r.Pod}, &corev1.Pod{})
		if err != nil {
			return decide.Decision{}, fmt.Errorf("read pod %s/%s: %w", r.Namespace, r.Pod, err)
		}
	}
	decision := decide.Decide(r, pod, nil, rules, time.Now())
	if decision.ByNode {
		// The API server answers from its cache: a node's ranges do not change.
		node, err := read(ctx, d.Live, client.ObjectKey{Name: pod.Spec.NodeName}, &corev1.Node{}, cached())
		if err != nil {
			return decide.Decision{}, fmt.Errorf("read node %s: %w", pod.Spec.NodeName, err)
		}
		decision = decide.Decide(r, pod, node, rules, time.Now())
	}
	if pod != nil && pod.UID == r.UID {
		decision.ServiceAccount = pod.Spec.ServiceAccountName
		if policies, ok := rules.Policy.(policy.Set); ok {
			decision.Policies = policies.Names(signer.Pod{
				Namespace: pod.Namespace, Name: pod.Name, ServiceAccount: pod.Spec.ServiceAccountName,
			})
		}
	}
	return decision, nil
}

// rules returns those of now.
func (d Decider) rules(ctx context.Context) (rules decide.Rules, err error) {
	rules = d.Rules
	if d.Policies != nil {
		if rules.Policy, err = d.Policies.Get(ctx); err != nil {
			return rules, err
		}
	}
	if d.Profiles != nil {
		ctx, cancel := context.WithTimeout(ctx, profilesTimeout)
		defer cancel()
		rules.Defaults.Live, err = d.Profiles.Get(ctx)
	}
	return rules, err
}

// cached makes the API server answer from its cache (kubernetes.io/docs/reference/using-api/api-concepts, resource
// versions).
func cached() client.GetOption {
	return &client.GetOptions{Raw: &metav1.GetOptions{ResourceVersion: "0"}}
}

// read returns an object; nil if there is none.
func read[T client.Object](
	ctx context.Context, from client.Reader, key client.ObjectKey, into T, options ...client.GetOption,
) (found T, err error) {
	err = from.Get(ctx, key, into, options...)
	if err != nil {
		return found, client.IgnoreNotFound(err)
	}
	return into, nil
}

// MaxCached is how many bytes of a request's metadata and content a cache keeps. One that has more is cut down there to
// what tells whose it is, and read anew when it is decided on: those of Mayfly's node plugins rarely have 4 KiB.
const MaxCached = 8 << 10

// Size returns how many bytes the labels and annotations of an object have, and other texts of it.
func Size(o client.Object, texts ...[]byte) (n int) {
	for _, all := range []map[string]string{o.GetLabels(), o.GetAnnotations()} {
		for key, value := range all {
			n += len(key) + len(value)
		}
	}
	for _, text := range texts {
		n += len(text)
	}
	return n
}

// Whole reads an object that was cut down in a cache into a list of its kind, which is empty if it is gone. Controllers
// have the right to list, and so need none to get.
func (d Decider) Whole(ctx context.Context, key client.ObjectKey, into client.ObjectList) error {
	err := d.Live.List(ctx, into, client.InNamespace(key.Namespace), client.MatchingFields{"metadata.name": key.Name})
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	return nil
}
