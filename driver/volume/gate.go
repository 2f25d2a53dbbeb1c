package volume

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A PodState is what the API server knows of a pod.
type PodState struct {
	// IPs are status.podIPs: none until the kubelet has made the pod's sandbox, after its volumes are mounted.
	IPs         []string
	Conditions  map[string]string // status.conditions: status by type.
	Annotations map[string]string
}

// A Gate is what a pod must have before its certificate is asked for.
type Gate struct {
	kind       string
	key, value string
}

const (
	ipGate         = "pod-ip"
	conditionGate  = "pod-condition"
	annotationGate = "pod-annotation"

	gateForms = ipGate + ":any, " + ipGate + ":ipv4, " + ipGate + ":ipv6, " +
		conditionGate + ":<type>[=<status>] and " + annotationGate + ":<key>"
)

// anyIP is open once the pod has an IP.
var anyIP = Gate{kind: ipGate, key: "any"}

// ParseGate reads a gate as csi-driver's --pod-readiness-gate writes it.
func ParseGate(text string) (Gate, error) {
	kind, key, _ := strings.Cut(text, ":")
	g := Gate{kind: kind, key: key}
	var wrong []string
	switch kind {
	case ipGate:
		if key != "any" && key != "ipv4" && key != "ipv6" {
			return Gate{}, fmt.Errorf("%s, which is no gate: after %s: comes any, ipv4 or ipv6",
				message.Quote(text), ipGate)
		}
	case conditionGate:
		g.key, g.value, _ = strings.Cut(key, "=")
		if g.value == "" {
			g.value = "True"
		}
		if g.value != "True" && g.value != "False" && g.value != "Unknown" {
			return Gate{}, fmt.Errorf("%s, which is no gate: the status of a condition is True, False or Unknown",
				message.Quote(text))
		}
		wrong = validation.IsQualifiedName(g.key)
	case annotationGate:
		wrong = validation.IsQualifiedName(strings.ToLower(key))
	default:
		return Gate{}, fmt.Errorf("%s, which is no gate: there are %s", message.Quote(text), gateForms)
	}
	if len(wrong) > 0 {
		return Gate{}, fmt.Errorf("%s, which is no gate: %s", message.Quote(text), wrong[0])
	}
	return g, nil
}

// String returns the gate as ParseGate reads it.
func (g Gate) String() string {
	if g.value != "" {
		return g.kind + ":" + g.key + "=" + g.value
	}
	return g.kind + ":" + g.key
}

// Open reports whether the pod has what the gate wants.
func (g Gate) Open(pod PodState) bool {
	switch g.kind {
	case conditionGate:
		return pod.Conditions[g.key] == g.value
	case annotationGate:
		_, there := pod.Annotations[g.key]
		return there
	}
	for _, text := range pod.IPs {
		ip, err := netip.ParseAddr(text)
		if err == nil && (g.key == "any" || g.key == "ipv4" == ip.Is4()) {
			return true
		}
	}
	return false
}

// Awaits returns why the pod's certificate can't be asked for yet, or nil. Gates hold for the first certificate
// alone: no renewal waits for them.
func (v Volume) Awaits(pod PodState, first bool) error {
	for _, g := range v.Gates {
		if first && !g.Open(pod) {
			return fmt.Errorf("the certificate is not asked for before the pod has %s", g)
		}
	}
	if !v.NeedsIP || anyIP.Open(pod) {
		return nil
	}
	const noIP = "the pod has no IP yet, which ${POD_IP} stands for: " +
		"the kubelet gives it one after its volumes are mounted"
	if v.StartsWithout {
		return errors.New(noIP)
	}
	return errors.New(noIP + ", unless it has the host's network; set " + spec.Prefix +
		`continue-on-not-ready: "true" to let the pod start before its certificate is there`)
}

func (p *parser) setGates(value string) error {
	p.Gates = slices.Clone(p.defaults.Gates)
	return p.Dialect.Each(value, spec.List(value), func(text string) error {
		g, err := ParseGate(text)
		if err != nil {
			return fmt.Errorf("has %w", err)
		}
		if !slices.Contains(p.Gates, g) {
			p.Gates = append(p.Gates, g)
		}
		return nil
	})
}
