package volume

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Window is a time of the day, in UTC, on some days of the week. It may go past midnight: it is of the day on
// which it begins.
type Window struct {
	Days   []time.Weekday // None: every day.
	Begins time.Duration  // After midnight.
	Length time.Duration  // At most a day.
}

// On returns the window that begins on the day of t, if there is one.
func (w Window) On(t time.Time) (begins, ends time.Time, ok bool) {
	t = t.UTC()
	if len(w.Days) > 0 && !slices.Contains(w.Days, t.Weekday()) {
		return time.Time{}, time.Time{}, false
	}
	begins = time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC).Add(w.Begins)
	return begins, begins.Add(w.Length), true
}

func (p *parser) setRenewWindow(value string) error {
	if value == "" {
		return nil
	}
	w, err := parseWindow(value)
	if err != nil {
		return fmt.Errorf("is %s, which is not a time of the day in UTC such as 02:00-04:00, or Sat,Sun 22:00-02:00: %w",
			quote(value), err)
	}
	p.Window = &w
	return nil
}

func parseWindow(text string) (w Window, err error) {
	fields := strings.Fields(text)
	if len(fields) == 2 {
		if w.Days, err = parseWeekdays(fields[0]); err != nil {
			return Window{}, err
		}
		fields = fields[1:]
	}
	if len(fields) != 1 {
		return Window{}, fmt.Errorf("it has %d words", len(fields))
	}
	from, to, _ := strings.Cut(fields[0], "-")
	if w.Begins, err = parseTimeOfDay(from); err != nil {
		return Window{}, err
	}
	ends, err := parseTimeOfDay(to)
	if err != nil {
		return Window{}, err
	}
	w.Length = ends - w.Begins
	if w.Length <= 0 {
		w.Length += 24 * time.Hour
	}
	return w, nil
}

// parseWeekdays reads the days, by the first three letters of their names.
func parseWeekdays(text string) (days []time.Weekday, err error) {
	for name := range strings.SplitSeq(text, ",") {
		day := time.Sunday
		for day <= time.Saturday && day.String()[:3] != name {
			day++
		}
		if day > time.Saturday {
			return nil, fmt.Errorf("%s is no day: Mon, Tue, Wed, Thu, Fri, Sat or Sun", quote(name))
		}
		if !slices.Contains(days, day) {
			days = append(days, day)
		}
	}
	return days, nil
}

// parseTimeOfDay returns the time after midnight.
func parseTimeOfDay(text string) (time.Duration, error) {
	t, err := time.Parse("15:04", text)
	if err != nil {
		return 0, fmt.Errorf("%s is no time of the day", quote(text))
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}
