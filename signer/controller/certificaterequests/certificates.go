package certificaterequests

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/lru"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/audit"
	"github.com/mayfly-csi/mayfly/signer/decide"
)

// certificates records the certificates of node plugins' requests, in the replica that may. It takes them from the
// events of the cache: a request is deleted as soon as its certificate is in the pod, before a controller's queue would
// come to it.
type certificates struct {
	Config
	accounts *lru.Cache
	seen     chan audit.Record
}

const (
	maxSeen        = 1024 // Records that wait for their pod to be read.
	accountTimeout = 5 * time.Second
	maxCertificate = 64 << 10 // Bytes of a certificate in PEM that is read.
)

func newCertificates(config Config, accounts *lru.Cache) *certificates {
	return &certificates{config, accounts, make(chan audit.Record, maxSeen)}
}

// handler returns what hears the cache's events. It makes no requests for the controller.
func (c *certificates) handler() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, _ queue) {
			if !e.IsInInitialList { // What was issued before the start is in the gap.
				c.changed(nil, e.Object)
			}
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, _ queue) { c.changed(e.ObjectOld, e.ObjectNew) },
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, _ queue) { c.deleted(e.Object) },
	}
}

// changed takes up a certificate that is new.
func (c *certificates) changed(before, now client.Object) {
	cr, ok := now.(*cmapi.CertificateRequest)
	if !ok || len(cr.Status.Certificate) == 0 {
		return
	}
	if old, ok := before.(*cmapi.CertificateRequest); ok && bytes.Equal(old.Status.Certificate, cr.Status.Certificate) {
		return
	}
	c.take(cr)
}

// deleted takes up an approved request that ends without a certificate: its issuer may have signed one.
func (c *certificates) deleted(object client.Object) {
	cr, ok := object.(*cmapi.CertificateRequest)
	if ok && len(cr.Status.Certificate) == 0 && is(cr, cmapi.CertificateRequestConditionApproved) && !failed(cr) {
		c.take(cr)
	}
}

// failed reports whether the issuer has refused the request.
func failed(cr *cmapi.CertificateRequest) bool {
	return slices.ContainsFunc(cr.Status.Conditions, func(c cmapi.CertificateRequestCondition) bool {
		return c.Type == cmapi.CertificateRequestConditionReady && c.Reason == cmapi.CertificateRequestReasonFailed
	})
}

// take queues the record of a request, if this replica may record it.
func (c *certificates) take(cr *cmapi.CertificateRequest) {
	if c.Audit == nil || cr.Spec.Username != c.NodePlugin || !c.Holder.Holds() {
		return
	}
	record := certificateOf(cr)
	select {
	case c.seen <- record:
	default: // The API server is slow: it goes without its service account.
		c.Audit.Write(record)
	}
}

// Start writes the records, with the service accounts of their pods, until ctx ends. It implements [manager.Runnable].
func (c *certificates) Start(ctx context.Context) error {
	for {
		select {
		case record := <-c.seen:
			record.ServiceAccount = c.account(ctx, record)
			c.Audit.Write(record)
		case <-ctx.Done():
			for {
				select {
				case record := <-c.seen:
					c.Audit.Write(record)
				default:
					return nil
				}
			}
		}
	}
}

// NeedLeaderElection implements [manager.LeaderElectionRunnable].
func (c *certificates) NeedLeaderElection() bool { return false }

// account returns the service account of a record's pod, as this replica's decision had it, or as the API server has it
// now; none if the pod is gone or can't be read.
func (c *certificates) account(ctx context.Context, of audit.Record) string {
	if known, ok := c.accounts.Get(of.Request.UID); ok {
		c.accounts.Remove(of.Request.UID)
		account, _ := known.(string)
		return account
	}
	ctx, cancel := context.WithTimeout(ctx, accountTimeout)
	defer cancel()
	var pod corev1.Pod
	fromCache := &client.GetOptions{Raw: &metav1.GetOptions{ResourceVersion: "0"}} // Of the API server.
	err := c.Decider.Live.Get(ctx, client.ObjectKey{Namespace: of.Namespace, Name: of.Name}, &pod, fromCache)
	if err != nil || pod.UID != of.UID {
		return ""
	}
	return pod.Spec.ServiceAccountName
}

// trimDecided leaves of a request that nobody has to decide on what a record says: of a certificate chain the leaf.
func (c Callers) trimDecided(cr *cmapi.CertificateRequest) {
	cr.Annotations, cr.Labels = nil, nil
	if cr.Spec.Username != c.NodePlugin {
		cr.OwnerReferences = nil
		cr.Spec = cmapi.CertificateRequestSpec{}
		cr.Status = cmapi.CertificateRequestStatus{}
		return
	}
	cr.Spec = cmapi.CertificateRequestSpec{
		Username: cr.Spec.Username, IssuerRef: cr.Spec.IssuerRef,
		Extra: map[string][]string{nodeName: cr.Spec.Extra[nodeName]},
	}
	leaf := cr.Status.Certificate
	if block, rest := pem.Decode(leaf); block != nil {
		leaf = leaf[:len(leaf)-len(rest)]
	}
	leaf = bytes.Clone(leaf[:min(len(leaf), maxCertificate)])
	cr.Status = cmapi.CertificateRequestStatus{Conditions: cr.Status.Conditions, Certificate: leaf}
}

// decisionOf returns the record of a decision.
func decisionOf(cr *cmapi.CertificateRequest, d decide.Decision, outcome string) audit.Record {
	r := recordOf(cr)
	r.Audit, r.Decision, r.Reason, r.Message = audit.Decision, outcome, d.Reason, d.Message
	r.ServiceAccount, r.Policy = d.ServiceAccount, d.Policies
	var usages []signer.Usage
	for _, u := range cr.Spec.Usages {
		usages = append(usages, signer.Usage(u))
	}
	var der []byte
	if block, _ := pem.Decode(cr.Spec.Request); block != nil {
		der = block.Bytes
	}
	content := audit.OfDenied
	if d.Verdict == decide.Approve {
		content = audit.OfRequest
	}
	r.Content = content(der, usages, cr.Spec.IsCA)
	return r
}

// certificateOf returns the record of a request's certificate, which is unknown if it has none that can be read.
func certificateOf(cr *cmapi.CertificateRequest) audit.Record {
	r := recordOf(cr)
	r.Audit, r.Certificate = audit.Certificate, audit.Unknown
	for _, condition := range cr.Status.Conditions {
		if condition.Type == cmapi.CertificateRequestConditionApproved {
			r.Decision, r.Reason = audit.Approved, condition.Reason
		}
	}
	if len(cr.Status.Certificate) == 0 {
		r.Message = "the request was deleted before its certificate was seen"
		return r
	}
	var der []byte
	if block, _ := pem.Decode(cr.Status.Certificate); block != nil {
		der = block.Bytes
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		r.Message = "the issuer's answer can't be read: " + err.Error()
		return r
	}
	r.Certificate = audit.Issued
	r.Content, r.Validity = audit.OfCertificate(leaf)
	return r
}

// recordOf returns what all records of a request say.
func recordOf(cr *cmapi.CertificateRequest) audit.Record {
	of := request(cr)
	return audit.Record{
		Mode:    audit.Driver,
		Request: &audit.Request{Kind: cmapi.CertificateRequestKind, Name: cr.Name, UID: cr.UID},
		Pod:     audit.Pod{Namespace: cr.Namespace, Name: of.Pod, UID: of.UID, Node: of.Node},
		Issuer:  audit.IssuerOf(of.Object.Issuer),
	}
}
