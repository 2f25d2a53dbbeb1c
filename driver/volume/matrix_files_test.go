package volume_test

import (
	"fmt"
	"strings"

	"github.com/mayfly-csi/mayfly/driver/volume"
)

// file is a row of a file's name. Other names are those of the files that come after it.
func file(name, misspelt, standard, with string, conflict cell) row {
	of := func(v volume.Volume) string {
		part := map[string]volume.Part{"ca-file": volume.CAPart, "certificate-file": volume.ChainPart, "privatekey-file": volume.KeyPart, "pkcs12-filename": volume.PKCS12Part}[name]
		for file, p := range v.Files {
			if p == part {
				return file
			}
		}
		return ""
	}
	return row{name, of, with, [kinds]cell{
		absent:      {want: "= " + standard},
		empty:       {want: "= " + standard},
		wrongType:   {value: "a\nb", want: `! is "a\nb": a file name has no control characters`, old: "= a\nb"},
		outOfRange:  {value: "..data", want: `! is "..data": a file name must not begin with a dot`},
		conflicting: conflict,
		tooLong:     {value: long, want: "! is 300 bytes long: a file name has at most 255"},
		nonASCII:    {value: ".schlüssel", want: `! is ".schl\u00fcssel": a file name must not begin with a dot`, old: "= .schlüssel"},
		path:        {value: "../etc/passwd", want: `! is "../etc/passwd": a file name, not a path`},
		variable:    {value: "${POD_NAME}", want: "= ${POD_NAME}"},
		unknownKey:  {value: misspelt},
	}}
}

// password is a row of one. It is of an encoding that a JKS can't hold, or too short for one.
func password(name, misspelt, with, conflict, absentWant string, emptyWant string) row {
	return row{name, func(v volume.Volume) string { return v.Keystore.Password }, with, [kinds]cell{
		absent:      {want: absentWant},
		empty:       {want: emptyWant},
		wrongType:   {value: "🔑", want: "! has a character that a keystore can't hold: those of the Basic Multilingual Plane alone (RFC 7292, appendix B.1)"},
		outOfRange:  {value: "12345", with: with + " layout=jks", want: "! has 5 characters: a JKS needs at least 6"},
		conflicting: {value: "secret", with: conflict, want: map[string]string{"keystore-password": "! is given, and no keystore is among the files: add a layout such as pkcs12", "pkcs12-password": "! is given, and pkcs12-enable is not"}[name]},
		tooLong:     {value: strings.Repeat("x", 2000), want: "! has 2000 bytes: at most 1024"},
		nonASCII:    {value: "pässwörd", with: with + " layout=jks", want: "! has a character that a JKS can't hold: ASCII alone"},
		path:        {value: "../secret ", want: "= ../secret "},
		variable:    {value: "${POD_NAEM}", want: "= ${POD_NAEM}"},
		unknownKey:  {value: misspelt, with: "is-ca=false"},
	}}
}

func fileRows() []row {
	clash := func(other, one, two string) cell {
		return cell{value: other, want: fmt.Sprintf("! gives two files the name %q: %s, and %s", other, one, two)}
	}
	const chain, key, ca, store = "the certificate chain, leaf first", "the private key", "the CA certificates", "a PKCS#12 keystore: the private key with its chain"
	const alias = ": an alias has up to 64 printable ASCII characters"
	enable := truth("pkcs12-enable", names, cell{value: "true", want: "!! csi.cert-manager.io/pkcs12-password is required with pkcs12-enable"}, "pkcs12-enabled", "ca.crt tls.crt tls.key")
	oldFile := file("pkcs12-filename", "pkcs12-file", "keystore.p12", "layout=pem,pkcs12", clash("tls.key", key, store))
	return []row{
		file("ca-file", "cafile", "ca.crt", "", clash("tls.crt", chain, ca)),
		file("certificate-file", "certificatefile", "tls.crt", "", clash("ca.crt", chain, ca)),
		file("privatekey-file", "private-key-file", "tls.key", "", cell{value: "k", with: "layout=bundle", want: "! is given, and layout has no pem, whose file it is"}),
		oldFile,
		enable,
		password("pkcs12-password", "pkcs12-pasword", "pkcs12-enable=true", "layout=pem", "! is required with pkcs12-enable", "! is required with pkcs12-enable"),
		password("keystore-password", "keystore-pasword", "layout=pkcs12", "layout=pem", "= ", "= "),
		{"keystore-alias", func(v volume.Volume) string { return v.Keystore.Alias }, "layout=pkcs12", [kinds]cell{
			absent:      {want: "= "},
			empty:       {want: "= "},
			wrongType:   {value: "a\tb", want: `! is "a\tb"` + alias},
			outOfRange:  {value: strings.Repeat("a", 65), want: `! is "` + strings.Repeat("a", 65) + `"` + alias},
			conflicting: {value: "web", with: "layout=pem", want: "! is given, and no keystore is among the files: add a layout such as pkcs12"},
			tooLong:     {value: long, want: "! is " + short + alias},
			nonASCII:    {value: "schlüssel", want: `! is "schl\u00fcssel"` + alias},
			path:        {value: "../web 1", want: "= ../web 1"},
			variable:    {value: "${POD_NAME}", want: "= ${POD_NAME}"},
			unknownKey:  {value: "keystore-aliases"},
		}},
		{"keystore-algorithms", func(v volume.Volume) string { return string(v.Keystore.Algorithms) }, "layout=pkcs12", [kinds]cell{
			absent:      {want: "= Modern2023"},
			empty:       {want: "= Modern2023"},
			wrongType:   {value: "true", want: `! is "true": known are Modern2023, LegacyDES and LegacyRC2`},
			outOfRange:  {value: "modern2023", want: `! is "modern2023": known are Modern2023, LegacyDES and LegacyRC2`},
			conflicting: {value: "LegacyRC2", with: "layout=pem", want: "! is given, and no keystore is among the files: add a layout such as pkcs12"},
			tooLong:     {value: long, want: "! is " + short + ": known are Modern2023, LegacyDES and LegacyRC2"},
			nonASCII:    {value: "lëgacy", want: `! is "l\u00ebgacy": known are Modern2023, LegacyDES and LegacyRC2`},
			path:        {value: "../legacy", want: `! is "../legacy": known are Modern2023, LegacyDES and LegacyRC2`},
			variable:    {value: "${POD_NAME}", want: `! is "${POD_NAME}": known are Modern2023, LegacyDES and LegacyRC2`},
			unknownKey:  {value: "keystore-algorithm"},
		}},
	}
}

// id is a row of the id of a user or group.
func id(name, misspelt string, first string, of func(volume.Owner) *int, conflict, plus, zero cell) row {
	bad := ": an id is " + first + " to 4294967294"
	got := func(v volume.Volume) string {
		if n := of(v.Owner); n != nil {
			return fmt.Sprint(*n)
		}
		return ""
	}
	return row{name, got, "", [kinds]cell{
		absent:      {want: "= "},
		empty:       {want: "= "},
		wrongType:   zero,
		outOfRange:  {value: "4294967295", want: `! is "4294967295"` + bad},
		conflicting: conflict,
		tooLong:     {value: "99999999999999999999", want: `! is "99999999999999999999"` + bad},
		nonASCII:    {value: "１", want: `! is "\uff11"` + bad},
		path:        plus,
		variable:    {value: "${POD_NAME}", want: `! is "${POD_NAME}"` + bad},
		unknownKey:  {value: misspelt},
	}}
}

func ownerRows() []row {
	user, group := func(o volume.Owner) *int { return o.User }, func(o volume.Owner) *int { return o.Group }
	const mode, from0 = ": a file's mode is three octal digits, such as 0440", ": an id is 0 to 4294967294"
	return []row{
		id("fs-group", "fsgroup", "1", group, cell{value: "1", with: "gid=1", want: "!! csi.mayfly.dev/gid is given, and fs-group, too: give one of them"},
			cell{value: "+1000", want: `! is "+1000": write 1000, without a sign or zeros in front`, old: "= 1000"}, cell{value: "01000", want: `! is "01000": write 1000, without a sign or zeros in front`, old: "= 1000"}),
		id("gid", "guid", "0", group, cell{value: "1", with: "fs-group=1", want: "! is given, and fs-group, too: give one of them"},
			cell{value: "../0", want: `! is "../0"` + from0}, cell{value: "postgres", want: `! is "postgres"` + from0}),
		id("uid", "uuid", "0", user, cell{want: "- nothing else sets the owner"},
			cell{value: "../0", want: `! is "../0"` + from0}, cell{value: "007", want: `! is "007": write 7, without a sign or zeros in front`}),
		{"mode", func(v volume.Volume) string {
			if v.Owner.Mode == nil {
				return ""
			}
			return v.Owner.Mode.String()
		}, "", [kinds]cell{
			absent:      {want: "= "},
			empty:       {want: "= "},
			wrongType:   {value: "rw-r-----", want: `! is "rw-r-----"` + mode},
			outOfRange:  {value: "1440", want: `! is "1440"` + mode},
			conflicting: {value: "0222", want: `! is "0222": nobody could read the files`},
			tooLong:     {value: "00000440", want: `! is "00000440"` + mode},
			nonASCII:    {value: "４40", want: `! is "\uff1440"` + mode},
			path:        {value: "../440", want: `! is "../440"` + mode},
			variable:    {value: "${POD_NAME}", want: `! is "${POD_NAME}"` + mode},
			unknownKey:  {value: "mod"},
		}},
		{"layout", names, "", [kinds]cell{
			absent:      {want: "= ca.crt tls.crt tls.key"},
			empty:       {want: "= ca.crt tls.crt tls.key"},
			wrongType:   {value: "PEM", want: `! has "PEM": known are pem, bundle, combined, istio, gke, spiffe, pkcs12, jks`},
			outOfRange:  {value: ",", want: `! is ",", which names nothing`},
			conflicting: {value: "spiffe", want: "! has spiffe, which needs a SPIFFE ID: set spiffe or uri-sans"},
			tooLong:     {value: long, want: "! has " + short + ": known are pem, bundle, combined, istio, gke, spiffe, pkcs12, jks"},
			nonASCII:    {value: "bündle", want: `! has "b\u00fcndle": known are pem, bundle, combined, istio, gke, spiffe, pkcs12, jks`},
			path:        {value: "../pem", want: `! has "../pem": known are pem, bundle, combined, istio, gke, spiffe, pkcs12, jks`},
			variable:    {value: "${POD_NAME}", want: `! has "${POD_NAME}": known are pem, bundle, combined, istio, gke, spiffe, pkcs12, jks`},
			unknownKey:  {value: "layouts"},
		}},
	}
}
