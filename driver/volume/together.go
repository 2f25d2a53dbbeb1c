package volume

import (
	"slices"
	"strconv"
	"strings"
)

// together checks what no attribute shows alone.
func (p *parser) together() (problems Problems) {
	for _, err := range []error{p.names(), p.key(), p.layouts(), p.distinctFiles()} {
		if err != nil {
			problems = append(problems, err)
		}
	}
	return problems
}

// names demands an identity. The old driver did not.
func (p *parser) names() error {
	if p.old || p.CommonName != "" || len(p.DNSNames)+len(p.IPs)+len(p.URIs) > 0 {
		return nil
	}
	return problem(Prefix+"dns-names", "is missing: ask for at least one of dns-names, uri-sans, ip-sans and common-name")
}

// key completes the key by its algorithm.
func (p *parser) key() error {
	k := &p.Key
	if k.Encoding == "" {
		k.Encoding = PKCS8
		if p.old && k.Algorithm == RSA {
			k.Encoding = PKCS1
		}
	}
	if k.Size == 0 {
		k.Size = p.standardSize()
	}
	switch {
	case k.Algorithm == RSA && (k.Size < 2048 || k.Size > 8192):
		return problem(p.prefix()+"key-size", "is %d: RSA keys have 2048 to 8192 bits", k.Size)
	case k.Algorithm == ECDSA && !slices.Contains([]int{256, 384, 521}, k.Size):
		return problem(p.prefix()+"key-size", "is %d: ECDSA keys have 256, 384 or 521 bits", k.Size)
	case k.Algorithm == Ed25519 && k.Size != 0:
		return problem(p.prefix()+"key-size", "is %d: Ed25519 keys have no size", k.Size)
	case k.Algorithm != RSA && k.Encoding == PKCS1:
		return problem(p.prefix()+"key-encoding", "is PKCS1: only RSA keys have that encoding, this one is %s", k.Algorithm)
	}
	return nil
}

func (p *parser) standardSize() int {
	switch {
	case p.Key.Algorithm == ECDSA:
		return 256
	case p.Key.Algorithm == RSA && p.old:
		return 2048
	case p.Key.Algorithm == RSA:
		return 3072
	}
	return 0
}

func (p *parser) layouts() error {
	if len(p.Layouts) == 0 {
		return problem(Prefix+"layout", "names no layout: known are pem and bundle")
	}
	return nil
}

// distinctFiles refuses two contents for one file.
func (p *parser) distinctFiles() error {
	var names []string
	if slices.Contains(p.Layouts, PEM) {
		names = append(names, p.Files.CA, p.Files.Certificate, p.Files.Key)
	}
	if slices.Contains(p.Layouts, Bundle) {
		names = append(names, BundleFile)
	}
	slices.Sort(names)
	for i := 1; i < len(names); i++ {
		if names[i] == names[i-1] {
			return problem(p.prefix()+"ca-file, certificate-file, privatekey-file and layout", "give two files the name %s", quote(names[i]))
		}
	}
	return nil
}

// mountGroup is the pod's fsGroup, which an fs-group attribute overrules.
func (p *parser) mountGroup(group string) Problems {
	if group == "" || p.Group != nil {
		return nil
	}
	gid, err := strconv.ParseUint(group, 10, 32)
	if err != nil {
		return Problems{problem("volume_mount_group", "is %s, which is not a group id", quote(group))}
	}
	id := int(gid)
	p.Group = &id
	return nil
}

// mountFlags takes an SELinux context, the one flag that means something for a certificate.
func (p *parser) mountFlags(flags []string) (problems Problems) {
	for _, flag := range flags {
		context, ok := strings.CutPrefix(flag, "context=")
		context = strings.Trim(context, `"`)
		if !ok || strings.ContainsAny(context, "\"\x00") {
			problems = append(problems, problem("mount_flags", "have %s: only context= is known", quote(flag)))
			continue
		}
		p.SELinuxContext = context
	}
	return problems
}

func (p *parser) prefix() string {
	if p.old {
		return OldPrefix
	}
	return Prefix
}
