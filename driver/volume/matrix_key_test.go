package volume_test

import (
	"fmt"
	"strings"

	"github.com/mayfly-csi/mayfly/driver/volume"
)

// joined are elements with spaces between them.
func joined[E fmt.Stringer](elements []E) string {
	var texts []string
	for _, e := range elements {
		texts = append(texts, e.String())
	}
	return strings.Join(texts, " ")
}

// truth is a row of a switch.
func truth(name string, of func(volume.Volume) string, conflict cell, misspelt, standard string) row {
	const bad = ": true or false"
	return row{name, of, "", [kinds]cell{
		absent:      {want: "= " + standard},
		empty:       {want: "= " + standard},
		wrongType:   {value: "yes", want: `! is "yes"` + bad},
		outOfRange:  {value: "TRUE", want: `! is "TRUE"` + bad},
		conflicting: conflict,
		tooLong:     {value: long, want: "! is " + short + bad},
		nonASCII:    {value: "trüe", want: `! is "tr\u00fce"` + bad},
		path:        {value: "../true", want: `! is "../true"` + bad},
		variable:    {value: "${POD_NAME}", want: `! is "${POD_NAME}"` + bad},
		unknownKey:  {value: misspelt},
	}}
}

func timeRows() []row {
	const bad = ", which is not a duration such as 30m or 24h"
	span := func(name string, of func(volume.Volume) string, standard, oldStandard string, tooShort string, conflict cell) row {
		return row{name, of, "", [kinds]cell{
			absent:      {want: "= " + standard, old: "= " + oldStandard},
			empty:       {want: "= " + standard, old: "= " + oldStandard},
			wrongType:   {value: "90d", want: `! is "90d"` + bad},
			outOfRange:  {value: "-1h", want: `! is "-1h": the shortest is 1s`, old: tooShort},
			conflicting: conflict,
			tooLong:     {value: "87601h", want: `! is "87601h": the longest is 87600h, ten years`, old: "= 87601h0m0s"},
			nonASCII:    {value: "１h", want: `! is "\uff11h"` + bad},
			path:        {value: "../1h", want: `! is "../1h"` + bad},
			variable:    {value: "${POD_NAME}", want: `! is "${POD_NAME}"` + bad},
			unknownKey:  {value: name + "s"},
		}}
	}
	return []row{
		span("duration", func(v volume.Volume) string { return v.Duration.String() }, "1h0m0s", "2160h0m0s", `! is "-1h": the shortest is 1s`,
			cell{value: "9999999h", want: `! is "9999999h"` + bad}), // An overflow: with others it has no conflict.
		span("renew-before", func(v volume.Volume) string { return v.RenewBefore.String() }, "0s", "0s", "= 0s",
			cell{value: "1m", with: "renew=false", want: "! is given, and renew is false: give one of them"}),
		truth("renew", func(v volume.Volume) string { return fmt.Sprint(!v.Once) }, cell{value: "false", with: "renew-before=1m", want: "!! csi.mayfly.dev/renew-before is given, and renew is false: give one of them"}, "renw", "true"),
	}
}

func keyRows() []row {
	key := func(v volume.Volume) string { return fmt.Sprint(v.Key.Algorithm, " ", v.Key.Size, " ", v.Key.Encoding) }
	const usage, algorithm, bits, encoding = ", which is not a key usage", ": known are RSA, ECDSA and Ed25519", ", which is not a number of bits", ": known are PKCS1 and PKCS8"
	return []row{
		{"key-usages", usages, "", [kinds]cell{
			absent:      {want: "= digital signature,server auth,client auth", old: "= digital signature,key encipherment"},
			empty:       {want: "= digital signature,server auth,client auth", old: "= digital signature,key encipherment"},
			wrongType:   {value: "server-auth", want: `! has "server-auth"` + usage + `: did you mean "server auth"?`},
			outOfRange:  {value: ",", want: `! is ",", which names nothing`},
			conflicting: {value: "server auth,server auth", want: "= server auth"},
			tooLong:     {value: long, want: "! has " + short + usage + ` such as server auth`},
			nonASCII:    {value: "sërver auth", want: `! has "s\u00ebrver auth"` + usage + `: did you mean "server auth"?`},
			path:        {value: "../any", want: `! has "../any"` + usage + `: did you mean "any"?`},
			variable:    {value: "${POD_NAME}", want: `! has "${POD_NAME}"` + usage + ` such as server auth`},
			unknownKey:  {value: "key-usage"},
		}},
		truth("usages-in-request", func(v volume.Volume) string { return fmt.Sprint(v.SignsUsages) }, cell{value: "false", with: "key-usages=any", want: "= false"}, "usages-in-requests", "true"),
		truth("is-ca", func(v volume.Volume) string { return fmt.Sprint(v.IsCA) }, cell{value: "true", with: "key-usages=any", want: "= true"}, "isca", "false"),
		{"key-algorithm", key, "", [kinds]cell{
			absent:      {want: "= ECDSA 256 PKCS8", old: "= RSA 2048 PKCS1"},
			empty:       {want: "= ECDSA 256 PKCS8", old: "= RSA 2048 PKCS1"},
			wrongType:   {value: "256", want: `! is "256"` + algorithm},
			outOfRange:  {value: "DSA", want: `! is "DSA"` + algorithm},
			conflicting: {value: "Ed25519", with: "key-size=256", want: "!! csi.mayfly.dev/key-size is 256: Ed25519 keys have no size", old: "!! csi.cert-manager.io/key-size is 256: Ed25519 keys have no size"},
			tooLong:     {value: long, want: "! is " + short + algorithm},
			nonASCII:    {value: "RSÄ", want: `! is "RS\u00c4"` + algorithm},
			path:        {value: "../RSA", want: `! is "../RSA"` + algorithm},
			variable:    {value: "${POD_NAME}", want: `! is "${POD_NAME}"` + algorithm},
			unknownKey:  {value: "key-algo-rithm"},
		}},
		{"key-size", key, "", [kinds]cell{
			absent:      {want: "= ECDSA 256 PKCS8", old: "= RSA 2048 PKCS1"},
			empty:       {want: "= ECDSA 256 PKCS8", old: "= RSA 2048 PKCS1"},
			wrongType:   {value: "0x100", want: `! is "0x100"` + bits},
			outOfRange:  {value: "+8193", with: "key-algorithm=RSA", want: `! is "+8193"` + bits, old: "! is 8193: RSA keys have 2048 to 8192 bits"},
			conflicting: {value: "2048", with: "key-algorithm=ECDSA", want: "! is 2048: ECDSA keys have 256, 384 or 521 bits"},
			tooLong:     {value: "99999999999999999999", want: `! is "99999999999999999999"` + bits},
			nonASCII:    {value: "２56", want: `! is "\uff1256"` + bits},
			path:        {value: "../256", want: `! is "../256"` + bits},
			variable:    {value: "${POD_NAME}", want: `! is "${POD_NAME}"` + bits},
			unknownKey:  {value: "keysize"},
		}},
		{"key-encoding", key, "key-algorithm=RSA", [kinds]cell{
			absent:      {want: "= RSA 3072 PKCS8", old: "= RSA 2048 PKCS1"},
			empty:       {want: "= RSA 3072 PKCS8", old: "= RSA 2048 PKCS1"},
			wrongType:   {value: "8", want: `! is "8"` + encoding},
			outOfRange:  {value: "DER", want: `! is "DER"` + encoding},
			conflicting: {value: "PKCS1", with: "key-algorithm=ECDSA", want: "! is PKCS1: only RSA keys have that encoding, this one is ECDSA"},
			tooLong:     {value: long, want: "! is " + short + encoding},
			nonASCII:    {value: "PKCS８", want: `! is "PKCS\uff18"` + encoding},
			path:        {value: "../PKCS8", want: `! is "../PKCS8"` + encoding},
			variable:    {value: "${POD_NAME}", want: `! is "${POD_NAME}"` + encoding},
			unknownKey:  {value: "key-encodings"},
		}},
		truth("reuse-private-key", func(v volume.Volume) string { return fmt.Sprint(v.ReuseKey) }, cell{value: "true", with: "renew=false", want: "= true"}, "reuse-privatekey", "false"),
	}
}
