package volume

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // The image has no time zones.

	"github.com/mayfly-csi/mayfly/signer/message"
)

// A Window is a time of the day on some days of the week. It may go past midnight: it is of the day on which it
// begins.
type Window struct {
	Days   []time.Weekday // None: every day.
	Begins time.Duration  // After midnight, as the clock shows it.
	Length time.Duration  // At most a day.
	Zone   Zone           `json:",omitzero"`
}

// Noon returns noon of the day of t in the window's time zone. No clock is changed then, so that AddDate goes from
// there to every other day.
func (w Window) Noon(t time.Time) time.Time {
	t = t.In(w.Zone.location())
	return time.Date(t.Year(), t.Month(), t.Day(), 12, 0, 0, 0, t.Location())
}

// On returns the window that begins on the day of t, if there is one. For a time that a change of clocks
// leaves out, or has twice, it takes what time.Date takes.
func (w Window) On(t time.Time) (begins, ends time.Time, ok bool) {
	t = t.In(w.Zone.location())
	if len(w.Days) > 0 && !slices.Contains(w.Days, t.Weekday()) {
		return time.Time{}, time.Time{}, false
	}
	at := func(afterMidnight time.Duration) time.Time {
		return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, int(afterMidnight/time.Second), 0, t.Location())
	}
	begins, ends = at(w.Begins), at(w.Begins+w.Length)
	if !begins.Before(ends) { // All of it is left out.
		ends = begins.Add(w.Length)
	}
	return begins, ends, true
}

// A Zone is a time zone of the IANA database. The zero Zone is UTC.
type Zone struct{ at *time.Location }

// zoneNames matches the names of time zones, and no path on the node: time.LoadLocation looks for files first.
var zoneNames = regexp.MustCompile(`^[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$`)

// UnmarshalText reads the name of a time zone.
func (z *Zone) UnmarshalText(name []byte) error {
	const longest = 64
	notKnown := fmt.Errorf("%s is no time zone such as Europe/Berlin", message.Quote(string(name)))
	if len(name) > longest || !zoneNames.Match(name) || string(name) == time.Local.String() {
		return notKnown
	}
	location, err := time.LoadLocation(string(name))
	if err != nil {
		return notKnown
	}
	if z.at = location; location == time.UTC {
		z.at = nil
	}
	return nil
}

// MarshalText writes the name.
func (z Zone) MarshalText() ([]byte, error) { return []byte(z.location().String()), nil }

func (z Zone) location() *time.Location {
	if z.at == nil {
		return time.UTC
	}
	return z.at
}

func (p *parser) setRenewWindow(value string) error {
	if value == "" {
		return nil
	}
	w, err := parseWindow(value)
	if err != nil {
		const format = "is %s, which is not a time of the day such as 02:00-04:00, or Sat,Sun 22:00-02:00 Europe/Berlin: %w"
		return fmt.Errorf(format, message.Quote(value), err)
	}
	p.Window = &w
	return nil
}

// parseWindow reads days, which may be left out, the time of the day, and a time zone, which may be left out.
func parseWindow(text string) (w Window, err error) {
	words := strings.Fields(text)
	rest := words
	if len(rest) > 1 && !strings.Contains(rest[0], ":") {
		if w.Days, err = parseWeekdays(rest[0]); err != nil {
			return Window{}, err
		}
		rest = rest[1:]
	}
	if len(rest) == 0 || len(rest) > 2 {
		return Window{}, fmt.Errorf("it has %d words", len(words))
	}
	if err := w.setTime(rest[0]); err != nil {
		return Window{}, err
	}
	if len(rest) > 1 {
		err = w.Zone.UnmarshalText([]byte(rest[1]))
	}
	return w, err
}

// setTime sets begin and length.
func (w *Window) setTime(text string) (err error) {
	from, to, _ := strings.Cut(text, "-")
	if w.Begins, err = parseTimeOfDay(from); err != nil {
		return err
	}
	ends, err := parseTimeOfDay(to)
	if err != nil {
		return err
	}
	w.Length = ends - w.Begins
	if w.Length <= 0 {
		w.Length += 24 * time.Hour
	}
	return nil
}

// parseWeekdays reads days, and ranges of them, such as Mon-Fri.
func parseWeekdays(text string) (days []time.Weekday, err error) {
	for word := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(word, "-")
		first, err := parseWeekday(from)
		last := first
		if err == nil && isRange {
			last, err = parseWeekday(to)
		}
		if err != nil {
			return nil, err
		}
		for day := first; ; day = (day + 1) % 7 {
			if !slices.Contains(days, day) {
				days = append(days, day)
			}
			if day == last {
				break
			}
		}
	}
	return days, nil
}

// parseWeekday reads a day, by the first three letters of its name.
func parseWeekday(name string) (time.Weekday, error) {
	for day := time.Sunday; day <= time.Saturday; day++ {
		if day.String()[:3] == name {
			return day, nil
		}
	}
	return 0, fmt.Errorf("%s is no day: Mon, Tue, Wed, Thu, Fri, Sat or Sun", message.Quote(name))
}

// parseTimeOfDay returns the time after midnight.
func parseTimeOfDay(text string) (time.Duration, error) {
	t, err := time.Parse("15:04", text)
	if err != nil {
		return 0, fmt.Errorf("%s is no time of the day", message.Quote(text))
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}
