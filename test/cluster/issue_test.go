package cluster_test

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"go.uber.org/goleak"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/certmanager"
	"github.com/mayfly-csi/mayfly/signer/signertest"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

func TestSigner(t *testing.T) {
	s, err := certmanager.New(shared.REST)
	if err != nil {
		t.Fatal(err)
	}
	ns := namespace(t)
	uid, err := shared.Pod(t.Context(), ns, "web")
	if err != nil {
		t.Fatal(err)
	}
	// The connection stays for the next request; no watch and no goroutine of one does.
	if err := s.Forget(t.Context(), signer.Attempt{ID: "none", Pod: signer.Pod{Namespace: ns, Name: "web"}}); err != nil {
		t.Fatal(err)
	}
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	signertest.Run(t, signertest.Backend{
		Signer: s,
		Issuer: signer.Issuer{Name: "ca", Kind: "Issuer", Group: "cert-manager.io"},
		Pod: func(*testing.T) signer.Pod {
			return signer.Pod{Namespace: ns, Name: "web", UID: uid, ServiceAccount: "default"}
		},
	})
}

func TestAPodGetsACertificateOfTheCAIssuer(t *testing.T) {
	n := newNode(t, namespace(t))
	v := n.pod("web", "layout=pem,bundle")
	leaf := n.publish(v)
	if !slices.Equal(leaf.DNSNames, []string{"web." + n.namespace + ".svc"}) {
		t.Errorf("DNS names: %v", leaf.DNSNames)
	}
	until(t, "the request is deleted", func() bool { return len(n.requests()) == 0 })
	n.unpublish(v)
}

func TestASelfSignedIssuerThatNeedsTheKeySaysSo(t *testing.T) {
	// A self-signed issuer signs with the requester's key, which it wants in a Secret
	// (cert-manager pkg/controller/certificaterequests/selfsigned): our keys never leave the node.
	n := newNode(t, namespace(t))
	v := n.pod("web", "issuer-name=self-signed")
	_, err := n.Publish(t.Context(), n.driver, v)
	if err == nil || kubelet.Final(err) || !strings.Contains(err.Error(), "private-key-secret-name") {
		t.Errorf("%v", err)
	}
	n.unpublish(v)
}

func TestRotation(t *testing.T) {
	n := newNode(t, namespace(t), "--keep-requests=2")
	v := n.pod("web", "duration=3s")
	before := n.publish(v)
	for range 4 {
		until(t, "a rotation", func() bool { return !n.leaf(n.Target(v)).Equal(before) })
		after := n.leaf(n.Target(v))
		if time.Now().After(before.NotAfter) {
			t.Errorf("rotated %s after the end", time.Since(before.NotAfter))
		}
		before = after
	}
	until(t, "the last two requests are kept", func() bool { return len(n.requests()) == 2 })
	for _, r := range n.requests() {
		if owner := r.OwnerReferences; len(owner) != 1 || owner[0].Kind != "Pod" || string(owner[0].UID) != v.UID {
			t.Errorf("owner: %v", owner)
		}
	}
	n.unpublish(v)
	until(t, "unpublish deletes what it can", func() bool { return len(n.requests()) == 0 })
}

// byHand runs f with cert-manager's approver switched off.
func byHand(t *testing.T, f func()) {
	t.Helper()
	controllers(t, false)
	defer controllers(t, true)
	f()
}

func controllers(t *testing.T, approve bool) {
	t.Helper()
	if err := shared.ControlPlane.Stop(context.WithoutCancel(t.Context()), "cert-manager"); err != nil {
		t.Fatal(err)
	}
	if err := shared.Approve(context.WithoutCancel(t.Context()), approve); err != nil {
		t.Fatal(err)
	}
}

// pending begins a publish that nobody decides on, and returns its request and the call's end.
func (n *node) pending(v kubelet.Volume) (*cmapi.CertificateRequest, <-chan error) {
	n.t.Helper()
	failed := make(chan error, 1)
	go func() {
		_, err := n.Publish(context.Background(), n.driver, v)
		failed <- err
	}()
	until(n.t, "the request is there", func() bool { return len(n.requests()) == 1 })
	return &n.requests()[0], failed
}

// decide sets a condition of a request, as an approver or an issuer does.
func (n *node) decide(cr *cmapi.CertificateRequest, kind cmapi.CertificateRequestConditionType, status cmmeta.ConditionStatus, reason, message string) {
	n.t.Helper()
	client := shared.CertManager.CertmanagerV1().CertificateRequests(n.namespace)
	until(n.t, "the condition is set", func() bool { // The issuer's controller writes, too.
		now, err := client.Get(n.t.Context(), cr.Name, metav1.GetOptions{})
		if err != nil {
			n.t.Fatal(err)
		}
		apiutil.SetCertificateRequestCondition(now, kind, status, reason, message)
		_, err = client.UpdateStatus(n.t.Context(), now, metav1.UpdateOptions{})
		return err == nil
	})
}

func TestDecisions(t *testing.T) {
	rows := []struct {
		name   string
		decide func(n *node, cr *cmapi.CertificateRequest)
		want   string
	}{
		{"denied", func(n *node, cr *cmapi.CertificateRequest) {
			n.decide(cr, cmapi.CertificateRequestConditionDenied, cmmeta.ConditionTrue, "policy", "no such name for shop")
		}, "request denied: CertificateRequest %s: policy: no such name for shop"},
		{"invalid", func(n *node, cr *cmapi.CertificateRequest) {
			n.decide(cr, cmapi.CertificateRequestConditionInvalidRequest, cmmeta.ConditionTrue, "BadUsage", "no such usage")
		}, "request invalid: CertificateRequest %s: BadUsage: no such usage"},
		{"failed", func(n *node, cr *cmapi.CertificateRequest) {
			n.decide(cr, cmapi.CertificateRequestConditionReady, cmmeta.ConditionFalse, cmapi.CertificateRequestReasonFailed, "the CA is broken")
		}, "signing failed: CertificateRequest %s: Failed: the CA is broken"},
		{"deleted", func(n *node, cr *cmapi.CertificateRequest) { n.deleteRequest(cr) },
			"signing failed: CertificateRequest %s was deleted before it was signed"},
	}
	byHand(t, func() {
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				n := newNode(t, namespace(t))
				v := n.pod("web")
				cr, failed := n.pending(v)
				row.decide(n, cr)
				want := strings.ReplaceAll(row.want, "%s", n.namespace+"/"+cr.Name)
				if err := <-failed; err == nil || kubelet.Final(err) || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v\nwant %s", err, want)
				}
				if _, err := n.Publish(t.Context(), n.driver, v); err == nil || !strings.Contains(err.Error(), "(tried once; the next try is at") {
					t.Errorf("while it rests: %v", err)
				}
				n.unpublish(v)
			})
		}
	})
}

func (n *node) deleteRequest(cr *cmapi.CertificateRequest) {
	n.t.Helper()
	if err := shared.CertManager.CertmanagerV1().CertificateRequests(n.namespace).Delete(n.t.Context(), cr.Name, metav1.DeleteOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

// A request whose spec was changed under us is not ours any more.
func TestARequestThatWasChanged(t *testing.T) {
	byHand(t, func() {
		n := newNode(t, namespace(t))
		v := n.pod("web")
		cr, failed := n.pending(v)
		cr.Spec.Request = append(cr.Spec.Request, '\n')
		if _, err := shared.CertManager.CertmanagerV1().CertificateRequests(n.namespace).Update(t.Context(), cr, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := <-failed; err == nil || kubelet.Final(err) || !strings.Contains(err.Error(), "is not as it was created") {
			t.Errorf("%v", err)
		}
		n.unpublish(v)
	})
}

// SIGKILL while the request is pending: the restarted plugin goes on with the same request and its key.
func TestKilledWhileTheRequestIsPending(t *testing.T) {
	byHand(t, func() {
		n := newNode(t, namespace(t))
		v := n.pod("web")
		cr, failed := n.pending(v)
		n.end(syscall.SIGKILL)
		if err := <-failed; err == nil {
			t.Error("a call to a process that was killed succeeded")
		}
		n.start()
		n.decide(cr, cmapi.CertificateRequestConditionApproved, cmmeta.ConditionTrue, "test", "approved by hand")
		n.publish(v)
		until(t, "the request is deleted", func() bool { return len(n.requests()) == 0 })
		if created := strings.Count(n.log.String(), "certificate issued"); created != 1 {
			t.Errorf("%d certificates issued", created)
		}
		n.unpublish(v)
	})
}

func TestAPublishSaysWhatItWaitsFor(t *testing.T) {
	byHand(t, func() {
		n := newNode(t, namespace(t))
		v := n.pod("web")
		n.refuses(v, "not signed yet: CertificateRequest "+n.namespace+"/web-", "waiting for its approval")
		n.unpublish(v)
	})
}

func TestAMissingIssuerIsNamed(t *testing.T) {
	n := newNode(t, namespace(t))
	v := n.pod("web", "issuer-name=nobody")
	n.refuses(v, "approved, waiting for Issuer nobody: ", "not found; an Issuer is looked for in the pod's namespace, "+n.namespace+": ")
	n.unpublish(v)
	v = n.pod("all", "issuer-name=nobody", "issuer-kind=ClusterIssuer")
	n.refuses(v, "approved, waiting for ClusterIssuer nobody: ", "not found; a ClusterIssuer is in no namespace: ", n.namespace)
	n.unpublish(v)
}

func TestTheAPIServerIsAway(t *testing.T) {
	n := newNode(t, namespace(t))
	running, starting, waiting := n.pod("running"), n.pod("starting"), n.pod("waiting")
	before := n.publish(running)
	until(t, "the request is deleted", func() bool { return len(n.requests()) == 0 })
	controllers(t, false)
	t.Cleanup(func() { controllers(t, true) })
	cr, failed := n.pending(waiting)
	t.Cleanup(func() { // Which has been done, if all went well.
		if err := shared.StartAPI(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	if err := shared.ControlPlane.Stop(t.Context(), "kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	if got := n.publish(running); !got.Equal(before) {
		t.Error("the running pod's pair changed")
	}
	if _, err := n.Publish(t.Context(), n.driver, starting); err == nil || kubelet.Final(err) || !strings.Contains(err.Error(), "signer unavailable: create CertificateRequest") {
		t.Errorf("create: %v", err)
	}
	n.unpublish(starting)
	if err := shared.StartAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.decide(cr, cmapi.CertificateRequestConditionApproved, cmmeta.ConditionTrue, "test", "approved by hand")
	// The first call may have ended before the decision: the next one finds it.
	if err := <-failed; kubelet.Final(err) {
		t.Errorf("the pod that waited: %v", err)
	}
	n.publish(waiting)
	if n := strings.Count(n.log.String(), "certificate issued"); n != 2 {
		t.Errorf("%d certificates were issued", n)
	}
	controllers(t, true)
	n.publish(starting)
	for _, v := range []kubelet.Volume{running, starting, waiting} {
		n.unpublish(v)
	}
}

func TestAFailedRenewalIsAnEventOfThePod(t *testing.T) {
	n := newNode(t, namespace(t))
	v := n.pod("web", "duration=5s")
	before := n.publish(v)
	if err := shared.CertManager.CertmanagerV1().Issuers(n.namespace).Delete(t.Context(), "ca", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	byHand(t, func() {
		until(t, "the renewal's request is there", func() bool { return len(n.requests()) == 1 })
		cr := n.requests()[0]
		n.decide(&cr, cmapi.CertificateRequestConditionDenied, cmmeta.ConditionTrue, "policy", "not any more")
		until(t, "the pod is told", func() bool { return n.told(v, "CertificateNotRenewed", "not any more") })
		if !n.leaf(n.Target(v)).Equal(before) {
			t.Error("the pair changed")
		}
	})
	n.unpublish(v)
}

// told reports whether the pod has an event with the reason and the text.
func (n *node) told(v kubelet.Volume, reason, text string) bool {
	n.t.Helper()
	events, err := shared.Client.CoreV1().Events(n.namespace).List(n.t.Context(), metav1.ListOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	return slices.ContainsFunc(events.Items, func(e corev1.Event) bool {
		return string(e.InvolvedObject.UID) == v.UID && e.Reason == reason && strings.Contains(e.Message, text)
	})
}

func TestWithoutTheRightToCreate(t *testing.T) {
	text, err := shared.UserKubeconfig("nobody")
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t, namespace(t))
	n.end(syscall.SIGTERM)
	n.kubeconfig = write(t, text)
	n.start()
	v := n.pod("web")
	_, err = n.Publish(t.Context(), n.driver, v)
	if err == nil || kubelet.Final(err) || !strings.Contains(err.Error(), `cannot create resource "certificaterequests"`) {
		t.Errorf("%v", err)
	}
	n.unpublish(v)
}
