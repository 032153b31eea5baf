package wire

import (
	"testing"

	"github.com/google/uuid"

	"herald/pkg/message"
)

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "null", `{"a":[1,2,{"b":null}]}`, `{"a":1}{"a":2}`, `{"a":1,"a":2}`, "[[[[[[[[", `"\u0000"`, "\xff", `{"a":"\ud800"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Decode(b)
		if err != nil {
			if !message.IsCode(err, message.CodeInvalid) {
				t.Errorf("%q: %v", b, err)
			}
			return
		}
		var errs Errors
		if o := NewObject(&errs, v, "body"); o != nil {
			for _, n := range o.Names() {
				o.String(n, 3)
				o.UUID(n)
				o.Strings(n, 2, 2)
				o.Number(n, 0, 1)
				o.Time(n)
				o.Free(n, 10)
				o.Child(n)
			}
			o.Close()
		}
	})
}

func TestParseUUID(t *testing.T) {
	for in, ok := range map[string]bool{
		"11111111-0001-0001-0001-000000000001": true, "825B8057-C85F-44A9-9E9F-6E7D7389ECFC": true, "": false, "x": false,
		"825b8057c85f44a99e9f6e7d7389ecfc": false, "{825b8057-c85f-44a9-9e9f-6e7d7389ecfc}": false, "urn:uuid:825b8057-c85f-44a9-9e9f-6e7d7389ecfc": false,
		uuid.Nil.String(): false, "825b8057-c85f-44a9-9e9f-6e7d7389ecfg": false,
	} {
		if _, got := ParseUUID(in); got != ok {
			t.Errorf("ParseUUID(%q) = %v", in, got)
		}
	}
}

func TestAbsentNullAndWrong(t *testing.T) {
	v, err := Decode([]byte(`{"null":null,"n":1.5,"s":"x","t":"2030-01-02T03:04:05+02:00","b":true,"big":1e999,"o":{"x":1}}`))
	if err != nil {
		t.Fatal(err)
	}
	var errs Errors
	o := NewObject(&errs, v, "body")
	if o.String("null", 1) != "" || o.String("absent", 1) != "" || o.Number("absent", 0, 9) != nil || o.Time("null") != nil || o.UUID("null") != uuid.Nil {
		t.Error("absent and null are not the same as nothing")
	}
	if n := o.Number("n", 0, 9); n == nil || *n != 1.5 {
		t.Error("number")
	}
	if at := o.Time("t"); at == nil || at.Hour() != 1 {
		t.Error("time")
	}
	if !o.Bool("b") || o.Child("o").Number("x", 0, 9) == nil || len(errs.List()) != 0 {
		t.Errorf("right values were refused: %v", errs.List())
	}
	for i, wrong := range []func(){
		func() { o.Number("big", 0, 9) }, func() { o.Number("s", 0, 9) }, func() { o.Number("n", 2, 9) }, func() { o.Time("s") }, func() { o.Bool("s") },
		func() { o.Child("s") }, func() { o.List("s", 1) }, func() { o.String("n", 1) }, func() { o.String("t", 3) }, func() { o.Free("o", 2) },
		func() { o.Require("null") }, func() { o.Unsupported("s") },
	} {
		wrong()
		if len(errs.List()) != i+1 {
			t.Fatalf("mistake %d was not recorded once: %v", i, errs.List())
		}
	}
}
