package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/mayfly-csi/mayfly/test/faults"
)

// The documents whose commands are typed.
const (
	readme     = "README.md"
	installing = "docs/install.md"
	operating  = "docs/operations.md"

	podCertificate = "docs/pod-certificates.md"
)

// checkout is this repository.
const checkout = "../.."

// TestLife runs the stories that begin on a cluster without Mayfly, and leave it so. The cluster's own is removed
// before them, as the documents say, and is there again after them.
func TestLife(t *testing.T) {
	ctx := context.Background() // The test's own ends before the cleanup.
	t.Cleanup(func() {
		_, err := shared.Kubectl(ctx, "apply", "--filename", filepath.Join(checkout, "manifests"))
		if err := errors.Join(err, shared.WaitMayfly(ctx)); err != nil {
			t.Error(err)
		}
	})
	s := &story{T: t}
	s.nextImages()
	s.takenOver()
	s.uninstalledByKubectl()
	s.keptDeleted()
	s.cleaned()
	for _, x := range []struct {
		name string
		tell func(*story)
	}{
		{"someone new installs breaks mends upgrades and removes Mayfly", newUser},
		{"each mode is installed and left", eachMode},
		{"Mayfly takes the place of a release of csi-driver", droppedIn},
	} {
		t.Run(x.name, func(t *testing.T) {
			before := everything(t)
			s := begin(t)
			x.tell(s)
			for _, node := range shared.Nodes { // Their directories outlive the last of them.
				s.until("the pods to leave "+node, s.noPodsOf(node))
			}
			s.everythingIs(before)
		})
	}
}

// takenOver has Helm take over what kubectl has made, go to the next version, and remove what is its own.
func (s *story) takenOver() {
	s.Helper()
	install, upgrade, _ := strings.Cut(documentedBlocks(s.T, installing, "takenOver", 1)[0], "\n")
	s.types(checkout, install)
	s.types(s.nextChart(), upgrade)
	s.runs(nextVersion)
	end := mayBeRefused()
	s.types(checkout, "helm uninstall mayfly --namespace mayfly-system --wait")
	end()
}

// uninstalledByKubectl types what docs/operations.md has for kubectl.
func (s *story) uninstalledByKubectl() {
	s.Helper()
	end := mayBeRefused() // A node plugin may end after its rights.
	s.types(checkout, documentedBlocks(s.T, operating, "uninstalledByKubectl", 1)[0])
	end()
}

// documentedBlocks returns the blocks of a document that are marked as run by this name. They are so many.
func documentedBlocks(t *testing.T, document, by string, number int) (blocks []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(checkout, document))
	if err != nil {
		t.Fatal(err)
	}
	marked := regexp.MustCompile("(?ms)^ *<!-- run by " + by + " -->\n *```sh\n(.*?)^ *```$")
	for _, block := range marked.FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, block[1])
	}
	if len(blocks) != number {
		t.Fatalf("%s has %d blocks of commands that are run by %s, want %d", document, len(blocks), by, number)
	}
	return blocks
}

// types runs commands as a user does in a checkout, also at the end of a story. Flags are added to each of helm.
func (s *story) types(dir, commands string, flags ...string) string {
	s.Helper()
	added := strings.Join(append([]string{"$0"}, flags...), " ")
	commands = regexp.MustCompile(`(?m)^ *helm [^>\n]*`).ReplaceAllString(commands, added)
	begun := time.Now()
	out, err := shared.Shell(context.WithoutCancel(s.Context()), dir, commands)
	if err != nil {
		s.Fatal(err)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(commands), "\n")
	s.Logf("%s for %s", time.Since(begun).Round(time.Second), first)
	return out
}

// cleaned does on each node what the documents say of it, once the node plugin is gone.
func (s *story) cleaned() {
	s.Helper()
	commands := documentedBlocks(s.T, operating, "cleaned", 1)[0]
	s.until("the node plugins to end", func(ctx context.Context) error {
		selected := metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=mayfly"}
		pods, err := shared.Client.CoreV1().Pods(mayfly).List(ctx, selected)
		if err == nil && len(pods.Items) > 0 {
			err = fmt.Errorf("%d pods are there", len(pods.Items))
		}
		return err
	})
	for _, node := range shared.Nodes {
		out, err := shared.Node(node).Command(s.Context(), "sh", "-ec", commands).CombinedOutput()
		if err != nil {
			s.Errorf("clean %s: %v: %s", node, err, out)
		}
	}
}

// everything lists what there is: objects of every kind, the drivers of the kubelets, and what nodes have of drivers.
func everything(t *testing.T) (all []string) {
	t.Helper()
	err := eventually(t.Context(), "all that there is", func(ctx context.Context) (err error) {
		all, err = list(ctx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func list(ctx context.Context) ([]string, error) {
	// Events and leases come and go by themselves; so do the pods, and with them what is theirs, of a story.
	objects, err := shared.Shell(ctx, ".", `
kinds=$(kubectl api-resources --verbs=list --output=name |
  grep --invert-match --extended-regexp '^(events|leases|componentstatuses)\b' | paste --serial --delimiters=,)
kubectl get "$kinds" --all-namespaces --no-headers \
  --output=custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name
kubectl get csinodes --no-headers --output=custom-columns=NAME:.metadata.name,DRIVERS:.spec.drivers`)
	if err != nil {
		return nil, err
	}
	var all []string
	for line := range strings.Lines(objects) {
		fields := strings.Fields(line)
		if len(fields) > 0 && !strings.HasPrefix(line, "Warning: ") && !strings.Contains(line, " story-") {
			all = append(all, strings.Join(fields, " "))
		}
	}
	for _, node := range shared.Nodes {
		files, err := shared.Node(node).Command(ctx, "sh", "-ec", `
find /var/lib/kubelet/plugins* /tmp/cert-manager-csi-driver -mindepth 1 2>/dev/null || true
grep --only-matching ' /var/lib/kubelet/[^ ]*csi[^ ]*' /proc/1/mountinfo || true`).Output()
		if err != nil {
			return nil, fmt.Errorf("look at %s: %w", node, err)
		}
		for line := range strings.Lines(string(files)) {
			all = append(all, node+": "+strings.TrimSpace(line))
		}
	}
	slices.Sort(all)
	return all, nil
}

// noPodsOf returns a check that no pod of the story is left on a node.
func (s *story) noPodsOf(node string) func(context.Context) error {
	return func(ctx context.Context) error {
		pods, err := podsOn(ctx, node, s.namespace, "")
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("%d pods are there", len(pods))
		}
		return err
	}
}

// everythingIs demands that soon there is what there was, no less and no more.
func (s *story) everythingIs(before []string) {
	s.Helper()
	s.until("nothing to be left", func(ctx context.Context) error {
		after, err := list(ctx)
		if err != nil {
			return err
		}
		less := slices.DeleteFunc(slices.Clone(before), func(x string) bool { return slices.Contains(after, x) })
		more := slices.DeleteFunc(after, func(x string) bool { return slices.Contains(before, x) })
		if len(less)+len(more) > 0 {
			return fmt.Errorf("it is left:\n%s\nit is gone:\n%s", strings.Join(more, "\n"), strings.Join(less, "\n"))
		}
		return nil
	})
}

// newUser installs Mayfly by the documents alone, has it sign, breaks an issuer and mends it, changes the mode and the
// version while pods start and rotate, and removes it. No pod is without a certificate, and nothing is left.
func newUser(s *story) {
	s.removedAtLast()
	s.installedByHelm()
	s.sampled()
	s.mended()
	s.modeChanged()
	s.upgradedByHelm()
	s.uninstalledByHelm()
	s.kept("namespace/mayfly-ca", "crd/certificatepolicies.csi.mayfly.dev")
	s.must("get", "secret", "--namespace", caNamespace, "mayfly-ca") // The key of the controller's CA.
	s.keptDeleted()
	s.cleaned()
}

// removedAtLast removes what a story that went wrong has left, so that others find the cluster as it was.
func (s *story) removedAtLast() {
	s.Helper()
	s.Cleanup(func() {
		if !s.Failed() {
			return
		}
		keepLogs(context.Background(), s.T)
		s.must("delete", "deployment,daemonset,pod", "--all", "--now")
		for _, command := range []string{
			"helm uninstall mayfly --namespace mayfly-system --ignore-not-found --wait",
			"helm uninstall cert-manager-csi-driver --namespace " + s.namespace + " --ignore-not-found --wait",
			"kubectl delete --ignore-not-found -f manifests/sample/ -f manifests/drop-in/ --now",
		} {
			if _, err := shared.Shell(context.Background(), checkout, command); err != nil {
				s.Error(err)
			}
		}
		s.keptDeleted()
	})
}

// installedByHelm types what the README has, and docs/install.md has, too, with more flags.
func (s *story) installedByHelm(flags ...string) {
	s.Helper()
	first := documentedBlocks(s.T, readme, "installedByHelm", 1)[0]
	if whole := documentedBlocks(s.T, installing, "installedByHelm", 1)[0]; whole != first {
		s.Errorf("%s says\n%sand %s\n%s", readme, first, installing, whole)
	}
	s.types(checkout, first, flags...)
}

// sampled runs the sample of the README.
func (s *story) sampled() {
	s.Helper()
	s.types(checkout, documentedBlocks(s.T, readme, "sample", 1)[0])
	out := s.types(checkout, "kubectl exec web -- cat /tls/tls.crt")
	if !strings.Contains(out, "-----BEGIN CERTIFICATE-----") {
		s.Errorf("the sample's certificate: %s", out)
	}
}

// mended breaks the sample's issuer, and mends it by what the pod's event says, and docs/troubleshooting.md of that.
func (s *story) mended() {
	s.Helper()
	s.types(checkout, `kubectl delete issuer internal-ca
kubectl delete --now -f manifests/sample/pod.yaml
kubectl apply -f manifests/sample/pod.yaml`)
	todo := ""
	s.until("an event that docs/troubleshooting.md explains", func(ctx context.Context) (err error) {
		todo, err = advice(ctx, metav1.NamespaceDefault, "web", `Referenced "Issuer" not found`)
		return err
	})
	command := regexp.MustCompile("`(kubectl [^`]+)`").FindStringSubmatch(todo)
	if command == nil || !strings.Contains(todo, "Make it") {
		s.Fatalf("%s says of an issuer that is missing: %s", troubleshooting, todo)
	}
	if out := s.types(checkout, command[1]); strings.Contains(out, "internal-ca") {
		s.Errorf("%s: %s", command[1], out)
	}
	s.types(checkout, `kubectl apply -f manifests/sample/issuers.yaml
kubectl wait --for=condition=Ready pod/web --timeout=2m
kubectl delete --now -f manifests/sample/
kubectl delete secret internal-ca`) // cert-manager keeps the Secrets of Certificates.
}

// advice returns what docs/troubleshooting.md says to do about the pod's warning that has the words.
func advice(ctx context.Context, namespace, pod, words string) (string, error) {
	events, err := shared.Client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "type=Warning,involvedObject.name=" + pod,
	})
	if err != nil {
		return "", err
	}
	for _, e := range events.Items {
		if strings.Contains(e.Message, words) {
			return faults.Advice(troubleshooting, faults.Reason(e.Message))
		}
	}
	return "", fmt.Errorf("none of %d events says %s", len(events.Items), words)
}

// modeChanged goes to mode pod-certificate and back while pods start and renew.
func (s *story) modeChanged() {
	s.Helper()
	load := s.load(own(brief()...))
	renewed := s.keepRenewing(load.running)
	blocks := documentedBlocks(s.T, installing, "modeChanged", 2)
	s.types(checkout, blocks[0], "--set app.watchPods=true")
	s.powerless()
	load.goesOn()
	s.types(checkout, blocks[1])
	if _, err := shared.Kubectl(s.Context(), "get", "clusterrole", "mayfly-pod-certificate"); err == nil {
		s.Error("the rights of the mode before are there")
	}
	load.goesOn()
	renewed()
	load.ends()
}

// upgradedByHelm goes to another version and back while pods start and rotate.
func (s *story) upgradedByHelm() {
	s.Helper()
	s.policy("limits: {minDuration: 10s}")
	next := s.nextChart()
	load := s.load(own("duration=1m"))
	blocks := documentedBlocks(s.T, installing, "upgradedByHelm", 2)
	s.types(next, blocks[0])
	s.runs(nextVersion)
	load.goesOn()
	s.types(checkout, blocks[1])
	s.runs(thisVersion)
	load.goesOn()
	load.ends()
}

// uninstalledByHelm finds the pods that would hang, as docs/operations.md says, removes them, and then Mayfly.
func (s *story) uninstalledByHelm() {
	s.Helper()
	s.start(pod("last", own(brief()...)))
	s.volumesLeft()
	s.must("delete", "deployment,pod", "--all", "--now")
	s.volumesLeft()
	end := mayBeRefused() // A node plugin may end after its rights.
	s.types(checkout, documentedBlocks(s.T, operating, "uninstalledByHelm", 1)[0])
	end()
}

// volumesLeft demands that the documented command finds the pods that have a volume: those of the story.
func (s *story) volumesLeft() {
	s.Helper()
	got := strings.Fields(s.types(checkout, documentedBlocks(s.T, operating, "volumesLeft", 1)[0]))
	pods, err := shared.Client.CoreV1().Pods(s.namespace).List(s.Context(), metav1.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	var want []string
	for _, pod := range pods.Items {
		want = append(want, pod.Namespace+"/"+pod.Name)
	}
	if !slices.Equal(got, want) {
		s.Errorf("the pods that have a volume are %q, want %q", got, want)
	}
}

// kept demands that objects are there.
func (s *story) kept(objects ...string) {
	s.Helper()
	s.must(append([]string{"get"}, objects...)...)
}

// keptDeleted deletes what Helm has kept.
func (s *story) keptDeleted() {
	s.Helper()
	s.types(checkout, documentedBlocks(s.T, operating, "keptDeleted", 1)[0])
}

// eachMode installs Mayfly in the modes that are not the default, changes between those that have no commands of their
// own in the documents, and does without releases of Helm.
func eachMode(s *story) {
	s.removedAtLast()
	s.installedByHelm("--set", "mode=none,app.watchPods=true")
	load := s.load(own(brief()...))
	renewed := s.keepRenewing(load.running)
	forth := documentedBlocks(s.T, installing, "modeChanged", 2)[0]
	for _, change := range []string{
		"mode=driver,keepRightsOf=none", "mode=none,keepRightsOf=driver",
		"mode=pod-certificate,keepRightsOf=none", "mode=none,keepRightsOf=pod-certificate",
	} {
		s.types(checkout, strings.Replace(forth, "mode=pod-certificate,keepRightsOf=driver", change, 1))
		load.goesOn()
	}
	renewed()
	load.ends()
	s.uninstalledByHelm()
	s.keptDeleted()

	s.installedByHelm("--set", "mode=pod-certificate,authority.keep=false,crds.keep=false")
	s.start(pod("web", own(brief()...)), pod("mesh", ownCA(brief()...), idle))
	s.uninstalledByHelm()
	for _, object := range []string{"namespace/" + caNamespace, "crd/certificatepolicies.csi.mayfly.dev"} {
		s.until(object+" to go", func(ctx context.Context) error {
			out, err := shared.Kubectl(ctx, "get", "--ignore-not-found", object)
			if err == nil && out != "" {
				err = errors.New(out)
			}
			return err
		})
	}
	s.rendered()
	s.keptDeleted()
	s.byKubectl()
	s.keptDeleted()
	s.cleaned()
}

// rendered installs what Helm renders by kubectl, goes to another version and back, and deletes it.
func (s *story) rendered() {
	s.Helper()
	block := documentedBlocks(s.T, installing, "rendered", 1)[0]
	next := s.nextChart()
	render := func(values string) {
		s.types(next, "cat >values.yaml <<<'"+values+"'\n"+block+"kubectl apply -f mayfly.yaml")
		if err := shared.WaitMayfly(s.Context()); err != nil {
			s.Fatal(err)
		}
		s.must("--namespace", mayfly, "rollout", "status", "deployment/mayfly-controller", "--timeout=2m")
	}
	s.Cleanup(func() {
		if s.Failed() {
			s.must("delete", "deployment,pod", "--all", "--now")
			_, _ = shared.Shell(context.Background(), next, "kubectl delete --ignore-not-found -f mayfly.yaml")
		}
	})
	const devel = "{app: {watchPods: true}, image: {tag: devel}, controller: {image: {tag: devel}}}"
	render(devel)
	load := s.load(own())
	renewed := s.keepRenewing(load.running)
	render("{app: {watchPods: true}}")
	s.runs(nextVersion)
	load.goesOn()
	render(devel)
	s.runs(thisVersion)
	load.goesOn()
	renewed()
	load.ends()
	end := mayBeRefused()
	s.types(next, "kubectl delete -f mayfly.yaml")
	end()
}

// droppedIn is a cluster that leaves a release of csi-driver: pods that were written for it run as they are.
func droppedIn(s *story) {
	s.removedAtLast()
	if err := importProgram(s.Context(), "olddriver:devel", "../olddriver"); err != nil {
		s.Fatal(err)
	}
	const theirs = "helm install cert-manager-csi-driver test/e2e/testdata/csi-driver --wait --namespace "
	s.types(checkout, theirs+s.namespace)
	s.start(pod("old", ofCSIDriver("1h")))
	s.servedBy("csi-driver", *s.ready("old"))
	s.delete("old")

	s.installedByHelm()
	block := documentedBlocks(s.T, installing, "droppedIn", 1)[0]
	remove, take, _ := strings.Cut(strings.Replace(block, " cert-manager\n", " "+s.namespace+"\n", 1), "\n")
	without := strings.Replace(take, "--take-ownership", "", 1)
	out, err := shared.Shell(s.Context(), checkout, without)
	if err == nil || !strings.Contains(out, "invalid ownership") {
		s.Errorf("Helm takes the object of another release: %v: %s", err, out)
	}
	s.types(checkout, remove)
	s.must("apply", "--filename", csiDriver+"/csidriver.yaml") // As who has the object from elsewhere.
	s.types(checkout, take)
	out = s.must("get", "csidriver", "csi.cert-manager.io", "--output=jsonpath={.spec.attachRequired}")
	if out != "true" {
		s.Errorf("attachRequired is %s", out)
	}
	s.start(pod("old", ofCSIDriver("1h")))
	s.servedBy("Mayfly", *s.ready("old"))
	s.uninstalledByHelm()
	s.kept("csidriver/csi.cert-manager.io")
	s.must("delete", "csidriver", "csi.cert-manager.io")
	s.keptDeleted()
	s.cleaned()
	s.csiDriverCleaned()
}

// A load is pods that renew, and others that start, while something changes.
type load struct {
	*story
	running []corev1.Pod
	stop    func() (started int)
}

// load begins a load of pods with such volumes.
func (s *story) load(changes ...change) *load {
	s.Helper()
	const replicas = 4
	s.deploy(replicas, changes...)
	l := &load{story: s, running: s.readyPods(replicas)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.Context()))
	var work sync.WaitGroup
	started := 0
	work.Go(func() {
		for ; ctx.Err() == nil && s.startsAndGoes(fmt.Sprintf("new-%d", started), changes...); started++ {
		}
	})
	l.stop = func() int {
		cancel()
		work.Wait()
		return started
	}
	s.Cleanup(func() { l.stop() })
	return l
}

// startsAndGoes runs a pod until it is ready, and reports whether it was, and had no trouble.
func (s *story) startsAndGoes(name string, changes ...change) bool {
	ctx := context.WithoutCancel(s.Context())
	pods := shared.Client.CoreV1().Pods(s.namespace)
	_, err := pods.Create(ctx, pod(name, changes...), metav1.CreateOptions{})
	if err == nil {
		err = eventually(ctx, "pod "+name+" to be ready", s.isReady(name))
	}
	if err == nil {
		err = pods.Delete(ctx, name, metav1.DeleteOptions{})
	}
	if err == nil {
		err = eventually(ctx, "pod "+name+" to go", s.podGone(name))
	}
	if err != nil {
		s.Error(err)
	}
	return err == nil
}

// keepRenewing has pods renew by their annotation, again and again, until the function that it returns is called.
func (s *story) keepRenewing(pods []corev1.Pod) (stop func()) {
	ctx, cancel := context.WithCancel(s.Context())
	client := shared.Client.CoreV1().Pods(s.namespace)
	var work sync.WaitGroup
	work.Go(func() {
		for ctx.Err() == nil {
			at := time.Now().Add(time.Second).UTC().Format(time.RFC3339)
			patch := fmt.Appendf(nil, `{"metadata": {"annotations": {"csi.mayfly.dev/renew-at": %q}}}`, at)
			for _, pod := range pods {
				// What fails is tried again soon, and goesOn sees whether pods renew.
				_, _ = client.Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{})
			}
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
			}
		}
	})
	stop = func() {
		cancel()
		work.Wait()
	}
	s.Cleanup(stop)
	return stop
}

// goesOn waits until each pod has another certificate. None may have been without one.
func (l *load) goesOn() {
	l.Helper()
	l.rotate(l.running)
}

// ends ends the load, and demands that pods have started all the time, and no certificate was lost, late or refused.
func (l *load) ends() {
	l.Helper()
	if started := l.stop(); started < 3 {
		l.Errorf("%d pods have started", started)
	} else {
		l.Logf("%d pods have started", started)
	}
	l.neverRestarted(len(l.running))
	for _, pod := range l.running {
		l.Logf("pod %s has seen %d certificates", pod.Name, l.untroubled(pod.Name))
	}
	warnings := metav1.ListOptions{FieldSelector: "type=Warning"}
	events, err := shared.Client.CoreV1().Events(l.namespace).List(l.Context(), warnings)
	if err != nil {
		l.Fatal(err)
	}
	for _, e := range events.Items {
		// The kubelet warns of mounts, where a node plugin is being replaced, and of what is not Mayfly's.
		refused := strings.Contains(e.Message, "denied") || strings.Contains(e.Message, "forbidden")
		if e.Source.Component != "kubelet" || refused {
			l.Errorf("pod %s was told: %s: %s", e.InvolvedObject.Name, e.Reason, e.Message)
		}
	}
	for _, node := range shared.Nodes {
		found, err := metrics(l.Context(), node)
		if err != nil {
			l.Fatal(err)
		}
		if n, there := found["mayfly_renewals_overdue"]; n != 0 || !there {
			l.Errorf("%s has %d renewals that are overdue (%t)", node, n, there)
		}
	}
	l.must("delete", "deployment", "web", "--cascade=foreground")
}
