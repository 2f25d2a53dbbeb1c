package volume_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// kubelet are the keys that the kubelet sets.
var kubelet = map[string]string{
	"csi.storage.k8s.io/pod.name":            "web-0",
	"csi.storage.k8s.io/pod.namespace":       "shop",
	"csi.storage.k8s.io/pod.uid":             "7d4f",
	"csi.storage.k8s.io/serviceAccount.name": "web",
	"csi.storage.k8s.io/ephemeral":           "true",
}

// asked is a call with attributes, in our dialect, or in csi-driver's if a key begins with old:. What has no slash is written as the dialect has it.
func asked(attributes map[string]string) volume.Asked {
	a := volume.Asked{ID: "csi-1", Target: "/t", Asked: spec.Asked{Attributes: maps.Clone(kubelet)}}
	d := ours
	for key := range attributes {
		if strings.HasPrefix(key, "old:") {
			a.Driver, d = spec.OldDriver, old
		}
	}
	for key, value := range attributes {
		if !strings.Contains(key, "/") {
			key = d.key(strings.TrimPrefix(key, "old:"))
		}
		a.Attributes[key] = value
	}
	return a
}

func parse(t *testing.T, attributes map[string]string) volume.Volume {
	t.Helper()
	v, err := volume.Parse(asked(attributes), volume.Defaults{})
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return v
}

func TestDefaultsOfThisDecade(t *testing.T) {
	v := parse(t, map[string]string{"issuer-name": "ca", "dns-names": "web"})
	if v.Pod != (signer.Pod{Namespace: "shop", Name: "web-0", UID: "7d4f", ServiceAccount: "web"}) {
		t.Errorf("pod: %+v", v.Pod)
	}
	if v.Issuer != (signer.Issuer{Name: "ca", Kind: "Issuer", Group: "cert-manager.io"}) {
		t.Errorf("issuer: %+v", v.Issuer)
	}
	if v.Key != (spec.Key{Algorithm: spec.ECDSA, Size: 256, Encoding: spec.PKCS8}) || v.Duration != time.Hour {
		t.Errorf("key %+v, duration %s", v.Key, v.Duration)
	}
	if got := usages(v); got != "digital signature,server auth,client auth" {
		t.Errorf("usages: %s", got)
	}
	if !maps.Equal(v.Files, map[string]volume.Part{"ca.crt": volume.CAPart, "tls.crt": volume.ChainPart, "tls.key": volume.KeyPart}) {
		t.Errorf("files %v", v.Files)
	}
	if v.Owner != (volume.Owner{}) || v.RenewBefore != 0 || v.Once || v.ReuseKey || v.IsCA || v.Annotations != nil || v.Keystore != (volume.Keystore{Algorithms: volume.Modern2023}) {
		t.Errorf("%+v", v)
	}
}

func TestDefaultsOfTheOldDriver(t *testing.T) {
	v := parse(t, map[string]string{"old:issuer-name": "ca"})
	if v.Key != (spec.Key{Algorithm: spec.RSA, Size: 2048, Encoding: spec.PKCS1}) || v.Duration != 2160*time.Hour {
		t.Errorf("key %+v, duration %s", v.Key, v.Duration)
	}
	if got := usages(v); got != "digital signature,key encipherment" {
		t.Errorf("usages: %s", got)
	}
}

// What csi-driver has no attribute for, our own says.
func TestOurAttributesBesideThoseOfCSIDriver(t *testing.T) {
	v := parse(t, map[string]string{"old:issuer-name": "ca", "layout": "pem, bundle"})
	if v.Key.Algorithm != spec.RSA || len(v.Files) != 4 {
		t.Errorf("key %+v, files %v", v.Key, v.Files)
	}
}

func usages(v volume.Volume) string {
	var names []string
	for _, u := range v.Usages {
		names = append(names, string(u))
	}
	return strings.Join(names, ",")
}

func TestAttributesAreTaken(t *testing.T) {
	v := parse(t, map[string]string{
		"issuer-name": "ca", "issuer-kind": "ClusterIssuer", "issuer-group": "example.org",
		"common-name": "$POD_NAME", "dns-names": "${POD_NAME}.${POD_NAMESPACE}.svc, *.${SERVICE_ACCOUNT_NAME}.example.org,",
		"ip-sans": "10.0.0.1, fd00::1", "uri-sans": "spiffe://example.org/${POD_UID}",
		"duration": "90m", "renew-before": "10m", "key-usages": "client auth, client auth",
		"key-algorithm": "ecdsa", "key-size": "521", "key-encoding": "pkcs8",
		"ca-file": "a", "certificate-file": "b", "privatekey-file": "c", "fs-group": "1337", "layout": "bundle,pem",
	})
	if v.Issuer != (signer.Issuer{Name: "ca", Kind: "ClusterIssuer", Group: "example.org"}) || v.Subject.CommonName != "web-0" {
		t.Errorf("issuer %+v, common name %q", v.Issuer, v.Subject.CommonName)
	}
	if got := strings.Join(v.DNSNames, " "); got != "web-0.shop.svc *.web.example.org" {
		t.Errorf("DNS names: %s", got)
	}
	if len(v.IPs) != 2 || v.IPs[1].String() != "fd00::1" || len(v.URIs) != 1 || v.URIs[0].String() != "spiffe://example.org/7d4f" {
		t.Errorf("IPs %v, URIs %v", v.IPs, v.URIs)
	}
	if v.Duration != 90*time.Minute || v.RenewBefore != 10*time.Minute || usages(v) != "client auth" {
		t.Errorf("duration %s, renew before %s, usages %v", v.Duration, v.RenewBefore, v.Usages)
	}
	if v.Key != (spec.Key{Algorithm: spec.ECDSA, Size: 521, Encoding: spec.PKCS8}) {
		t.Errorf("key: %+v", v.Key)
	}
	if !maps.Equal(v.Files, map[string]volume.Part{"a": volume.CAPart, "b": volume.ChainPart, "c": volume.KeyPart, "credential-bundle.pem": volume.BundlePart}) || *v.Owner.Group != 1337 {
		t.Errorf("files %v, owner %v", v.Files, v.Owner)
	}
}

func TestGroups(t *testing.T) {
	a := asked(map[string]string{"issuer-name": "ca", "dns-names": "web"})
	a.Group = "2000"
	if v, err := volume.Parse(a, volume.Defaults{}); err != nil || v.Owner.Group == nil || *v.Owner.Group != 2000 {
		t.Errorf("the pod's fsGroup: %v, %v", v.Owner.Group, err)
	}
	a.Attributes[spec.Prefix+"fs-group"] = "3000"
	if v, err := volume.Parse(a, volume.Defaults{}); err != nil || v.Owner.Group == nil || *v.Owner.Group != 3000 {
		t.Errorf("fs-group wins: %v, %v", v.Owner.Group, err)
	}
}

func TestMountFlags(t *testing.T) {
	a := asked(map[string]string{"issuer-name": "ca", "dns-names": "web"})
	a.MountFlags = []string{`context="system_u:object_r:container_file_t:s0:c1,c2"`}
	if v, err := volume.Parse(a, volume.Defaults{}); err != nil || v.SELinuxContext != "system_u:object_r:container_file_t:s0:c1,c2" {
		t.Errorf("context: %q, %v", v.SELinuxContext, err)
	}
	flag := volume.Defaults{SELinuxContext: "system_u:object_r:container_file_t:s0"}
	if v, err := volume.Parse(a, flag); err != nil || v.SELinuxContext != "system_u:object_r:container_file_t:s0:c1,c2" {
		t.Errorf("the kubelet's wins: %q, %v", v.SELinuxContext, err)
	}
	a.MountFlags = nil
	if v, err := volume.Parse(a, flag); err != nil || v.SELinuxContext != flag.SELinuxContext {
		t.Errorf("the driver's: %q, %v", v.SELinuxContext, err)
	}
	a.MountFlags = []string{"noatime"}
	if _, err := volume.Parse(a, volume.Defaults{}); err == nil || !strings.Contains(err.Error(), `mount_flags have "noatime": only context= is known`) {
		t.Errorf("another flag: %v", err)
	}
}

func TestADefaultIssuer(t *testing.T) {
	v, err := volume.Parse(asked(map[string]string{"dns-names": "web"}), volume.Defaults{Defaults: spec.Defaults{IssuerName: "standard"}})
	if err != nil || v.Issuer.Name != "standard" {
		t.Errorf("issuer %q, %v", v.Issuer.Name, err)
	}
}

func TestAnEmptyValueIsTheDefault(t *testing.T) {
	empty := map[string]string{}
	for _, a := range volume.Attributes() {
		if !a.OnlyOld {
			empty[a.Name] = " "
		}
	}
	empty["issuer-name"], empty["dns-names"], empty["keystore-password"] = "ca", "web", ""
	want := parse(t, map[string]string{"issuer-name": "ca", "dns-names": "web"})
	if got := parse(t, empty); got.Key != want.Key || got.Duration != want.Duration || !maps.Equal(got.Files, want.Files) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Each row is one mistake and the sentence that the pod's author reads. The other attributes are in order.
func TestMistakes(t *testing.T) {
	long := strings.Repeat("x", 300)
	rows := []struct {
		name, key, value, want string
	}{
		{"no issuer", "issuer-name", "", "csi.mayfly.dev/issuer-name is required: the name of the issuer that signs"},
		{"csi-driver's", "csi.cert-manager.io/uri-sans", "a://b", "csi.cert-manager.io/uri-sans is not an attribute of this driver: use csi.mayfly.dev/uri-sans"},
		{"csi-driver's alone", "csi.cert-manager.io/pkcs12-enable", "true", "csi.cert-manager.io/pkcs12-enable is not an attribute of this driver: use csi.mayfly.dev/layout"},
		{"csi-driver-spiffe's", "spiffe.csi.cert-manager.io/fs-group", "1", "spiffe.csi.cert-manager.io/fs-group is not an attribute of this driver: use csi.mayfly.dev/fs-group"},
		{"unknown, near", "dns-name", "web", `"csi.mayfly.dev/dns-name" is not a known attribute: did you mean csi.mayfly.dev/dns-names?`},
		{"unknown, old", "csi.cert-manager.io/layout", "pem", `"csi.cert-manager.io/layout" is not a known attribute: did you mean csi.mayfly.dev/layout?`},
		{"unknown prefix", "csi.mayfly.io/issuer-name", "ca", `did you mean csi.mayfly.dev/issuer-name?`},
		{"unknown, long", "z/" + long + long, "ca", "can't be an annotation of the request"},
		{"no names", "dns-names", "", "csi.mayfly.dev/dns-names is missing: ask for at least one of dns-names, uri-sans, spiffe, ip-sans, common-name and literal-subject"},
		{"unknown variable", "dns-names", "${POD_NAEM}", `csi.mayfly.dev/dns-names has an unknown variable "${POD_NAEM}": known are NODE_NAME, POD_IP, POD_IPS, POD_NAME, POD_NAMESPACE, POD_UID, SERVICE_ACCOUNT_NAME`},
		{"not a DNS name", "dns-names", "web,a b", `csi.mayfly.dev/dns-names has "a b", which is not a DNS name`},
		{"not ASCII", "dns-names", "bücher.example", `csi.mayfly.dev/dns-names has "b\u00fccher.example", which is not a DNS name`},
		{"an empty label", "dns-names", "a..b", `has "a..b", which is not a DNS name`},
		{"a long DNS name", "dns-names", long, "csi.mayfly.dev/dns-names has a DNS name of 300 characters"},
		{"a long common name", "common-name", long, `…, of 300 characters: at most 64`},
		{"not an IP", "ip-sans", "10.0.0.256", `csi.mayfly.dev/ip-sans has "10.0.0.256", which is not an IP address`},
		{"not a URI", "uri-sans", "web", `csi.mayfly.dev/uri-sans has "web", which is not a URI`},
		{"a URI that is not ASCII", "uri-sans", "spiffe://ü/x", "csi.mayfly.dev/uri-sans has"},
		{"not a duration", "duration", "1 hour", `csi.mayfly.dev/duration is "1 hour", which is not a duration such as 30m or 24h`},
		{"a negative duration", "duration", "-1h", `csi.mayfly.dev/duration is "-1h": the shortest is 1s`},
		{"renew-before", "renew-before", "soon", `csi.mayfly.dev/renew-before is "soon"`},
		{"key usage", "key-usages", "server-auth", `csi.mayfly.dev/key-usages has "server-auth", which is not a key usage: did you mean "server auth"?`},
		{"is-ca", "is-ca", "yes", `csi.mayfly.dev/is-ca is "yes": true or false`},
		{"reuse-private-key", "reuse-private-key", "TRUE", `csi.mayfly.dev/reuse-private-key is "TRUE": true or false`},
		{"renew", "renew", "never", `csi.mayfly.dev/renew is "never": true or false`},
		{"spiffe", "spiffe", "x", `csi.mayfly.dev/spiffe is "x": true or false`},
		{"a list", "organizations", `a,"b`, `csi.mayfly.dev/organizations is "a,\"b", which is not a list such as a,"b, c"`},
		{"two lines", "countries", "DE\nFR", `csi.mayfly.dev/countries is "DE\nFR", which is not a list`},
		{"a subject", "literal-subject", "web", `csi.mayfly.dev/literal-subject is "web", which is not a distinguished name (RFC 4514) such as CN=web,O=Shop`},
		{"a subject's attribute", "literal-subject", "XX=web", `csi.mayfly.dev/literal-subject has the attribute type "XX": known are C, CN, DC,`},
		{"uid", "uid", "postgres", `csi.mayfly.dev/uid is "postgres": an id is 0 to 4294967294`},
		{"gid", "gid", "-1", `csi.mayfly.dev/gid is "-1": an id is 0 to 4294967294`},
		{"mode", "mode", "rw-", `csi.mayfly.dev/mode is "rw-": a file's mode is three octal digits, such as 0440`},
		{"a long mode", "mode", "4755", `csi.mayfly.dev/mode is "4755": a file's mode is three octal digits`},
		{"a mode for nobody", "mode", "0", `csi.mayfly.dev/mode is "0": nobody could read the files`},
		{"store algorithms", "keystore-algorithms", "md5", `csi.mayfly.dev/keystore-algorithms is "md5": known are Modern2023, LegacyDES and LegacyRC2`},
		{"a store without a password", "old:pkcs12-enable", "true", "csi.cert-manager.io/pkcs12-password is required with pkcs12-enable"},
		{"the old store by the new name", "pkcs12-enable", "true", `"csi.mayfly.dev/pkcs12-enable" is not a known attribute`},
		{"an annotation without a group", "team", "shop", "is not a known attribute"},
		{"an annotation that is none", "example.org/a b", "shop", `"example.org/a b" can't be an annotation of the request`},
		{"a misspelt group", "csi.cert-manger.io/issuer-name", "ca", "did you mean csi.mayfly.dev/issuer-name?"},
		{"algorithm", "key-algorithm", "DSA", `csi.mayfly.dev/key-algorithm is "DSA": known are RSA, ECDSA and Ed25519`},
		{"size", "key-size", "big", `csi.mayfly.dev/key-size is "big", which is not a number of bits`},
		{"size of the algorithm", "key-size", "2048", "csi.mayfly.dev/key-size is 2048: ECDSA keys have 256, 384 or 521 bits"},
		{"encoding", "key-encoding", "DER", `csi.mayfly.dev/key-encoding is "DER": known are PKCS1 and PKCS8`},
		{"encoding of the algorithm", "key-encoding", "PKCS1", "csi.mayfly.dev/key-encoding is PKCS1: only RSA keys have that encoding, this one is ECDSA"},
		{"a path", "ca-file", "../ca.crt", `csi.mayfly.dev/ca-file is "../ca.crt": a file name, not a path`},
		{"a dot", "ca-file", "..data", `csi.mayfly.dev/ca-file is "..data": a file name must not begin with a dot`},
		{"a NUL", "ca-file", "a\x00b", "csi.mayfly.dev/ca-file is"},
		{"a long file", "privatekey-file", long, "csi.mayfly.dev/privatekey-file is 300 bytes long: a file name has at most 255"},
		{"the same file twice", "ca-file", "tls.crt", `csi.mayfly.dev/ca-file gives two files the name "tls.crt": the certificate chain, leaf first, and the CA certificates`},
		{"group 0", "fs-group", "0", `csi.mayfly.dev/fs-group is "0": an id is 1 to 4294967294`},
		{"group too large", "fs-group", "4294967296", "csi.mayfly.dev/fs-group is"},
		{"layout", "layout", "der", `csi.mayfly.dev/layout has "der": known are pem, bundle, combined, istio, gke, spiffe, pkcs12, jks`},
		{"no layout", "layout", ",", `csi.mayfly.dev/layout is ",", which names nothing`},
		{"not ephemeral", "csi.storage.k8s.io/ephemeral", "false", "only inline (ephemeral) volumes are served"},
		{"no pod info", "csi.storage.k8s.io/pod.name", "", "csi.storage.k8s.io/pod.name is missing: the CSIDriver object needs podInfoOnMount: true"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			attributes := map[string]string{"issuer-name": "ca", "dns-names": "web"}
			attributes[row.key] = row.value
			_, err := volume.Parse(asked(attributes), volume.Defaults{})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s=%q\n got: %v\nwant: %s", row.key, row.value, err, row.want)
			}
			if err != nil && (strings.ContainsAny(err.Error(), "\n\x00") || len(err.Error()) > 2000) {
				t.Errorf("the message is not fit for an event: %q", err)
			}
		})
	}
}

func TestRSA(t *testing.T) {
	rows := []struct {
		key, value string
		want       spec.Key
	}{
		{"key-algorithm", "rsa", spec.Key{Algorithm: spec.RSA, Size: 3072, Encoding: spec.PKCS8}},
		{"old:key-algorithm", "rsa", spec.Key{Algorithm: spec.RSA, Size: 2048, Encoding: spec.PKCS1}},
		{"old:key-algorithm", "ECDSA", spec.Key{Algorithm: spec.ECDSA, Size: 256, Encoding: spec.PKCS8}},
		{"key-algorithm", "ed25519", spec.Key{Algorithm: spec.Ed25519, Encoding: spec.PKCS8}},
	}
	for _, row := range rows {
		if got := parse(t, map[string]string{"issuer-name": "ca", "dns-names": "web", row.key: row.value}).Key; got != row.want {
			t.Errorf("%s=%s: %+v, want %+v", row.key, row.value, got, row.want)
		}
	}
}
