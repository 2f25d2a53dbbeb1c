package volume_test

import "github.com/mayfly-csi/mayfly/driver/volume"

func trustRows() []row {
	const (
		known = ": known are issuer, public, cluster-trust-bundle:<name or signer>, config-map:<name>/<key> and file:<name>"
		name  = ": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
		label = ": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character"
	)
	return []row{{"trust", func(v volume.Volume) string { return joined(v.Trust) }, "", [kinds]cell{
		absent:      {want: "= issuer"},
		empty:       {want: "= issuer"},
		wrongType:   {value: "ca.crt", want: `! has "ca.crt"` + known},
		outOfRange:  {value: ",", want: `! is ",", which names nothing`},
		conflicting: {value: "issuer,config-map:a/b,issuer", want: "= issuer config-map:a/b"},
		tooLong:     {value: long, want: "! has " + short + known},
		nonASCII:    {value: "cluster-trust-bundle:bündel", want: `! has "cluster-trust-bundle:b\u00fcndel": the bundle's name is "b\u00fcndel"` + name},
		path:        {value: "file:../ca,config-map:../a/b", want: `! has "file:../ca": the file's name is "../ca"` + label + `; it is one of those that --trust-file gives, not a path; has "config-map:../a/b": the ConfigMap's name is ".."` + name},
		variable:    {value: "config-map:${POD_NAME}/ca.crt", want: `! has "config-map:${POD_NAME}/ca.crt": the ConfigMap's name is "${POD_NAME}"` + name},
		unknownKey:  {value: "trusts"},
	}}}
}
