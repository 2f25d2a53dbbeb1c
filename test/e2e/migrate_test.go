package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The manifests of the move; csi-driver's data directory is the one of its chart.
const (
	csiDriver     = "testdata/csi-driver/templates" // A chart, as kubectl applies it.
	dropIn        = "../../manifests/drop-in"
	csiDriverData = "/tmp/cert-manager-csi-driver"
)

// Two nodes move from csi-driver as docs/migrate.md says, the first one back and again. No manifest of a pod changes.
func moved(s *story) {
	const replicas = 4
	s.csiDriver()
	s.deploy(replicas, ofCSIDriver("1m"))
	s.agents()
	agentA, agentB := s.agent("node-a"), s.agent("node-b")
	stays := s.onNode("node-b", s.readyPods(replicas))[0]

	s.prepareMove()
	first, firstB := s.leaf(agentA.Name), s.leaf(stays.Name)
	s.move("node-a")
	s.servedBy("csi-driver", s.onNode("node-b", s.readyPods(replicas))...)
	s.startsBy("Mayfly", "node-a")
	if s.agent("node-a").UID != agentA.UID || !s.leaf(agentA.Name).Equal(first) {
		s.Error("a pod that was not drained has another certificate")
	}
	s.replaced(agentA, "Mayfly") // It was never called for the volume before.

	s.moveBack("node-a")
	s.startsBy("csi-driver", "node-a")
	s.replaced(s.agent("node-a"), "csi-driver")
	s.move("node-a")
	s.replaced(s.agent("node-a"), "Mayfly")

	s.until("the old driver to renew on node-b", func(context.Context) error {
		if s.leaf(stays.Name).Equal(firstB) {
			return errors.New("the pod has the certificate that it had")
		}
		return nil
	})
	s.servedBy("csi-driver", stays)
	s.untroubled(stays.Name)
	s.move("node-b")
	s.servedBy("Mayfly", s.onNode("node-a", s.readyPods(replicas))...)
	s.startsBy("Mayfly", "node-b")
	s.republished(agentB)

	s.withoutCSIDriver()
	for _, pod := range s.readyPods(replicas) {
		s.untroubled(pod.Name)
	}
	unchanged(s)
	s.nothingLeft()
}

// csiDriver installs the played csi-driver. At the end of the story pods go first, then their drivers.
func (s *story) csiDriver() {
	s.Helper()
	ctx := context.WithoutCancel(s.Context())
	if err := importProgram(ctx, "olddriver:devel", "../olddriver"); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		s.must("label", "node", "--all", "mayfly-")
		s.patchMayfly(`{"nodeSelector": {"mayfly": null}}`)
		s.must("delete", "--ignore-not-found", "--filename", dropIn)
		s.configure("MAYFLY_DRIVER_NAME-", "MAYFLY_ISSUER_NAME-", "MAYFLY_ISSUER_KIND-")
	})
	s.Cleanup(func() {
		s.must("uncordon", "node-a", "node-b")
		s.must("label", "node", "--all", "--overwrite", "mayfly=true")
		s.must("delete", "deployment,daemonset", "--all", "--cascade=foreground")
	})
	s.must("apply", "--filename", csiDriver)
	s.must("rollout", "status", "daemonset/cert-manager-csi-driver", "--timeout=2m")
}

// must runs kubectl in the story's namespace, also at its end.
func (s *story) must(args ...string) string {
	s.Helper()
	out, err := shared.Kubectl(context.WithoutCancel(s.Context()), append([]string{"--namespace", s.namespace}, args...)...)
	if err != nil {
		s.Error(err)
	}
	return out
}

// ofCSIDriver makes the volume one of csi-driver, for the usual name.
func ofCSIDriver(duration string) change {
	return func(spec *corev1.PodSpec) {
		written("csi.cert-manager.io", map[string]string{
			"csi.cert-manager.io/issuer-name": "ca", "csi.cert-manager.io/dns-names": "${POD_NAME}.${POD_NAMESPACE}.svc",
			"csi.cert-manager.io/duration": duration,
		})(spec)
		spec.Containers[0].Command, spec.Containers[0].Env = nil, []corev1.EnvVar{{Name: "TWO_FILES", Value: "true"}}
	}
}

// agents has a pod of a DaemonSet on every node: no drain removes it.
func (s *story) agents() {
	s.Helper()
	template := pod("agent", ofCSIDriver("1h"))
	_, err := shared.Client.AppsV1().DaemonSets(s.namespace).Create(s.Context(), &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "agent"},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: template.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: template.Labels}, Spec: template.Spec},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
}

// agent waits until the agent on a node is ready.
func (s *story) agent(node string) (agent *corev1.Pod) {
	s.Helper()
	s.until("the agent on "+node, func(ctx context.Context) error {
		pods, err := podsOn(ctx, node, s.namespace, "app=agent")
		if err != nil {
			return err
		}
		if len(pods) != 1 || !isReady(&pods[0]) {
			return fmt.Errorf("there are %d pods, or it is not ready", len(pods))
		}
		agent = &pods[0]
		return nil
	})
	return agent
}

func podsOn(ctx context.Context, node, namespace, label string) ([]corev1.Pod, error) {
	pods, err := shared.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: label, FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		return nil, err
	}
	return pods.Items, nil
}

// onNode returns those of the pods that are on a node; it must have one.
func (s *story) onNode(node string, pods []corev1.Pod) []corev1.Pod {
	s.Helper()
	on := slices.DeleteFunc(slices.Clone(pods), func(p corev1.Pod) bool { return p.Spec.NodeName != node })
	if len(on) == 0 {
		s.Fatalf("no pod is on %s", node)
	}
	return on
}

// servedBy demands that a driver has issued the certificates of pods.
func (s *story) servedBy(driver string, pods ...corev1.Pod) {
	s.Helper()
	for _, pod := range pods {
		by := "Mayfly"
		if o := s.leaf(pod.Name).Subject.Organization; len(o) > 0 {
			by = o[0]
		}
		if by != driver {
			s.Errorf("pod %s on %s has its certificate from %s, want %s", pod.Name, pod.Spec.NodeName, by, driver)
		}
	}
}

// startsBy demands that a driver serves a pod that is new on a node.
func (s *story) startsBy(driver, node string) {
	s.Helper()
	s.start(pod("new", on(node), ofCSIDriver("1m")))
	s.servedBy(driver, *s.ready("new"))
	s.delete("new")
}

// replaced deletes an agent, whose volume another driver may have mounted, and demands that a driver serves the next one.
func (s *story) replaced(agent *corev1.Pod, driver string) {
	s.Helper()
	s.delete(agent.Name)
	s.unmounted(agent)
	s.servedBy(driver, *s.agent(agent.Spec.NodeName))
}

// prepareMove is steps 1 and 2: each driver keeps to its nodes, which a label tells apart.
func (s *story) prepareMove() {
	s.Helper()
	s.must("patch", "daemonset", "cert-manager-csi-driver", "--patch", `{"spec": {"template": {"spec": {"affinity": {"nodeAffinity": {
		"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "mayfly", "operator": "DoesNotExist"}]}]}}}}}}}`)
	s.must("rollout", "status", "daemonset/cert-manager-csi-driver", "--timeout=2m")
	s.patchMayfly(`{"nodeSelector": {"mayfly": "true"}, "containers": [{"name": "mayfly", "env": [
		{"name": "MAYFLY_DRIVER_NAME", "value": "csi.mayfly.dev,csi.cert-manager.io,spiffe.csi.cert-manager.io"},
		{"name": "MAYFLY_ISSUER_NAME", "value": "ca"}, {"name": "MAYFLY_ISSUER_KIND", "value": "Issuer"}]}]}`)
}

// patchMayfly changes the pods of Mayfly's DaemonSet, and waits until each node has the one that it should have.
func (s *story) patchMayfly(spec string) {
	s.Helper()
	s.must("patch", "--namespace", mayfly, "daemonset", "mayfly", "--patch", `{"spec": {"template": {"spec": `+spec+`}}}`)
	if err := shared.WaitMayfly(context.WithoutCancel(s.Context())); err != nil {
		s.Error(err)
	}
}

// move is step 4 for a node, without its agents.
func (s *story) move(node string) {
	s.Helper()
	s.change(node, "mayfly=true", mayfly)
}

// moveBack is step 5 for a node, without its agents.
func (s *story) moveBack(node string) {
	s.Helper()
	s.change(node, "mayfly-", s.namespace)
}

// change drains a node, labels it, and lets pods come back when the driver of a namespace is there, and the other one gone.
func (s *story) change(node, label, namespace string) {
	s.Helper()
	s.must("drain", "--ignore-daemonsets", "--timeout=2m", node)
	s.must("label", "node", node, label)
	s.until("the drivers to change on "+node, func(ctx context.Context) error {
		ours, err := podsOn(ctx, node, mayfly, "app.kubernetes.io/name=mayfly")
		theirs, failed := podsOn(ctx, node, s.namespace, "app=cert-manager-csi-driver")
		there := slices.Concat(ours, theirs)
		if err := errors.Join(err, failed); err != nil {
			return err
		}
		if len(there) != 1 || there[0].Namespace != namespace || !isReady(&there[0]) {
			return fmt.Errorf("there are %d drivers, or the one of %s is not ready", len(there), namespace)
		}
		return nil
	})
	s.must("uncordon", node)
}

// republished has the kubelet call for a volume of the old driver's, as it does all the time for a csi-driver with --use-token-request. The pod is told
// that its container keeps what it had, until it starts again.
func (s *story) republished(agent *corev1.Pod) {
	s.Helper()
	before := s.leaf(agent.Name)
	s.must("patch", "csidriver", "csi.cert-manager.io", "--patch", `{"spec": {"requiresRepublish": true, "tokenRequests": [{"audience": "", "expirationSeconds": 3600}]}}`)
	s.until("the kubelet to call", func(context.Context) error {
		if _, err := s.kubectl("annotate", "--overwrite", "pod", agent.Name, "story/synced="+metav1.Now().String()); err != nil {
			return err
		}
		text, err := s.kubectl("describe", "pod", agent.Name)
		if err == nil && !strings.Contains(text, "VolumeReplaced") {
			err = errors.New(text)
		}
		return err
	})
	if !s.leaf(agent.Name).Equal(before) {
		s.Error("a container that runs has another certificate")
	}
	_, _ = s.exec(agent.Name, "kill", "1") // The connection ends with the container.
	s.until("the container to start again", func(context.Context) error {
		if s.agent(agent.Spec.NodeName).Status.ContainerStatuses[0].RestartCount == 0 {
			return errors.New("it runs")
		}
		return nil
	})
	s.servedBy("Mayfly", *agent)
}

// withoutCSIDriver is steps 6 and 7: csi-driver goes, and what it leaves on the nodes.
func (s *story) withoutCSIDriver() {
	s.Helper()
	s.must("delete", "--filename", csiDriver)
	s.must("apply", "--filename", dropIn)
	s.patchMayfly(`{"nodeSelector": {"mayfly": null}}`)
	s.csiDriverCleaned()
}

// csiDriverCleaned removes what csi-driver leaves on the nodes.
func (s *story) csiDriverCleaned() {
	s.Helper()
	for _, node := range shared.Nodes {
		for _, argv := range [][]string{
			{"umount", csiDriverData + "/inmemfs"}, {"rm", "-r", csiDriverData, "/var/lib/kubelet/plugins/cert-manager-csi-driver"},
		} {
			if out, err := shared.Node(node).Command(s.Context(), argv...).CombinedOutput(); err != nil {
				s.Errorf("%v on %s: %s (%v)", argv, node, out, err)
			}
		}
	}
}
