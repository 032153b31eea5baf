package dates_test

import (
	"errors"
	"testing"
	"time"

	"herald/pkg/dates"
)

func TestCaseDatesAsPeopleWriteThem(t *testing.T) {
	day, at := "2024-01-31T00:00:00Z", "2024-01-31T10:05:00Z"
	for text, want := range map[string]string{
		"2024-01-31": day, " 2024-01-31 ": day, "2024/01/31": day, "2024.1.31": day, "31.01.2024": day, "31.1.2024": day, "31.1.24": day,
		"1/31/2024": day, "31/1/2024": day, "31-01-2024": day, "1/31/24": day, "31/01/24": day,
		"31 Jan 2024": day, "31-Jan-2024": day, "31. January 2024": day, "31st january 2024": day, "Jan 31, 2024": day, "January 31st, 2024": day,
		"Jan. 31 2024": day, "Wed, Jan 31, 2024": day, "Wednesday 31 January 2024": day,
		"2024-01-31 10:05": at, "2024-01-31 10:05:00": at, "2024-01-31T10:05:00Z": at, "2024-01-31t10:05z": at, "2024-01-31 10:05:00 UTC": at,
		"2024-01-31 10:05:00 +0000": at, "2024-01-31T11:05:00+01:00": at, "2024-01-31 05:05:00 -0500": at, "31.01.2024 10:05": at,
		"31.01.2024, 10:05:00": at, "1/31/2024 10:05 AM": at, "1/31/2024 10:05am": at, "Jan 31, 2024 10:05 AM": at, "Jan 31, 2024 at 10:05 a.m.": at,
		"Wed, 31 Jan 2024 10:05:00 GMT": at, "1/31/2024 10:05:00.000": at,
		"1/31/2024 12:00 AM": "2024-01-31T00:00:00Z", "1/31/2024 12:30 pm": "2024-01-31T12:30:00Z", "1/31/2024 11:59 PM": "2024-01-31T23:59:00Z",
		"2024-02-29": "2024-02-29T00:00:00Z", "5/5/2024": "2024-05-05T00:00:00Z", "1.2.2024": "2024-02-01T00:00:00Z", "13/12/69": "1969-12-13T00:00:00Z",
		"13/12/68": "2068-12-13T00:00:00Z", "2024-01-31T10:05:00.123456789Z": "2024-01-31T10:05:00.123456789Z", "2024-01-31 10:05:00,5": "2024-01-31T10:05:00.5Z",
	} {
		got, err := dates.Reader{}.Parse(text)
		if err != nil || got.Time.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("%q: %v, %v, want %s", text, got.Time, err, want)
		}
		if got.DayOnly != (len(want) == len(day) && want[11:] == "00:00:00Z" && text != "1/31/2024 12:00 AM") {
			t.Errorf("%q: day only %t", text, got.DayOnly)
		}
	}
}

func TestCaseTextsThatAreNoDates(t *testing.T) {
	for _, text := range []string{
		"", "soon", "2024", "2024-01", "31.02.2024", "2023-02-29", "2024-13-01", "2024-00-10", "2024-01-00", "13/13/2024", "1/2", "1-2/2024",
		"2024-01-31 25:00", "2024-01-31 10:60", "2024-01-31 10:00:61", "2024-01-31 13:00 PM", "2024-01-31 0:30 AM", "2024-01-31 10:00 +1900", "2024-01-31x",
		"20240131", "1706695500", "31 Januar 2024", "Foo 31, 2024", "31 Foo 2024", "1.234,50", "12/2024", "1/31/20245", "1/31/202",
		"2024-01-31 10:05:00 and much more text that makes it longer than any date would ever be",
	} {
		if got, err := (dates.Reader{}).Parse(text); !errors.Is(err, dates.ErrNoDate) {
			t.Errorf("%q: %v, %v", text, got.Time, err)
		}
	}
}

func TestCaseDatesWithTwoReadings(t *testing.T) {
	for _, text := range []string{"1/2/2024", "01-02-2024", "1/2/24", "1/2/2024 10:00"} {
		if got, err := (dates.Reader{}).Parse(text); !errors.Is(err, dates.ErrAmbiguous) {
			t.Errorf("%q: %v, %v", text, got.Time, err)
		}
		for order, want := range map[string]time.Month{"dmy": time.February, "mdy": time.January} {
			o, ok := dates.ParseOrder(order)
			got, err := dates.Reader{Order: o}.Parse(text)
			if !ok || err != nil || got.Time.Month() != want {
				t.Errorf("%q as %s: %v, %v", text, order, got.Time, err)
			}
		}
	}
	// An order does not turn a date around that has one reading.
	for order, text := range map[dates.Order]string{dates.DayFirst: "1/31/2024", dates.MonthFirst: "31/1/2024"} {
		if got, err := (dates.Reader{Order: order}).Parse(text); err != nil || got.Time.Month() != time.January {
			t.Errorf("%q: %v, %v", text, got.Time, err)
		}
	}
	if _, ok := dates.ParseOrder("ymd"); ok {
		t.Error("ymd is an order")
	}
}

func TestCaseDatesInAZone(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	r := dates.Reader{Zone: berlin}
	for text, want := range map[string]string{
		"2024-01-31": "2024-01-30T23:00:00Z", "2024-07-31 10:00": "2024-07-31T08:00:00Z", "2024-07-31T10:00:00Z": "2024-07-31T10:00:00Z",
	} {
		if got, err := r.Parse(text); err != nil || got.Time.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q: %v, %v, want %s", text, got.Time, err, want)
		}
	}
}

func TestCaseSecondsSince1970(t *testing.T) {
	r := dates.Reader{Epoch: true}
	for text, want := range map[string]string{"1706695500": "2024-01-31T10:05:00Z", "1706695500123": "2024-01-31T10:05:00Z", "170669550": "1975-05-30T08:12:30Z"} {
		if got, err := r.Parse(text); err != nil || got.Time.Format(time.RFC3339) != want || got.DayOnly {
			t.Errorf("%s: %v, %v, want %s", text, got.Time, err, want)
		}
	}
	for _, text := range []string{"17066955001", "17066955", "17066955001234"} {
		if got, err := r.Parse(text); !errors.Is(err, dates.ErrNoDate) {
			t.Errorf("%s: %v, %v", text, got.Time, err)
		}
	}
}

func TestCaseTextsThatNameAZone(t *testing.T) {
	berlin, err := dates.Zone("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for text, zoned := range map[string]bool{
		"2024-01-31": false, "2024-01-31T10:05:00": false, "31.01.2024 10:05": false, "2024-01-31T10:05:00Z": true, "2024-01-31 10:05 UTC": true,
		"2024-01-31T10:05:00+01:00": true, "Wed, 31 Jan 2024 10:05:00 GMT": true, "1706695500": true, "1706695500123": true,
	} {
		if got, err := (dates.Reader{Zone: berlin, Epoch: true}).Parse(text); err != nil || got.Zoned != zoned {
			t.Errorf("%q: zoned %t, %v", text, got.Zoned, err)
		}
	}
}

func TestZone(t *testing.T) {
	for name, want := range map[string]string{"": "UTC", "UTC": "UTC", "Europe/Berlin": "Europe/Berlin", "America/Argentina/Buenos_Aires": "America/Argentina/Buenos_Aires"} {
		if zone, err := dates.Zone(name); err != nil || zone.String() != want {
			t.Errorf("%q: %v, %v", name, zone, err)
		}
	}
	for _, name := range []string{"Local", "Mars/Phobos", "Europe", "../UTC", "/etc/localtime", "+02:00", "Europe/Berlin\x00"} {
		if zone, err := dates.Zone(name); !errors.Is(err, dates.ErrNoZone) {
			t.Errorf("%q: %v, %v", name, zone, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"2024-01-31", "31.1.24 10:05", "Jan 31, 2024 at 10:05 a.m.", "1/2/2024", "1706695500"} {
		f.Add(seed, 0, false)
	}
	f.Fuzz(func(t *testing.T, text string, order int, epoch bool) {
		got, err := dates.Reader{Order: dates.Order(order), Epoch: epoch}.Parse(text)
		if err != nil {
			return
		}
		if y := got.Time.UTC().Year(); y < 0 || y > 10_000 {
			t.Fatalf("%q: year %d", text, y)
		}
		// What is written in the form that a machine writes is the same date.
		again, err := dates.Reader{}.Parse(got.Time.Format("2006-01-02T15:04:05.999999999Z07:00"))
		if err != nil || !again.Time.Equal(got.Time) {
			t.Fatalf("%q: %v, then %v, %v", text, got.Time, again.Time, err)
		}
	})
}
