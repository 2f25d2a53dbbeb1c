package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// The cluster's network is 10.230.0.0/16, in the machines' network namespaces and nowhere else: the services, then the machines on
// one bridge, then a subnet of pods for each node. The control plane's machine is the router. Clusters don't see each other.
const (
	network      = 230
	services     = 0 // 10.230.0.0/24, of which the API server has the first address.
	machines     = 1 // 10.230.1.0/24
	pods         = 8 // 10.230.8.0/24 and those after it.
	firstAddress = 1
	serviceBits  = 32
	subnetBits   = 24
	bridge       = "machines"
)

func address(subnet, host byte, bits int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, network, subnet, host}), bits)
}

// api is the address of the API server, which is also the service `kubernetes`.
func api() netip.Addr { return address(services, firstAddress, serviceBits).Addr() }

func apiURL() string { return "https://" + api().String() }

func nodeAddress(number byte) netip.Prefix {
	return address(machines, firstAddress+1+number, subnetBits)
}

func podSubnet(number byte) netip.Prefix { return address(pods+number, 0, subnetBits) }

// connectControlPlane makes the control plane's machine the router.
func connectControlPlane(pid int) error {
	router, err := inNamespace(pid)
	if err != nil {
		return err
	}
	defer router.Close()
	if err := router.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}}); err != nil {
		return fmt.Errorf("make the bridge: %w", err)
	}
	return up(router, bridge, address(machines, firstAddress, subnetBits), address(services, firstAddress, serviceBits))
}

// connectNode links a node's machine to the router. The number counts the nodes.
func connectNode(router, node int, name string, number byte) error {
	there, err := inNamespace(router)
	if err != nil {
		return err
	}
	defer there.Close()
	// The kernel takes the link of a machine that was killed apart in its own time.
	if old, err := there.LinkByName(name); err == nil {
		_ = there.LinkDel(old) // It may just have gone.
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsPid(node)}
	if err := there.LinkAdd(veth); err != nil {
		return fmt.Errorf("link %s to the cluster: %w", name, err)
	}
	here, err := inNamespace(node)
	if err != nil {
		return err
	}
	defer here.Close()
	own := nodeAddress(number)
	return errors.Join(
		join(there, name),
		up(here, "eth0", own),
		route(here, netip.PrefixFrom(netip.IPv4Unspecified(), 0), address(machines, firstAddress, subnetBits).Addr()),
		route(there, podSubnet(number), own.Addr()),
	)
}

func inNamespace(pid int) (*netlink.Handle, error) {
	namespace, err := netns.GetFromPid(pid)
	if err != nil {
		return nil, fmt.Errorf("open the network namespace of process %d: %w", pid, err)
	}
	defer namespace.Close() //nolint:errcheck // Opened for reading.
	handle, err := netlink.NewHandleAt(namespace)
	if err != nil {
		return nil, fmt.Errorf("open netlink in the namespace of process %d: %w", pid, err)
	}
	return handle, nil
}

// join makes a link a port of the bridge.
func join(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	to, err := h.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find link %s: %w", bridge, err)
	}
	if err := h.LinkSetMaster(link, to); err != nil {
		return fmt.Errorf("join link %s to %s: %w", name, bridge, err)
	}
	return up(h, name)
}

// up gives a link its addresses and sets it up.
func up(h *netlink.Handle, name string, addresses ...netip.Prefix) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	for _, address := range addresses {
		if err := h.AddrAdd(link, &netlink.Addr{IPNet: ipNet(address)}); err != nil {
			return fmt.Errorf("give %s to link %s: %w", address, name, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set link %s up: %w", name, err)
	}
	return nil
}

func route(h *netlink.Handle, to netip.Prefix, by netip.Addr) error {
	if err := h.RouteReplace(&netlink.Route{Dst: ipNet(to), Gw: by.AsSlice()}); err != nil {
		return fmt.Errorf("route %s by %s: %w", to, by, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
