package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/mayfly-csi/mayfly/test/cluster"
)

// The kind of the issuers that the program plays. Its definition must be there, or nobody may approve their requests.
const (
	kind       = "Signer"
	group      = "stories.test"
	definition = "testdata/signers.yaml"
)

// lifetimes are what a pod's volumes ask for, one each.
var lifetimes = [volumes]string{"2m", "3m", "5m", "10m", "15m"}

// newPod is a pod whose volumes are all of one issuer, which its name begins with.
func newPod(issuer, name string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: issuer + "-" + name, Labels: map[string]string{"issuer": issuer}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64(1)),
			Containers:                    []corev1.Container{{Name: "app", Image: "busybox:stable", ImagePullPolicy: corev1.PullNever}},
			TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{
				MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway,
				LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"issuer": issuer}},
			}},
		},
	}
	for i, lifetime := range lifetimes {
		v := fmt.Sprintf("v%d", i)
		attributes := map[string]string{
			"csi.mayfly.dev/dns-names": v + ".${POD_NAME}.${POD_NAMESPACE}.svc", "csi.mayfly.dev/duration": lifetime,
			"csi.mayfly.dev/issuer-name": issuerName(p.Name),
		}
		if issuer != healthy {
			attributes["csi.mayfly.dev/issuer-kind"], attributes["csi.mayfly.dev/issuer-group"] = kind, group
		}
		mount := corev1.VolumeMount{Name: v, MountPath: "/" + v, ReadOnly: true}
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, mount)
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: v, VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
			Driver: "csi.mayfly.dev", ReadOnly: new(true), VolumeAttributes: attributes,
		}}})
	}
	return p
}

// issuerOf is the issuer of a pod or of a DNS name of it.
func issuerOf(name string) string {
	if _, after, ok := strings.Cut(name, "."); ok {
		name = after
	}
	issuer, _, _ := strings.Cut(name, "-")
	return issuer
}

// issuerName is the name of the Issuer of a pod: that of the healthy one is cert-manager's, which the namespace has.
func issuerName(pod string) string {
	if issuer := issuerOf(pod); issuer != healthy {
		return issuer
	}
	return "ca"
}

// issuerTitle is what messages call the issuer of a pod.
func issuerTitle(pod string) string {
	if issuerOf(pod) == healthy {
		return "Issuer " + issuerName(pod)
	}
	return kind + " " + issuerName(pod)
}

// startAll starts so many pods of each issuer and waits until all of them are ready.
func startAll(ctx context.Context, c *cluster.Cluster, n int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(12)
	for i := range n {
		for _, issuer := range []string{healthy, slow, silent} {
			group.Go(func() error { return start(ctx, c, newPod(issuer, fmt.Sprint(i))) })
		}
	}
	return group.Wait()
}

// start starts a pod and waits until it is ready.
func start(ctx context.Context, c *cluster.Cluster, p *corev1.Pod) error {
	pods := c.Client.CoreV1().Pods(namespace)
	if _, err := pods.Create(ctx, p, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("make pod %s: %w", p.Name, err)
	}
	err := wait.PollUntilContextTimeout(ctx, 500*time.Millisecond, 10*time.Minute, true, func(ctx context.Context) (bool, error) {
		p, err := pods.Get(ctx, p.Name, metav1.GetOptions{})
		return err == nil && p.Status.Phase == corev1.PodRunning, err
	})
	if err != nil {
		return fmt.Errorf("start pod %s: %w", p.Name, err)
	}
	return nil
}

// newcomers starts a pod of the healthy issuer every other minute, and notes how long that took.
func newcomers(ctx context.Context, c *cluster.Cluster, seen *ledger) error {
	ticker := time.NewTicker(2 * time.Minute)
	defer ticker.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		p := newPod(healthy, fmt.Sprintf("new-%d", i))
		begin := time.Now()
		if err := start(ctx, c, p); err != nil {
			return err
		}
		seen.newcomer(time.Since(begin))
		err := c.Client.CoreV1().Pods(namespace).Delete(ctx, p.Name, metav1.DeleteOptions{})
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
	}
}
