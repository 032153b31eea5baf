package wire

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

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

// A number that some database would refuse is found wherever it stands, and those that are taken have no exponent.
func TestFaultValuesNumbersAtAnyDepth(t *testing.T) {
	v, err := Decode([]byte(`{"good":{"n":9007199254740993,"e":1e3,"list":[1.50,[2E+2]]},"bad":{"n":1e309,"ok":1,"in":{"list":[0,{"x":1e-200000}]}}}`))
	if err != nil {
		t.Fatal(err)
	}
	var errs Errors
	o := NewObject(&errs, v, "body")
	good, err := json.Marshal(o.Free("good", 100))
	if err != nil || string(good) != `{"e":1000,"list":[1.50,[200]],"n":9007199254740993}` || len(errs.List()) != 0 {
		t.Errorf("%s, %v, %v", good, err, errs.List())
	}
	if m := o.Free("bad", 1_000); m != nil || len(errs.List()) != 2 {
		t.Fatalf("%v, %v", m, errs.List())
	}
	for i, want := range []string{"[body bad in list 1 x]", "[body bad n]"} {
		if f := errs.List()[i]; fmt.Sprint(f.Loc) != want || !strings.Contains(f.Msg, "40 digits") {
			t.Errorf("%v: %s, want %s", f.Loc, f.Msg, want)
		}
	}
	// Its size is that of the numbers written out: databases write them so.
	v, _ = Decode([]byte(`{"many":{"list":[` + strings.Repeat("1e39,", 100) + `1]}}`))
	errs = Errors{}
	if NewObject(&errs, v).Free("many", 1_000); len(errs.List()) != 1 || errs.List()[0].Type != message.SlugTooLong {
		t.Errorf("%v", errs.List())
	}
}

func TestFaultValuesTimes(t *testing.T) {
	for in, want := range map[string]string{
		"2030-01-02T03:04:05.123456789+02:00": "2030-01-02T01:04:05.123456Z", "9999-12-31T23:59:59.9999999Z": "9999-12-31T23:59:59.999999Z",
		"0001-01-01T00:00:00Z": "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59": "", "9999-12-31T23:30:00-01:00": "", "0001-01-01T00:30:00+01:00": "",
		"0000-12-31T23:59:59Z": "", "10000-01-01T00:00:00Z": "", "-0001-01-01T00:00:00Z": "", "yesterday": "", "": "",
	} {
		got, wrong := ParseTime(in)
		if (wrong == "") != (want != "") || (wrong == "" && got.Format(time.RFC3339Nano) != want) {
			t.Errorf("%s: %s, %q, want %s", in, got, wrong, want)
		}
	}
}
