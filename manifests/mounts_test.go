package manifests_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/mayfly-csi/mayfly/signer/spec"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// A container runs the node plugin as a container runtime does by the DaemonSet: with a read-only root, in which it sees of the node what is mounted there.
type container struct {
	t         *testing.T
	kubelet   *kubelet.Kubelet // Its root is in the place of the manifest's.
	root      string           // Of the container's file system, a tmpfs of its own.
	mounts    []string         // The mount points in it.
	process   *exec.Cmd
	connected []kubelet.Driver
}

// must ends the test if there is an error.
func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// tmpfs mounts a file system until the test ends.
func tmpfs(t *testing.T, dir string, propagation uintptr) string {
	t.Helper()
	must(t, os.Mkdir(dir, 0o755), unix.Mount("test", dir, "tmpfs", 0, ""), unix.Mount("", dir, "", propagation, ""))
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// start makes the mounts of the DaemonSet, and runs the binary with them.
func (c *container) start(binary []byte, args ...string) {
	c.t.Helper()
	pod, root := the[*appsv1.DaemonSet](c.t, objects(c.t, "*.yaml")).Spec.Template.Spec, variables(c.t)["MAYFLY_KUBELET_ROOT"]
	here := func(path string) string { return filepath.Join(c.kubelet.Root, strings.TrimPrefix(path, root)) }
	sources := map[string]string{}
	for _, v := range pod.Volumes {
		sources[v.Name] = here(v.HostPath.Path)
	}
	for _, m := range pod.Containers[0].VolumeMounts {
		// containerd resolves a link (internal/cri/server/container_create.go, HostPath).
		source, err := filepath.EvalSymlinks(sources[m.Name])
		target := filepath.Join(c.root, here(m.MountPath))
		must(c.t, err, os.MkdirAll(target, 0o755), unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""))
		if m.MountPropagation == nil || *m.MountPropagation != corev1.MountPropagationBidirectional {
			must(c.t, unix.Mount("", target, "", unix.MS_PRIVATE|unix.MS_REC, ""))
		}
		c.mounts = append(c.mounts, target)
	}
	proc := filepath.Join(c.root, "proc")
	must(c.t, os.MkdirAll(proc, 0o755), unix.Mount("proc", proc, "proc", 0, ""))
	c.mounts = append(c.mounts, proc)
	must(c.t, os.WriteFile(filepath.Join(c.root, "mayfly"), binary, 0o700), //nolint:gosec // A program.
		unix.Mount("", c.root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	all := append([]string{"node", "--node-name=a", "--signer=local", "--kubelet-root=" + c.kubelet.Root}, args...)
	c.process = exec.CommandContext(c.t.Context(), "/mayfly", all...)
	c.process.SysProcAttr = &syscall.SysProcAttr{Chroot: c.root}
	c.process.Dir, c.process.Stderr = "/", c.t.Output()
	must(c.t, c.process.Start())
}

// register connects to the driver of that name as soon as it is there.
func (c *container) register(name string) kubelet.Driver {
	c.t.Helper()
	d, err := c.kubelet.Register(c.t.Context(), name)
	must(c.t, err)
	c.connected = append(c.connected, d)
	return d
}

// end stops the container, whose mounts go with its mount namespace: nothing is unmounted on the node.
func (c *container) end() {
	c.t.Helper()
	for _, d := range c.connected {
		must(c.t, d.Close())
	}
	must(c.t, c.process.Process.Signal(syscall.SIGTERM), c.process.Wait(), unix.Mount("", c.root, "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	for _, m := range c.mounts {
		must(c.t, unix.Mount("", m, "", unix.MS_PRIVATE|unix.MS_REC, ""), unix.Unmount(m, unix.MNT_DETACH))
	}
	c.connected, c.mounts = nil, nil
}

// The mounts of the DaemonSet are enough, under several driver names, and where the kubelet's pods are on another disk to which there is a link: the node sees
// the certificates, another container takes the volumes up, and nothing is left.
func TestPodsOnAnotherDisk(t *testing.T) {
	dir, err := os.MkdirTemp("", "mounts-") // A test's own directory makes a socket's path too long.
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", filepath.Join(dir, "mayfly"), "../cmd/mayfly")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // As in the image, which has no C library.
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	binary, err := os.ReadFile(filepath.Join(dir, "mayfly"))
	must(t, err)

	root, disk := tmpfs(t, filepath.Join(dir, "k"), unix.MS_SHARED), tmpfs(t, filepath.Join(dir, "disk"), unix.MS_SHARED)
	must(t, os.Mkdir(filepath.Join(disk, "pods"), 0o750), os.Symlink(filepath.Join(disk, "pods"), filepath.Join(root, "pods")))
	must(t, os.MkdirAll(filepath.Join(root, "plugins", spec.Driver), 0o755), os.Mkdir(filepath.Join(root, "plugins_registry"), 0o750)) //nolint:gosec // As the kubelet makes them.
	c := &container{t: t, kubelet: &kubelet.Kubelet{Root: root}, root: tmpfs(t, filepath.Join(dir, "c"), unix.MS_PRIVATE)}
	web := kubelet.Volume{
		Pod: kubelet.Pod{Namespace: "shop", Name: "web", UID: "u-1", ServiceAccount: "web"},
		Attributes: map[string]string{
			spec.Prefix + "dns-names": "web.example.org", spec.Prefix + "layout": "pem,bundle",
		},
	}
	old := kubelet.Volume{
		Pod:        kubelet.Pod{Namespace: "shop", Name: "old", UID: "u-2", ServiceAccount: "web"},
		Attributes: map[string]string{spec.OldDriver + "/dns-names": "old.example.org", spec.OldDriver + "/issuer-name": "ca"},
	}
	names := "--driver-name=" + spec.Driver + "," + spec.OldDriver
	c.start(binary, names)
	target, err := c.kubelet.Publish(t.Context(), c.register(spec.Driver), web)
	must(t, err)
	_, err = c.kubelet.Publish(t.Context(), c.register(spec.OldDriver), old)
	must(t, err)
	first, err := kubelet.Load(target)
	must(t, err)
	c.end()

	again, err := kubelet.Load(target)
	if err != nil || !again.Equal(first) {
		t.Errorf("the pod's certificate is gone with the container: %v", err)
	}
	c.start(binary, names)
	ours, theirs := c.register(spec.Driver), c.register(spec.OldDriver)
	_, err = c.kubelet.Publish(t.Context(), ours, web)
	must(t, err)
	if again, err = kubelet.Load(target); err != nil || !again.Equal(first) {
		t.Errorf("the volume was not taken up: %v", err)
	}
	must(t, c.kubelet.Unpublish(t.Context(), ours, web), c.kubelet.Unpublish(t.Context(), theirs, old))
	c.end()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if left := strings.Count(string(mounts), dir+"/"); left != 4 { // Those of the test, and the state directory's, which stays for the next container.
		t.Errorf("%d mounts are left:\n%s", left, mounts)
	}
}
