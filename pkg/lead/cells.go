package lead

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"herald/pkg/dates"
	"herald/pkg/message"
	"herald/pkg/wire"
)

// Codes of warnings. They are part of the API.
const (
	WarnDate         = "invalid_date"   // not a date: the cell is left out
	WarnTwoDates     = "ambiguous_date" // day/month or month/day: the cell is left out
	WarnEmail        = "invalid_email"  // stored, and cannot be sent to
	WarnPhone        = "invalid_phone"  // stored, and cannot be sent to
	WarnRoundedPhone = "rounded_phone"  // a spreadsheet has replaced digits by an exponent
)

// cellError says why a cell is left out of its row.
type cellError struct{ code, msg string }

// Error implements error.
func (e *cellError) Error() string { return e.msg }

// cellReader reads the cells of a file. It keeps what several cells of a row decide together, and what the file has shown
// so far.
type cellReader struct {
	dates     dates.Reader
	separator string // of tags; "": semicolons, or commas in a file without semicolons
	semicolon bool   // a cell of tags had one

	fullName string // of the current row
	warnings []Warning
}

// begin prepares the reader for the next row.
func (r *cellReader) begin() { r.fullName, r.warnings = "", nil }

func (r *cellReader) warn(column, code, msg string) {
	r.warnings = append(r.warnings, Warning{Column: column, Code: code, Msg: msg})
}

// text reads a cell into a text field.
func (r *cellReader) text(name, cell string, to *string) error {
	if utf8.RuneCountInString(cell) > MaxText {
		return badRow("%s: must have at most %d characters", name, MaxText)
	}
	if !message.FitsIndex(name, cell) {
		return badRow("%s: %s", name, indexedBound)
	}
	*to = cell
	return nil
}

func parseIDCell(_ *cellReader, l *message.Lead, cell string) error {
	id, ok := wire.ParseUUID(cell)
	if !ok {
		return badRow("id: must be a UUID")
	}
	l.ID = id
	return nil
}

// parseTagsCell reads tags. Semicolons separate them. In a file whose cells of tags have had no semicolon so far, commas do.
func parseTagsCell(r *cellReader, l *message.Lead, cell string) error {
	separator := r.separator
	if separator == "" {
		r.semicolon = r.semicolon || strings.Contains(cell, ";")
		if separator = ";"; !r.semicolon {
			separator = ","
		}
	}
	for t := range strings.SplitSeq(cell, separator) {
		if t = strings.TrimSpace(t); t != "" && !slices.Contains(l.Tags, t) {
			l.Tags = append(l.Tags, t)
		}
	}
	return nil
}

// time reads a cell with a date, as it is stored: in UTC, to the microsecond.
func (r *cellReader) time(cell string) (time.Time, error) {
	d, err := r.dates.Parse(cell)
	switch {
	case errors.Is(err, dates.ErrAmbiguous):
		return time.Time{}, &cellError{WarnTwoDates, "can be day/month or month/day: name the order with the parameter dates"}
	case err != nil:
		return time.Time{}, &cellError{WarnDate, "is not a date"}
	case !message.ValidTime(d.Time):
		return time.Time{}, &cellError{WarnDate, message.TimeBound}
	}
	return d.Time.UTC().Truncate(time.Microsecond), nil
}

func ignoreCell(*cellReader, *message.Lead, string) error { return nil }

// finish completes a row whose cells have been read: it derives the names from the full name, and warns of addresses that
// cannot be sent to.
func (r *cellReader) finish(l *message.Lead) {
	splitName(l, r.fullName)
	r.checkAddresses(l)
}

// splitName fills the first and the last name from a full name where they are empty. The last word is the last name, unless
// one of the two names is given: the other one is then the rest.
func splitName(l *message.Lead, full string) {
	full = strings.Join(strings.Fields(full), " ")
	if full == "" || utf8.RuneCountInString(full) > MaxText || !message.FitsIndex("first_name", full) {
		return
	}
	switch {
	case l.FirstName != "" && l.LastName != "":
	case l.FirstName != "":
		if rest, ok := strings.CutPrefix(full, l.FirstName+" "); ok {
			l.LastName = rest
		}
	case l.LastName != "":
		if rest, ok := strings.CutSuffix(full, " "+l.LastName); ok {
			l.FirstName = rest
		}
	default:
		i := strings.LastIndexByte(full, ' ')
		l.FirstName, l.LastName = full[:max(i, 0)], full[i+1:]
		if i < 0 {
			l.FirstName, l.LastName = full, ""
		}
	}
}

// exponent is a number that a spreadsheet shows with an exponent, whose last digits are lost.
var exponent = regexp.MustCompile(`^\+?\d([.,]\d+)?E\+\d+$`)

func (r *cellReader) checkAddresses(l *message.Lead) {
	if l.Email != "" {
		if _, ok := message.ValidRecipient(message.Email, l.Email); !ok {
			r.warn("email", WarnEmail, "is not an email address")
		}
	}
	switch {
	case l.Phone == "":
	case exponent.MatchString(l.Phone):
		r.warn("phone", WarnRoundedPhone, "is a rounded number: format the column as text in the spreadsheet and export it again")
	case !possiblePhone(l.Phone):
		r.warn("phone", WarnPhone, "is not a possible phone number")
	}
}

// possiblePhone reports whether a text can be a phone number. Whether one without a country code can be called depends on the
// region of the send, so only its digits are counted.
func possiblePhone(s string) bool {
	if _, ok := message.NormalizePhone(s); ok {
		return true
	}
	digits, ok := message.PhonePart(message.PhoneKey(s))
	return ok && !strings.HasPrefix(digits, "+") && !strings.HasPrefix(digits, "00") && len(digits) >= minDigits && len(digits) <= maxDigits
}

// The length of national phone numbers in digits.
const (
	minDigits = 5
	maxDigits = 15
)
