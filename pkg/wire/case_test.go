package wire

import (
	"errors"
	"testing"

	"herald/pkg/message"
)

// Half of a surrogate pair is no character: it is refused where it stands, and not replaced by another one.
func TestCaseUnpairedSurrogates(t *testing.T) {
	for doc, at := range map[string]int{`{"a":"x\ud800"}`: 7, `{"a":"\udc00x"}`: 6, `{"\uD800":1}`: 2, `"\ud83d\ud83d\ude00"`: 1} {
		_, err := Decode([]byte(doc))
		var e *message.Error
		if !errors.As(err, &e) || e.Fields[0].Msg != "not valid JSON: a string has an unpaired surrogate escape (U+D800 to U+DFFF)" || e.Fields[0].Loc[1] != at {
			t.Errorf("%s: %v", doc, err)
		}
	}
	if v, err := Decode([]byte(`"\ud83d\ude00"`)); err != nil || v != "😀" {
		t.Errorf("%q, %v", v, err)
	}
}
