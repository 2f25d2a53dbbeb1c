package status

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
	"github.com/mayfly-csi/mayfly/signer/message"
)

// counts are what policies select, by their names; or why that is not known.
type counts struct {
	of  map[string]policy.Count
	err error
}

// describe writes a rule's status into s. A condition that stays as it is keeps its time.
func describe(s *v1alpha1.Status, among policy.Set, r policy.Rule, counted counts) {
	s.ObservedGeneration = r.Generation
	s.ServiceAccounts, s.Namespaces = nil, nil
	if counted.err == nil {
		count := counted.of[r.Name]
		s.ServiceAccounts, s.Namespaces = &count.Accounts, &count.Namespaces
	}
	for _, c := range []metav1.Condition{understood(r), selecting(r, counted), avoidable(among, r)} {
		c.ObservedGeneration = r.Generation
		c.Message = message.Cut(c.Message, message.Longest)
		meta.SetStatusCondition(&s.Conditions, c)
	}
}

func understood(r policy.Rule) metav1.Condition {
	if r.Err != nil {
		return condition(v1alpha1.Understood, metav1.ConditionFalse, "Mistake",
			fmt.Sprintf("It allows nothing to the pods that it selects: %v", r.Err))
	}
	return condition(v1alpha1.Understood, metav1.ConditionTrue, "InForce", "It is in force.")
}

func selecting(r policy.Rule, counted counts) metav1.Condition {
	count := counted.of[r.Name]
	switch {
	case counted.err != nil:
		return condition(v1alpha1.Selecting, metav1.ConditionUnknown, "NotCounted", counted.err.Error())
	case count.Accounts == 0:
		return condition(v1alpha1.Selecting, metav1.ConditionFalse, "NoServiceAccount",
			"No service account of the cluster is one that it counts for.")
	}
	return condition(v1alpha1.Selecting, metav1.ConditionTrue, "ServiceAccounts",
		fmt.Sprintf("It counts for pods of %d service accounts in %d namespaces.", count.Accounts, count.Namespaces))
}

func avoidable(among policy.Set, r policy.Rule) metav1.Condition {
	if left := among.Left(r); left != "" {
		return condition(v1alpha1.Avoidable, metav1.ConditionTrue, "OtherServiceAccount", left)
	}
	return condition(v1alpha1.Avoidable, metav1.ConditionFalse, "EveryServiceAccount",
		"Policies select the pods of its namespaces, whichever service account they name.")
}

func condition(kind string, is metav1.ConditionStatus, reason, text string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: is, Reason: reason, Message: text}
}
