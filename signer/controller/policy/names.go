package policy

import "github.com/mayfly-csi/mayfly/signer"

// Names returns the names of the policies that count for the pod: those that select it.
func (s Set) Names(pod signer.Pod) (names []string) {
	for _, r := range s.about(pod) {
		names = append(names, r.Name)
	}
	return names
}
