package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/mayfly-csi/mayfly/test/cluster"
)

// start starts pods at once, with a volume of these attributes if there are any, and returns how long each took from its
// creation until a watch saw it running. It then removes them.
func start(ctx context.Context, c *cluster.Cluster, n int, volume map[string]string) ([]time.Duration, error) {
	client := c.Client.CoreV1().Pods(namespace)
	watcher, err := client.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	defer watcher.Stop()
	begin := make([]time.Time, n)
	var group errgroup.Group
	for i := range n {
		group.Go(func() error {
			begin[i] = time.Now()
			_, err := client.Create(ctx, pod(i, volume), metav1.CreateOptions{})
			return err
		})
	}
	ran := map[string]time.Time{}
	err = until(ctx, watcher, func(event watch.Event, pod *corev1.Pod) bool {
		if _, known := ran[pod.Name]; !known && event.Type != watch.Deleted && pod.Status.Phase == corev1.PodRunning {
			ran[pod.Name] = time.Now()
		}
		return len(ran) == n
	})
	if err := errors.Join(err, group.Wait()); err != nil {
		return nil, fmt.Errorf("start pods: %w", err)
	}
	took := make([]time.Duration, n)
	for i := range n {
		took[i] = ran[name(i)].Sub(begin[i])
	}
	if err := client.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		return nil, fmt.Errorf("delete pods: %w", err)
	}
	gone := 0
	return took, until(ctx, watcher, func(event watch.Event, _ *corev1.Pod) bool {
		if event.Type == watch.Deleted {
			gone++
		}
		return gone == n
	})
}

// until hands events on until one is the last.
func until(ctx context.Context, w watch.Interface, last func(watch.Event, *corev1.Pod) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event, open := <-w.ResultChan():
			pod, ok := event.Object.(*corev1.Pod)
			if !open || !ok {
				return errors.New("the watch ended")
			}
			if last(event, pod) {
				return nil
			}
		}
	}
}

func name(i int) string { return fmt.Sprintf("pod-%d", i) }

// pod is a pod with a volume of these attributes, if there are any.
func pod(i int, volume map[string]string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name(i)},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64(1)),
			Containers:                    []corev1.Container{{Name: "app", Image: "busybox:stable", ImagePullPolicy: corev1.PullNever}},
		},
	}
	if volume != nil {
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "tls", MountPath: "/tls", ReadOnly: true}}
		p.Spec.Volumes = []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
			Driver: "csi.mayfly.dev", ReadOnly: new(true), VolumeAttributes: maps.Clone(volume),
		}}}}
	}
	return p
}

// byIssuer are the attributes of a volume whose certificate an issuer of cert-manager signs.
func byIssuer() map[string]string {
	return map[string]string{
		"csi.mayfly.dev/issuer-name": "ca",
		"csi.mayfly.dev/dns-names":   "${POD_NAME}.${POD_NAMESPACE}.svc",
	}
}
