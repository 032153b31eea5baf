// Package dates reads dates and times as people and programs write them in spreadsheets and in the fields of contacts:
// 2024-01-31, 31.01.2024 10:00, 1/31/2024, 31 Jan 2024. A form with two readings is not guessed: 1/2/2024 needs an Order.
package dates

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // the names of time zones, also on machines without a database of them
)

// Order says which number of a date like 1/2/2024 is the day.
type Order int

// The orders.
const (
	Unknown    Order = iota // a date that has two readings is ErrAmbiguous
	DayFirst                // 1/2/2024 is the first of February
	MonthFirst              // 1/2/2024 is the second of January
)

// ParseOrder returns the order with a name: dmy or mdy.
func ParseOrder(name string) (Order, bool) {
	switch name {
	case "dmy":
		return DayFirst, true
	case "mdy":
		return MonthFirst, true
	}
	return Unknown, false
}

// ErrNoZone is the error of Zone.
var ErrNoZone = errors.New("must be the IANA name of a time zone, for example Europe/Berlin")

// Zone returns the time zone with an IANA name; "" is UTC. The zone of the server's machine (Local) is no zone of a caller.
func Zone(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, ErrNoZone
	}
	return zone, nil
}

// The errors of Parse.
var (
	ErrNoDate    = errors.New("is not a date")
	ErrAmbiguous = errors.New("can be read as day/month and as month/day")
)

// Reader reads dates. The zero value reads dates without a time zone in UTC.
type Reader struct {
	Order Order
	Zone  *time.Location // of dates that name none; nil: UTC
	Epoch bool           // whether 9 to 10 digits are seconds and 12 to 13 digits milliseconds since 1970
}

// Date is a date that was read.
type Date struct {
	Time    time.Time // in the zone that the text names, or in the reader's
	DayOnly bool      // the text has no time of day: Time is midnight
	Zoned   bool      // the text names a time zone, or counts from 1970
}

var (
	yearFirst = regexp.MustCompile(`^(\d{4})([-/.])(\d{1,2})([-/.])(\d{1,2})(.*)$`)
	yearLast  = regexp.MustCompile(`^(\d{1,2})([-/.])(\d{1,2})([-/.])(\d{4}|\d{2})([^\d].*)?$`)
	dayName   = regexp.MustCompile(`^(\d{1,2})(?:\.|st|nd|rd|th)?[ -]+([a-z]+)\.?,?[ -]+(\d{4})(.*)$`)
	nameDay   = regexp.MustCompile(`^([a-z]+)\.? +(\d{1,2})(?:st|nd|rd|th)?,? +(\d{4})(.*)$`)
	timeOfDay = regexp.MustCompile(`^(?:t|,? +|,? +at +)(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?(?: ?([ap])\.?m\.?)?(?: ?(z|utc|gmt|[+-]\d{2}:?\d{2}))?$`)
	weekday   = regexp.MustCompile(`^(?:mon|tues?|wed|wednes|thu|thurs?|fri|sat|satur|sun)(?:day)?,? +`)
	digits    = regexp.MustCompile(`^\d{9,13}$`)
)

var months = map[string]time.Month{}

func init() {
	for m := time.January; m <= time.December; m++ {
		name := strings.ToLower(m.String())
		months[name], months[name[:3]] = m, m
	}
	months["sept"] = time.September
}

// maxText is the length of the longest text that may be a date, in bytes.
const maxText = 64

// Parse reads a date in a text, with a time of day or without. Years have four digits, or two: 69 to 99 are of the
// twentieth century, 00 to 68 of the twenty-first, as POSIX has it. Dates with dots name the day first, as in every country
// that writes dots. The error is ErrNoDate or ErrAmbiguous.
func (r Reader) Parse(text string) (Date, error) {
	text = strings.ToLower(strings.TrimSpace(text))
	if len(text) > maxText || len(text) < 6 || !strings.ContainsAny(text, "0123456789") { // most texts of leads are rejected here
		return Date{}, ErrNoDate
	}
	if r.Epoch && digits.MatchString(text) {
		return epoch(text)
	}
	if text[0] > '9' {
		text = weekday.ReplaceAllString(text, "")
	}
	year, month, day, rest, err := r.day(text)
	if err != nil {
		return Date{}, err
	}
	return r.at(year, month, day, rest)
}

// day reads the date in front of a text.
func (r Reader) day(text string) (year, month, day int, rest string, err error) {
	if text[0] > '9' {
		if m := nameDay.FindStringSubmatch(text); m != nil {
			return number(m[3]), int(months[m[1]]), number(m[2]), m[4], nil
		}
		return 0, 0, 0, "", ErrNoDate
	}
	if m := yearFirst.FindStringSubmatch(text); m != nil && m[2] == m[4] {
		return number(m[1]), number(m[3]), number(m[5]), m[6], nil
	}
	if m := yearLast.FindStringSubmatch(text); m != nil && m[2] == m[4] {
		month, day, err = r.order(number(m[1]), number(m[3]), m[2])
		return century(m[5]), month, day, m[6], err
	}
	if m := dayName.FindStringSubmatch(text); m != nil {
		return number(m[3]), int(months[m[2]]), number(m[1]), m[4], nil
	}
	return 0, 0, 0, "", ErrNoDate
}

// order decides which of two numbers is the day.
func (r Reader) order(first, second int, separator string) (month, day int, err error) {
	switch {
	case separator == "." || r.Order == DayFirst && second <= 12, first > 12:
		return second, first, nil
	case second > 12, r.Order == MonthFirst, first == second:
		return first, second, nil
	}
	return 0, 0, ErrAmbiguous
}

func (r Reader) at(year, month, day int, rest string) (Date, error) {
	zone := r.Zone
	if zone == nil {
		zone = time.UTC
	}
	if rest == "" {
		t := time.Date(year, time.Month(month), day, 0, 0, 0, 0, zone)
		if !isDay(year, month, day) {
			return Date{}, ErrNoDate
		}
		return Date{Time: t, DayOnly: true}, nil
	}
	m := timeOfDay.FindStringSubmatch(rest)
	if m == nil || !isDay(year, month, day) {
		return Date{}, ErrNoDate
	}
	hour, minute, second := number(m[1]), number(m[2]), number(m[3])
	if m[5] != "" {
		if hour < 1 || hour > 12 {
			return Date{}, ErrNoDate
		}
		if hour %= 12; m[5] == "p" {
			hour += 12
		}
	}
	if hour > 23 || minute > 59 || second > 59 {
		return Date{}, ErrNoDate
	}
	zone, ok := zoneOf(m[6], zone)
	if !ok {
		return Date{}, ErrNoDate
	}
	nanos := number((m[4] + "000000000")[:9])
	return Date{Time: time.Date(year, time.Month(month), day, hour, minute, second, nanos, zone), Zoned: m[6] != ""}, nil
}

func zoneOf(name string, otherwise *time.Location) (*time.Location, bool) {
	switch {
	case name == "":
		return otherwise, true
	case name[0] != '+' && name[0] != '-':
		return time.UTC, true
	}
	hours, minutes := number(name[1:3]), number(name[len(name)-2:])
	if hours > 15 || minutes > 59 {
		return nil, false
	}
	seconds := hours*3600 + minutes*60
	if name[0] == '-' {
		seconds = -seconds
	}
	return time.FixedZone("", seconds), true
}

// isDay reports whether a year has such a day: time.Date turns the 31st of February into a day of March.
func isDay(year, month, day int) bool {
	if month < 1 || month > 12 || day < 1 {
		return false
	}
	return time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC).Day() == day
}

func century(year string) int {
	y := number(year)
	switch {
	case len(year) == 4:
		return y
	case y < 69:
		return 2000 + y
	}
	return 1900 + y
}

// number reads digits; "" is 0. The expressions above let nothing else pass.
func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

func epoch(text string) (Date, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil || len(text) == 11:
		return Date{}, ErrNoDate
	case len(text) >= 12:
		return Date{Time: time.UnixMilli(n).UTC(), Zoned: true}, nil
	}
	return Date{Time: time.Unix(n, 0).UTC(), Zoned: true}, nil
}
