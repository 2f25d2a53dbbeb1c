package main

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/certmanager"
	"github.com/mayfly-csi/mayfly/signer/podcertificate"
	"github.com/mayfly-csi/mayfly/test/forge"
)

// The service accounts of node plugins in the run's namespace, and the roles of these names.
const (
	asAnyone = "modes-anyone" // Its requests are cert-manager's to approve.
	asNode   = "modes-node"   // It asks as its node.
)

// A mode is a way to a certificate.
type mode struct {
	name   string
	limit  float64 // Of the ratio to the first, one by one; 0: none.
	atOnce float64 // Of the same, many at once.
	by     string
	signer signer.Signer
	pods   map[string]*corev1.Pod // By name.
}

// modes are all of them, each with a node plugin's token that is bound to a pod of its own. The first is what the others are compared with.
func (s *site) modes(ctx context.Context) ([]*mode, error) {
	pods, err := s.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	known := map[string]*corev1.Pod{}
	for i := range pods.Items {
		known[pods.Items[i].Name] = &pods.Items[i]
	}
	anyone, err := s.plugin(ctx, namespace, asAnyone, certManager)
	if err != nil {
		return nil, err
	}
	approved, err := s.plugin(ctx, system, "mayfly", certManager)
	if err != nil {
		return nil, err
	}
	asItsNode, err := s.plugin(ctx, namespace, asNode, podCertificate)
	return []*mode{
		{"driver, cert-manager's own approver", 0, 0, issuer, anyone, known},
		{"driver, mayfly-controller approves", 1.2, 1.25, issuer, approved, known},
		{"pod-certificate, the controller's own CA", 0.5, 0, ownCA, asItsNode, known},
		{"pod-certificate, through a cert-manager issuer", 1.6, 0, issuer, asItsNode, known},
	}, err
}

func certManager(config *rest.Config) (signer.Signer, error) { return certmanager.New(config) }

func podCertificate(config *rest.Config) (signer.Signer, error) {
	return podcertificate.New(config, node)
}

// plugin is the signer of a node plugin that runs on the node under a service account.
func (s *site) plugin(ctx context.Context, namespace, account string, with func(*rest.Config) (signer.Signer, error)) (signer.Signer, error) {
	p := bare("modes-"+account, account)
	p.Namespace = namespace
	p, err := s.Client.CoreV1().Pods(namespace).Create(ctx, p, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("make the node plugin's pod: %w", err)
	}
	token, err := s.Client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID},
	}}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("make the node plugin's token: %w", err)
	}
	config := rest.AnonymousClientConfig(s.From(s.Nodes[0], s.REST))
	config.BearerToken, config.QPS = token.Status.Token, 0 // As the product gets it: its signers set their own.
	return with(config)
}

// ready waits until the mode works: the API server's caches know the rights, and the controller has its CA.
func (m *mode) ready(ctx context.Context) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, last = m.sign(ctx, 0)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait for mode %s: %w: %w", m.name, err, last)
	}
	return nil
}

// sign gets a certificate for a pod, and is how long its node plugin waited for it. What the node plugin then forgets is forgotten.
func (m *mode) sign(ctx context.Context, i int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	req, err := forge.Ask(m.pods[pod(m.by, i).Name], request.NewAttempt())
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	issued, err := m.signer.Sign(ctx, req)
	took := time.Since(begin)
	switch {
	case err != nil:
		return took, fmt.Errorf("%s: %w", m.name, err)
	case len(issued.Chain) == 0:
		return took, fmt.Errorf("%s: the answer has no certificate", m.name)
	}
	if f, ok := m.signer.(signer.Forgetter); ok {
		err = f.Forget(ctx, req.Attempt)
	}
	return took, err
}
