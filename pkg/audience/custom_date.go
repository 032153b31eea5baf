package audience

import (
	"encoding/json"
	"time"

	"herald/pkg/dates"
	"herald/pkg/message"
)

// A date key is a custom field's date as text. It begins with the form of the date, and sorts by bytes among the keys of the same
// form as the dates do:
//
//	D2024-01-31                   a day, in no zone
//	L2024-01-31T10:00:00.000000   what a clock shows on a day, in no zone
//	I2024-01-31T10:00:00.000000   a moment, in UTC
//
// The forms are kept apart because a lead is stored once, and each request compares it in its own time zone. A condition has
// one range of keys for each form (DateRanges), so no zone is needed where keys are compared.
const (
	dayForm    = "D2006-01-02"
	clockForm  = "L2006-01-02T15:04:05.000000"
	momentForm = "I2006-01-02T15:04:05.000000"
)

var dateForms = []string{dayForm, clockForm, momentForm}

// customDate reads custom fields. Their numbers may count from 1970, as those of templates do.
var customDate = dates.Reader{Epoch: true}

// CustomDates returns the date key of each custom field whose value reads as a date: a string or a number that package dates
// reads in one way only, in the years 1 to 9999.
func CustomDates(custom map[string]any) map[string]string {
	keys := map[string]string{}
	for name, v := range custom {
		if key, err := dateKey(v); err == nil {
			keys[name] = key
		}
	}
	return keys
}

// dateKey returns the date key of a custom field's value. The error is dates.ErrNoDate or dates.ErrAmbiguous.
func dateKey(v any) (string, error) {
	switch v.(type) {
	case string, float64, int, json.Number:
	default:
		return "", dates.ErrNoDate
	}
	d, err := customDate.Parse(customText(v))
	switch {
	case err != nil:
		return "", err
	case !message.ValidTime(d.Time):
		return "", dates.ErrNoDate
	case d.DayOnly:
		return d.Time.Format(dayForm), nil
	case !d.Zoned:
		return d.Time.Format(clockForm), nil
	}
	return d.Time.UTC().Format(momentForm), nil
}

// DateRange is a range of date keys of one form, compared by bytes. To is not in the range.
type DateRange struct {
	Form     string // the first byte of the keys
	From, To string
}

// DateRanges returns the ranges in which a custom date meets the condition, one for each form. A range may be empty: To may
// precede From. A day is before a bound when it ends before the bound's day begins, and between two bounds from the day of the
// first to that of the second.
func (c *Condition) DateRanges() []DateRange {
	ranges := make([]DateRange, len(dateForms))
	for i, form := range dateForms {
		key := func(i int) string {
			if form == momentForm {
				return c.Times[i].Format(form)
			}
			return c.Clocks[i].Format(form)
		}
		r := DateRange{Form: form[:1], From: form[:1], To: form[:1] + "~"} // every key
		switch c.Op {
		case Before:
			r.To = key(0)
		case After:
			r.From = following(key(0))
		default:
			r.From, r.To = key(0), following(key(1))
		}
		ranges[i] = r
	}
	return ranges
}

// following returns a text that sorts after a key and before every later key of its form, which all have the same length.
func following(key string) string { return key + "!" }

// bound is a moment with which a condition compares: in UTC, and as clocks in the zone of the request show it. A clock time is
// written as if it were UTC, so that a stored bound needs no zone.
type bound struct{ moment, clock time.Time }

// boundAt returns a moment as a bound. Its clock time is the nearest one within message.TimeBound.
func boundAt(moment time.Time, zone *time.Location) bound {
	l := moment.In(zone)
	clock := time.Date(l.Year(), l.Month(), l.Day(), l.Hour(), l.Minute(), l.Second(), l.Nanosecond(), time.UTC)
	return bound{moment.UTC(), message.ClampTime(clock)}
}

// boundOf returns a clock time as a bound.
func boundOf(clock time.Time, zone *time.Location) bound {
	return bound{firstMoment(clock, zone).UTC(), clock}
}

// endOfDay returns the last microsecond of a day as a bound. midnight is the day's beginning as a clock time.
func endOfDay(midnight time.Time, zone *time.Location) bound {
	next := midnight.AddDate(0, 0, 1)
	last := firstMoment(next, zone).Add(-time.Microsecond)
	return bound{message.ClampTime(last), next.Add(-time.Microsecond)}
}

// dayOf returns the beginning of a moment's day in a zone, as a clock time.
func dayOf(moment time.Time, zone *time.Location) time.Time {
	year, month, day := moment.In(zone).Date()
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

// maxOffset is more than any zone is ahead of UTC.
const maxOffset = 26 * time.Hour

// firstMoment returns the first moment at which the clocks of a zone show a clock time or a later one. time.Date does not say
// which of two moments it returns when clocks are set back, nor what it returns for a time that clocks skip: where they do so
// at midnight, it may be a moment of the day before.
func firstMoment(clock time.Time, zone *time.Location) time.Time {
	for from := clock.Add(-maxOffset).In(zone); ; {
		_, offset := from.Zone()
		_, end := from.ZoneBounds()
		at := clock.Add(-time.Duration(offset) * time.Second).In(zone)
		switch {
		case !end.IsZero() && !at.Before(end):
			from = end
		case at.Before(from):
			return from
		default:
			return at
		}
	}
}
