package example

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// An Image is what a container's image has, and this machine does not.
type Image struct {
	Files      map[string]string // Path in the container → file or directory of this machine.
	Texts      map[string]string // Path in the container → a program's text.
	Env        []string
	Entrypoint []string // Counts if the manifest has no command.
}

// A Container is the one container of a pod that runs.
type Container struct {
	Volumes map[string]string // Name of a volume → its directory on this machine.
	netns   string
	output  string
}

// A mount shows a directory of this machine in a container.
type mount struct {
	from, to string
	readOnly bool
}

// Run runs the pod of a workload, which must have one container. The names of the example's services are those of the loopback address.
// Several pods may share a network, that of the first.
func (n *Node) Run(t *testing.T, e Example, workload string, image Image, network *Container) *Container {
	t.Helper()
	i := slices.IndexFunc(e.Pods, func(p Pod) bool { return p.Name == workload })
	if i < 0 || len(e.Pods[i].Spec.Containers) != 1 {
		t.Fatalf("%s.yaml has no workload %s with one container", e.Name, workload)
	}
	pod := e.Pods[i]
	c, spec := &Container{Volumes: map[string]string{}}, pod.Spec.Containers[0]
	for _, v := range pod.Spec.Volumes {
		c.Volumes[v.Name] = n.volume(t, e, pod, v)
	}
	var mounts []mount
	for _, m := range spec.VolumeMounts {
		if m.SubPath != "" || c.Volumes[m.Name] == "" {
			t.Fatalf("%s.yaml: mount %s: no such volume, or a subPath, which never sees a renewal", e.Name, m.Name)
		}
		mounts = append(mounts, mount{c.Volumes[m.Name], m.MountPath, m.ReadOnly})
	}
	for to, from := range image.Files {
		mounts = append(mounts, mount{from, to, true})
	}
	image.Texts = withHosts(image.Texts, e.Services)
	for to, text := range image.Texts {
		mounts = append(mounts, mount{program(t, text), to, true})
	}
	c.start(t, pod, spec, image, mounts, network)
	return c
}

func withHosts(texts map[string]string, services []corev1.Service) map[string]string {
	hosts := "127.0.0.1 localhost\n"
	for _, s := range services {
		hosts += fmt.Sprintf("127.0.0.1 %[1]s %[1]s.default %[1]s.default.svc\n", s.Name)
	}
	all := map[string]string{"/etc/hosts": hosts}
	for path, text := range texts {
		all[path] = text
	}
	return all
}

func program(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// volume is the directory of a volume, with what the manifest says is in it.
func (n *Node) volume(t *testing.T, e Example, pod Pod, v corev1.Volume) string {
	t.Helper()
	if v.CSI != nil {
		return n.Publish(t, pod, v)
	}
	dir, err := os.MkdirTemp("", "volume-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	switch {
	case v.ConfigMap != nil:
		files, ok := e.ConfigMaps[v.ConfigMap.Name]
		if !ok {
			t.Fatalf("%s.yaml has no ConfigMap %s", e.Name, v.ConfigMap.Name)
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		err = os.Chmod(dir, 0o755)
	case v.EmptyDir != nil:
		err = os.Chmod(dir, 0o777)
	case v.PersistentVolumeClaim != nil && pod.group() != nil:
		err = errors.Join(os.Chown(dir, 0, int(*pod.group())), os.Chmod(dir, 0o2775))
	default:
		err = errors.New("of a kind that the tests do not know")
	}
	if err != nil {
		t.Fatalf("%s.yaml: volume %s: %v", e.Name, v.Name, err)
	}
	return dir
}

// setup makes the container's root of this machine's, without its devices and processes, and what is mounted in it; then it is the container's
// command, as its user. The mount points are made in a layer of their own. Arguments: the base directory, the mode of the root, user, group,
// groups, then three for each mount up to "--", then the environment and the command.
const setup = `
base=$1 mode=$2 user=$3 group=$4 groups=$5; shift 5
if [ -z "$NETWORK" ]; then ip link set lo up; fi
mount -t tmpfs none "$base"
mkdir "$base/upper" "$base/work" "$base/root"
mount -t overlay none -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$base/root"
cd "$base/root"
mkdir -p .host
pivot_root . .host
cd /
mount -t proc none /proc
mount --bind /.host/dev /dev
for dir in /tmp /dev/shm; do mount -t tmpfs -o mode=1777 none "$dir"; done
while [ "$1" != -- ]; do
	if [ -d "/.host$1" ]; then mkdir -p "$2"; else dir=${2%/*}; mkdir -p "${dir:-/}"; [ -e "$2" ] || : > "$2"; fi
	mount --bind "/.host$1" "$2"
	[ "$3" = rw ] || mount -o remount,bind,ro "$2"
	shift 3
done
shift
umount -l /.host
mount -o "remount,bind,$mode" /
exec setpriv --pdeathsig keep --no-new-privs --reuid="$user" --regid="$group" --groups="$groups" --bounding-set=-all -- env -i "$@"
`

func (c *Container) start(t *testing.T, pod Pod, spec corev1.Container, image Image, mounts []mount, network *Container) {
	t.Helper()
	base, err := os.MkdirTemp("", "container-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	user, group, groups := ids(t, pod)
	argv := []string{"--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"}
	if network == nil {
		argv = append(argv, "--net")
	}
	argv = append(argv, "--", "sh", "-euc", setup, "sh", base, rootMode(spec), user, group, groups)
	for _, m := range mounts {
		argv = append(argv, m.from, m.to, map[bool]string{true: "ro", false: "rw"}[m.readOnly])
	}
	argv = append(argv, "--")
	argv = append(argv, environment(t, spec, image)...)
	argv = append(argv, command(t, spec, image)...)
	cmd := exec.Command("unshare", argv...)
	cmd.Env = append(os.Environ(), "NETWORK=")
	if network != nil {
		cmd = exec.Command("nsenter", append([]string{"--net=" + network.netns, "unshare"}, argv...)...)
		cmd.Env = append(os.Environ(), "NETWORK=shared")
	}
	cmd.Dir = "/"
	c.netns = fmt.Sprintf("/proc/%d/ns/net", Start(t, cmd, os.Kill).Pid)
	Until(t, "the container's network", func() error {
		own, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			return err
		}
		its, err := os.Readlink(c.netns)
		if err == nil && its == own {
			err = errors.New("it has this machine's")
		}
		return err
	})
	c.output = cmd.Stdout.(*os.File).Name()
}

func rootMode(spec corev1.Container) string {
	if s := spec.SecurityContext; s != nil && s.ReadOnlyRootFilesystem != nil && *s.ReadOnlyRootFilesystem {
		return "ro"
	}
	return "rw"
}

// ids are the user and groups of the pod's processes. An example names them, for the images' are not known here.
func ids(t *testing.T, pod Pod) (user, group, groups string) {
	t.Helper()
	s := pod.Spec.SecurityContext
	if s == nil || s.RunAsUser == nil || s.RunAsGroup == nil || s.FSGroup == nil {
		t.Fatalf("%s: runAsUser, runAsGroup or fsGroup is not set", pod.Name)
	}
	return fmt.Sprint(*s.RunAsUser), fmt.Sprint(*s.RunAsGroup), fmt.Sprintf("%d,%d", *s.RunAsGroup, *s.FSGroup)
}

// environment is what the container's program finds set: what the image says, then the manifest. A value from elsewhere must be the image's.
func environment(t *testing.T, spec corev1.Container, image Image) []string {
	t.Helper()
	all := append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/"}, image.Env...)
	for _, e := range spec.Env {
		if value, ok := valueOf(e); ok {
			all = append(all, e.Name+"="+value)
		} else if !slices.ContainsFunc(image.Env, func(set string) bool { return strings.HasPrefix(set, e.Name+"=") }) {
			t.Fatalf("the test does not say what %s is", e.Name)
		}
	}
	return all
}

// valueOf is what the manifest says that a variable is. The examples' pods are in the namespace default.
func valueOf(e corev1.EnvVar) (value string, ok bool) {
	if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil && e.ValueFrom.FieldRef.FieldPath == "metadata.namespace" {
		return "default", true
	}
	return e.Value, e.ValueFrom == nil
}

// command is what the container runs, with the manifest's variables in its arguments, as the kubelet expands them.
func command(t *testing.T, spec corev1.Container, image Image) []string {
	t.Helper()
	all := slices.Clone(spec.Command)
	if len(all) == 0 {
		all = slices.Clone(image.Entrypoint)
	}
	for _, word := range append(all, spec.Args...) {
		if strings.Contains(word, "$$") { // The kubelet makes one of two (k8s.io/kubernetes third_party/forked/golang/expansion).
			t.Fatalf("a command has $$: %s", word)
		}
	}
	for _, word := range spec.Args {
		for _, e := range spec.Env {
			value, _ := valueOf(e)
			word = strings.ReplaceAll(word, "$("+e.Name+")", value)
		}
		all = append(all, word)
	}
	return all
}

// Dial connects to a port of the container.
func (c *Container) Dial(port int) (net.Conn, error) {
	type answer struct {
		conn net.Conn
		err  error
	}
	answers := make(chan answer)
	go func() {
		runtime.LockOSThread() // It is never unlocked: the thread ends with the goroutine, and nobody else gets into its network.
		conn, err := dialIn(c.netns, port)
		answers <- answer{conn, err}
	}()
	a := <-answers
	return a.conn, a.err
}

func dialIn(netns string, port int) (net.Conn, error) {
	ns, err := os.Open(netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	return net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
}

// Output is what the container has printed.
func (c *Container) Output(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(c.output)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
