package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"herald/pkg/message"
)

// many are documents of about n nodes, each of another shape.
func many(n int) map[string][]byte {
	keys := make([]string, n/2)
	for i := range keys {
		keys[i] = fmt.Sprintf(`"k%d":0`, i)
	}
	return map[string][]byte{
		"empty objects":        []byte("[" + strings.Repeat("{},", n-2) + "{}]"),
		"empty arrays":         []byte("[" + strings.Repeat("[],", n-2) + "[]]"),
		"numbers":              []byte("[" + strings.Repeat("0,", n-2) + "0]"),
		"strings":              []byte("[" + strings.Repeat(`"",`, n-2) + `""]`),
		"objects with one key": []byte("[" + strings.Repeat(`{"a":0},`, n/3-1) + `{"a":0}]`),
		"keys of one object":   []byte("{" + strings.Join(keys, ",") + "}"),
		"arrays in arrays":     []byte("[" + strings.Repeat("[[[]]],", n/3-1) + "[[[]]]]"),
		"with white space":     []byte("[" + strings.Repeat("{ }\n,", n-2) + "[\t]]"),
	}
}

func TestFaultNodesAreBoundedWhileDecoding(t *testing.T) {
	for name, body := range many(MaxNodes - 2) {
		if _, err := Decode(body); err != nil {
			t.Errorf("%s, within the bound: %v", name, err)
		}
	}
	for name, body := range many(20 * MaxNodes) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Decode(body)
		runtime.ReadMemStats(&after)
		var e *message.Error
		if !errors.As(err, &e) || e.Code != message.CodeInvalid || !strings.Contains(e.Fields[0].Msg, "200000 values and keys") {
			t.Errorf("%s, beyond the bound: %v", name, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 100<<20 {
			t.Errorf("%s: %d MB were allocated before it was refused", name, took>>20)
		}
	}
}

// The weight is known before anything is decoded, and never below what the tree takes.
func TestFaultTheWeightCoversTheTree(t *testing.T) {
	docs := many(MaxNodes - 2)
	docs["a long string"] = []byte(`{"a":"` + strings.Repeat("x", 4<<20) + `"}`)
	docs["lead ids"] = []byte("[" + strings.Repeat(`"11111111-0001-0001-0001-000000000001",`, 99_999) + `"11111111-0001-0001-0001-000000000001"]`)
	for name, body := range docs {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		v, err := Decode(body)
		runtime.GC()
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Fatal(err)
		}
		weight, err := Weigh(body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if took := int64(after.HeapAlloc) - int64(before.HeapAlloc); took > weight+weight/10 {
			t.Errorf("%s: %d KB, weighed as %d KB", name, took>>10, weight>>10)
		}
		runtime.KeepAlive(v)
		runtime.KeepAlive(body)
	}
	// One that has too many nodes is refused by its weight, with the same words.
	for name, body := range many(20 * MaxNodes) {
		_, want := Decode(body)
		if _, err := Weigh(body); err == nil || want == nil || err.Error() != want.Error() {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

func TestFaultMistakesAreBounded(t *testing.T) {
	ids := "[" + strings.Repeat("1,", 50_000) + "1]"
	for name, wrong := range map[string]func(o *Object){
		"ids":            func(o *Object) { o.UUIDs("a", 0) },
		"strings":        func(o *Object) { o.Strings("a", 0, 10) },
		"unknown fields": func(o *Object) { o.Close() },
		"lists of others": func(o *Object) {
			list := make([]message.FieldError, 1_000)
			o.errs.AddUnder(list, "body", "x")
		},
	} {
		doc := `{"a":` + ids
		for i := range 1_000 {
			doc += fmt.Sprintf(`,"f%d":1`, i)
		}
		v, err := Decode([]byte(doc + "}"))
		if err != nil {
			t.Fatal(err)
		}
		var errs Errors
		wrong(NewObject(&errs, v, "body"))
		var e *message.Error
		if !errors.As(errs.Err(), &e) || len(e.Fields) != MaxMistakes+1 {
			t.Fatalf("%s: %d mistakes are told", name, len(e.Fields))
		}
		last := e.Fields[MaxMistakes]
		var more int
		if n, _ := fmt.Sscanf(last.Msg, "and %d more", &more); n != 1 || last.Type != message.SlugMore || more+MaxMistakes != errs.count() || more < 800 {
			t.Errorf("%s: the last entry is %+v, of %d", name, last, errs.count())
		}
	}
	var errs Errors
	for range MaxMistakes {
		errs.Add(message.SlugValue, "x", "body")
	}
	var e *message.Error
	if !errors.As(errs.Err(), &e) || len(e.Fields) != MaxMistakes || e.Fields[MaxMistakes-1].Type != message.SlugValue {
		t.Error("exactly as many as are told need no last entry")
	}
}

// A name or a text of the caller's is not sent back as a whole.
func TestFaultMistakesAreShort(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	for name, doc := range map[string]string{"unknown field": `{"` + long + `":1}`, "given twice": `{"` + long + `":1,"` + long + `":2}`} {
		var errs Errors
		v, err := Decode([]byte(doc))
		if err == nil {
			o := NewObject(&errs, v, "body")
			o.Close()
			err = errs.Err()
		}
		var e *message.Error
		if !errors.As(err, &e) {
			t.Fatalf("%s: %v", name, err)
		}
		if b, _ := json.Marshal(e.Fields); len(b) > 2_000 {
			t.Errorf("%s: %d bytes are answered", name, len(b))
		}
	}
}

// Encode writes what json.Marshal writes, which stored fingerprints are made of, and holds a piece at a time.
func TestFaultEncodingHoldsNoCopy(t *testing.T) {
	for _, doc := range []string{
		`{"b":[1,-2.50,1e9,true,false,null,"<é\u2028>&\"\\"],"a":{"":{}},"c":"` + strings.Repeat("ü<", 10_000) + `"}`, `[]`, `"x"`, `"\u0080 \u007f"`,
	} {
		v, err := Decode([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		want, _ := json.Marshal(v)
		var got bytes.Buffer
		if err := Encode(&got, v); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%v\n%.300s\n%.300s", err, got.Bytes(), want)
		}
		var plain bytes.Buffer
		enc := json.NewEncoder(&plain)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(v)
		if n := plain.Len() - 1; !Fits(v, n) || Fits(v, n-1) { // without the line end
			t.Errorf("%.30s: its length is not told", doc)
		}
	}
	long := strings.Repeat("<", 8<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if Fits(long, 8<<10) {
		t.Error("8 MB are 8 KB")
	}
	if err := Encode(&bounded{left: 48<<20 + 2}, long); err != nil {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if most := after.HeapSys - before.HeapSys; after.HeapSys > before.HeapSys && most > 24<<20 {
		t.Errorf("the heap grew by %d MB", most>>20)
	}
}

// FuzzDecodeAsTheLibrary holds the decoder to encoding/json.
func FuzzDecodeAsTheLibrary(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,2.5e-3,{"b":null}],"c":"\u00e9\n"}`, `[1,]`, `{"a":1,}`, `{,}`, `[01]`, `[-]`, `[1.]`, `[1e]`, `[1e+5,-0,0.0]`, `"\x"`, `"a` + "\n" + `"`, ` [ ] `, `[tru]`,
		`"\ud83d\ude00\ud800"`, `"\`, `{"a"}`, `{"a":}`, `nul`, `true false`, "\ufeff{}", `{"a":"b" "c":1}`, `[1 2]`, `-1`, `--1`, `.5`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Decode(b)
		if err == nil {
			if !json.Valid(b) {
				t.Fatalf("%q is taken", b)
			}
			dec := json.NewDecoder(bytes.NewReader(b))
			dec.UseNumber()
			var want any
			if err := dec.Decode(&want); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%q: %#v, want %#v (%v)", b, got, want, err)
			}
			enc, merr := json.Marshal(got)
			var out bytes.Buffer
			if eerr := Encode(&out, got); merr != nil || eerr != nil || !bytes.Equal(out.Bytes(), enc) {
				t.Fatalf("%q: %q, want %q (%v, %v)", b, out.Bytes(), enc, eerr, merr)
			}
			if w, err := Weigh(b); w < int64(len(b)) || err != nil {
				t.Fatalf("%q weighs %d, %v", b, w, err)
			}
			return
		}
		var e *message.Error
		if !errors.As(err, &e) {
			t.Fatalf("%q: %v", b, err)
		}
		msg := e.Fields[0].Msg
		for _, ours := range []string{"NUL", "twice", "nested", "UTF-8", "required", "surrogate"} {
			if strings.Contains(msg, ours) {
				return
			}
		}
		if json.Valid(b) {
			t.Fatalf("%q is refused: %v", b, err)
		}
	})
}
