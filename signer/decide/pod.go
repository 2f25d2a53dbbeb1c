package decide

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer"
)

// Dead returns why a pod gets no certificate any more, or never does; empty: it runs, or is about to.
func Dead(pod *corev1.Pod) string {
	switch {
	case mirror(pod):
		return fmt.Sprintf("pod %s is a mirror pod: node %s itself says what it is", pod.Name, pod.Spec.NodeName)
	case pod.DeletionTimestamp != nil:
		return fmt.Sprintf("pod %s is being deleted", pod.Name)
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return fmt.Sprintf("pod %s has ended: it is %s", pod.Name, pod.Status.Phase)
	}
	return ""
}

// mirror reports whether the pod is what a kubelet says of a pod that it has from a file. The API server lets a node
// create no other pods (kubernetes plugin/pkg/admission/noderestriction, admitPodCreate), and those carry the
// annotation and are owned by the node.
func mirror(pod *corev1.Pod) bool {
	_, annotated := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return annotated || slices.ContainsFunc(pod.OwnerReferences, func(o metav1.OwnerReference) bool {
		return o.Kind == "Node" && o.APIVersion == "v1"
	})
}

// identity returns the pod as node plugins know it.
func identity(pod *corev1.Pod) signer.Pod {
	return signer.Pod{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID),
		ServiceAccount: pod.Spec.ServiceAccountName, Node: pod.Spec.NodeName,
	}
}

// ips returns the pod's IPs, as its node says.
func ips(pod *corev1.Pod) (texts []string) {
	for _, ip := range pod.Status.PodIPs {
		texts = append(texts, ip.IP)
	}
	return texts
}
