package volume_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/driver/volume"
)

func TestGates(t *testing.T) {
	pod := volume.PodState{
		IPs: []string{"10.0.0.1"}, Conditions: map[string]string{"PodScheduled": "True", "Ready": "False"}, Annotations: map[string]string{"shop.example.org/zone": ""},
	}
	for text, row := range map[string]struct {
		written string // "": as it is.
		open    bool
	}{
		"pod-ip:any":                           {"", true},
		"pod-ip:ipv4":                          {"", true},
		"pod-ip:ipv6":                          {"", false},
		"pod-condition:PodScheduled":           {"pod-condition:PodScheduled=True", true},
		"pod-condition:Ready":                  {"pod-condition:Ready=True", false},
		"pod-condition:Ready=False":            {"", true},
		"pod-condition:example.org/warm":       {"pod-condition:example.org/warm=True", false},
		"pod-annotation:shop.example.org/zone": {"", true},
		"pod-annotation:zone":                  {"", false},
	} {
		g, err := volume.ParseGate(text)
		if row.written == "" {
			row.written = text
		}
		if err != nil || g.String() != row.written || g.Open(pod) != row.open {
			t.Errorf("%s: %s, open %v (%v)", text, g, g.Open(pod), err)
		}
	}
	if g, _ := volume.ParseGate("pod-ip:ipv6"); !g.Open(volume.PodState{IPs: []string{"10.0.0.1", "fd00::1"}}) {
		t.Error("the second IP does not count")
	}
}

func TestGatesThatAreWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                          `"", which is no gate: there are pod-ip:any, pod-ip:ipv4, pod-ip:ipv6, pod-condition:<type>[=<status>] and pod-annotation:<key>`,
		"ip":                        `"ip", which is no gate: there are pod-ip:any`,
		"pod-ip:v4":                 `"pod-ip:v4", which is no gate: after pod-ip: comes any, ipv4 or ipv6`,
		"pod-ip":                    `"pod-ip", which is no gate: after pod-ip:`,
		"pod-condition:":            `"pod-condition:", which is no gate: `,
		"pod-condition:a b":         `"pod-condition:a b", which is no gate: `,
		"pod-condition:Ready=yes":   `"pod-condition:Ready=yes", which is no gate: the status of a condition is True, False or Unknown`,
		"pod-annotation:../x":       `"pod-annotation:../x", which is no gate: `,
		"pod-annotation:Zone\u00e4": `"pod-annotation:Zone\u00e4", which is no gate: `,
	} {
		if _, err := volume.ParseGate(text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestAVolumeWithGates(t *testing.T) {
	ready, err := volume.ParseGate("pod-condition:Ready")
	if err != nil {
		t.Fatal(err)
	}
	defaults := volume.Defaults{Gates: []volume.Gate{ready}, StartsWithout: true}
	v, err := volume.Parse(asked(map[string]string{"issuer-name": "ca", "dns-names": "web", "pod-readiness-gate": "pod-ip:ipv4"}), defaults)
	if err != nil || len(v.Gates) != 2 || !v.StartsWithout {
		t.Fatalf("%+v (%v)", v.Gates, err)
	}
	scheduled := volume.PodState{IPs: []string{"10.0.0.1"}}
	if err := v.Awaits(scheduled, true); err == nil || err.Error() != "the certificate is not asked for before the pod has pod-condition:Ready=True" {
		t.Errorf("%v", err)
	}
	if err := v.Awaits(scheduled, false); err != nil {
		t.Errorf("a renewal waits: %v", err)
	}
	v, err = volume.Parse(asked(map[string]string{"issuer-name": "ca", "dns-names": "web", "continue-on-not-ready": "false"}), defaults)
	if err != nil || v.StartsWithout {
		t.Errorf("the pod's own word does not count (%v)", err)
	}
}

func TestPodIPs(t *testing.T) {
	a := asked(map[string]string{"issuer-name": "ca", "ip-sans": "${POD_IPS},127.0.0.1", "dns-names": "ip-${POD_IP}"})
	v, err := volume.Parse(a, volume.Defaults{})
	if err != nil || !v.NeedsIP {
		t.Fatalf("before the IP is known: needs it: %v (%v)", v.NeedsIP, err)
	}
	if err := v.Awaits(volume.PodState{}, false); err == nil || !strings.Contains(err.Error(), `set csi.mayfly.dev/continue-on-not-ready: "true"`) {
		t.Errorf("%v", err)
	}
	a.IPs = []string{"10.0.0.1", "fd00::1"}
	v, err = volume.Parse(a, volume.Defaults{})
	var ips []string
	for _, ip := range v.IPs {
		ips = append(ips, ip.String())
	}
	if err != nil || !slices.Equal(ips, []string{"10.0.0.1", "fd00::1", "127.0.0.1"}) || v.DNSNames[0] != "ip-10.0.0.1" {
		t.Errorf("%s, %s (%v)", ips, v.DNSNames, err)
	}
	if v := parse(t, map[string]string{"issuer-name": "ca", "ip-sans": "10.0.0.1"}); v.NeedsIP {
		t.Error("a volume without the variable needs the IP")
	}
	a = asked(map[string]string{"old:issuer-name": "ca", "old:ip-sans": "$POD_IP"})
	if v, err := volume.Parse(a, volume.Defaults{}); err != nil || !v.NeedsIP {
		t.Errorf("under the old prefix: %v", err)
	}
}
