package message

import (
	"errors"
	"fmt"
	"time"
)

// Code names a kind of failure of a request, for a program to act on.
type Code string

// The codes. The API maps each to one HTTP status; anything that is no *Error is internal and shown to nobody.
const (
	CodeInvalid     Code = "invalid" // carries Fields
	CodeNotFound    Code = "not_found"
	CodeConflict    Code = "conflict"
	CodePaused      Code = "channel_paused"
	CodeTooLarge    Code = "too_large"
	CodeMediaType   Code = "unsupported_media_type"
	CodeThrottled   Code = "throttled"   // carries RetryAfter
	CodeUnavailable Code = "unavailable" // carries RetryAfter

	CodeUnauthorized Code = "unauthorized" // nobody knows who asks
	CodeForbidden    Code = "forbidden"    // it is known who asks, and they may not
	CodeInProgress   Code = "in_progress"  // the same request is being worked on; carries RetryAfter
	CodeTooSlow      Code = "too_slow"     // the body did not come in time
)

// Codes lists every Code.
var Codes = []Code{
	CodeInvalid, CodeNotFound, CodeConflict, CodePaused, CodeTooLarge, CodeMediaType, CodeThrottled, CodeUnavailable, CodeUnauthorized,
	CodeForbidden, CodeInProgress, CodeTooSlow,
}

// Error is a failure that may be shown to the caller as it is.
type Error struct {
	Code       Code
	Message    string
	Fields     []FieldError
	RetryAfter time.Duration
	Cause      error // for the log, never shown
}

// Error returns the safe message, and for invalid input the first field's.
func (e *Error) Error() string {
	if len(e.Fields) > 0 {
		return fmt.Sprintf("%s (%v)", e.Fields[0].Msg, e.Fields[0].Loc)
	}
	if e.Cause != nil {
		return e.Message + ": " + e.Cause.Error()
	}
	return e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Errorf makes an Error with a message for the caller.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Unavailable says that a part Herald needs does not answer now, and when to try again.
func Unavailable(what string, cause error) *Error {
	return &Error{Code: CodeUnavailable, Message: what + " is not available at the moment", RetryAfter: 5 * time.Second, Cause: cause}
}

// IsCode says whether err is, or wraps, an Error of that code.
func IsCode(err error, code Code) bool {
	if err == nil { // here, because what follows allocates before it looks
		return false
	}
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// FieldError is one thing wrong with one field of a request. Loc is the path to it: strings for names, ints for
// array positions. Type is the slug that a program can switch on.
type FieldError struct {
	Loc  []any  `json:"loc"`
	Msg  string `json:"msg"`
	Type string `json:"type"`
}

// The slugs of FieldError.Type; they are pydantic's where one of those fits.
const (
	SlugMissing     = "missing"
	SlugString      = "string_type"
	SlugTooShort    = "string_too_short"
	SlugTooLong     = "string_too_long"
	SlugEnum        = "enum"
	SlugUUID        = "uuid_parsing"
	SlugJSON        = "json_invalid"
	SlugExtra       = "extra_forbidden"
	SlugValue       = "value_error"
	SlugObject      = "dict_type"
	SlugList        = "list_type"
	SlugListLong    = "too_long"
	SlugListShort   = "too_short"
	SlugBool        = "bool_type"
	SlugInt         = "int_type"
	SlugNumber      = "float_type"
	SlugDatetime    = "datetime_parsing"
	SlugUnsupported = "not_supported_yet"
	SlugMore        = "more_errors" // the last entry, where there are more than are told
)

// Slugs lists every slug.
var Slugs = []string{
	SlugMissing, SlugString, SlugTooShort, SlugTooLong, SlugEnum, SlugUUID, SlugJSON, SlugExtra, SlugValue, SlugObject, SlugList, SlugListLong,
	SlugListShort, SlugBool, SlugInt, SlugNumber, SlugDatetime, SlugUnsupported, SlugMore,
}

// Invalid makes the Error for fields that are wrong, or nil when none is.
func Invalid(fields []FieldError) error {
	if len(fields) == 0 {
		return nil
	}
	return &Error{Code: CodeInvalid, Message: "the request is not valid", Fields: fields}
}

// InvalidField makes the Error for one wrong field.
func InvalidField(slug, msg string, loc ...any) error {
	return Invalid([]FieldError{{Loc: loc, Msg: msg, Type: slug}})
}
