package request

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/labstack/echo/v4"

	"herald/pkg/access"
	"herald/pkg/contract"
	"herald/pkg/message"
)

// fileRoute is a route whose bodies have files.
var fileRoute = contract.Route{Method: "POST", Path: "/api/x", Scope: access.Send, Request: contract.SendRequest{}, MaxBody: 8 * mib, MaxFiles: message.MaxAttachmentBytes}

// taken is what a handler has of a request with files.
type taken struct {
	tree  any
	files []*File
	usage Usage
	err   error
}

// takeFrom reads a body and its files as a handler does. Its mistakes are in the files.
func takeFrom(t *testing.T, body string, fingerprint bool, v visitor) taken {
	t.Helper()
	g := NewGate(Limits{InFlight: 1})
	var out taken
	v.body = body
	out.err = visit(g, fileRoute, v, func(c echo.Context) error {
		o, _, err := ReadJSON[contract.SendRequest](c)
		if err != nil {
			return err
		}
		out.files, err = TakeFiles(c, o, fingerprint)
		out.tree, out.usage = o.Value(), g.Usage()
		return err
	})
	wantIdle(t, g)
	return out
}

// bytesOf returns the bytes of a file.
func bytesOf(f *File) []byte {
	if f == nil {
		return nil
	}
	return bytes.Join(f.Data, nil)
}

// noise returns n bytes that are different for each seed.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// withFile is a send with one file, its content as JSON.
func withFile(content string) string {
	return `{"message_data":{"subject":"s","attachments":[{"name":"a","content":` + content + `}]}}`
}

// pad makes a body long enough that its files are taken out while it arrives.
func pad(body string) string {
	return strings.Replace(body, `{`, `{"pad":"`+strings.Repeat("\\\"{[x", scanAfter/5)+`",`, 1)
}

// Base64 as JSON encoders of all languages write it is decoded, in short and in long bodies; what is none is named.
func TestCaseBase64OfEveryEncoder(t *testing.T) {
	content := []byte{0xfb, 0xef, 0xff, 0x00, 'h', 'i', '?', '>'}
	plain := base64.StdEncoding.EncodeToString(content) // has + and /
	if !strings.Contains(plain, "+") || !strings.Contains(plain, "/") || !strings.HasSuffix(plain, "=") {
		t.Fatal(plain)
	}
	wrapped := `"` + strings.ReplaceAll(base64.StdEncoding.EncodeToString(noise(300, 1)), "A", `A\r\n`) + `\n"`
	for name, c := range map[string]struct {
		content string
		want    []byte
		mistake string
	}{
		"plain":                      {`"` + plain + `"`, content, ""},
		"PHP escapes the slash":      {`"` + strings.ReplaceAll(plain, "/", `\/`) + `"`, content, ""},
		".NET escapes the plus":      {`"` + strings.ReplaceAll(plain, "+", `\u002B`) + `"`, content, ""},
		"everything is escaped":      {`"` + escaped(plain) + `"`, content, ""},
		"lines as in mail":           {wrapped, noise(300, 1), ""},
		"one byte":                   {`"QQ=="`, []byte("A"), ""},
		"empty":                      {`""`, nil, "string_too_short"},
		"only line ends":             {`"\r\n"`, nil, "string_too_short"},
		"no padding":                 {`"QQ"`, nil, "value_error"},
		"half a padding":             {`"QQ="`, nil, "value_error"},
		"padding in the middle":      {`"QQ==QUJD"`, nil, "value_error"},
		"more padding":               {`"QQ======"`, nil, "value_error"},
		"the URL alphabet":           {`"-_-_"`, nil, "value_error"},
		"a data URL":                 {`"data:text/plain;base64,QUJD"`, nil, "value_error"},
		"a space":                    {`"QU JD"`, nil, "value_error"},
		"a tab":                      {`"QUJD\tQUJD"`, nil, "value_error"},
		"a text":                     {`"hällo!"`, nil, "value_error"},
		"a quotation mark":           {`"QUJD\"QUJD"`, nil, "value_error"},
		"an escape beyond ASCII":     {`"QUJD\u0141QUJ"`, nil, "value_error"},
		"a letter beyond a mistake":  {`"!` + strings.Repeat("QUJD", 1000) + `"`, nil, "value_error"},
		"a mistake at the very end":  {`"` + strings.Repeat("QUJD", 1000) + `!!!!"`, nil, "value_error"},
		"padding, then a line end":   {`"QQ==\r\n"`, []byte("A"), ""},
		"a quarter of a kilobyte":    {`"` + base64.StdEncoding.EncodeToString(noise(768, 2)) + `"`, noise(768, 2), ""},
		"and one byte":               {`"` + base64.StdEncoding.EncodeToString(noise(769, 2)) + `"`, noise(769, 2), ""},
		"more than the first pieces": {`"` + base64.StdEncoding.EncodeToString(noise(message.FilePiece*2+7, 3)) + `"`, noise(message.FilePiece*2+7, 3), ""},
	} {
		for kind, body := range map[string]string{"short": withFile(c.content), "long": pad(withFile(c.content))} {
			got := takeFrom(t, body, false, visitor{})
			if got.err != nil || len(got.files) != 1 {
				t.Errorf("%s, %s: %d files, %v", name, kind, len(got.files), got.err)
				continue
			}
			slug, _ := got.files[0].Mistake()
			if slug != c.mistake || c.mistake == "" && (!bytes.Equal(bytesOf(got.files[0]), c.want) || got.files[0].Size != int64(len(c.want))) {
				t.Errorf("%s, %s: %q, %d of %d bytes", name, kind, slug, got.files[0].Size, len(c.want))
			}
			if strings.Contains(fmt.Sprint(got.tree), plain) {
				t.Errorf("%s, %s: the text is kept", name, kind)
			}
		}
	}
}

// escaped writes every character as an escape sequence.
func escaped(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, `\u%04x`, c)
	}
	return b.String()
}

// split is a body that comes in parts of random sizes.
type split struct {
	rest   []byte
	random *rand.Rand
}

func (s *split) Read(b []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, errors.New("read beyond the end")
	}
	n := copy(b, s.rest[:min(len(s.rest), 1+s.random.IntN(7))])
	s.rest = s.rest[n:]
	return n, nil
}

// However a body is cut, files are taken out at their place and nowhere else, and the rest is what it was. Offsets in the rest lead to
// the same place of the body.
func TestExtractionFollowsTheStructure(t *testing.T) {
	text := func(seed uint64) string { return base64.StdEncoding.EncodeToString(noise(40, seed)) }
	for name, c := range map[string]struct {
		body  string
		taken []int // indexes
	}{
		"two":                   {`{"a":1,"message_data":{"attachments":[{"content":"` + text(1) + `","name":"x"},{"name":"y","content":"` + text(2) + `"}],"content":"text"}}`, []int{0, 1}},
		"white space":           {" {\n\"message_data\" : { \"attachments\" : [ {\"name\":\"x\"} , { \"content\" : \"" + text(1) + "\" } ] } }", []int{1}},
		"not a string":          {`{"message_data":{"attachments":[{"content":["` + text(1) + `"]},{"content":{"content":"` + text(2) + `"}},{"content":7},null,"` + text(3) + `"]}}`, nil},
		"another place":         {`{"content":"a","attachments":[{"content":"b"}],"message_data":{"content":"` + text(1) + `","headers":{"content":"c"},"attachments":{"content":"d"},"metadata":{"attachments":[{"content":"e"}]}}}`, nil},
		"an object of them":     {`{"message_data":{"attachments":{"x":{"content":"` + text(1) + `"}}}}`, nil},
		"one level deeper":      {`{"x":{"message_data":{"attachments":[{"content":"` + text(1) + `"}]}}}`, nil},
		"one level higher":      {`{"attachments":[{"content":"` + text(1) + `"}]}`, nil},
		"within an array":       {`[{"message_data":{"attachments":[{"content":"` + text(1) + `"}]}}]`, nil},
		"names that begin so":   {`{"message_data":{"attachments":[{"content2":"` + text(1) + `","conten":"b","x":"content"}]},"message_data_":{"attachments":[{"content":"c"}]}}`, nil},
		"values that are names": {`{"x":"message_data","y":["attachments",{"content":"` + text(1) + `"}],"message_data":{"x":"attachments","attachments":[{"name":"content","type":"` + text(2) + `"}]}}`, nil},
		"escapes around":        {`{"q\"}]":"\\","message_data":{"s":"a\\\"{[","attachments":[{"name":"\\\\\"","content":"` + text(1) + `"}]}}`, []int{0}},
		"an escaped name":       {`{"message_data":{"attachments":[{"\u0063ontent":"` + text(1) + `"}]}}`, nil},
		"the first ten":         {`{"message_data":{"attachments":[` + strings.TrimSuffix(strings.Repeat(`{"content":"`+text(1)+`"},`, 12), ",") + `]}}`, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
	} {
		var whole map[string]any
		_ = json.Unmarshal([]byte(c.body), &whole)
		for seed := range uint64(20) {
			x := &extractor{room: fileRoom{left: 1 << 20, reserve: func(int64) error { return nil }}}
			s := &split{[]byte(c.body), rand.New(rand.NewPCG(seed, 2))}
			var rest []byte
			for buf := make([]byte, 16); len(s.rest) > 0; {
				n, err := s.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				kept, err := x.filter(buf[:n])
				if err != nil {
					t.Fatal(err)
				}
				rest = append(rest, kept...)
			}
			var indexes []int
			for _, f := range x.files {
				indexes = append(indexes, f.index)
				at := whole["message_data"].(map[string]any)["attachments"].([]any)[f.index].(map[string]any)
				if got := base64.StdEncoding.EncodeToString(bytesOf(f)); got != at["content"] {
					t.Errorf("%s: file %d is %q, want %q", name, f.index, got, at["content"])
				}
				at["content"] = ""
			}
			if !slices.Equal(indexes, c.taken) {
				t.Errorf("%s: %v are taken, want %v", name, indexes, c.taken)
			}
			var left, want any
			if err := json.Unmarshal(rest, &left); err != nil {
				t.Fatalf("%s: %v in %s", name, err, rest)
			}
			emptied, _ := json.Marshal(whole)
			_ = json.Unmarshal(emptied, &want)
			if whole != nil {
				if d := cmp.Diff(want, left); d != "" {
					t.Errorf("%s: %s", name, d)
				}
			}
			for i := range rest {
				if at := x.offset(int64(i)); rest[i] != '"' && c.body[at] != rest[i] {
					t.Errorf("%s: offset %d is %d in the body", name, i, at)
				}
			}
			_ = json.Unmarshal([]byte(c.body), &whole)
		}
	}
}

// A mistake of JSON behind a file has its place in the body.
func TestMistakesBehindFilesHaveTheirPlace(t *testing.T) {
	body := pad(withFile(`"` + base64.StdEncoding.EncodeToString(noise(100_000, 1)) + `"`))
	body = body[:len(body)-1] + " ?"
	got := takeFrom(t, body, false, visitor{})
	var e *message.Error
	if !errors.As(got.err, &e) || len(e.Fields) != 1 || !slices.Equal(e.Fields[0].Loc, []any{"body", len(body) - 1}) {
		t.Errorf("%v, want the position %d", got.err, len(body)-1)
	}
	cut := takeFrom(t, body[:len(body)-50_000], false, visitor{})
	if !message.IsCode(cut.err, message.CodeInvalid) || !strings.Contains(cut.err.Error(), "unexpected end") {
		t.Errorf("cut within a file: %v", cut.err)
	}
}

// The fingerprint of a request has the bytes of its files, however they are written.
func TestFilesAreInTheFingerprint(t *testing.T) {
	of := func(body string) string {
		got := takeFrom(t, body, true, visitor{})
		if got.err != nil {
			t.Fatal(got.err)
		}
		b, _ := json.Marshal(got.tree)
		return string(b)
	}
	first := of(withFile(`"QUJD"`))
	if !strings.Contains(first, "sha256:b5d4045c3f466fa91fe2cc6abe79232a1a57cdf104f7a26e716e0a1e2789df78") {
		t.Errorf("%s has no SHA-256 of ABC", first)
	}
	if again := of(withFile(`"QU\nJD"`)); again != first {
		t.Errorf("%s differs from %s", again, first)
	}
	if other := of(withFile(`"QUJE"`)); other == first {
		t.Error("another file has the same fingerprint")
	}
	if long := of(pad(withFile(`"QUJE"`))); !strings.Contains(long, "sha256:") {
		t.Errorf("%.200s", long)
	}
}

// The files of a request have a bound together. The file that exceeds it is named, and nothing of it or of what follows is kept.
func TestFilesAreBounded(t *testing.T) {
	file := func(n int) string {
		return `{"name":"a","content":"` + base64.StdEncoding.EncodeToString(make([]byte, n)) + `"}`
	}
	body := func(sizes ...int) string {
		all := make([]string, len(sizes))
		for i, n := range sizes {
			all[i] = file(n)
		}
		return `{"message_data":{"attachments":[` + strings.Join(all, ",") + `]}}`
	}
	for name, c := range map[string]struct {
		sizes []int
		want  []string
	}{
		"all bytes":          {[]int{20 * mib}, []string{""}},
		"one more":           {[]int{20*mib + 1}, []string{"string_too_long"}},
		"in ten":             {slices.Repeat([]int{2 * mib}, 10), make([]string, 10)},
		"the second of them": {[]int{15 * mib, 6 * mib, 1}, []string{"", "string_too_long", ""}},
		"much more":          {[]int{30 * mib}, []string{"string_too_long"}},
	} {
		got := takeFrom(t, body(c.sizes...), false, visitor{key: keyed("a")})
		if got.err != nil || len(got.files) != len(c.want) {
			t.Errorf("%s: %d files, %v", name, len(got.files), got.err)
			continue
		}
		kept := 0
		for i, f := range got.files {
			slug, _ := f.Mistake()
			if slug != c.want[i] {
				t.Errorf("%s: file %d is %q, want %q", name, i, slug, c.want[i])
			}
			if kept += len(bytesOf(f)); slug != "" && (f.Data != nil || f.Size != 0) {
				t.Errorf("%s: %d bytes of file %d are kept", name, f.Size, i)
			}
		}
		if kept > message.MaxAttachmentBytes || got.usage.Memory > keyFiles+mib {
			t.Errorf("%s: %d bytes are kept, %d reserved", name, kept, got.usage.Memory)
		}
	}
	got := takeFrom(t, body(37*mib), false, visitor{})
	wantError(t, "beyond what is transferred", got.err, message.CodeTooLarge, "48 MB (50331648 bytes)")
	wantError(t, "and where", got.err, message.CodeTooLarge, "message_data.attachments may have 20 MB")
	got = takeFrom(t, pad(`{"message_data":{"content":"`+strings.Repeat("x", 9*mib)+`","attachments":[`+file(mib)+`]}}`), false, visitor{})
	wantError(t, "the rest is too long", got.err, message.CodeTooLarge, "8 MB (8388608 bytes)")
}

// Attachments count to the memory of all requests. A key may hold those of one largest request beside its share, and no more.
func TestMemoryOfFiles(t *testing.T) {
	g := NewGate(Limits{InFlight: 100})
	first, second, other := g.grant("a"), g.grant("a"), g.grant("b")
	if err := errors.Join(first.Reserve(keyMemory), first.reserveFile(keyFiles)); err != nil {
		t.Error(err)
	}
	wantError(t, "a key's second", second.reserveFile(1), message.CodeThrottled, "too many requests")
	if err := other.reserveFile(keyFiles); err != nil {
		t.Errorf("another key: %v", err)
	}
	keyless := g.grant("")
	if err := keyless.reserveFile(maxFiles - 2*keyFiles); err != nil {
		t.Error(err)
	}
	wantError(t, "beyond all files", g.grant("c").reserveFile(1), message.CodeUnavailable, "too many requests")
	keyless.ReleaseMemory()
	if err := keyless.Reserve(allMemory - keyMemory - 2*keyFiles); err != nil {
		t.Error(err)
	}
	wantError(t, "beyond all memory", g.grant("c").reserveFile(1), message.CodeUnavailable, "too many requests")
	first.ReleaseMemory()
	if err := second.reserveFile(keyFiles); err != nil {
		t.Errorf("after the first has ended: %v", err)
	}
	if u := g.Usage(); u.Memory != allMemory-keyMemory || g.files != 2*keyFiles {
		t.Errorf("%+v, %d bytes of files", u, g.files)
	}
}

// A request is refused while its files arrive once memory is used up.
func TestFilesAreRefusedWithoutMemory(t *testing.T) {
	g := NewGate(Limits{InFlight: 2})
	if err := g.grant("a").reserveFile(keyFiles - mib); err != nil {
		t.Fatal(err)
	}
	content := `"` + base64.StdEncoding.EncodeToString(make([]byte, 2*mib)) + `"`
	for kind, body := range map[string]string{"long": withFile(content), "an escaped name": strings.Replace(withFile(content), `"content"`, `"\u0063ontent"`, 1)} {
		err := visit(g, fileRoute, visitor{key: keyed("a"), body: body}, func(c echo.Context) error {
			o, _, err := ReadJSON[contract.SendRequest](c)
			if err != nil {
				return err
			}
			_, err = TakeFiles(c, o, false)
			return err
		})
		if !errors.Is(err, errShare) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// Files allow a body more time, at their own rate.
func TestFilesExtendTheTime(t *testing.T) {
	file := base64.StdEncoding.EncodeToString(make([]byte, 6*mib)) // 8 MB of text: 16 s at 512 KB a second
	for pause, code := range map[time.Duration]message.Code{25 * time.Second / 9: "", 40 * time.Second / 9: message.CodeTooSlow} {
		synctest.Test(t, func(t *testing.T) {
			answer := &deadlines{ResponseRecorder: httptest.NewRecorder()}
			body := pad(withFile(`"` + file + `"`))
			req := httptest.NewRequest("POST", "/", nil)
			req.Body, req.ContentLength = &slowly{answer: answer, rest: body, pause: pause}, int64(len(body))
			err := NewGate(Limits{InFlight: 1}).Admit(fileRoute, pass)(echo.New().NewContext(req, answer))
			if code == "" && err != nil || code != "" && !message.IsCode(err, code) {
				t.Errorf("a megabyte every %s: %v", pause, err)
			}
		})
	}
}

// slowly is a body of which each megabyte comes after a pause.
type slowly struct {
	answer *deadlines
	rest   string
	pause  time.Duration
	part   int // bytes that are left of the megabyte
}

func (s *slowly) Read(b []byte) (int, error) {
	if s.rest == "" {
		return 0, io.EOF
	}
	if s.part == 0 {
		s.part = mib
		if deadline := s.answer.read[len(s.answer.read)-1]; !time.Now().Add(s.pause).Before(deadline) {
			time.Sleep(time.Until(deadline)) // of the fake clock
			return 0, &timeoutError{}
		}
		time.Sleep(s.pause)
	}
	n := copy(b, s.rest[:min(s.part, len(s.rest))])
	s.part, s.rest = s.part-n, s.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (*slowly) Close() error { return nil }
