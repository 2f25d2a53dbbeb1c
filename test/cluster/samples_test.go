package cluster_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fenced are the code blocks of a document in a language.
func fenced(t *testing.T, document, language string) (found []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", document))
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?ms)^ *```"+language+"\n(.*?)^ *```$").FindAllStringSubmatch(string(text), -1) {
		found = append(found, block[1])
	}
	return found
}

// samples has the API server take every object that the documents about security show, and runs the commands of some (ran).
// Those of pod-certificates.md need nodes: they are run by test/e2e (documented).
func samples(t *testing.T) {
	for _, name := range []string{"shop", "mayfly-ca"} {
		_, err := shared.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	policy, objects := "", 0
	for _, document := range []string{"security.md", "controller.md", "authority.md", "pod-certificates.md"} {
		for _, block := range fenced(t, document, "yaml") {
			for one := range strings.SplitSeq(block, "\n---\n") {
				objects++
				out, err := shared.Kubectl(t.Context(), "apply", "--dry-run=server", "--validate=strict", "-f", write(t, []byte(one)))
				if err != nil || strings.Contains(out, "Warning") {
					t.Errorf("%s: %v%s:\n%s", document, err, out, one)
				}
				if policy == "" && strings.Contains(one, "kind: CertificatePolicy\n") {
					policy = one
				}
			}
		}
	}
	if objects < 8 {
		t.Errorf("%d objects", objects)
	}
	commands(t, policy)
}

// ran are the documents whose commands the samples run, but for blocks that say that they are not.
var ran = []string{"controller.md", "operations.md", "reference.md", "migrate.md"}

// commands runs those of the documents as they are written, in a directory that has manifests/ and the policy.yaml of
// controller.md. What the others change is not changed: the API server is asked whether it would be.
func commands(t *testing.T, policy string) {
	newStage(t).mustApply("../../manifests/daemonset.yaml") // Not rbac.yaml: its binding is that of these tests' node plugin.
	if _, err := shared.Pod(t.Context(), "shop", "web"); err != nil {
		t.Fatal(err)
	}
	home := sampleHome(t, policy)
	for _, document := range ran {
		count := 0
		for _, line := range documentedCommands(t, document) {
			if strings.Contains(line, " rollout status ") || strings.Contains(line, " # In that mode.") { // No node runs pods, and the mode is another.
				continue
			}
			if document != "controller.md" {
				line = changing.ReplaceAllString(line, "$0 --dry-run=server")
			}
			cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -eo pipefail; "+line)
			cmd.Dir = home
			cmd.Env = append(os.Environ(), "HOME="+home, "PATH="+home+":"+shared.Bin()+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			denied := strings.Contains(line, " policy check") && cmd.ProcessState.ExitCode() == 1 // Pods of other tests.
			if err != nil && !denied || strings.Contains(string(out), "rror: ") {
				t.Errorf("%s: %s: %v: %s", document, line, err, out)
			}
			count++
		}
		if count == 0 {
			t.Errorf("%s has no commands", document)
		}
	}
}

// changing matches the part of a command of kubectl that changes objects.
var changing = regexp.MustCompile(`kubectl( --namespace [a-z-]+)? (apply|delete|create|annotate|set env|patch)\b`)

// documentedCommands returns the commands of a document, one a line or continued after a pipe, of blocks that are not
// marked as not run, or as run by another test.
func documentedCommands(t *testing.T, document string) (commands []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", document))
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?ms)^([^\n]*)\n *```sh\n(.*?)^ *```$").FindAllStringSubmatch(string(text), -1) {
		if strings.Contains(block[1], "<!-- not run: ") || strings.Contains(block[1], "<!-- run by ") {
			continue
		}
		for line := range strings.Lines(regexp.MustCompile(`\|\n *`).ReplaceAllString(block[2], "| ")) {
			commands = append(commands, strings.TrimSpace(line))
		}
	}
	return commands
}

// mustApply applies manifests.
func (s *stage) mustApply(path string) {
	s.Helper()
	if out, err := shared.Kubectl(s.Context(), "apply", "-f", path); err != nil {
		s.Fatalf("%v: %s", err, out)
	}
}

// sampleHome is a home directory from which the documents' commands reach the API server.
func sampleHome(t *testing.T, policy string) string {
	t.Helper()
	home := t.TempDir()
	repository, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(home, ".kube"), 0o700); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{
		".kube/config": shared.Kubeconfig(), "manifests": filepath.Join(repository, "manifests"), "mayfly-controller": shared.controller,
	} {
		if err := os.Symlink(to, filepath.Join(home, link)); err != nil {
			t.Fatal(err)
		}
	}
	const deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\n" +
		"spec: {template: {spec: {volumes: [{name: tls, csi: {driver: csi.mayfly.dev, volumeAttributes: {" +
		"csi.mayfly.dev/issuer-name: ca, csi.mayfly.dev/dns-names: web.shop.svc}}}]}}}\n"
	if err := os.Mkdir(filepath.Join(home, "more"), 0o700); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{
		"policy.yaml": policy, "more/policy.yaml": policyText("more", "namespaces: [elsewhere]"),
		"deployment.yaml": deployment, "kustomization.yaml": "resources: [policy.yaml]\n",
	} {
		if err := os.WriteFile(filepath.Join(home, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	newStage(t).applyText(policy)
	return home
}
