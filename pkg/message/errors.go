package message

import (
	"errors"
	"fmt"
	"time"
)

// Code classifies the failure of a request, for programs.
type Code string

// The codes. The API maps each to one HTTP status. An error that is not an *Error is internal, and its text is only logged.
const (
	CodeInvalid     Code = "invalid" // carries Fields
	CodeNotFound    Code = "not_found"
	CodeConflict    Code = "conflict"
	CodePaused      Code = "channel_paused"
	CodeTooLarge    Code = "too_large"
	CodeMediaType   Code = "unsupported_media_type"
	CodeThrottled   Code = "throttled"   // carries RetryAfter
	CodeUnavailable Code = "unavailable" // carries RetryAfter

	CodeUnauthorized Code = "unauthorized" // no valid API key
	CodeForbidden    Code = "forbidden"    // the API key lacks the scope
	CodeInProgress   Code = "in_progress"  // a request with the same idempotency key is in progress; carries RetryAfter
	CodeTooSlow      Code = "too_slow"     // the body was not received in time

	CodePrecondition Code = "precondition_failed" // the object is not in the version that the request names
)

// Codes lists every Code.
var Codes = []Code{
	CodeInvalid, CodeNotFound, CodeConflict, CodePaused, CodeTooLarge, CodeMediaType, CodeThrottled, CodeUnavailable, CodeUnauthorized,
	CodeForbidden, CodeInProgress, CodeTooSlow, CodePrecondition,
}

// Error is a failure that is shown to the caller, except for its cause.
type Error struct {
	Code       Code
	Message    string
	Fields     []FieldError
	RetryAfter time.Duration
	Cause      error // for the log only
}

// Error returns the message with its cause, or for invalid input the message of the first field.
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

// Errorf returns an Error with a message for the caller.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Unavailable returns the Error for a dependency that does not answer. It asks the caller to retry after 5 s.
func Unavailable(what string, cause error) *Error {
	return &Error{Code: CodeUnavailable, Message: what + " is not available at the moment", RetryAfter: 5 * time.Second, Cause: cause}
}

// IsCode reports whether err is or wraps an Error with the code.
func IsCode(err error, code Code) bool {
	if err == nil { // errors.As would allocate first
		return false
	}
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// FieldError is one mistake in one field of a request. Loc is the path to the field: strings for names, ints for array positions. Type
// is a slug for programs.
type FieldError struct {
	Loc  []any  `json:"loc"`
	Msg  string `json:"msg"`
	Type string `json:"type"`
}

// The slugs of FieldError.Type. They are pydantic's names where one exists.
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
	SlugKeyReused   = "idempotency_key_reused" // with another request
	SlugNoDefault   = "no_default_channel"     // of the channel type
	SlugNoChannel   = "channel_not_found"
	SlugMore        = "more_errors" // the last entry of a list that was cut
)

// Slugs lists every slug.
var Slugs = []string{
	SlugMissing, SlugString, SlugTooShort, SlugTooLong, SlugEnum, SlugUUID, SlugJSON, SlugExtra, SlugValue, SlugObject, SlugList, SlugListLong,
	SlugListShort, SlugBool, SlugInt, SlugNumber, SlugDatetime, SlugUnsupported, SlugKeyReused, SlugNoDefault, SlugNoChannel, SlugMore,
}

// Invalid returns the Error for invalid fields, or nil for none.
func Invalid(fields []FieldError) error {
	if len(fields) == 0 {
		return nil
	}
	return &Error{Code: CodeInvalid, Message: "the request is not valid", Fields: fields}
}

// InvalidField returns the Error for one invalid field.
func InvalidField(slug, msg string, loc ...any) error {
	return Invalid([]FieldError{{Loc: loc, Msg: msg, Type: slug}})
}
