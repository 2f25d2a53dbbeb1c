package renew

import (
	"fmt"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
)

func TestWithin(t *testing.T) {
	day := func(d, hour int) time.Time { return time.Date(2026, 3, d, hour, 0, 0, 0, time.UTC) } // March 1st is a Sunday.
	night := volume.Window{Begins: 2 * time.Hour, Length: 2 * time.Hour}
	weekend := volume.Window{Days: []time.Weekday{time.Saturday, time.Sunday}, Begins: 22 * time.Hour, Length: 6 * time.Hour}
	noon := volume.Window{Days: []time.Weekday{time.Sunday}, Begins: 12 * time.Hour, Length: 2 * time.Hour}
	if err := noon.Zone.UnmarshalText([]byte("Europe/Berlin")); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		window                      volume.Window
		received, planned, notAfter time.Time
		from, to                    time.Time // from == to: that very time.
	}{
		"in the window":                   {night, day(1, 0), day(21, 3), day(31, 0), day(21, 3), day(21, 3)},
		"later the next night":            {night, day(1, 0), day(20, 20), day(31, 0), day(21, 2), day(21, 4)},
		"sooner the night before":         {night, day(1, 0), day(21, 6), day(31, 0), day(21, 2), day(21, 4)},
		"the end leaves no time":          {night, day(1, 5), day(1, 21), day(2, 5), day(1, 21), day(1, 21)},
		"cut by what must be left":        {night, day(1, 5), day(1, 23), day(2, 6), day(2, 2), day(2, 2).Add(30 * time.Minute)},
		"an hour's certificate":           {night, day(1, 5), day(1, 5).Add(40 * time.Minute), day(1, 6), day(1, 5).Add(40 * time.Minute), day(1, 5).Add(40 * time.Minute)},
		"not in the first third":          {night, day(1, 0), day(2, 8), day(7, 0), day(3, 2), day(3, 4)},
		"no window after the first third": {night, day(1, 4), day(1, 14), day(2, 6), day(1, 14), day(1, 14)},
		"of a century":                    {weekend, day(1, 0), day(1, 0).AddDate(66, 0, 0), day(1, 0).AddDate(100, 0, 0), day(1, 22).AddDate(66, 0, 0), day(2, 4).AddDate(66, 0, 0)},
		"the weekend before":              {weekend, day(1, 0), day(24, 0), day(31, 0), day(22, 22), day(23, 4)},
		"at weekends":                     {weekend, day(1, 0), day(19, 12), day(31, 0), day(21, 22), day(22, 4)},
		"of the day on which it begins":   {weekend, day(1, 0), day(16, 2), day(31, 0), day(16, 2), day(16, 2)},
		// March 29th has 23 hours there: from 23:30 on the day before, 24 hours are more than a day.
		"when clocks are changed": {noon, day(1, 0), day(33, 22).Add(30 * time.Minute), day(35, 22), day(29, 10), day(29, 12)},
	} {
		t.Run(name, func(t *testing.T) {
			spread := map[time.Time]bool{}
			for i := range 100 {
				at := Rule{ID: fmt.Sprint("csi-", i), Window: &row.window}.within(row.received, row.planned, row.notAfter)
				if at.Before(row.from) || at.After(row.to) {
					t.Fatalf("%s, want %s to %s", at, row.from, row.to)
				}
				spread[at] = true
			}
			if exact := row.from.Equal(row.to); exact != (len(spread) == 1) {
				t.Errorf("100 volumes at %d times", len(spread))
			}
		})
	}
}
