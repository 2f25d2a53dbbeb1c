package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmclient "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/test/forge"
)

// own is a volume that asks for what a pod may have.
func own(attributes ...string) change {
	return asks(append([]string{"uri-sans=", "spiffe=true"}, attributes...)...)
}

// controlled runs the controller until the story ends.
func (s *story) controlled() {
	s.Helper()
	const dir = "../../manifests/controller"
	s.Cleanup(func() {
		ctx := context.Background()
		if s.Failed() { // The logs of the controllers go with their pods.
			keepLogs(ctx, s.T)
		}
		defer mayBeRefused()() // The roles go before the last controller has ended.
		if _, err := shared.Kubectl(ctx, "delete", "--ignore-not-found", "--filename", dir); err != nil {
			s.Error(err)
		}
		if err := eventually(ctx, "the controllers to end", func(ctx context.Context) error { return runControllers(ctx, 0) }); err != nil {
			s.Error(err)
		}
	})
	if _, err := shared.Kubectl(s.Context(), "apply", "--filename", dir); err != nil {
		s.Fatal(err)
	}
	s.controllers(2)
}

// controllers has so many controllers run.
func (s *story) controllers(replicas int) {
	s.Helper()
	for _, args := range [][]string{
		{"scale", "deployment/mayfly-controller", fmt.Sprintf("--replicas=%d", replicas)},
		{"rollout", "status", "deployment/mayfly-controller", "--timeout=2m"},
	} {
		if _, err := shared.Kubectl(s.Context(), append([]string{"--namespace", mayfly}, args...)...); err != nil {
			s.Fatal(err)
		}
	}
	s.until("the controllers", func(ctx context.Context) error { return runControllers(ctx, replicas) })
}

// runControllers says whether so many controllers run, with those that end.
func runControllers(ctx context.Context, replicas int) error {
	pods, err := shared.Client.CoreV1().Pods(mayfly).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=mayfly-controller"})
	if err == nil && len(pods.Items) != replicas {
		err = fmt.Errorf("there are %d", len(pods.Items))
	}
	return err
}

// centrallyApproved is a cluster whose controller decides, while cert-manager's own approver stays on.
func centrallyApproved(s *story) {
	s.controlled()
	s.policy("limits: {minDuration: 10s}")
	s.deploy(6, own("duration=1m"))
	pods := s.readyPods(6)
	s.rotate(pods)
	if _, err := s.kubectl("delete", "deployment", "--all"); err != nil { // Its pods would renew in vain.
		s.Fatal(err)
	}
	if _, err := shared.Kubectl(s.Context(), "delete", "certificatepolicy", s.namespace); err != nil {
		s.Fatal(err)
	}

	s.create(pod("postgres", own("dns-names=postgres", "common-name=postgres", "uri-sans=")))
	s.says("postgres", "FailedMount", `NotAllowed: `, `common name "postgres" is not the pod's`, `DNS name "postgres" is not the pod's`)
	s.delete("postgres")
	s.create(pod("greedy", own("dns-names=web.test")))
	s.says("greedy", "FailedMount", "request denied: CertificateRequest "+s.namespace+"/greedy-", `NotAllowed: DNS name "web.test" is not the pod's: it may have names under `+s.namespace+".svc.cluster.local")
	s.allowed("greedy", "web.test")
	s.delete("greedy")
	s.create(pod("sly", own("use-token-request=true")))
	s.says("sly", "FailedMount", unlessTheOperator)
	s.delete("sly")

	s.controllers(0)
	s.create(pod("late", own(), on("node-b")))
	cr := s.requestOf("late")
	s.until("cert-manager's approver to be refused", func(context.Context) error {
		return logged("control-plane/cert-manager.log", cr.Name, "only mayfly-controller approves or denies the requests of Mayfly's node plugin")
	})
	meddler, err := s.withRights("meddler", "certificaterequests", "certificaterequests/status", "signers")
	if err != nil {
		s.Fatal(err)
	}
	if err := s.approve(meddler, cr.Name); !refused(err, "only mayfly-controller approves or denies") {
		s.Errorf("someone with every right of cert-manager's approves: %v", err)
	}
	if err := s.approve(s.thief("node-b"), cr.Name); !refused(err, "cannot update resource") {
		s.Errorf("the node plugin approves its own: %v", err)
	}
	if err := s.thief("node-a").CertmanagerV1().CertificateRequests(s.namespace).Delete(s.Context(), cr.Name, metav1.DeleteOptions{}); !refused(err, "may delete the requests of its own node alone") {
		s.Errorf("a node deletes another's request: %v", err)
	}
	s.controllers(2)
	s.ready("late")
	s.until("the requests to be gone", func(ctx context.Context) error {
		requests, err := shared.CertManager.CertmanagerV1().CertificateRequests(s.namespace).List(ctx, metav1.ListOptions{})
		for _, cr := range requests.Items {
			if strings.HasPrefix(cr.Name, "late-") {
				err = errors.Join(err, errors.New(cr.Name+" is there"))
			}
		}
		return err
	})
}

// allowed has a policy allow the name for which a pod was denied its certificate: the next try comes within five seconds, and the kubelet calls again within two minutes.
func (s *story) allowed(pod, dnsName string) {
	s.Helper()
	changed := s.policy(fmt.Sprintf("allow: {dnsNames: [%q]}", dnsName))
	s.ready(pod)
	s.Logf("the pod was ready %s after the policy allowed it", time.Since(changed).Round(time.Second))
}

// policy makes a CertificatePolicy of the story's namespace, and says when.
func (s *story) policy(spec string) time.Time {
	s.Helper()
	text := fmt.Sprintf("apiVersion: csi.mayfly.dev/v1alpha1\nkind: CertificatePolicy\nmetadata: {name: %s}\nspec: {namespaces: [%[1]s], %s}\n", s.namespace, spec)
	dir, err := os.MkdirTemp("", "policy-") // The name of s.TempDir may have a comma, at which kubectl splits it.
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	if _, err := shared.Kubectl(s.Context(), "apply", "--filename", file); err != nil {
		s.Fatal(err)
	}
	made := time.Now()
	s.Cleanup(func() {
		if _, err := shared.Kubectl(context.Background(), "delete", "--ignore-not-found", "--filename", file); err != nil {
			s.Error(err)
		}
	})
	return made
}

// requestOf is the request for a pod.
func (s *story) requestOf(pod string) (found cmapi.CertificateRequest) {
	s.Helper()
	s.until("the request of "+pod, func(ctx context.Context) error {
		requests, err := shared.CertManager.CertmanagerV1().CertificateRequests(s.namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, found = range requests.Items {
			if strings.HasPrefix(found.Name, pod+"-") {
				return nil
			}
		}
		return errors.New("there is none")
	})
	return found
}

// approve approves a request as it is now.
func (s *story) approve(as cmclient.Interface, name string) (err error) {
	s.Helper()
	s.until("a try to approve", func(ctx context.Context) error {
		var cr *cmapi.CertificateRequest
		if cr, err = shared.CertManager.CertmanagerV1().CertificateRequests(s.namespace).Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		cr.Status.Conditions = append(cr.Status.Conditions, cmapi.CertificateRequestCondition{Type: cmapi.CertificateRequestConditionApproved, Status: "True", Reason: "policy", Message: "why not"})
		if _, err = as.CertmanagerV1().CertificateRequests(s.namespace).UpdateStatus(ctx, cr, metav1.UpdateOptions{}); apierrors.IsConflict(err) {
			return err
		}
		return nil
	})
	return err
}

func refused(err error, words string) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), words)
}

// thief has the token of the driver's pod on a node; for an empty name one that is bound to no pod, as someone may make who can make tokens.
func (s *story) thief(node string) cmclient.Interface {
	s.Helper()
	return s.certManager(s.stolen(node))
}

// stolen is the API server for that token.
func (s *story) stolen(node string) *rest.Config {
	s.Helper()
	if node == "" {
		return s.withToken("mayfly", nil)
	}
	pod, err := driverPod(s.Context(), node)
	if err != nil {
		s.Fatal(err)
	}
	return s.withToken("mayfly", pod)
}

// certManager is cert-manager's API of an API server.
func (s *story) certManager(config *rest.Config) cmclient.Interface {
	s.Helper()
	client, err := cmclient.NewForConfig(config)
	if err != nil {
		s.Fatal(err)
	}
	return client
}

// withToken is the API server for a token of a service account of Mayfly's, bound to a pod if there is one.
func (s *story) withToken(account string, pod *corev1.Pod) *rest.Config {
	s.Helper()
	request := &authenticationv1.TokenRequest{}
	if pod != nil {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
	}
	token, err := shared.Client.CoreV1().ServiceAccounts(mayfly).CreateToken(s.Context(), account, request, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	config := rest.AnonymousClientConfig(shared.REST)
	config.BearerToken = token.Status.Token
	return config
}

// stolenToken is what someone with the token of node-a's driver tries, while cert-manager's own approver stays on.
func stolenToken(s *story) {
	s.controlled()
	bare := pod("bare", on("node-a"), idle)
	bare.Spec.Volumes, bare.Spec.Containers[0].VolumeMounts = nil, nil
	s.start(pod("web", own(), on("node-a")), pod("db", own(), on("node-b")), pod("brief", own(), on("node-a")), bare)
	s.rootOnWorker(s.ready("db"))
	web, brief := s.ready("web"), s.ready("brief")
	asWeb := s.ready("bare")
	asWeb.Spec.Volumes = web.Spec.Volumes // The thief says that it has one.
	s.delete("brief")
	for i, row := range []struct {
		name   string
		node   string // Of the token.
		pod    *corev1.Pod
		change func(*cmapi.CertificateRequest)
		want   string // Of the denial, or of the API server's refusal.
	}{
		{"what the driver itself asks", "node-a", web, func(*cmapi.CertificateRequest) {}, "Approved VerifiedByMayfly"},
		{"a pod of another node", "node-a", s.ready("db"), func(*cmapi.CertificateRequest) {}, `Denied OtherNode: pod db runs on node "node-b", and node "node-a" asks`},
		{"a pod without a volume", "node-a", asWeb, func(*cmapi.CertificateRequest) {}, "Denied NoVolume: pod bare has no volume of csi.mayfly.dev"},
		{"a pod's UID for another pod", "node-a", web, func(cr *cmapi.CertificateRequest) { cr.OwnerReferences[0].Name = "db" }, "Denied PodNotFound: "},
		{"one name more", "node-a", web, func(cr *cmapi.CertificateRequest) { cr.Spec.Request = s.forged(web, "dns-names=web.test,db.test") }, "Denied NotTheVolumes: the request is not what volume tls of pod web asks for: DNS names: "},
		{"another SPIFFE ID", "node-a", web, func(cr *cmapi.CertificateRequest) {
			cr.Spec.Request = s.forged(web, "spiffe=false", "uri-sans=spiffe://cluster.local/ns/kube-system/sa/default")
		}, "Denied NotTheVolumes: the request is not what volume tls of pod web asks for: URIs: "},
		{"another key", "node-a", web, func(cr *cmapi.CertificateRequest) {
			cr.Spec.Request = s.forged(web, "key-algorithm=RSA", "key-size=2048")
		}, "Denied NotTheVolumes: the request is not what volume tls of pod web asks for: key: "},
		{"a usage more", "node-a", web, func(cr *cmapi.CertificateRequest) {
			cr.Spec = s.asking(web, "key-usages=digital signature,key encipherment,server auth,client auth,code signing").Spec
		}, "Denied NotTheVolumes: the request is not what volume tls of pod web asks for: "},
		{"a CA", "node-a", web, func(cr *cmapi.CertificateRequest) { cr.Spec = s.asking(web, "is-ca=true").Spec }, "Denied NotTheVolumes: the request is not what volume tls of pod web asks for: "},
		{"a usage more beside the signing request", "node-a", web, func(cr *cmapi.CertificateRequest) {
			cr.Spec.Usages = append(cr.Spec.Usages, cmapi.UsageCodeSigning)
		}, otherUsages},
		{"a CA beside the signing request", "node-a", web, func(cr *cmapi.CertificateRequest) { cr.Spec.IsCA = true }, otherUsages},
		{"a longer life", "node-a", web, func(cr *cmapi.CertificateRequest) { cr.Spec.Duration.Duration = 8760 * time.Hour }, "Denied NotTheVolumes: the request is not what volume tls of pod web asks for: duration: "},
		{"another issuer", "node-a", web, func(cr *cmapi.CertificateRequest) { cr.Spec.IssuerRef.Name = "self-signed" }, "Denied NotTheVolumes: the request is not what volume tls of pod web asks for: issuer: "},
		{"an annotation", "node-a", web, func(cr *cmapi.CertificateRequest) { cr.Annotations = map[string]string{"example.org/team": "x"} }, "Denied NotTheVolumes: the request is not what volume tls of pod web asks for: annotations: "},
		{"a request that is replayed after its pod is gone", "node-a", brief, func(*cmapi.CertificateRequest) {}, "Denied PodNotFound: there is no pod"},
		{"a pod that never was", "node-a", web, func(cr *cmapi.CertificateRequest) {
			cr.OwnerReferences[0].Name, cr.OwnerReferences[0].UID = "nobody", types.UID("00000000-0000-0000-0000-000000000001")
		}, "Denied PodNotFound: there is no pod"},
		{"no owner", "node-a", web, func(cr *cmapi.CertificateRequest) { cr.OwnerReferences = nil }, "must be owned by one pod and nothing else"},
		{"two owners", "node-a", web, func(cr *cmapi.CertificateRequest) {
			cr.OwnerReferences = append(cr.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "kube-root-ca.crt", UID: "1"})
		}, "must be owned by one pod and nothing else"},
		{"the node itself as owner", "node-a", web, func(cr *cmapi.CertificateRequest) { cr.OwnerReferences[0].Kind = "Node" }, "must be owned by one pod and nothing else"},
		{"a finalizer", "node-a", web, func(cr *cmapi.CertificateRequest) { cr.Finalizers = []string{"example.org/never"} }, "has no finalizers"},
		{"an owner that can't be deleted", "node-a", web, func(cr *cmapi.CertificateRequest) { cr.OwnerReferences[0].BlockOwnerDeletion = new(true) }, "does not keep its owner from being deleted"},
		{"an annotation that issuers read", "node-a", web, func(cr *cmapi.CertificateRequest) {
			cr.Annotations = map[string]string{cmapi.VenafiCustomFieldsAnnotationKey: "[]"}
		}, "issuers may read 'venafi.cert-manager.io/custom-fields'"},
		{"a token of no node", "", web, func(*cmapi.CertificateRequest) {}, "does not say on which node it runs"},
		{"another caller is written down", "node-a", s.ready("db"), func(cr *cmapi.CertificateRequest) {
			cr.Spec.Username, cr.Spec.Extra = "system:serviceaccount:"+mayfly+":mayfly", map[string][]string{"authentication.kubernetes.io/node-name": {"node-b"}}
		}, "Denied OtherNode: "},
	} {
		cr, err := forge.Request(row.pod, fmt.Sprintf("forged-%d", i))
		if err != nil {
			s.Fatal(err)
		}
		row.change(cr)
		if got := s.outcome(s.thief(row.node), cr); !strings.Contains(got, row.want) {
			s.Errorf("%s:\n got %s\nwant %s", row.name, got, row.want)
		}
	}
	s.changedSpec("forged-0")
	s.tokensOfNoUse(web)
	s.audited()
}

// changedSpec has the thief, and someone who may edit the namespace, change what a request of the node plugin asks for.
func (s *story) changedSpec(name string) {
	s.Helper()
	editor, err := s.withRights("editor", "certificaterequests")
	if err != nil {
		s.Fatal(err)
	}
	for _, row := range []struct {
		name string
		as   cmclient.Interface
		want string
	}{
		{"the thief", s.thief("node-a"), `cannot patch resource "certificaterequests"`},
		{"an editor", editor, "the spec of a request of Mayfly's node plugin or controller does not change"},
	} {
		for _, patch := range []string{`{"spec": {"isCA": true}}`, `{"spec": {"request": "eA=="}}`, `{"spec": {"issuerRef": {"name": "self-signed"}}}`} {
			_, err := row.as.CertmanagerV1().CertificateRequests(s.namespace).Patch(s.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				s.Errorf("%s changes the spec by %s:\n got %v\nwant %s", row.name, patch, err, row.want)
			}
		}
	}
}

// tokensOfNoUse has someone ask for the pod by a token whose pod is gone, and in the name of another node's driver.
func (s *story) tokensOfNoUse(web *corev1.Pod) {
	s.Helper()
	passing := pod("passing", on("node-a"), idle)
	passing.Namespace, passing.Spec.ServiceAccountName = mayfly, "mayfly"
	passing.Spec.Volumes, passing.Spec.Containers[0].VolumeMounts = nil, nil
	passing, err := shared.Client.CoreV1().Pods(mayfly).Create(s.Context(), passing, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	late := s.withToken("mayfly", passing)
	if err := shared.Client.CoreV1().Pods(mayfly).Delete(s.Context(), passing.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
		s.Fatal(err)
	}
	other := s.stolen("node-a")
	other.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + mayfly + ":mayfly", Extra: map[string][]string{"authentication.kubernetes.io/node-name": {"node-b"}},
	}
	for want, as := range map[string]*rest.Config{"Unauthorized": late, "cannot impersonate resource": other} {
		cr, err := forge.Request(web, "no-use")
		if err != nil {
			s.Fatal(err)
		}
		s.until("the request to be refused: "+want, func(context.Context) error {
			_, err := s.certManager(as).CertmanagerV1().CertificateRequests(s.namespace).Create(s.Context(), cr, metav1.CreateOptions{})
			if err == nil || !strings.Contains(err.Error(), want) {
				return fmt.Errorf("the answer is %w", err)
			}
			return nil
		})
	}
}

// audited demands that the audit record has what was tried, and no approval but the first.
func (s *story) audited() {
	s.Helper()
	log, err := shared.Kubectl(s.Context(), "--namespace", mayfly, "logs", "--selector=app.kubernetes.io/name=mayfly-controller", "--tail=-1")
	if err != nil {
		s.Fatal(err)
	}
	const forged = `"name":"forged-`
	denied := 0
	for line := range strings.Lines(log) {
		switch {
		case !strings.Contains(line, `"audit":"decision"`) || !strings.Contains(line, forged) || !strings.Contains(line, `"namespace":"`+s.namespace+`"`):
		case strings.Contains(line, `"decision":"denied"`) && strings.Contains(line, `"node":"node-a"`):
			denied++
		case !strings.Contains(line, forged+`0"`):
			s.Errorf("approved: %s", line)
		}
	}
	if denied < 10 {
		s.Errorf("the record has %d denials:\n%s", denied, log)
	}
	s.until("the denials to be events", func(ctx context.Context) error { return s.told(ctx, denied) })
}

// told demands that so many denials are events of their requests, and those for pods of node-a theirs, too; none is of a pod of node-b, which has not asked.
func (s *story) told(ctx context.Context, denied int) error {
	events, err := shared.Client.EventsV1().Events(s.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	requests, web := map[string]bool{}, map[string]bool{}
	for _, e := range events.Items {
		switch of := e.Regarding; {
		case e.ReportingController != "mayfly-controller":
		case of.Kind == "CertificateRequest":
			requests[of.Name] = true
		case of.Name == "web" && of.Kind == "Pod":
			web[e.Reason] = true
		case of.Name == "db":
			s.Errorf("someone on node-a has made an event of a pod of node-b: %s", e.Note)
		}
	}
	if len(requests) != denied || requests["forged-0"] || !web["NotTheVolumes"] {
		return fmt.Errorf("there are events of %d requests for %d denials, and of pod web %v", len(requests), denied, web)
	}
	return nil
}

// otherUsages is what cert-manager's webhook says of a request whose usages are not those of its signing request.
const otherUsages = "do not match the expected"

// forged is a signing request for a volume of the pod with other attributes.
func (s *story) forged(of *corev1.Pod, attributes ...string) []byte {
	s.Helper()
	return s.asking(of, attributes...).Spec.Request
}

// asking is a request for a volume of the pod with other attributes.
func (s *story) asking(of *corev1.Pod, attributes ...string) *cmapi.CertificateRequest {
	s.Helper()
	of = of.DeepCopy()
	own(attributes...)(&of.Spec)
	cr, err := forge.Request(of, "forged")
	if err != nil {
		s.Fatal(err)
	}
	return cr
}

// outcome is what becomes of a request of someone: the API server's refusal, or the decision. A request whose pod does not exist is not
// denied while it is young, and may be deleted meanwhile (kubernetes pkg/controller/garbagecollector), which is as good.
func (s *story) outcome(as cmclient.Interface, cr *cmapi.CertificateRequest) (outcome string) {
	s.Helper()
	if _, err := as.CertmanagerV1().CertificateRequests(s.namespace).Create(s.Context(), cr, metav1.CreateOptions{}); err != nil {
		return err.Error()
	}
	return s.decision(cr.Name)
}

// decision waits for that on a request.
func (s *story) decision(name string) (outcome string) {
	s.Helper()
	s.until("a decision on "+name, func(ctx context.Context) error {
		now, err := shared.CertManager.CertmanagerV1().CertificateRequests(s.namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			outcome = "Denied PodNotFound: there is no pod, and the garbage collector was faster"
			return nil
		}
		if err != nil {
			return err
		}
		for _, c := range now.Status.Conditions {
			if c.Type == cmapi.CertificateRequestConditionApproved || c.Type == cmapi.CertificateRequestConditionDenied {
				outcome = fmt.Sprintf("%s %s: %s", c.Type, c.Reason, c.Message)
				return nil
			}
		}
		return errors.New("it is undecided")
	})
	return outcome
}
