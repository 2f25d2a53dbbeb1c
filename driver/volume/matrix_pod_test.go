package volume_test

import (
	"fmt"

	"github.com/mayfly-csi/mayfly/driver/volume"
)

func podRows() []row {
	const (
		gates = " is no gate: there are pod-ip:any, pod-ip:ipv4, pod-ip:ipv6, pod-condition:<type>[=<status>] and pod-annotation:<key>"
		clock = ", which is not a time of the day such as 02:00-04:00, or Sat,Sun 22:00-02:00 Europe/Berlin: "
		none  = ", and this driver has no profiles: its operator sets --config-map"
	)
	return []row{
		{"profile", func(v volume.Volume) string { return fmt.Sprint(len(v.Profile)) }, "", [kinds]cell{
			absent:      {want: "= 0"},
			empty:       {want: "= 0"},
			wrongType:   {value: "1", want: `! is "1"` + none},
			outOfRange:  {want: "- TestAProfileThatIsNotThere"},
			conflicting: {want: "- what the pod says counts: TestProfiles"},
			tooLong:     {value: long, want: "! is " + short + none},
			nonASCII:    {value: "wäb", want: `! is "w\u00e4b"` + none},
			path:        {value: "../web", want: `! is "../web"` + none},
			variable:    {value: "${POD_NAME}", want: `! is "${POD_NAME}"` + none},
			unknownKey:  {value: "profil"},
		}},
		{"renew-window", func(v volume.Volume) string {
			if v.Window == nil {
				return ""
			}
			return fmt.Sprint(v.Window.Days, v.Window.Begins, v.Window.Length)
		}, "", [kinds]cell{
			absent:      {want: "= "},
			empty:       {want: "= "},
			wrongType:   {value: "night", want: `! is "night"` + clock + `"night" is no time of the day`},
			outOfRange:  {value: "23:00-24:00", want: `! is "23:00-24:00"` + clock + `"24:00" is no time of the day`},
			conflicting: {value: "02:00-04:00", with: "renew=false", want: "! is given, and renew is false: give one of them"},
			tooLong:     {value: long, want: "! is " + short + clock + short + " is no time of the day"},
			nonASCII:    {value: "02:00–04:00", want: `! is "02:00\u201304:00"` + clock + `"02:00\u201304:00" is no time of the day`},
			path:        {value: "../02:00-04:00", want: `! is "../02:00-04:00"` + clock + `"../02:00" is no time of the day`},
			variable:    {value: "${POD_NAME}", want: `! is "${POD_NAME}"` + clock + `"${POD_NAME}" is no time of the day`},
			unknownKey:  {value: "renew-windw"},
		}},
		truth("use-token-request", func(v volume.Volume) string { return fmt.Sprint(v.AsPod) }, cell{want: "- it goes with all others"}, "use-token-requests", "false"),
		truth("continue-on-not-ready", func(v volume.Volume) string { return fmt.Sprint(v.StartsWithout) }, cell{want: "- it goes with all others"}, "continue-on-notready", "false"),
		{"pod-readiness-gate", func(v volume.Volume) string { return joined(v.Gates) }, "", [kinds]cell{
			absent:      {want: "= "},
			empty:       {want: "= "},
			wrongType:   {value: "ready", want: `! has "ready", which` + gates},
			outOfRange:  {value: "pod-ip:ipv5,pod-condition:Ready=Yes", want: `! has "pod-ip:ipv5", which is no gate: after pod-ip: comes any, ipv4 or ipv6; has "pod-condition:Ready=Yes", which is no gate: the status of a condition is True, False or Unknown`},
			conflicting: {value: "pod-ip:any,pod-ip:any", want: "= pod-ip:any"},
			tooLong:     {value: long, want: "! has " + short + ", which" + gates},
			nonASCII:    {value: "pod-ip:änÿ", want: `! has "pod-ip:\u00e4n\u00ff", which is no gate: after pod-ip: comes any, ipv4 or ipv6`},
			path:        {value: "../pod-ip:any", want: `! has "../pod-ip:any", which` + gates},
			variable:    {value: "${POD_NAME}", want: `! has "${POD_NAME}", which` + gates},
			unknownKey:  {value: "pod-readiness-gates"},
		}},
	}
}
