// Package sanity runs csi-sanity against the real binary.
package sanity

import (
	"context"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
	"google.golang.org/grpc"

	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// uid is that of the pod whose volumes csi-sanity publishes.
const uid = "3b2f6a5e-0001-4c5e-9d3e-000000000001"

// lacking are the capabilities that a node plugin for inline volumes does not have: csi-sanity's reasons to skip a spec.
var lacking = []string{
	"NodeExpandVolume not supported",
	"NodeGetStorageHealth not supported",
	"NodeGetVolume not supported", // Its statistics.
	"NodeStageVolume not supported",
	"NodeUnstageVolume not supported",
	"Service does not have single node multi writer capability",
}

// services are the parts of csi-sanity that are about services which the driver does not offer.
var services = []string{
	"Controller Service [Controller Server]", "ControllerGetVolumeHealth [Controller Server]", "ControllerListVolumeHealth [Controller Server]",
	"CreateSnapshot [Controller Server]", "DeleteSnapshot [Controller Server]", "ExpandVolume [Controller Server]", "GetSnapshot [Controller Server]",
	"GroupController Service [GroupController Server]", "GroupController Service [GroupController VolumeGroupSnapshots]",
	"ListSnapshots [Controller Server]", "ModifyVolume [Controller Server]",
}

func TestSanity(t *testing.T) {
	root, err := os.MkdirTemp("", "sanity-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := kubelet.CleanUp(root); err != nil {
			t.Error(err)
		}
	}()
	socket := start(t, root)

	config := sanity.NewTestConfig()
	config.Address = "unix:" + socket
	if err := os.MkdirAll(filepath.Join(root, "pods", uid, "volumes", "kubernetes.io~csi"), 0o750); err != nil {
		t.Fatal(err)
	}
	config.TargetPath = filepath.Join(root, "pods", uid, "volumes", "kubernetes.io~csi", "web")
	config.StagingPath = filepath.Join(root, "staging")
	config.ControllerAddress = "unix:" + controller(t, root)
	config.DialOptions = append(config.DialOptions, grpc.WithUnaryInterceptor(asTheKubelet))
	suite := sanity.GinkgoTest(&config)
	ran := 0
	ginkgo.ReportAfterSuite("skips are of capabilities that the driver lacks", func(report types.Report) {
		ran = examine(t, report)
	})
	gomega.RegisterFailHandler(ginkgo.Fail)
	run, reporter := ginkgo.GinkgoConfiguration()
	run.FocusStrings = []string{"Node Service", "Identity Service"}
	if !ginkgo.RunSpecs(t, "csi-sanity", run, reporter) {
		t.Error("csi-sanity failed")
	}
	suite.Finalize()
	if ran < 15 {
		t.Errorf("csi-sanity ran %d specs only", ran)
	}
}

// start runs the binary on root and returns its socket.
func start(t *testing.T, root string) string {
	t.Helper()
	k, err := kubelet.New(root)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(root, "mayfly")
	build := exec.Command("go", "build", "-race", "-o", binary, "./cmd/mayfly")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	cmd := exec.Command(binary, "node", "--node-name", "node-a", "--kubelet-root", root, "--signer", "local", "--log-format", "text")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the node plugin ended with %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	driver, err := k.Register(ctx, "csi.mayfly.dev")
	if err != nil {
		t.Fatal(err)
	}
	if err := driver.Close(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "plugins", "csi.mayfly.dev", "csi.sock")
}

// examine demands that every skip has a reason of the lists, and that every reason of the lists is met. It returns how many specs ran.
func examine(t *testing.T, report types.Report) (ran int) {
	met := map[string]bool{}
	for _, spec := range report.SpecReports {
		switch {
		case spec.LeafNodeType != types.NodeTypeIt:
		case spec.State == types.SpecStateSkipped || spec.State == types.SpecStatePending:
			reason := spec.Failure.Message
			if reason == "" {
				reason = spec.ContainerHierarchyTexts[0]
			}
			met[reason] = true
		default:
			ran++
		}
	}
	want := slices.Sorted(slices.Values(slices.Concat(lacking, services)))
	if got := slices.Sorted(maps.Keys(met)); !slices.Equal(got, want) {
		t.Errorf("skipped for\n%q\nwant\n%q", got, want)
	}
	return ran
}

// asTheKubelet makes calls as the kubelet makes them for inline volumes: they are read-only. That volumes are made beside the driver
// is told to csi-sanity as a capability.
func asTheKubelet(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if publish, ok := req.(*csi.NodePublishVolumeRequest); ok {
		publish.Readonly = true
	}
	err := invoke(ctx, method, req, reply, conn, opts...)
	if capabilities, ok := reply.(*csi.GetPluginCapabilitiesResponse); ok {
		capabilities.Capabilities = append(capabilities.Capabilities, controllerService())
	}
	return err
}

// maker makes the volumes that csi-sanity publishes: their context is what a pod's volume attributes and the kubelet say.
// It stands beside the driver, which has no such service, and names itself by the driver's name.
type maker struct {
	csi.UnimplementedControllerServer
	csi.UnimplementedIdentityServer
}

func (maker) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: "csi.mayfly.dev", VendorVersion: "test"}, nil
}

func (maker) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (maker) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{controllerService()}}, nil
}

func controllerService() *csi.PluginCapability {
	return &csi.PluginCapability{Type: &csi.PluginCapability_Service_{
		Service: &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE},
	}}
}

func (maker) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: []*csi.ControllerServiceCapability{{
		Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}},
	}}}, nil
}

func (maker) CreateVolume(_ context.Context, req *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: req.GetName(), VolumeContext: map[string]string{
		"csi.mayfly.dev/dns-names":               "${POD_NAME}",
		"csi.storage.k8s.io/pod.name":            "web",
		"csi.storage.k8s.io/pod.namespace":       "shop",
		"csi.storage.k8s.io/pod.uid":             uid,
		"csi.storage.k8s.io/serviceAccount.name": "web",
		"csi.storage.k8s.io/ephemeral":           "true",
	}}}, nil
}

func (maker) DeleteVolume(context.Context, *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	return &csi.DeleteVolumeResponse{}, nil
}

// controller serves the maker, and returns its socket.
func controller(t *testing.T, root string) string {
	t.Helper()
	socket := filepath.Join(root, "controller.sock")
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	csi.RegisterControllerServer(server, maker{})
	csi.RegisterIdentityServer(server, maker{})
	done := make(chan error)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return socket
}
