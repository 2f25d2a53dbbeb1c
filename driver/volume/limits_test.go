package volume_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// repeat lists n texts that format makes of their numbers.
func repeat(n int, format string) string {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprintf(format, i+1)
	}
	return strings.Join(texts, ",")
}

// Over a limit nothing is parsed. Without the limits some rows take minutes.
func TestLimits(t *testing.T) {
	for _, row := range []struct {
		name, key, value, want string
	}{
		{"a value", "dns-names", repeat(12000, "a%d"), "has 72893 bytes: at most 65536"},
		{"a value under the old prefix", "old:dns-names", repeat(12000, "a%d"), "has 72893 bytes: at most 65536"},
		{"a value of one word", "common-name", strings.Repeat("x", 65537), "has 65537 bytes: at most 65536"},
		{"an issuer", "issuer-name", strings.Repeat("x", 65537), "has 65537 bytes: at most 65536"},
		{"a value with its variables", "dns-names", repeat(300, "a%d.$POD_NAME"),
			"has more than 65536 bytes once its variables are replaced"},
		{"variables", "dns-names", strings.Repeat("$POD_UID", 1001), "has 1001 variables: at most 1000"},
		{"variables without an end", "old:dns-names", strings.Repeat("${", 32768), "has 32768 variables: at most 1000"},
		{"sources", "trust", repeat(1001, "file:a%d"), "has 1001 sources: at most 16"},
		{"attributes of a subject", "literal-subject", repeat(1001, "CN=%d"), "has 1001 attributes: at most 1000"},
	} {
		t.Run(row.name, func(t *testing.T) {
			attributes := map[string]string{"issuer-name": "ca", "uri-sans": "spiffe://example.org/web", row.key: row.value}
			a := asked(attributes)
			a.Attributes["csi.storage.k8s.io/pod.name"] = strings.Repeat("web-", 60)
			_, err := volume.Parse(a, volume.Defaults{})
			key := spec.Prefix + row.key
			if rest, old := strings.CutPrefix(row.key, "old:"); old {
				key = spec.OldPrefix + rest
			}
			if err == nil || err.Error() != key+" "+row.want {
				t.Errorf("got  %v\nwant %s %s", err, key, row.want)
			}
		})
	}
}

// Every list is bounded, in every dialect.
func TestLongLists(t *testing.T) {
	lists := map[string]string{
		"organizations": "o%d", "organizationalunits": "o%d", "countries": "C%d", "provinces": "p%d", "localities": "l%d",
		"streetaddresses": "s%d", "postalcodes": "%d", "dns-names": "a%d", "ip-sans": "::%x", "uri-sans": "a://%x",
		"key-usages": "usage %d", "layout": "layout%d", "pod-readiness-gate": "pod-annotation:a%d",
	}
	for _, a := range volume.Attributes() {
		format, isList := lists[a.Name]
		if !isList {
			if strings.Contains(a.Meaning, "comma-separated") && a.Name != "trust" {
				t.Errorf("%s has no row", a.Name)
			}
			continue
		}
		for _, prefix := range []string{"", "old:"} {
			asked := asked(map[string]string{prefix + "issuer-name": "ca", "common-name": "web", a.Name: repeat(1001, format)})
			want := map[string]dialect{"": ours, "old:": old}[prefix].key(a.Name) + " has 1001 elements: at most 1000"
			if _, err := volume.Parse(asked, volume.Defaults{}); err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		}
	}
}

func TestListsAtTheirLimit(t *testing.T) {
	v := parse(t, map[string]string{
		"issuer-name": "ca", "dns-names": repeat(1000, "a%d"), "ip-sans": repeat(1000, "::%x"),
		"uri-sans": repeat(1000, "a://%x"), "organizations": repeat(1000, "o%d"),
		"key-usages": strings.Repeat("client auth,", 2000),
	})
	got := []int{len(v.DNSNames), len(v.IPs), len(v.URIs), len(v.Subject.Organization), len(v.Usages)}
	if !slices.Equal(got, []int{1000, 1000, 1000, 1000, 1}) {
		t.Error(got)
	}
}

// Of a volume with too many attributes, or too large ones, nothing else is said.
func TestLimitsOfTheWhole(t *testing.T) {
	for _, row := range []struct {
		name, prefix string
		n            int
		value, want  string
	}{
		{"unknown attributes", spec.Prefix + "x", 257, "", "volumeAttributes are 257: at most 256"},
		{"annotations", "example.org/a", 257, "", "volumeAttributes are 257: at most 256"},
		{"keys like the kubelet's", "csi.storage.k8s.io/a", 257, "", "volumeAttributes are 257: at most 256"},
		{"large keys like the kubelet's", "csi.storage.k8s.io/a", 200, strings.Repeat("x", 7000),
			"volumeAttributes have 1404661 bytes, with those of the kubelet: at most 262144"},
	} {
		for _, driver := range []string{spec.Driver, spec.OldDriver, spec.SPIFFEDriver} {
			a := asked(nil)
			a.Driver = driver
			for i := range row.n {
				a.Attributes[fmt.Sprintf("%s%d", row.prefix, i)] = row.value
			}
			if _, err := volume.Parse(a, volume.Defaults{}); err == nil || err.Error() != row.want {
				t.Errorf("%s, %s: got  %v\nwant %s", row.name, driver, err, row.want)
			}
		}
	}
}

// What the kubelet says of a pod is the pod's word where podInfoOnMount is off: nothing else is read then.
func TestLongNamesOfAPod(t *testing.T) {
	for _, key := range []string{"pod.name", "pod.namespace", "pod.uid", "serviceAccount.name", "ephemeral"} {
		a := asked(map[string]string{"unknown": ""})
		a.Attributes["csi.storage.k8s.io/"+key] = strings.Repeat("a", 254)
		want := "csi.storage.k8s.io/" + key + " has 254 bytes: at most 253"
		if _, err := volume.Parse(a, volume.Defaults{}); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// An event has no room for more.
func TestTheProblemsOfAListAreBounded(t *testing.T) {
	keys := map[string]string{"issuer-name": "ca", "dns-names": repeat(1000, "a..%d"), "key-usages": repeat(1000, "%d")}
	for i := range 250 {
		keys[fmt.Sprintf("unknown-%d", i)] = ""
	}
	_, err := volume.Parse(asked(keys), volume.Defaults{})
	var problems problem.List
	if !errors.As(err, &problems) || len(problems) != 3*16 {
		t.Errorf("%d problems: %v", len(problems), err)
	}
}
