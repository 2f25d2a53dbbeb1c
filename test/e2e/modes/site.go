package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/test/cluster"
)

const (
	namespace = "modes" // Is made for the run.
	node      = "modes" // Has no kubelet: nothing runs on it.
	system    = "mayfly-system"
	manifests = "../../manifests"
)

// A site is a cluster with mayfly-controller, which approves and signs, and with pods on a node.
type site struct {
	*cluster.Cluster
	tell func(format string, args ...any)
}

// prepare makes all that is measured with: twice as many pods as ask at once, for two kinds of issuer.
func (s *site) prepare(ctx context.Context, pods int) error {
	s.tell("preparing the cluster")
	if _, err := s.Namespace(ctx, namespace); err != nil {
		return err
	}
	if _, err := s.Client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("make node %s: %w", node, err)
	}
	if err := errors.Join(s.controller(ctx), s.rights(ctx)); err != nil {
		return err
	}
	return s.makePods(ctx, pods)
}

// makePods makes pods that have a certificate of the issuer, and pods that have one of the controller's own CA.
func (s *site) makePods(ctx context.Context, n int) error {
	return each(ctx, n, func(ctx context.Context, i int) error {
		return errors.Join(s.makePod(ctx, pod(issuer, i)), s.makePod(ctx, pod(ownCA, i)))
	})
}

func (s *site) makePod(ctx context.Context, p *corev1.Pod) error {
	if _, err := s.Client.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("make pod %s: %w", p.Name, err)
	}
	return nil
}

// controller installs mayfly-controller, as docs say.
func (s *site) controller(ctx context.Context) error {
	for _, args := range [][]string{
		{"apply", "--filename", filepath.Join(manifests, "controller")},
		{"apply", "--filename", filepath.Join(manifests, "authority")},
		{"apply", "--filename", modeFile("authority"), "--filename", modeFile("controller"), "--filename", modeFile("policies"), "--filename", modeFile("node")},
		{"--namespace", system, "set", "env", "deployment/mayfly-controller", "MAYFLY_POD_CERTIFICATES=true", "MAYFLY_NODE_RATE=10000"},
		{"--namespace", system, "rollout", "status", "deployment/mayfly-controller", "--timeout=2m"},
	} {
		if _, err := s.Kubectl(ctx, args...); err != nil {
			return fmt.Errorf("install mayfly-controller: %w", err)
		}
	}
	return nil
}

func modeFile(name string) string {
	return filepath.Join(manifests, "modes", "pod-certificate", name+".yaml")
}

// rights makes the service accounts of two node plugins, with their rights. The third is the cluster's own, whose requests are for mayfly-controller to decide.
func (s *site) rights(ctx context.Context) error {
	for account, role := range map[string]string{asAnyone: "mayfly", asNode: "mayfly-pod-certificate"} {
		_, err := s.Client.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("make service account %s: %w", account, err)
		}
		_, err = s.Client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: account},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account, Namespace: namespace}},
		}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("give rights to %s: %w", account, err)
		}
	}
	return nil
}

// clear removes all that prepare and fill make, whether it is there or not.
func (s *site) clear(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	s.tell("clearing the cluster")
	err := s.empty(ctx)
	for _, args := range [][]string{
		{"node", node},
		{"--filename", filepath.Join(manifests, "controller"), "--filename", modeFile("authority"),
			"--filename", modeFile("controller"), "--filename", modeFile("policies")},
		{"--filename", modeFile("node"), "--filename", filepath.Join(manifests, "authority")},
		{"clusterrolebinding", asAnyone, asNode},
		{"clustertrustbundle", "csi.mayfly.dev:volume:ca"},
		{"namespace", namespace},
	} {
		_, failed := s.Kubectl(ctx, append([]string{"delete", "--ignore-not-found"}, args...)...)
		err = errors.Join(err, failed)
	}
	return err
}

// empty removes what there may be thousands of, and what no kubelet ends.
func (s *site) empty(ctx context.Context) error {
	at, now := metav1.ListOptions{FieldSelector: "spec.nodeName=" + node}, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}
	pods, err := s.Client.CoreV1().Pods("").List(ctx, at)
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	for _, request := range []string{"certificaterequests", "podcertificaterequests"} {
		err = errors.Join(err, s.removeAll(ctx, request))
	}
	return errors.Join(err, each(ctx, len(pods.Items), func(ctx context.Context, i int) error {
		return ignoreGone(s.Client.CoreV1().Pods(pods.Items[i].Namespace).Delete(ctx, pods.Items[i].Name, now))
	}))
}

// each does something n times, some of them at once.
func each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(32)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}
