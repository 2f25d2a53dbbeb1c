package cluster_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer/controller/review"
	"github.com/mayfly-csi/mayfly/signer/decide"
)

// policyText is a CertificatePolicy, whose spec is in YAML's flow style without the braces.
func policyText(name, spec string) string {
	return fmt.Sprintf("apiVersion: csi.mayfly.dev/v1alpha1\nkind: CertificatePolicy\nmetadata: {name: %s}\nspec: {%s}\n", name, spec)
}

// apply makes a policy for the time of the test, or changes it.
func (s *stage) apply(name, spec string) {
	s.Helper()
	s.applyText(policyText(name, spec))
}

func (s *stage) applyText(policy string) {
	s.Helper()
	file := write(s.T, []byte(policy))
	if _, err := shared.Kubectl(s.Context(), "apply", "-f", file); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		_ = exec.Command(filepath.Join(shared.Bin(), "kubectl"), "--kubeconfig", shared.Kubeconfig(), "delete", "-f", file).Run()
	})
}

// mistakes are refused by the API server.
func mistakes(t *testing.T) {
	for spec, want := range map[string]string{
		"":                "spec.namespaces: Required value",
		"namespaces: []":  "spec.namespaces in body should have at least 1 items",
		"namespaces: [X]": "spec.namespaces[0] in body should match",
		"namespaces: [shop], serviceAccounts: []":                                "spec.serviceAccounts in body should have at least 1 items",
		"namespaces: [shop], allow: {dnsNames: [Web.test]}":                      "spec.allow.dnsNames[0] in body should match",
		"namespaces: [shop], allow: {dnsNames: ['a.*.test']}":                    "spec.allow.dnsNames[0] in body should match",
		"namespaces: [shop], allow: {ips: [10.0.0.1/8]}":                         "must be the CIDR of a range",
		"namespaces: [shop], allow: {ips: [10.0.0.1]}":                           "must be the CIDR of a range",
		"namespaces: [shop], allow: {ips: ['::ffff:10.0.0.0/104']}":              "must be the CIDR of a range",
		"namespaces: [shop], allow: {uris: ['*']}":                               "spec.allow.uris[0] in body should match",
		"namespaces: [shop], limits: {usages: [sign]}":                           "Unsupported value",
		"namespaces: [shop], limits: {usages: []}":                               "spec.limits.usages in body should have at least 1 items",
		"namespaces: [shop], limits: {maxDuration: 1 day}":                       "spec.limits.maxDuration in body should match",
		"namespaces: [shop], limits: {maxDuration: 0s}":                          "must be longer than 0s",
		"namespaces: [shop], limits: {maxDuration: 99999999999999h}":             "spec.limits.maxDuration",
		"namespaces: [shop], limits: {issuers: [{kind: Issuer}]}":                "spec.limits.issuers[0].name: Required value",
		"namespaces: [shop], limits: {keys: [{algorithm: DSA}]}":                 "Unsupported value",
		"namespaces: [shop], limits: {keys: [{algorithm: Ed25519, minSize: 1}]}": "keys of Ed25519 have one size",
		"namespaces: [shop], expressions: [{message: x}]":                        "spec.expressions[0].expression: Required value",
		"namespaces: [shop], allowed: {}":                                        `unknown field "spec.allowed"`,
	} {
		_, err := shared.Kubectl(t.Context(), "apply", "--dry-run=server", "-f", write(t, []byte(policyText("bad", spec))))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", spec, err, want)
		}
	}
}

// policies take effect on a controller that runs.
func policies(t *testing.T) {
	s, other := newStage(t), newStage(t)
	log, end := controlled(t)
	defer end()
	test, local := s.pod("test", "dns-names=web.test"), s.pod("local")
	s.ask(test, "before")
	s.decided("before", "Denied "+decide.NotAllowed)

	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}} // No controller of Kubernetes runs here.
	if _, err := shared.Client.CoreV1().ServiceAccounts(s.namespace).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.apply(s.namespace, fmt.Sprintf("namespaces: [%s], allow: {dnsNames: ['*.test'], ips: [192.168.7.0/24]}, limits: {maxDuration: 2160h}, expressions: [{expression: \"!volume.dnsNames.exists(n, n.startsWith('x'))\", message: no x}]", s.namespace))
	s.approvable("before")
	s.eventually(test, "Approved "+decide.Verified)
	s.column("Understood", "True")
	s.column("Selecting", "True")
	s.column("Avoidable", "False")
	for name, want := range map[string]struct {
		pod               *corev1.Pod
		decision, message string
	}{
		"own":    {local, "Approved " + decide.Verified, ""},
		"ip":     {s.writeIP(s.pod("ip", "ip-sans=${POD_IP}"), "192.168.7.9"), "Approved " + decide.Verified, ""},
		"liar":   {s.writeIP(s.pod("lie", "ip-sans=${POD_IP}"), "192.168.8.9"), "Denied " + decide.IPNotProved, "nor in those of the controller's --pod-cidr or of a CertificatePolicy"},
		"deep":   {s.pod("deep", "dns-names=a.b.test"), "Denied " + decide.NotAllowed, fmt.Sprintf(`CertificatePolicy %s: DNS name "a.b.test" is not allowed: allowed are names under %s.svc.cluster.local and `, s.namespace, s.namespace)},
		"long":   {s.pod("long", "duration=2161h"), "Denied " + decide.NotAllowed, "duration 2161h0m0s is longer than 2160h0m0s"},
		"letter": {s.pod("letter", "dns-names=X.test"), "Denied " + decide.NotAllowed, "no x"},
		"ca":     {s.pod("ca", "is-ca=true"), "Denied " + decide.NotAllowed, "it may not be a CA's certificate"},
	} {
		s.ask(want.pod, name)
		if got := s.decided(name, want.decision); !strings.Contains(got, want.message) {
			t.Errorf("%s: %s, want %s", name, got, want.message)
		}
	}
	other.ask(other.pod("test", "dns-names=web.test"), "another-namespace")
	other.decided("another-namespace", "Denied "+decide.NotAllowed)

	s.apply(s.namespace, fmt.Sprintf("namespaces: [%s], allow: {dnsNames: ['*.test']}, expressions: [{expression: volume.nothing}]", s.namespace))
	if got := s.eventually(local, "Denied "+decide.NotAllowed); !strings.Contains(got, "it has a mistake, and so allows nothing: spec.expressions[0]: ") {
		t.Error(got)
	}
	s.column("Understood", "False")
	if want := "a CertificatePolicy has a mistake"; !strings.Contains(log.String(), want) {
		t.Errorf("the log lacks %s", want)
	}
	if _, err := shared.Kubectl(t.Context(), "delete", "certpolicy", s.namespace); err != nil {
		t.Fatal(err)
	}
	s.eventually(local, "Approved "+decide.Verified)
}

// column waits until a condition of the namespace's policy is this one.
func (s *stage) column(condition, want string) {
	s.Helper()
	until(s.T, condition+" is "+want, func() bool {
		got, err := shared.Kubectl(s.Context(), "get", "certpolicy", s.namespace, "--output", fmt.Sprintf(`jsonpath={.status.conditions[?(@.type=="%s")].status}`, condition))
		return err == nil && got == want
	})
}

// eventually has the node plugin ask for the pod until the decision is this one, and returns its message.
func (s *stage) eventually(pod *corev1.Pod, want string) (message string) {
	s.Helper()
	n := 0
	until(s.T, want+" for "+pod.Name, func() bool {
		n++
		name := fmt.Sprintf("%s-%s-%d", pod.Name, strings.ToLower(want[:6]), n)
		s.ask(pod, name)
		var decision string
		decision, message = s.awaits(name)
		return decision == want
	})
	return message
}

// policyCheck lists what a policy would deny that is approved today.
func policyCheck(t *testing.T) {
	s, other := newStage(t), newStage(t)
	s.pod("plain")
	s.pod("short", "duration=30m")
	s.pod("denied", "dns-names=web.test")
	s.status(s.pod("ended"), `{"phase":"Succeeded"}`)
	other.pod("plain")
	check := func(policies string, args ...string) (report review.Report, code int, stderr string) {
		t.Helper()
		cmd := exec.Command(shared.controller, append([]string{"policy", "check", "--kubeconfig", shared.Kubeconfig(), "--output=json", "--filename=-"}, args...)...)
		cmd.Stdin = strings.NewReader(policies)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out.Bytes(), &report); err != nil && errs.Len() == 0 {
			t.Fatalf("%v: %s", err, &out)
		}
		return report, cmd.ProcessState.ExitCode(), errs.String()
	}
	denials := func(report review.Report) (all []string) {
		for _, d := range report.Denials {
			all = append(all, fmt.Sprint(d.Namespace, "/", d.Pod, " ", d.Volume, " ", d.New))
		}
		slices.Sort(all)
		return all
	}
	short := policyText("short", fmt.Sprintf("namespaces: [%s], limits: {maxDuration: 30m}", s.namespace))
	none := policyText("none", fmt.Sprintf("namespaces: [%s], allow: {ownNames: false}", other.namespace))

	report, code, stderr := check(short + "---\n" + none)
	if want := []string{s.namespace + "/plain tls true", other.namespace + "/plain tls true"}; code != 1 || !slices.Equal(denials(report), want) || !strings.Contains(stderr, "mayfly-controller: denied: 2 of ") {
		t.Errorf("exit code %d, %s%v, want %v", code, stderr, denials(report), want)
	}
	report, code, _ = check(short, "--all")
	if code != 1 || !slices.Contains(denials(report), s.namespace+"/denied tls false") || slices.Contains(denials(report), s.namespace+"/short tls true") {
		t.Errorf("exit code %d, %v", code, denials(report))
	}
	if report, code, stderr = check(policyText("more", fmt.Sprintf("namespaces: [%s], allow: {dnsNames: [web.test]}", s.namespace))); code != 0 || len(report.Denials) > 0 || report.Volumes < 4 || len(report.Approvals) != 1 || report.Approvals[0].Pod != "denied" {
		t.Errorf("exit code %d, %s%v", code, stderr, report)
	}
	// What is denied by a policy of the cluster is not new, and its replacement counts in its place.
	s.apply("short", fmt.Sprintf("namespaces: [%s], limits: {maxDuration: 30m}", s.namespace))
	if report, code, stderr = check(short); code != 0 || len(report.Denials) > 0 {
		t.Errorf("exit code %d, %s%v", code, stderr, report)
	}
	report, code, _ = check(policyText("short", fmt.Sprintf("namespaces: [%s], limits: {maxDuration: 20m}", s.namespace)))
	if want := []string{s.namespace + "/short tls true"}; code != 1 || !slices.Equal(denials(report), want) {
		t.Errorf("exit code %d, %v, want %v", code, denials(report), want)
	}
	if _, code, stderr = check(policyText("bad", "namespaces: [shop], allow: {ips: [10.0.0.1/8]}")); code != 2 || stderr != `mayfly-controller: CertificatePolicy bad: spec.allow.ips[0]: "10.0.0.1/8" is not the CIDR of a range, such as 10.0.0.0/8 or fd00::/8`+"\n" {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

// Without the CRD nothing is decided, and all is well once it is there.
func noCRD(t *testing.T) {
	s := newStage(t)
	const crd = "../../manifests/controller/crd.yaml"
	if _, err := shared.Kubectl(t.Context(), "delete", "--wait", "-f", crd); err != nil {
		t.Fatal(err)
	}
	log, end := controlled(t)
	defer end()
	s.ask(s.pod("web"), "web")
	until(t, "the log", func() bool {
		return strings.Contains(log.String(), "read the CertificatePolicies: ") && strings.Contains(log.String(), `no matches for kind \"CertificatePolicy\"`)
	})
	if decision, _ := s.decision("web"); decision != "" {
		t.Error(decision)
	}
	if _, err := shared.Kubectl(t.Context(), "apply", "-f", crd); err != nil {
		t.Fatal(err)
	}
	s.decided("web", "Approved "+decide.Verified)
}
