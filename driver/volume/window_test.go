package volume_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

func TestRenewBeforeInPercent(t *testing.T) {
	for driver, prefix := range map[string]string{spec.Driver: "", spec.OldDriver: "old:"} {
		ask := func(value string) (volume.Volume, error) {
			a := asked(map[string]string{prefix + "issuer-name": "ca", prefix + "dns-names": "web", prefix + "renew-before": value})
			a.Driver = driver
			return volume.Parse(a, volume.Defaults{})
		}
		for _, row := range []struct {
			value  string
			part   int
			before time.Duration
		}{
			{"30%", 30, 0}, {"1%", 1, 0}, {"99%", 99, 0}, {"10m", 0, 10 * time.Minute}, {"", 0, 0},
		} {
			if v, err := ask(row.value); err != nil || v.RenewPart != row.part || v.RenewBefore != row.before {
				t.Errorf("%s: %d%%, %s (%v)", row.value, v.RenewPart, v.RenewBefore, err)
			}
		}
		for _, value := range []string{"0%", "100%", "-1%", "+1%", "01%", "30 %", "%", "0.5%", "30%%", "x%", strings.Repeat("9", 300) + "%"} {
			_, err := ask(value)
			if text := fmt.Sprint(err); !strings.HasSuffix(text, ": a part of the lifetime is 1% to 99%") || len(text) > 300 {
				t.Errorf("%q: %v", value, err)
			}
		}
	}
}

func TestRenewWindow(t *testing.T) {
	day := func(d int, clock string) string {
		return time.Date(2026, 3, d, 0, 0, 0, 0, time.UTC).Format("2006-01-02 ") + clock // March 1st is a Sunday.
	}
	for value, row := range map[string]struct {
		on           time.Time
		begins, ends string
	}{
		"02:00-04:00":         {time.Date(2026, 3, 2, 23, 0, 0, 0, time.UTC), day(2, "02:00"), day(2, "04:00")},
		"22:00-02:00":         {time.Date(2026, 3, 2, 1, 0, 0, 0, time.UTC), day(2, "22:00"), day(3, "02:00")},
		"00:00-00:00":         {time.Date(2026, 3, 2, 1, 0, 0, 0, time.UTC), day(2, "00:00"), day(3, "00:00")},
		"Mon,Wed 02:00-04:00": {time.Date(2026, 3, 4, 1, 0, 0, 0, time.UTC), day(4, "02:00"), day(4, "04:00")},
		"Sun 02:00-04:00":     {time.Date(2026, 3, 4, 1, 0, 0, 0, time.UTC), "", ""},
		// What counts is the day in UTC.
		"Tue 02:00-04:00": {time.Date(2026, 3, 2, 22, 0, 0, 0, time.FixedZone("", -4*3600)), day(3, "02:00"), day(3, "04:00")},
		// In another time zone it is the day there, and the time that its clocks show.
		"Tue 02:00-04:00 Europe/Berlin":        {time.Date(2026, 3, 2, 23, 30, 0, 0, time.UTC), day(3, "01:00"), day(3, "03:00")},
		"Mon 02:00-04:00 Europe/Berlin":        {time.Date(2026, 3, 2, 23, 30, 0, 0, time.UTC), "", ""},
		"Mon-Wed 22:00-02:00 America/New_York": {time.Date(2026, 3, 3, 2, 0, 0, 0, time.UTC), day(3, "03:00"), day(3, "07:00")},
		"Sat-Tue 02:00-04:00 UTC":              {time.Date(2026, 3, 3, 2, 0, 0, 0, time.UTC), day(3, "02:00"), day(3, "04:00")},
		"Sat-Mon,Thu 02:00-04:00":              {time.Date(2026, 3, 3, 2, 0, 0, 0, time.UTC), "", ""},
		// On March 29th the clocks of Berlin go from 02:00 to 03:00, in Central European Summer Time.
		"01:00-04:00 Europe/Berlin": {time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC), day(29, "00:00"), day(29, "02:00")},
		"02:15-03:00 Europe/Berlin": {time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC), day(29, "01:15"), day(29, "02:00")},
		"05:00-05:00 Europe/Berlin": {time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC), day(28, "04:00"), day(29, "03:00")},
	} {
		v := parse(t, map[string]string{"issuer-name": "ca", "dns-names": "web", "renew-window": value})
		begins, ends, ok := v.Window.On(row.on)
		const form = "2006-01-02 15:04"
		if ok != (row.begins != "") || ok && (begins.UTC().Format(form) != row.begins || ends.UTC().Format(form) != row.ends) {
			t.Errorf("%s: %s to %s, %v", value, begins, ends, ok)
		}
	}
	for _, value := range []string{"2-4", "02:00", "02:00-25:00", "Mo 02:00-04:00", "Mon Tue 02:00-04:00", "Mon, Tue 02:00-04:00", "02:00–04:00", strings.Repeat("Mon,", 1000),
		"02:00-04:00 Local", "02:00-04:00 CEST", "02:00-04:00 europe/berlin", "02:00-04:00 ../Europe/Berlin", "02:00-04:00 /etc/localtime",
		"02:00-04:00 Europe", "02:00-04:00 " + strings.Repeat("A", 5000), "02:00-04:00 Europe/Berlin UTC", "Mon-Fr 02:00-04:00", "Mon- 02:00-04:00",
		"02:00 - 04:00", "Mon UTC", "UTC 02:00-04:00"} {
		_, err := volume.Parse(asked(map[string]string{"issuer-name": "ca", "dns-names": "web", "renew-window": value}), volume.Defaults{})
		message := fmt.Sprint(err)
		if !strings.HasPrefix(message, "csi.mayfly.dev/renew-window is ") || !strings.Contains(message, "which is not a time of the day such as 02:00-04:00") || len(message) > 400 {
			t.Errorf("%s: %s", value, message)
		}
	}
}
