package driver_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

func TestAPodGetsItsCertificateAndLeavesNothing(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	target := n.publish(v)
	leaf := pair(t, target)
	if !slices.Equal(leaf.DNSNames, []string{"web-0.shop.svc"}) {
		t.Errorf("DNS names: %v", leaf.DNSNames)
	}
	if left := time.Until(leaf.NotAfter); left < 14*time.Minute || left > 15*time.Minute {
		t.Errorf("valid for %s, asked for 15m", left)
	}
	if err := os.WriteFile(filepath.Join(target, "x"), nil, 0o600); err == nil {
		t.Error("the pod can write into its volume")
	}
	if text, err := os.ReadFile(n.inState(v, "pending.key")); err == nil {
		t.Errorf("the pending key is still there: %d bytes", len(text))
	}
	until(t, "the request is forgotten", func() bool { return len(n.signer.forgot()) == 1 })
	n.unpublish(v)
	n.empty()
	if exists(t, filepath.Join(n.Root, "pods", v.UID)) {
		t.Error("the pod's directory is left")
	}
}

func TestARepeatedPublishIsAnsweredAtOnceAndMountsNothing(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.publish(v)
	mounts := len(n.mounts())
	n.signer.from(refuse(signer.Unavailable, "away"))
	for range 20 {
		n.publish(v)
	}
	if got := len(n.mounts()); got != mounts || len(n.signer.asked()) != 1 {
		t.Errorf("%d mounts, before %d; %d requests", got, mounts, len(n.signer.asked()))
	}
}

func TestARepeatedPublishOverAValidPairNeverFails(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.publish(v)
	n.signer.from(refuse(signer.Denied, "no"))
	worse := v
	worse.Attributes = map[string]string{"csi.mayfly.dev/nonsense": "1"}
	if _, err := n.Publish(t.Context(), n.driver, worse); err != nil {
		t.Errorf("attributes that are no longer understood: %v", err)
	}
	n.restart()
	if _, err := n.Publish(t.Context(), n.driver, worse); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if err := syscall.Unmount(n.Target(v), 0); err != nil {
		t.Fatal(err)
	}
	pair(t, n.publish(v))
	if got := len(n.signer.asked()); got != 1 {
		t.Errorf("%d requests", got)
	}
}

func TestUnpublishIsIdempotent(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.unpublish(v)
	n.publish(v)
	n.unpublish(v)
	n.unpublish(v)
	if err := os.MkdirAll(n.Target(v), 0o750); err != nil {
		t.Fatal(err)
	}
	n.unpublish(v)
	if exists(t, n.Target(v)) {
		t.Error("the target is left")
	}
	n.empty()
}

// A container sees the volume through a mount of its own; a bind mount in a directory that all can enter plays it.
func TestWhoCanRead(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name, fsGroup, attribute string
		uid, gid                 uint32
		can                      bool
	}{
		{"any user, without a group", "", "", 1000, 1000, true},
		{"a member of the fsGroup", "2000", "", 1000, 2000, true},
		{"another group than the fsGroup", "2000", "", 1000, 1000, false},
		{"a member of fs-group, which wins", "2000", "3000", 1000, 3000, true},
		{"the fsGroup, over which fs-group wins", "2000", "3000", 1000, 2000, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			n := newNode(t, nil)
			v := web("csi.mayfly.dev/fs-group=" + row.attribute)
			v.FSGroup = row.fsGroup
			n.publish(v)
			defer n.unpublish(v)
			container := open(t, n.Target(v))
			for _, file := range []string{"tls.key", "tls.crt", "ca.crt", "credential-bundle.pem"} {
				if err := as(t.Context(), row.uid, row.gid, "cat", filepath.Join(container, file)); (err == nil) != row.can {
					t.Errorf("%s as %d:%d: %v", file, row.uid, row.gid, err)
				}
			}
			if err := as(t.Context(), row.uid, row.gid, "ls", n.inState(v, "")); err == nil {
				t.Error("a user of the node sees the driver's files")
			}
			if err := as(t.Context(), row.uid, row.gid, "cat", filepath.Join(n.Target(v), "tls.key")); err == nil {
				t.Error("a user of the node reads the key through the kubelet's directory")
			}
		})
	}
}

// open shows the target in a directory that every user can enter.
func open(t *testing.T, target string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "container-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(target, dir, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func as(ctx context.Context, uid, gid uint32, command string, args ...string) error {
	cmd := exec.CommandContext(ctx, command, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	return cmd.Run()
}

func TestCallsThatAreWrong(t *testing.T) {
	file, link := "a-file", "a-link"
	rows := []struct {
		name string
		edit func(n *node, req *csi.NodePublishVolumeRequest)
		want string
	}{
		{"no volume id", func(_ *node, r *csi.NodePublishVolumeRequest) { r.VolumeId = "" }, `volume_id "" is not a plain file name`},
		{"a slash", func(_ *node, r *csi.NodePublishVolumeRequest) { r.VolumeId = "a/b" }, `volume_id "a/b" is not a plain file name`},
		{"dots", func(_ *node, r *csi.NodePublishVolumeRequest) { r.VolumeId = ".." }, `volume_id ".." is not a plain file name`},
		{"a long id", func(_ *node, r *csi.NodePublishVolumeRequest) { r.VolumeId = strings.Repeat("a", 129) }, "is not a plain file name"},
		{"no target", func(_ *node, r *csi.NodePublishVolumeRequest) { r.TargetPath = "" }, "target_path is missing"},
		{"a relative target", func(_ *node, r *csi.NodePublishVolumeRequest) { r.TargetPath = "a" }, "is not a clean absolute path"},
		{"a target that climbs", func(_ *node, r *csi.NodePublishVolumeRequest) { r.TargetPath += "/../../x" }, "is not a clean absolute path"},
		{"a target elsewhere", func(_ *node, r *csi.NodePublishVolumeRequest) { r.TargetPath = "/etc/mayfly" }, "target_path /etc/mayfly is not in"},
		{"a target of another pod", func(n *node, r *csi.NodePublishVolumeRequest) {
			r.TargetPath = filepath.Join(n.Root, "pods", "other", "volumes", "kubernetes.io~csi", "tls", "mount")
		}, `pod UID "`},
		{"a target in a volume of the pod", func(n *node, r *csi.NodePublishVolumeRequest) {
			r.TargetPath = filepath.Join(n.beside(".."), "..", "kubernetes.io~empty-dir", "tls", "mount")
		}, "where the kubelet has them"},
		{"a target right below the pod", func(n *node, r *csi.NodePublishVolumeRequest) {
			r.TargetPath = filepath.Join(n.Root, "pods", "other", "mount")
		}, "where the kubelet has them"},
		{"a long target", func(_ *node, r *csi.NodePublishVolumeRequest) {
			r.TargetPath += strings.Repeat("/a", 2048)
		}, "bytes: at most 4095"},
		{"a target through a link", func(n *node, r *csi.NodePublishVolumeRequest) {
			r.TargetPath = filepath.Join(n.Root, "pods", r.VolumeContext[podUID], "volumes", "kubernetes.io~csi", n.link(), "mount")
		}, "a symbolic link"},
		{"another pod's UID", func(_ *node, r *csi.NodePublishVolumeRequest) { r.VolumeContext[podUID] = "other" }, `pod UID "other" is not`},
		{"a UID that is a directory", func(_ *node, r *csi.NodePublishVolumeRequest) { r.VolumeContext[podUID] = "." }, `pod UID "." is not`},
		{"a UID that is the one above", func(_ *node, r *csi.NodePublishVolumeRequest) { r.VolumeContext[podUID] = ".." }, `pod UID ".." is not`},
		{"a UID with a path", func(_ *node, r *csi.NodePublishVolumeRequest) { r.VolumeContext[podUID] = "x/.." }, `pod UID "x/.." is not`},
		{"a UID that is a beginning", func(_ *node, r *csi.NodePublishVolumeRequest) {
			r.VolumeContext[podUID] += "/volumes"
		}, "is not that of the target_path"},
		{"an endless id", func(_ *node, r *csi.NodePublishVolumeRequest) {
			r.VolumeId = strings.Repeat("ä", 1<<20)
		}, "is not a plain file name of at most 128 bytes"},
		{"a file", func(n *node, r *csi.NodePublishVolumeRequest) { r.TargetPath = n.beside(file) }, "is a file, not a directory"},
		{"a symlink", func(n *node, r *csi.NodePublishVolumeRequest) { r.TargetPath = n.beside(link) }, "is a symbolic link, not a directory"},
		{"no capability", func(_ *node, r *csi.NodePublishVolumeRequest) { r.VolumeCapability = nil }, "volume_capability is missing"},
		{"a block device", func(_ *node, r *csi.NodePublishVolumeRequest) {
			r.VolumeCapability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		}, "volume_capability is a block device"},
		{"writable", func(_ *node, r *csi.NodePublishVolumeRequest) { r.Readonly = false }, "readOnly is not true: set readOnly: true in the pod's csi volume"},
		{"not ephemeral", func(_ *node, r *csi.NodePublishVolumeRequest) {
			r.VolumeContext["csi.storage.k8s.io/ephemeral"] = "false"
		}, "only inline (ephemeral) volumes are served"},
		{"a bad attribute", func(_ *node, r *csi.NodePublishVolumeRequest) { r.VolumeContext["csi.mayfly.dev/duration"] = "soon" }, `csi.mayfly.dev/duration is "soon"`},
		{"an unknown attribute", func(_ *node, r *csi.NodePublishVolumeRequest) { r.VolumeContext["csi.mayfly.dev/dns"] = "x" }, "did you mean csi.mayfly.dev/dns-names?"},
		{"a mount flag", func(_ *node, r *csi.NodePublishVolumeRequest) {
			r.VolumeCapability.GetMount().MountFlags = []string{"rw"}
		}, `mount_flags have "rw"`},
	}
	n := newNode(t, nil)
	v := web()
	n.prepare(v, file, link)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			req := n.Request(v)
			row.edit(n, req)
			_, err := n.driver.NodePublishVolume(t.Context(), req)
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v\nwant InvalidArgument: %s", err, row.want)
			}
			n.empty()
		})
	}
	if asked := n.signer.asked(); len(asked) > 0 {
		t.Errorf("the signer was asked %d times", len(asked))
	}
	for _, name := range []string{file, link} {
		if !exists(t, n.beside(name)) {
			t.Errorf("%s is gone", name)
		}
	}
}

const podUID = "csi.storage.k8s.io/pod.uid"

// link makes a link beside the directories of the pod's volumes that leads to another pod's, and returns its name.
func (n *node) link() string {
	n.t.Helper()
	const name = "a-link"
	at := filepath.Join(filepath.Dir(n.beside("")), name)
	if err := os.Symlink(n.t.TempDir(), at); err != nil {
		n.t.Fatal(err)
	}
	return name
}

// beside is a path beside the target of a call.
func (n *node) beside(name string) string {
	return filepath.Join(filepath.Dir(n.Target(web())), name)
}

// prepare makes a file and a symlink beside the volume's target.
func (n *node) prepare(v kubelet.Volume, file, link string) {
	n.t.Helper()
	dir := filepath.Dir(n.Target(v))
	if err := os.MkdirAll(dir, 0o750); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(dir, link)); err != nil {
		n.t.Fatal(err)
	}
}

// Nothing is asked for where the certificate could not be mounted: the kubelet's pods may lie on a disk that the driver does
// not see.
func TestATargetWhoseDirectoryIsMissing(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	_, err := n.driver.NodePublishVolume(t.Context(), n.Request(v))
	want := "the target's directory " + filepath.Dir(n.Target(v)) + " does not exist"
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v\nwant Unavailable: %s", err, want)
	}
	n.empty()
	if asked := n.signer.asked(); len(asked) > 0 {
		t.Errorf("the signer was asked %d times", len(asked))
	}
	pair(t, n.publish(v))
}

func TestUnpublishCallsThatAreWrong(t *testing.T) {
	n := newNode(t, nil)
	for _, req := range []*csi.NodeUnpublishVolumeRequest{
		{VolumeId: "", TargetPath: n.Target(web())}, {VolumeId: "../x", TargetPath: n.Target(web())},
		{VolumeId: "a", TargetPath: ""}, {VolumeId: "a", TargetPath: "/etc"},
	} {
		if _, err := n.driver.NodeUnpublishVolume(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", req, err)
		}
	}
}

func TestAnotherTargetIsRefusedAndTheVolumeStays(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	target := n.publish(v)
	req := n.Request(v)
	req.TargetPath = filepath.Join(filepath.Dir(target), "other")
	_, err := n.driver.NodePublishVolume(t.Context(), req)
	if kubelet.Final(err) || err == nil || !strings.Contains(err.Error(), "unpublish it there first") {
		t.Errorf("%v", err)
	}
	pair(t, target)
}

// A second call waits, and says for what when its time is over; an unpublish call ends the call under way.
func TestCallsForOneVolumeWaitForEachOther(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	entered := make(chan struct{})
	n.signer.say(func(ctx context.Context, _ signer.Request, _ signer.Signer) (signer.Issued, error) {
		close(entered)
		<-ctx.Done()
		return signer.Issued{}, signer.Errorf(signer.NotYet, "nobody answers")
	})
	var first sync.WaitGroup
	var firstErr error
	first.Go(func() { _, firstErr = n.Publish(t.Context(), n.driver, v) })
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second) // The call ends 3 s before.
	defer cancel()
	_, err := n.Publish(ctx, n.driver, v)
	if status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "a publish call") {
		t.Errorf("publish: %v", err)
	}
	n.unpublish(v)
	first.Wait()
	if status.Code(firstErr) != codes.Unavailable {
		t.Errorf("the first call: %v", firstErr)
	}
	n.empty()
}

// The kubelet unpublishes the volume of a pod that goes: that waits neither for a signer nor for calls that came before.
func TestUnpublishGoesBeforeCallsThatWait(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	entered := make(chan struct{}, 10)
	n.signer.from(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		entered <- struct{}{}
		return hang(ctx, req, ca)
	})
	var calls sync.WaitGroup
	for range 3 {
		calls.Go(func() {
			if _, err := n.Publish(t.Context(), n.driver, v); err == nil {
				t.Error("published")
			}
		})
	}
	<-entered
	time.Sleep(200 * time.Millisecond) // The others wait for the turn.
	begin := time.Now()
	n.unpublish(v)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("unpublish took %s", took)
	}
	calls.Wait()
	n.empty()
}

func TestTokensAreNotRecorded(t *testing.T) {
	n := newNode(t, nil)
	v := web("csi.storage.k8s.io/serviceAccount.tokens=SECRET-TOKEN")
	v.Secrets = map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": "SECRET-TOKEN"}
	n.publish(v)
	text, err := os.ReadFile(n.inState(v, "record.json"))
	if err != nil || strings.Contains(string(text), "SECRET-TOKEN") || strings.Contains(n.log.String(), "SECRET-TOKEN") {
		t.Errorf("a token was written down: %v\n%s\n%s", err, text, n.log)
	}
}

func TestCapabilities(t *testing.T) {
	n := newNode(t, nil)
	resp, err := n.driver.NodeGetCapabilities(t.Context(), &csi.NodeGetCapabilitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range resp.Capabilities {
		got = append(got, c.GetRpc().GetType().String())
	}
	if !slices.Equal(got, []string{"VOLUME_MOUNT_GROUP", "GET_VOLUME_HEALTH"}) {
		t.Errorf("capabilities: %v", got)
	}
	info, err := n.driver.GetPluginInfo(t.Context(), &csi.GetPluginInfoRequest{})
	if err != nil || info.GetName() != name || info.GetVendorVersion() != "test" {
		t.Errorf("plugin info: %v, %v", info, err)
	}
	id, err := n.driver.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	if err != nil || id.GetNodeId() != "node-a" {
		t.Errorf("node info: %v, %v", id, err)
	}
	if _, err := n.driver.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("stage: %v", err)
	}
}
