package renew_test

import (
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/renew"
)

// noon is the time of the issuer's clock.
func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// at returns noon and so many hours.
func at(hours float64) time.Time { return noon().Add(time.Duration(hours * float64(time.Hour))) }

// issued is the state of a volume whose pair of 24 hours was received at noon; edits change it.
func issued(edits ...func(*renew.State)) renew.State {
	s := renew.State{HasPair: true, NotBefore: at(-1), ValidFrom: at(-1.1), NotAfter: at(24), IssuedAt: at(0), RenewAt: at(15)}
	for _, edit := range edits {
		edit(&s)
	}
	return s
}

// plan is when a pair is renewed that was received then and ends at 24:00.
func plan(received float64) time.Time { return renew.Rule{}.At(at(received), at(24)) }

func TestNext(t *testing.T) {
	never := time.Time{}
	failed := func(failedAt, retryAt float64) func(*renew.State) {
		return func(s *renew.State) { s.FailedAt, s.RetryAt = at(failedAt), at(retryAt) }
	}
	receivedAt := func(hours float64) func(*renew.State) {
		return func(s *renew.State) { s.IssuedAt, s.RenewAt = at(hours), plan(hours) }
	}
	wanted := func(hours float64) func(*renew.State) { return func(s *renew.State) { s.Wanted = at(hours) } }
	once := func(s *renew.State) { s.Once = true }
	pending := func(s *renew.State) { s.Pending = true }
	noPair := func(s *renew.State) { s.HasPair, s.NotBefore, s.ValidFrom = false, time.Time{}, time.Time{} }
	epoch := time.Unix(100, 0)
	for name, row := range map[string]struct {
		state renew.State
		now   time.Time
		want  time.Time
	}{
		"as planned":              {issued(), at(1), at(15)},
		"due":                     {issued(), at(15), at(15)},
		"after a suspend":         {issued(), at(23), at(15)},
		"the clock jumps forward": {issued(), at(90000), at(15)},
		"planned later than the rule of now says":  {issued(func(s *renew.State) { s.RenewAt = at(20) }), at(1), plan(0)},
		"planned after its end":                    {issued(func(s *renew.State) { s.RenewAt = at(1000) }), at(1), plan(0)},
		"planned earlier":                          {issued(func(s *renew.State) { s.RenewAt = at(3) }), at(1), at(3)},
		"not planned":                              {issued(func(s *renew.State) { s.RenewAt = time.Time{} }), at(1), plan(0)},
		"it ends no later than the one before":     {issued(func(s *renew.State) { s.Stalled, s.RenewAt = true, at(23) }), at(1), at(23)},
		"and is planned after its end":             {issued(func(s *renew.State) { s.Stalled, s.RenewAt = true, at(25) }), at(1), at(24)},
		"nothing of the receipt is known":          {issued(func(s *renew.State) { s.IssuedAt, s.RenewAt = time.Time{}, time.Time{} }), at(1), plan(-1)},
		"set back after the receipt":               {issued(receivedAt(10)), at(1), plan(-1)},
		"set back by a little":                     {issued(receivedAt(1.01)), at(1), plan(-1)},
		"set back, and again ahead of the receipt": {issued(receivedAt(10)), at(11), plan(10)},
		"set back after a stalled answer":          {issued(receivedAt(10), func(s *renew.State) { s.Stalled = true }), at(1), plan(-1)},
		"in 1970":                                  {issued(), epoch, epoch},
		"set back to before it begins":             {issued(), at(-1.05), plan(-1)},
		"set back to before it is valid":           {issued(), at(-2), at(-2)},
		"and it is not renewed":                    {issued(once), at(-2), never},
		"and backs off":                            {issued(failed(-2.1, -1.9)), at(-2), at(-1.9)},
		"received in 1970":                         {issued(func(s *renew.State) { s.IssuedAt, s.RenewAt = epoch, renew.Rule{}.At(epoch, at(24)) }), at(1), renew.Rule{}.At(epoch, at(24))},
		"the issuer's clock is ahead":              {issued(func(s *renew.State) { s.NotBefore = at(1.05) }), at(1), at(15)},
		"the issuer's clock is behind":             {issued(func(s *renew.State) { s.NotBefore, s.NotAfter = at(-5), at(19) }), at(1), renew.Rule{}.At(at(0), at(19))},
		"backs off":                                {issued(failed(15, 15.5)), at(15.1), at(15.5)},
		"has rested":                               {issued(failed(15, 15.5)), at(16), at(15.5)},
		"backs off, and the clock is set back":     {issued(failed(15, 15.5)), at(5), at(5)},
		"backs off longer than anybody does":       {issued(failed(15, 40)), at(15.1), at(16.25)},
		"backs off, and failed in 1970":            {issued(func(s *renew.State) { s.FailedAt, s.RetryAt = epoch, epoch.Add(time.Minute) }), at(1), epoch.Add(time.Minute)},
		"backs off, and is wanted":                 {issued(failed(15, 15.5), wanted(15.1)), at(15.2), at(15.1)},
		"backs off, and is wanted at once":         {issued(failed(15, 15.5), wanted(15.0001)), at(15.1), at(15).Add(4 * time.Second)},
		"backs off, and is wanted later":           {issued(failed(15, 15.5), wanted(16)), at(15.2), at(15.5)},
		"backs off, and was wanted before":         {issued(failed(15, 15.5), wanted(15)), at(15.2), at(15.5)},
		"has no pair, and is wanted":               {renew.State{FailedAt: at(15), RetryAt: at(15.5), Wanted: at(15.1)}, at(15.2), at(15.1)},
		"backs off before an attempt goes on":      {issued(failed(15, 15.5), pending), at(15.1), at(15.5)},
		"an attempt goes on":                       {issued(pending), at(1), at(1)},
		"no pair yet":                              {renew.State{}, at(1), never},
		"no pair yet, and nothing holds it back":   {renew.State{Open: true}, at(1), at(1)},
		"a pair that can't be read":                {issued(noPair), at(1), at(15)},
		"and whose end is not known":               {issued(noPair, func(s *renew.State) { s.NotAfter = time.Time{} }), at(1), at(15)},
		"a pair that can't be read, set back":      {issued(noPair, receivedAt(10)), at(1), at(1)},
		"not renewed":                              {issued(once), at(1), never},
		"wanted":                                   {issued(wanted(2)), at(3), at(2)},
		"wanted later":                             {issued(wanted(4)), at(3), at(4)},
		"wanted after its renewal":                 {issued(wanted(16)), at(3), at(15)},
		"wanted before it was received":            {issued(wanted(-0.5)), at(3), at(15)},
		"wanted, though not renewed":               {issued(wanted(2), once), at(3), at(2)},
		"wanted after its renewal, though not":     {issued(wanted(100), once), at(3), at(100)},
		"wanted after the clock was set back":      {issued(receivedAt(10), wanted(1)), at(2), at(1)},
		"wanted, and received since":               {issued(receivedAt(2), wanted(1)), at(3), plan(2)},
		"the wish is older than the pair's begin":  {issued(receivedAt(10), wanted(-2)), at(2), plan(-1)},
	} {
		if got := renew.Next(row.state, row.now); !got.Equal(row.want) {
			t.Errorf("%s: %s, want %s", name, got, row.want)
		}
	}
}
