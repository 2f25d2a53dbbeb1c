package e2e

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// crowded is the node on which all pods of heldUp run.
const crowded = "node-a"

// heldUp tells of a node on which more volumes than the driver renews at once wait for an issuer that fell silent.
// Others have a slow one, and others certificates that end after ten seconds. A pod of another issuer gets each of its
// certificates in time, and a new one starts. Once the silent issuer answers, its volumes recover.
func heldUp(s *story) {
	signers := s.signers()
	silent := crowd("silent", 7, ofSigner(silentIssuer, "duration=30s"))
	slow := crowd("slow", 2, ofSigner(slowIssuer, "duration=30s"))
	brief := crowd("brief", 1, ofSigner(otherIssuer, "duration=10s"))
	healthy := pod("healthy", on(crowded), asks("duration=1m"))
	s.start(slices.Concat(silent, slow, brief, []*corev1.Pod{healthy})...)
	signers.fallSilent()
	s.until("renewals to wait for the silent issuer", func(context.Context) error {
		if n := signers.waiting(); n < 15 {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	})
	before := signers.count(otherIssuer)
	for _, late := range crowd("late", 1, ofSigner(silentIssuer)) {
		s.create(late)
	}
	s.startsBeside("new")
	for range 2 {
		s.rotate([]corev1.Pod{*healthy})
	}
	s.renewedInTime("healthy", time.Minute)
	if n := signers.count(otherIssuer) - before; n < 2*volumesEach {
		s.Errorf("%d volumes whose certificates end after ten seconds got %d meanwhile", volumesEach, n)
	}
	s.Logf("%d requests are not answered", signers.waiting())
	signers.speak()
	s.recovered("silent-", len(silent))
	s.ready("late-0")
}

// volumesEach is how many volumes a pod of a crowd has.
const volumesEach = 10

// crowd makes pods that do nothing and have many volumes.
func crowd(name string, pods int, attributes []string) (all []*corev1.Pod) {
	for i := range pods {
		p := pod(fmt.Sprintf("%s-%d", name, i), on(crowded))
		app := &p.Spec.Containers[0]
		app.Command = []string{"/bin/sleep", "1000000"}
		p.Spec.Volumes, app.VolumeMounts = nil, nil
		for j := range volumesEach {
			v := volume(fmt.Sprintf("tls-%d", j), attributes...)
			p.Spec.Volumes = append(p.Spec.Volumes, v)
			app.VolumeMounts = append(app.VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name})
		}
		all = append(all, p)
	}
	return all
}

// startsBeside demands that a pod starts as if the others were not there. A busy machine takes its time.
func (s *story) startsBeside(name string) {
	s.Helper()
	begin := time.Now()
	s.create(pod(name, on(crowded)))
	if err := within(s.Context(), 30*time.Second, "pod "+name+" to be ready", s.isReady(name)); err != nil {
		s.Error(err)
	}
	s.Logf("pod %s was ready %s after it was created", name, time.Since(begin).Round(100*time.Millisecond))
}

// renewedInTime demands that each certificate that the workload of a pod saw was renewed soon after that was due, long
// before its end: when two thirds of its life had gone by. It ends a life after it was signed, in whole seconds.
func (s *story) renewedInTime(pod string, life time.Duration) {
	s.Helper()
	ends := s.ends(pod)
	for i, end := range ends[1:] {
		late := end.Sub(ends[i]) - life*2/3
		s.Logf("pod %s was renewed %s after the latest time for which that is planned", pod, late)
		if late > life/4 {
			s.Errorf("pod %s was renewed %s late, %s before the end of its certificate", pod, late, life/3-late)
		}
	}
	if len(ends) < 3 {
		s.Errorf("pod %s has seen %d certificates", pod, len(ends))
	}
}

// ends returns the ends of the certificates that the workload of a pod has seen, which never had trouble.
func (s *story) ends(pod string) (all []time.Time) {
	s.Helper()
	s.untroubled(pod)
	text, err := s.kubectl("logs", pod)
	if err != nil {
		s.Fatal(err)
	}
	for line := range strings.Lines(text) {
		_, end, found := strings.Cut(strings.TrimSpace(line), " until ")
		if !found {
			continue
		}
		at, err := time.Parse(time.RFC3339, end)
		if err != nil {
			s.Fatal(err)
		}
		all = append(all, at)
	}
	return all
}

// recovered waits until every volume of the pods with that prefix has a valid certificate, and logs how long it took.
func (s *story) recovered(prefix string, pods int) {
	s.Helper()
	begin := time.Now()
	files := s.certificates(prefix)
	if len(files) != pods*volumesEach {
		s.Fatalf("%d certificates", len(files))
	}
	err := within(s.Context(), soon, "every volume to have a valid certificate", func(ctx context.Context) error {
		text, err := shared.Node(crowded).Command(ctx, append([]string{"cat"}, files...)...).Output()
		if err != nil {
			return err
		}
		n, err := valid(text)
		if err == nil && n != len(files) {
			err = fmt.Errorf("%d of %d have one", n, len(files))
		}
		return err
	})
	if err != nil {
		s.Error(err)
	}
	s.Logf("%d volumes had a valid certificate %s after the issuer had spoken", len(files), time.Since(begin).Round(time.Second))
}

// valid returns how many of these certificates are valid now.
func valid(text []byte) (n int, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return 0, err
		}
		if time.Now().Before(leaf.NotAfter) {
			n++
		}
	}
	return n, nil
}

// certificates returns the files of the pods' certificates on their node.
func (s *story) certificates(prefix string) (files []string) {
	s.Helper()
	pods, err := shared.Client.CoreV1().Pods(s.namespace).List(s.Context(), metav1.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	for _, pod := range pods.Items {
		for _, v := range pod.Spec.Volumes {
			if v.CSI != nil && strings.HasPrefix(pod.Name, prefix) {
				volume := filepath.Join("/var/lib/kubelet/pods", string(pod.UID), "volumes/kubernetes.io~csi", v.Name)
				files = append(files, filepath.Join(volume, "mount", "tls.crt"))
			}
		}
	}
	return files
}
