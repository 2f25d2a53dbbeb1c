package e2e

import (
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// workload is the image of the stories' pods.
const workload = "workload:devel"

// A change makes a pod differ from the usual one.
type change func(*corev1.PodSpec)

// pod is a pod of the workload, with a volume at /tls: an hour's certificate of the issuer `ca` for the pod's name, as files and as a bundle.
func pod(name string, changes ...change) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}}, Spec: podSpec(changes...)}
}

func podSpec(changes ...change) corev1.PodSpec {
	spec := corev1.PodSpec{
		TerminationGracePeriodSeconds: new(int64(1)),
		Containers:                    []corev1.Container{container("app")},
		Volumes:                       []corev1.Volume{volume("tls")},
	}
	for _, c := range changes {
		c(&spec)
	}
	return spec
}

// container is one of the workload that serves, or runs what it is told.
func container(name string, command ...string) corev1.Container {
	return corev1.Container{
		Name: name, Image: workload, ImagePullPolicy: corev1.PullNever, Command: command,
		VolumeMounts: []corev1.VolumeMount{{Name: "tls", MountPath: "/tls", ReadOnly: true}},
	}
}

// volume is Mayfly's, with the usual attributes and those that are given: "duration=1m".
func volume(name string, attributes ...string) corev1.Volume {
	all := map[string]string{
		"csi.mayfly.dev/issuer-name": "ca",
		"csi.mayfly.dev/dns-names":   "${POD_NAME}.${POD_NAMESPACE}.svc",
		"csi.mayfly.dev/uri-sans":    "spiffe://mayfly.test/ns/${POD_NAMESPACE}/sa/${SERVICE_ACCOUNT_NAME}",
		"csi.mayfly.dev/layout":      "pem,bundle",
	}
	maps.Copy(all, parse(attributes))
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
		Driver: "csi.mayfly.dev", ReadOnly: new(true), VolumeAttributes: all,
	}}}
}

func parse(attributes []string) map[string]string {
	parsed := map[string]string{}
	for _, a := range attributes {
		key, value, _ := strings.Cut(a, "=")
		parsed["csi.mayfly.dev/"+key] = value
	}
	return parsed
}

// asks sets attributes of the volume.
func asks(attributes ...string) change {
	return func(spec *corev1.PodSpec) { spec.Volumes = []corev1.Volume{volume("tls", attributes...)} }
}

// on puts the pod on a node.
func on(node string) change {
	return func(spec *corev1.PodSpec) { spec.NodeSelector = map[string]string{corev1.LabelHostname: node} }
}

// as runs the pod's containers as a user, with an fsGroup unless it is 0.
func as(user, fsGroup int64) change {
	return func(spec *corev1.PodSpec) {
		spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user, RunAsGroup: &user}
		if fsGroup != 0 {
			spec.SecurityContext.FSGroup = &fsGroup
		}
	}
}
