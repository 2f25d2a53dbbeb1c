package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A Set is the policies of a cluster at one time. It does not change. Make one with [Compiler.Set].
type Set struct {
	standard Policy // For pods that no rule selects.
	rules    []Rule
}

// Set returns the policies as they are at one time.
func (c *Compiler) Set(policies []v1alpha1.CertificatePolicy) Set {
	var rules []Rule
	for _, p := range policies {
		rules = append(rules, c.Compile(p))
	}
	return c.set(rules)
}

func (c *Compiler) set(rules []Rule) Set {
	slices.SortFunc(rules, func(a, b Rule) int { return cmp.Compare(a.Name, b.Name) })
	return Set{c.standard, rules}
}

// Check returns what the policies have against the volume; nil: one of those that select its pod allows all of it, or
// there are none such and the standard policy does. The error is in words for the pod's author, and speaks of the
// policy that has the least against the volume.
func (s Set) Check(v spec.Spec, of decide.Identity) error {
	rules := s.about(v.Pod)
	if len(rules) == 0 {
		return s.standard.Check(v, of)
	}
	var nearest problem.List
	var which Rule
	asked := newCandidate(v, of)
	for _, r := range rules {
		problems := r.against(asked)
		if len(problems) == 0 {
			return nil
		}
		nearer := len(problems) < len(nearest) || which.Err != nil
		if nearest == nil || nearer && r.Err == nil {
			nearest, which = problems, r
		}
	}
	name := which.Name
	if len(rules) > 1 {
		name += fmt.Sprintf(", the nearest of %d", len(rules))
	}
	return fmt.Errorf("CertificatePolicy %s: %w", name, nearest)
}

// Ranges returns where the pod's IPs may lie, besides where they are proved to be its own: a policy says so.
func (s Set) Ranges(pod signer.Pod) (ranges []netip.Prefix) {
	for _, r := range s.about(pod) {
		if r.Err == nil {
			ranges = append(ranges, r.ips...)
		}
	}
	return ranges
}

// about returns the rules that count for the pod: those that select it, or, without any, the default ones that do.
func (s Set) about(pod signer.Pod) []Rule {
	var rules, defaults []Rule
	for _, r := range s.rules {
		switch {
		case !r.selects(pod):
		case r.isDefault:
			defaults = append(defaults, r)
		default:
			rules = append(rules, r)
		}
	}
	if len(rules) == 0 {
		return defaults
	}
	return rules
}

// Names returns those of the policies that count for the pod; none: the standard policy does.
func (s Set) Names(pod signer.Pod) (names []string) {
	for _, r := range s.about(pod) {
		names = append(names, r.Name)
	}
	return names
}

// Rules returns the policies, by name.
func (s Set) Rules() []Rule { return slices.Clone(s.rules) }

// Count returns how many of the service accounts, and of their namespaces, each policy is about, by its name. Of a pod
// only its namespace and service account are read.
func (s Set) Count(accounts []signer.Pod) (counts map[string]Count) {
	counts, seen := map[string]Count{}, map[[2]string]bool{}
	for _, account := range accounts {
		for _, r := range s.about(account) {
			count := counts[r.Name]
			count.Accounts++
			if key := [2]string{r.Name, account.Namespace}; !seen[key] {
				seen[key] = true
				count.Namespaces++
			}
			counts[r.Name] = count
		}
	}
	return counts
}

// A Count is how many service accounts a policy is about, and in how many namespaces they are.
type Count struct{ Accounts, Namespaces int32 }

// Warnings returns, of each policy that a pod can leave by naming another service account, what the operator can do.
func (s Set) Warnings() (all []string) {
	for _, r := range s.rules {
		if left := s.Left(r); left != "" {
			all = append(all, fmt.Sprintf("CertificatePolicy %s: %s", r.Name, left))
		}
	}
	return all
}

// Left returns how a pod leaves a policy by naming another service account, and what the operator can do; empty: it
// can't.
func (s Set) Left(r Rule) string {
	left := r.left(s.rules)
	if len(left) == 0 {
		return ""
	}
	return fmt.Sprintf("pods of the namespaces %s leave it by naming another service account, and may then have their "+
		"own names: make a policy for those namespaces without serviceAccounts, too", several(left))
}

// left returns the rule's namespaces of which no rule selects the pods of every service account.
func (r Rule) left(rules []Rule) (left []pattern) {
	for _, namespace := range r.namespaces {
		if !slices.ContainsFunc(rules, func(other Rule) bool {
			every := len(other.accounts) == 0 || covered(other.accounts, "*")
			return every && (len(other.namespaces) == 0 || covered(other.namespaces, namespace.text))
		}) {
			left = append(left, namespace)
		}
	}
	return left
}
