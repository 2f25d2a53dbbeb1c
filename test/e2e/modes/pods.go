package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Who signs.
const (
	issuer = "ca"        // cert-manager's.
	ownCA  = "mayfly-ca" // The controller's.
)

// bare is a pod on the node. Nothing evicts it: the node's lease is never renewed.
func bare(name, account string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{
			NodeName: node, ServiceAccountName: account, TerminationGracePeriodSeconds: new(int64(0)),
			Containers:  []corev1.Container{{Name: "app", Image: "app"}},
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		},
	}
}

// pod is one with a volume that is signed by an issuer.
func pod(by string, i int) *corev1.Pod {
	p := bare(fmt.Sprintf("%s-%d", by, i), "default")
	attributes := map[string]string{
		"csi.mayfly.dev/issuer-name": by,
		"csi.mayfly.dev/dns-names":   "${POD_NAME}.${POD_NAMESPACE}.svc",
		"csi.mayfly.dev/duration":    "1h",
	}
	if by == ownCA {
		attributes["csi.mayfly.dev/issuer-kind"], attributes["csi.mayfly.dev/issuer-group"] = "CA", "csi.mayfly.dev"
	}
	p.Spec.Volumes = []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
		Driver: "csi.mayfly.dev", ReadOnly: new(true), VolumeAttributes: attributes,
	}}}}
	return p
}
