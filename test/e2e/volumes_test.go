package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// sample follows the README and CONTRIBUTING.md.
func sample(t *testing.T) {
	const dir = "../../manifests/sample/"
	t.Cleanup(func() {
		ctx := context.Background() // The test's own has ended.
		if t.Failed() {
			keepLogs(ctx, t)
		}
		// Its pod ignores SIGTERM.
		if _, err := shared.Kubectl(ctx, "delete", "--ignore-not-found", "--filename", dir, "--now"); err != nil {
			t.Error(err)
		}
		if _, err := shared.Kubectl(ctx, "delete", "--ignore-not-found", "secret", "internal-ca"); err != nil { // cert-manager keeps it.
			t.Error(err)
		}
	})
	if _, err := shared.Shell(t.Context(), checkout, documentedBlocks(t, readme, "sample", 1)[0]); err != nil {
		t.Fatal(err)
	}
	out, err := shared.Kubectl(t.Context(), "exec", "web", "--", "ls", "-l", "/tls")
	if err != nil || !containsAll(out, []string{"ca.crt", "tls.crt", "tls.key"}) {
		t.Errorf("%s (%v)", out, err)
	}
	if err := runDocumented(t.Context(), "../../CONTRIBUTING.md", "\n### A cluster on your machine\n", 4); err != nil {
		t.Error(err)
	}
}

func readers(s *story) {
	rows := []struct {
		pod     *corev1.Pod
		listing string // Mode, user and group of the key.
	}{
		{pod("root"), "444 0 0"},
		{pod("plain", as(1000, 0)), "444 0 0"},
		{pod("group", as(1000, 2000)), "440 0 2000"},
		{pod("mesh", as(1337, 1337)), "440 0 1337"},
		{pod("attribute", as(1000, 3000), asks("fs-group=2001"), inGroup(2001)), "440 0 2001"},
		{pod("container", as(1000, 2000), containerAs(999)), "440 0 2000"},
	}
	for _, row := range rows {
		on("node-a")(&row.pod.Spec) // Neighbours, so that one's files could be another's.
		s.create(row.pod)
	}
	for _, row := range rows {
		name := s.ready(row.pod.Name).Name
		s.leaf(name)
		if got, err := s.exec(name, "stat", "-L", "-c", "%a %u %g", "/tls/tls.key"); err != nil || strings.TrimSpace(got) != row.listing {
			s.Errorf("pod %s: the key is %q, want %q (%v)", name, got, row.listing, err)
		}
		if _, err := s.exec(name, "cat", "/tls/tls.key"); err != nil {
			s.Errorf("pod %s: %v", name, err)
		}
		s.readOnly(name)
		s.alone(name)
	}
}

// curiousHostUser is someone with an account on a node, and without rights there.
func curiousHostUser(s *story) {
	s.start(pod("web", on("node-a")))
	const plugin, own = "/var/lib/kubelet/plugins/csi.mayfly.dev", "/var/lib/kubelet/plugins/csi.mayfly.dev/volumes/"
	target := "/var/lib/kubelet/pods/" + string(s.ready("web").UID) + "/volumes/kubernetes.io~csi/tls/mount/tls.key"
	seen, err := shared.Node("node-a").Command(s.Context(), "find", own, "-name", "record.json").Output()
	records := strings.Fields(string(seen))
	if err != nil || len(records) == 0 {
		s.Fatalf("root sees no record: %s (%v)", seen, err)
	}
	tries := [][]string{
		{"ls", own}, {"cat", records[0]}, {"cat", target}, {"ls", filepath.Dir(target)},
		{"test", "-w", plugin + "/csi.sock"}, {"test", "-w", "/var/lib/kubelet/plugins_registry/csi.mayfly.dev-reg.sock"},
		{"test", "-w", plugin},
	}
	for _, argv := range tries {
		if out, err := shared.Node("node-a").Command(s.Context(), argv...).CombinedOutput(); err != nil {
			s.Errorf("root can't %v: %s (%v)", argv, out, err)
		}
		nobody := append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, argv...)
		if out, err := shared.Node("node-a").Command(s.Context(), nobody...).CombinedOutput(); err == nil {
			s.Errorf("nobody can %v: %s", argv, out)
		}
	}
}

// readOnly demands that the pod can't change its volume.
func (s *story) readOnly(pod string) {
	s.Helper()
	for _, argv := range [][]string{
		{"touch", "/tls/new"},
		{"rm", "/tls/tls.crt"},
		{"sh", "-c", "echo x >/tls/tls.crt"},
		{"mount", "-o", "remount,rw", "/tls"},
	} {
		out, err := s.exec(pod, argv...)
		if err == nil {
			s.Errorf("pod %s: %v succeeded: %s", pod, argv, out)
		}
	}
	if out, err := s.exec(pod, "touch", "/tls/new"); err == nil || !strings.Contains(out, "Read-only file system") {
		s.Errorf("pod %s: a write is not refused for the right reason: %s", pod, out)
	}
}

// alone demands that the pod finds its own volume's keys and no other's.
func (s *story) alone(pod string) {
	s.Helper()
	out, err := s.exec(pod, "sh", "-c", "find / -path /proc -prune -o -name tls.key -print 2>/dev/null; true")
	if err != nil {
		s.Fatal(err)
	}
	keys := strings.Fields(out)
	if len(keys) != 2 || slices.ContainsFunc(keys, func(k string) bool { return !strings.HasPrefix(k, "/tls/") }) {
		s.Errorf("pod %s finds the keys %v: want one, and one link to it", pod, keys)
	}
	mounts, err := s.exec(pod, "grep", "-c", "/tls", "/proc/self/mountinfo")
	if err != nil || strings.TrimSpace(mounts) != "1" {
		s.Errorf("pod %s has %s mounts of volumes (%v)", pod, mounts, err)
	}
}

func inGroup(group int64) change {
	return func(spec *corev1.PodSpec) { spec.SecurityContext.SupplementalGroups = []int64{group} }
}

func containerAs(user int64) change {
	return func(spec *corev1.PodSpec) {
		spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: &user}
	}
}

// A user namespace needs a runtime that makes them. Without one the pod's author is told; with one the pod reads its key, whose owner is the one that it sees.
func userNamespace(s *story) {
	web := pod("web", as(1000, 2000), func(spec *corev1.PodSpec) { spec.HostUsers = new(false) })
	if !shared.Versions.HasUserNamespaces() {
		s.create(web)
		s.says("web", "does not support user namespaces")
		return
	}
	s.start(web)
	s.leaf("web")
	s.readOnly("web")
	if first, err := s.exec("web", "cat", "/proc/self/uid_map"); err != nil || strings.Fields(first)[1] == "0" {
		s.Errorf("the pod has the users of the node: %s (%v)", first, err)
	}
	got, err := s.exec("web", "stat", "-L", "-c", "%a %u %g", "/tls/tls.key")
	if err != nil || strings.TrimSpace(got) != "440 0 2000" {
		s.Errorf("the key is %q (%v)", got, err)
	}
	s.untroubled("web")
}

func sharedVolume(s *story) {
	p := pod("web")
	p.Spec.InitContainers = []corev1.Container{container("init", "/bin/cat", "/tls/tls.crt")}
	p.Spec.Containers = append(p.Spec.Containers, container("sidecar", "/bin/sleep", "1000000"))
	s.start(p)
	first, err := s.kubectl("logs", "web", "--container=init")
	if err != nil {
		s.Fatal(err)
	}
	want := s.certificate(first)
	for _, in := range []string{"web/app", "web/sidecar"} {
		if !s.leaf(in).Equal(want) {
			s.Errorf("%s sees another certificate than the init container", in)
		}
	}
}

func twoVolumes(s *story) {
	p := pod("web")
	p.Spec.Volumes = append(p.Spec.Volumes, volume("db", "dns-names=db.test"))
	p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "db", MountPath: "/db"})
	s.start(p)
	text, err := s.exec("web", "cat", "/db/tls.crt")
	if err != nil {
		s.Fatal(err)
	}
	if web, db := s.leaf("web"), s.certificate(text); !slices.Equal(db.DNSNames, []string{"db.test"}) || slices.Equal(web.DNSNames, db.DNSNames) {
		s.Errorf("the volumes have certificates for %v and %v", web.DNSNames, db.DNSNames)
	}
}

func job(s *story) {
	spec := podSpec()
	spec.RestartPolicy = corev1.RestartPolicyNever
	spec.Containers[0].Command = []string{"/bin/cat", "/tls/tls.crt"}
	_, err := shared.Client.BatchV1().Jobs(s.namespace).Create(s.Context(), &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "once"}, Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: spec}},
	}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	s.until("the job to be complete", func(context.Context) error {
		_, err := s.kubectl("wait", "--for=condition=Complete", "job/once", "--timeout=1s")
		return err
	})
	text, err := s.kubectl("logs", "job/once")
	if err != nil {
		s.Fatal(err)
	}
	s.certificate(text)
	pods, err := shared.Client.CoreV1().Pods(s.namespace).List(s.Context(), metav1.ListOptions{})
	if err != nil || len(pods.Items) != 1 {
		s.Fatalf("%d pods (%v)", len(pods.Items), err)
	}
	// The pod is still there, and its volume is not.
	s.unmounted(&pods.Items[0])
}

// unmounted waits until the node has no volume of ours for the pod.
func (s *story) unmounted(pod *corev1.Pod) {
	s.Helper()
	s.until("the volumes of pod "+pod.Name+" to go", func(ctx context.Context) error {
		lines, err := mounts(ctx, pod.Spec.NodeName)
		if err != nil {
			return err
		}
		for _, line := range lines {
			if strings.Contains(line, string(pod.UID)) && strings.Contains(line, "kubernetes.io~csi") {
				return fmt.Errorf("there is %s", line)
			}
		}
		return nil
	})
}

// mounts are the lines of a node's mountinfo.
func mounts(ctx context.Context, node string) ([]string, error) {
	text, err := shared.Node(node).Command(ctx, "cat", "/proc/1/mountinfo").Output()
	if err != nil {
		return nil, fmt.Errorf("read the mounts of %s: %w", node, err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n"), nil
}

func deletedWhilePending(s *story) {
	s.create(pod("web", asks("issuer-name=nobody")))
	s.requested(1)
	begin := time.Now()
	s.delete("web")
	s.Logf("gone after %s", time.Since(begin).Round(time.Second))
	s.requested(0)
}

// requested waits until the namespace has so many CertificateRequests.
func (s *story) requested(n int) {
	s.Helper()
	s.until(fmt.Sprintf("%d CertificateRequests", n), func(ctx context.Context) error {
		requests, err := shared.CertManager.CertmanagerV1().CertificateRequests(s.namespace).List(ctx, metav1.ListOptions{})
		if err == nil && len(requests.Items) != n {
			err = fmt.Errorf("there are %d", len(requests.Items))
		}
		return err
	})
}

// The end of every story deletes its namespace and waits until it is gone; this one has something in it.
func namespaceDeleted(s *story) {
	s.create(pod("pending", asks("issuer-name=nobody")))
	s.deploy(3, asks("duration=30s"))
	var nodes []*corev1.Pod
	for _, pod := range s.readyPods(3) {
		nodes = append(nodes, &pod)
	}
	if _, err := s.kubectl("delete", "namespace", s.namespace, "--wait=false"); err != nil {
		s.Fatal(err)
	}
	s.until("the namespace to go", func(ctx context.Context) error {
		_, err := shared.Client.CoreV1().Namespaces().Get(ctx, s.namespace, metav1.GetOptions{})
		return gone(err)
	})
	for _, pod := range nodes {
		s.unmounted(pod)
	}
}
